"""What SkyPilot has up of this workspace and of others like it, and taking down what nobody uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from controller.clock import Clock
from controller.infra import load_sky
from controller.records import NothingRan
from controller.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")


@dataclass(frozen=True)
class Up:
    """A cluster of somebody's research, as SkyPilot has it; `hours` since it was launched, `usd` what that comes to."""

    cluster: str
    state: str
    accelerator: str
    infra: str
    hours: float
    usd_an_hour: float
    usd: float
    ours: bool
    user: str
    why: str

    def as_json(self) -> dict[str, Any]:
        """Itself as an object."""
        return asdict(self)


def clusters_up(directory: Path, clock: Clock) -> list[Up]:
    """Every cluster called like ours, whoever asked for it, by name."""
    from controller.backends.skypilot import Sdk
    from controller.backends.skypilot.claims import PREFIX, Claims

    claims = Claims(directory / "clusters", clock)
    records = _ask(Sdk(load_sky()).clusters())
    found = []
    for one in sorted(records, key=lambda one: one.name):
        if one.name.startswith(PREFIX):
            hours = max(0.0, clock.now() - one.since) / 3600
            count = f"{one.count:g} x {one.accelerator}" if one.count > 1 else one.accelerator
            state = "up" if one.is_up else "coming up, or broken"
            usd = one.dollars_an_hour
            owns = claims.owns(one)
            why = "" if one.is_up else one.why
            found.append(Up(one.name, state, count, one.infra, hours, usd, usd * hours, owns, one.owner, why))
    return found


def take_down(directory: Path, names: list[str], clock: Clock, say: Callable[[str], None]) -> None:
    """Take down those clusters, which are this workspace's."""
    from controller.backends.skypilot import Sdk
    from controller.backends.skypilot.claims import Claims

    claims = Claims(directory / "clusters", clock)

    async def main() -> None:
        sdk = Sdk(load_sky())

        async def one(name: str) -> None:
            await sdk.down(name)
            claims.drop(name)
            say(f"{name} is down")

        await asyncio.gather(*map(one, names))

    _ask(main())


def clusters_table(found: Sequence[Up]) -> Table:
    """Clusters, a line each, and what they cost together."""
    from rich.table import Table

    table = Table(title="Clusters", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in ("cluster", "whose", "state", "accelerator", "infra"):
        table.add_column(heading, overflow="fold")
    for heading in ("hours", "$ an hour", "$ so far"):
        table.add_column(heading, justify="right")
    for one in found:
        cells = [
            one.cluster,
            "this workspace's" if one.ours else f"another's ({one.user})",
            f"{one.state}{f': {one.why}' if one.why else ''}",
            one.accelerator,
            one.infra,
            f"{one.hours:.2f}",
            _dollars(one.usd_an_hour),
            _dollars(one.usd),
        ]
        table.add_row(*map(one_line, cells))
    if len(found) > 1:
        ours = [one for one in found if one.ours]
        usd = sum(one.usd for one in ours)
        cost = f", {_dollars(usd)} dollars so far" if usd else ""
        table.caption = f"{len(ours)} of this workspace, {sum(one.hours for one in ours):.2f} hours{cost}"
        table.caption_justify = "left"
    return table


def _dollars(amount: float) -> str:
    """Dollars; a dash where no price is known, as on one's own machines."""
    return f"{amount:.2f}" if amount else "—"


def _ask(question: Coroutine[Any, Any, T]) -> T:
    """What SkyPilot answers. Raises NothingRan where it doesn't."""
    from controller.backends import Unreachable
    from controller.backends.skypilot.sdk import Gone, Refused

    try:
        return asyncio.run(question)
    except (Unreachable, Refused, Gone) as error:
        raise NothingRan(f"SkyPilot can't be asked: {error}; `sky api info` says where it is looked for") from None
