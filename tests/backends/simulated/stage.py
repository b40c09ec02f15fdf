"""Simulated worlds for tests: built-in but for what a test says, with runs that do what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from controller.backends import BackendEvent, Ended, Fleet
from controller.backends.simulated import Scenario, Simulated, Truth, World, load
from controller.backends.simulated.behaviour import Result, Run, Step
from controller.clock import VirtualClock
from controller.records import Attempt, Label
from controller.watcher import judge
from tests.backends.workshop import Plan, attempt

T = TypeVar("T")

SECONDS = 345.0
"""How long a run takes on a machine that is not slow."""


def calm(**changes: Any) -> Scenario:
    """The built-in world with nothing that goes wrong but what `changes` say, table by table."""
    return load(Path("calm")).but(changes)


def plays(run: Run) -> Iterator[Step]:
    """What runs do whose train.py is a plan."""
    plan = Plan.of(run.bundle)
    for line in plan.prints:
        yield 0.0, line
    _note(plan, "+")
    yield plan.seconds, None
    while plan.gate and not os.path.exists(plan.gate):  # noqa: PTH110
        yield 0.005, None
    _note(plan, "-")
    if plan.score is None:
        yield 0.0, Result("crash", "no luck")
    else:
        yield 0.0, Result("done", metrics={"val_bpb": plan.score})


def _note(plan: Plan, mark: str) -> None:
    if plan.diary:
        with Path(plan.diary).open("a") as diary:
            diary.write(mark)


@dataclass
class Stage:
    """A world with plans for runs, the controller that looks at it now, and all it has heard, with the world's time."""

    scenario: Scenario
    seed: int = 0
    clock: VirtualClock = field(default_factory=VirtualClock)
    heard: list[tuple[float, BackendEvent]] = field(default_factory=list)
    hashes: dict[str, Mapping[str, str]] = field(default_factory=dict)
    jumps: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World(Truth(self.scenario, self.seed, ""), self.jumps.append, plays)
        self.backend = Simulated(self.world, self.clock)

    def play(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` in virtual time."""
        return self.clock.run(main)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Remember what the backend tells meanwhile."""
        task = asyncio.ensure_future(self._listen())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _listen(self) -> None:
        async for event in self.backend.events():
            self.heard.append((self.world.time, event))

    async def clusters(self, count: int = 1, study: str = "study") -> list[str]:
        """The names of so many clusters, which are up."""
        return [cluster.name async for cluster in self.backend.acquire(Fleet(count, Plan().bundle(), study))]

    async def submit(self, number: int, cluster: str, plan: Plan | None = None) -> Attempt:
        """The first attempt at an experiment, submitted."""
        one, bundle = attempt(number, cluster), (plan or Plan(seconds=SECONDS)).bundle()
        self.hashes[one.id] = bundle.job["hashes"]
        await self.backend.submit(cluster, one, bundle)
        return one

    def label(self, one: Attempt) -> Label | None:
        """How an attempt failed, by what was heard of it first; None where it was measured."""
        return judge(one, self.ended(one)[0], self.hashes[one.id], "val_bpb").label

    def ended(self, one: Attempt) -> list[Ended]:
        """What was told of its end, each time."""
        return [event for event in self.events(Ended) if event.attempt == one.id]

    def told(self, name: str) -> list[tuple[float, str]]:
        """What was heard of an attempt or a cluster: when, and what kind of event."""
        return [
            (time, type(event).__name__)
            for time, event in self.heard
            if getattr(event, "attempt", None) == name or getattr(event, "cluster", None) == name
        ]

    def events(self, kind: type[T]) -> list[T]:
        """All of one kind that were heard."""
        return [event for _, event in self.heard if isinstance(event, kind)]


def faults(**shares: float) -> Mapping[str, Any]:
    """The part of a scenario that says what befalls attempts."""
    return {"attempts": shares}
