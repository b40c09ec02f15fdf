"""The virtual clock leaps in order and reports deadlocks; and nothing else in the controller reads time or chance."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.clock import RealClock, VirtualClock

CONTROLLER = Path(__file__).resolve().parents[1] / "controller"


def test_a_virtual_night_passes_at_once() -> None:
    clock = VirtualClock(start=1000.0)

    async def night() -> float:
        await clock.sleep(8 * 3600)
        return clock.now()

    assert clock.run(night()) == pytest.approx(1000 + 8 * 3600)
    assert clock.monotonic() == pytest.approx(8 * 3600)


def test_sleepers_wake_in_the_order_of_their_time_not_of_their_start() -> None:
    clock = VirtualClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, round(clock.monotonic(), 6)))

    async def main() -> None:
        await asyncio.gather(sleeper("a", 3, 3), sleeper("b", 1, 1.5, 1.5), sleeper("c", 2), sleeper("d", 0))

    clock.run(main())
    assert woken == [("d", 0), ("b", 1), ("c", 2), ("b", 2.5), ("a", 3), ("b", 4), ("a", 6)]


def test_many_years_of_small_naps_do_not_get_stuck() -> None:
    clock = VirtualClock()

    async def main() -> None:
        for _ in range(300):
            await clock.sleep(0.05)
            await clock.sleep(10 * 24 * 3600)

    clock.run(main())
    assert clock.monotonic() == pytest.approx(300 * (0.05 + 10 * 24 * 3600))


def test_timeouts_are_in_virtual_time() -> None:
    clock = VirtualClock()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await clock.sleep(7200)

    clock.run(main())
    assert clock.monotonic() == pytest.approx(3600)


def test_a_deadlock_is_reported() -> None:
    clock = VirtualClock()

    async def main() -> None:
        await clock.sleep(5)
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="deadlock: every task waits, and no timer is set"):
        clock.run(main())
    assert clock.monotonic() == pytest.approx(5)


def test_tokens_repeat_with_the_seed_of_a_virtual_clock_and_never_in_the_real_one() -> None:
    def draws(clock: VirtualClock | RealClock) -> list[str]:
        return [clock.token() for _ in range(5)]

    assert draws(VirtualClock(seed=1)) == draws(VirtualClock(seed=1))
    assert draws(VirtualClock(seed=1)) != draws(VirtualClock(seed=2))
    real = draws(RealClock()) + draws(RealClock())
    assert len(set(real)) == 10
    assert all(len(token) == 32 and int(token, 16) >= 0 for token in real)


FORBIDDEN = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "process_time", "sleep", "localtime"},
    "asyncio": {"sleep"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "secrets": None,
    "uuid": {"uuid1", "uuid4"},
    "os": {"urandom", "getrandom"},
}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def uses_of_time_and_chance(source: str) -> Iterator[str]:
    """Everything in `source` that reads a clock, sleeps or draws from a shared generator, however it is imported."""
    tree = ast.parse(source)
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {(name.asname or name.name): name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            aliases |= {(name.asname or name.name): f"{node.module}.{name.name}" for name in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Attribute, ast.Name)):
            continue
        first, _, rest = dotted(node).partition(".")
        *_, owner, name = ["", *f"{aliases.get(first, '')}.{rest}".strip(".").split(".")]
        if owner == "random":
            forbidden = name not in ("Random",)
        else:
            forbidden = owner in FORBIDDEN and (FORBIDDEN[owner] is None or name in (FORBIDDEN[owner] or ()))
        if forbidden:
            yield f"line {node.lineno}: {owner}.{name}"


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "import time as t\nt.sleep(1)",
        "from time import monotonic\nmonotonic()",
        "def f():\n    from time import time as now\n    return now()",
        "import asyncio\nasync def f(): await asyncio.sleep(1)",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.utcnow()",
        "import random\nrandom.shuffle([])",
        "from random import choice\nchoice([1])",
        "import secrets\nsecrets.token_hex()",
        "import numpy as np\nnp.random.normal()",
        "import os\nos.urandom(4)",
    ],
)
def test_the_walk_finds(source: str) -> None:
    assert list(uses_of_time_and_chance(source))


@pytest.mark.parametrize(
    "source",
    [
        "import random\nrandom.Random(3).shuffle([])",
        "import time\ntime.strftime('%b', time.gmtime(0))",
        "clock.sleep(1)",
    ],
)
def test_the_walk_lets_pass(source: str) -> None:
    assert not list(uses_of_time_and_chance(source))


MODULES = [
    path.relative_to(CONTROLLER).as_posix()
    for path in sorted(CONTROLLER.rglob("*.py"))
    if path.relative_to(CONTROLLER).parts[0] not in ("harness", "clock.py")
]


@pytest.mark.parametrize("module", MODULES)
def test_time_and_chance_come_from_the_clock_alone_in(module: str) -> None:
    assert list(uses_of_time_and_chance((CONTROLLER / module).read_text())) == []
