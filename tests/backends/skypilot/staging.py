"""What tests of the SkyPilot backend share: hearing it, waiting for it, and clusters that are there already."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable

from controller.backends import BackendEvent, Ended, Fleet, Unreachable
from controller.backends.skypilot import SkyPilot
from controller.backends.skypilot.claims import LABEL, Claim
from controller.backends.skypilot.sdk import Record
from controller.backends.skypilot.trouble import Trouble
from controller.clock import RealClock
from controller.records import Cluster
from tests.backends.skypilot.double import ClusterStatus, Machines, World
from tests.backends.workshop import E, Ear, Plan
from tests.processes import PATIENCE_SECONDS

RECIPE = """
resources: {accelerators: {H100: 1, H200: 1}}
run: python3 train.py
"""

Opener = Callable[..., SkyPilot]
"""Opens the backend of a workspace: `open_backend(recipe=…, workspace=…, **plan)`."""

Canaries = dict[str, dict[str, object]]
"""By the name of a cluster, what in its canary's result is not as on the others."""

CANNED = """#!{python} -IS
import json, sys
job = json.load(sys.stdin)
said = {{name: job[name] for name in ("attempt", "nonce")}}
said |= {{"status": "done", "reason": "", "metrics": {{job["metric"]: 1.25}}, "accelerator": {accelerator!r}}}
said |= {{"hashes": {{**job["hashes"], "data": "d1"}}, "device": "cuda", "budget": "5 s"}}
said |= {{"environment": {{"python": "3.11.2", "packages": {{"torch": "2.13.0", "numpy": "2.2.1"}}}}}}
print("AUTORESEARCH", json.dumps({{**said, **json.loads({changes!r})}}))
"""


class HastyClock(RealClock):
    """The world's time, but nobody who waits for an answer waits long."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01) if seconds < 10 else seconds)


class Follower(Ear):
    """Goes on listening where the backend says that it can't be reached, and counts how often that was."""

    def __init__(self, backend: SkyPilot) -> None:
        super().__init__(backend)
        self._backend = backend
        self.troubles: list[str] = []

    async def until(self, kind: type[E], name: str) -> E:
        while True:
            try:
                return await super().until(kind, name)
            except Unreachable as error:
                self._note(error)

    async def next(self, kind: type[BackendEvent]) -> list[BackendEvent]:
        """All events of `kind` so far; waits until there is one."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (found := [event for event in self.heard if isinstance(event, kind)]):
                try:
                    self.heard.append(await anext(self._events))
                except Unreachable as error:
                    self._note(error)
        return found

    def take_in(self) -> None:
        """Hear what was told already."""
        told = self._backend._told
        while not told.empty():
            event = told.get_nowait()
            if not isinstance(event, Unreachable):
                self.heard.append(event)

    def ends(self) -> list[str]:
        """The attempts that have ended, as often as that was told."""
        self.take_in()
        return [event.attempt for event in self.heard if isinstance(event, Ended)]

    def _note(self, error: Unreachable) -> None:
        self.troubles.append(str(error))
        self._events = self._backend.events()


async def until(so: Callable[[], object]) -> None:
    """Returns once it is so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def ready(world: World, backend: SkyPilot, *names: str) -> list[str]:
    """Clusters that have come up earlier and passed their canaries: their names, or as many as are named."""
    claims = backend._fleet.claims
    for name in names:
        there = world.made(name, {"labels": {LABEL: claims.owner}}, "H100", 1)
        there.status = ClusterStatus.UP
        claims.put(Claim(name, "study", "", passed=True))
    return list(names)


def die(backend: SkyPilot) -> None:
    """What becomes of a controller that is killed: it hears no more."""
    for worker in backend._workers.values():
        worker.cancel()


async def nobody_knows(record: Record) -> Trouble | None:
    """Finds nothing out about a cluster."""
    return None


def report_at_once(machines: Machines, changes: dict[str, object]) -> None:
    """Have all that runs on a cluster report a result without having run, with `changes` in it."""
    python = machines.homes[0] / "bin/python3"
    text = CANNED.format(python=sys.executable, accelerator=machines.accelerator, changes=json.dumps(changes))
    python.write_text(text)
    python.chmod(0o755)


async def acquired(backend: SkyPilot, clusters: int, study: str = "study") -> list[Cluster]:
    """The clusters that come of asking for so many."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [cluster async for cluster in backend.acquire(Fleet(clusters, Plan().bundle(), study))]


def names(clusters: list[Cluster]) -> set[str]:
    """What clusters are called."""
    return {cluster.name for cluster in clusters}
