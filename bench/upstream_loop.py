"""The loop of upstream's parallel example, on a simulated fleet: one agent, who is needed for everything.

What is modelled is the loop that SkyPilot's examples/autoresearch/instructions.md prescribes to a coding agent:

1. Check: look at each cluster that has an experiment, one after another, `CHECK_SECONDS` each (SkyPilot's log and queue
   commands take 1.8 to 2.5 s a cluster). Experiments that have ended are written down with whatever became of them,
   and none is run again. One that is older than `GIVEN_UP_SECONDS` is cancelled and counts as failed. Clusters that are
   gone are launched again.
2. If clusters are idle: think, for as long as the proposer of our own nights does, then submit one experiment to each
   of the idle ones, one after another. Nothing is queued behind a running experiment: the agent does not know yet what
   it will want to know by then.
3. Sleep for a fixed interval, and begin again.

The world is that of our own nights, with all its faults. An outage makes the agent skip what it was about to do, until
the next round. Every experiment is one of the workspace's ideas against the baseline: what the agent learns has no
influence on how busy clusters are.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import tarfile
from dataclasses import dataclass, field

from nights import IDEAS, SOURCE, THINKING_SECONDS, Night

from controller.backends import Bundle, Ended, Fleet, Unreachable, Vanished
from controller.backends.simulated import Simulated
from controller.edits import set_knobs
from controller.harness.fingerprint import fingerprint
from controller.records import Attempt

CHECK_SECONDS = 2.0
SLEEP_SECONDS = 60.0
GIVEN_UP_SECONDS = 600.0
STUDY = "agent"


@dataclass
class Agent:
    """One agent, for so many clusters and hours; `experiments` is how many it has written down."""

    night: Night
    clusters: int
    hours: float
    sleep_seconds: float = SLEEP_SECONDS
    experiments: int = 0
    _up: set[str] = field(default_factory=set)
    _busy: dict[str, tuple[str, float]] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _submitted: int = 0

    def __post_init__(self) -> None:
        self._clock = self.night.clock
        self._backend = Simulated(self.night.world, self._clock)
        self._random = random.Random(f"{self.night.seed}:agent")

    async def run(self) -> None:
        """The whole night. Clusters are given back in the morning, whatever runs on them."""
        tasks = {asyncio.ensure_future(self._listen()), asyncio.ensure_future(self._launch())}
        end = self._clock.monotonic() + 3600 * self.hours
        while self._clock.monotonic() < end:
            await self._check()
            if idle := sorted(self._up - self._busy.keys()):
                await self._clock.sleep(self._random.uniform(*THINKING_SECONDS))
                for cluster in idle:
                    await self._submit(cluster)
            await self._clock.sleep(self.sleep_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self.night.world.sites:
            with contextlib.suppress(Unreachable):
                await self._backend.release(list(self.night.world.sites))
            await self._clock.sleep(1)

    async def _check(self) -> None:
        for cluster, (attempt, since) in list(self._busy.items()):
            await self._clock.sleep(CHECK_SECONDS)
            late = self._clock.monotonic() - since > GIVEN_UP_SECONDS
            if attempt in self._ended or cluster not in self._up:
                self._write_down(cluster)
            elif late:
                with contextlib.suppress(Unreachable):
                    await self._backend.cancel(attempt)
                    self._write_down(cluster)

    def _write_down(self, cluster: str) -> None:
        del self._busy[cluster]
        self.experiments += 1

    async def _submit(self, cluster: str) -> None:
        if cluster not in self._up:
            return
        self._submitted += 1
        name = f"exp-{self._submitted:04d}"
        attempt = Attempt(f"{STUDY}.{name}.1", name, cluster, self._clock.token())
        with contextlib.suppress(Unreachable):
            await self._backend.submit(cluster, attempt, self._bundle())
        # Without an answer it takes the experiment for submitted, and gives it up if it never hears of it.
        self._busy[cluster] = attempt.id, self._clock.monotonic()

    def _bundle(self) -> Bundle:
        knob, _, level = self._random.choice(IDEAS).partition("=")
        content = set_knobs(SOURCE, {knob: int(level)}).encode()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            member = tarfile.TarInfo("train.py")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        job = {"edit": "train.py", "evaluated": False, "metric": "val_bpb", "seed": 42, "timeout": GIVEN_UP_SECONDS}
        return Bundle(archive.getvalue(), {**job, "hashes": fingerprint([("train.py", content)], "train.py")})

    async def _launch(self) -> None:
        """Have clusters up, and again where some are gone."""
        while True:
            if len(self._up) < self.clusters:
                with contextlib.suppress(Unreachable):
                    async for cluster in self._backend.acquire(Fleet(self.clusters, self._bundle(), STUDY)):
                        self._up.add(cluster.name)
            await self._clock.sleep(self.sleep_seconds)

    async def _listen(self) -> None:
        """What the agent would see if it looked; it looks when it checks."""
        while True:
            try:
                async for event in self._backend.events():
                    if isinstance(event, Ended):
                        self._ended.add(event.attempt)
                    elif isinstance(event, Vanished):
                        self._up.discard(event.cluster)
            except Unreachable:
                await self._clock.sleep(CHECK_SECONDS)
