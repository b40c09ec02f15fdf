"""A backend without processes, for schedulers under a virtual clock: reads what a train.py would do, and waits.

It is a whole backend: it passes the conformance class. Its clusters are made up, with the accelerators a test names.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controller.backends import BackendEvent, Bundle, Ended, Fleet, Started
from controller.clock import Clock
from controller.records import Attempt, Cluster
from tests.backends.workshop import Plan


@dataclass
class World:
    """What outlives a controller: attempts by id, with their bundles, logs and reports; queues by cluster."""

    attempts: dict[str, tuple[Attempt, Bundle]] = field(default_factory=dict)
    reports: dict[str, Ended] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    queues: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    discarded: set[str] = field(default_factory=set)


class Memory:
    """One controller's view of a World. Clusters are called m-01, m-02, … and have `accelerators`, over and over."""

    name = "memory"
    capacity = 1000

    def __init__(self, world: World, clock: Clock, accelerators: Sequence[str] = ("CPU",)) -> None:
        self.world = world
        self._clock = clock
        self._accelerators = accelerators
        self._clusters: dict[str, Cluster] = {}
        self._told: asyncio.Queue[BackendEvent] = asyncio.Queue()
        self._mine: set[str] = set()

    async def acquire(self, fleet: Fleet) -> AsyncIterator[Cluster]:
        for number in range(fleet.clusters):
            accelerator = self._accelerators[number % len(self._accelerators)]
            cluster = Cluster(f"m-{number + 1:02d}", accelerator)
            self._clusters[cluster.name] = cluster
            yield cluster

    async def submit(self, cluster: str, attempt: Attempt, bundle: Bundle) -> None:
        if attempt.id not in self.world.attempts:
            self.world.attempts[attempt.id] = attempt, bundle
            self.world.queues[cluster].append(attempt.id)
            self._mine.add(attempt.id)
            self._start_next(cluster)

    async def events(self) -> AsyncIterator[BackendEvent]:
        while True:
            yield await self._told.get()

    async def discard(self, attempt: str) -> None:
        self.world.discarded.add(attempt)

    async def log(self, attempt: str, tail: int | None = None) -> str:
        text = self.world.logs.get(attempt, "")
        return text if tail is None else "".join(text.splitlines(keepends=True)[-tail:])

    async def cancel(self, attempt: str) -> None:
        if attempt not in self.world.attempts or attempt in self.world.reports:
            return
        cluster = self.world.attempts[attempt][0].cluster
        task = self.world.running.pop(attempt, None)
        if task is None:
            self.world.queues[cluster].remove(attempt)
        else:
            task.cancel()
        self._end(Ended(attempt, {"attempt": attempt, "status": "cancelled"}, "cancelled"))
        if task is not None:
            self._start_next(cluster)

    async def owned(self, study: str) -> set[str]:
        found = {name for name in self.world.attempts if name.rsplit(".", 2)[0] == study} - self.world.discarded
        for name in found - self._mine:
            self._mine.add(name)
            if name in self.world.reports:
                self._told.put_nowait(self.world.reports[name])
            else:
                self.world.running[name].add_done_callback(lambda _, name=name: self._collect(name))
        return found

    async def release(self, clusters: Iterable[str]) -> None:
        names = set(clusters)
        for name in reversed([name for name, (one, _) in self.world.attempts.items() if one.cluster in names]):
            await self.cancel(name)

    def _start_next(self, cluster: str) -> None:
        queue = self.world.queues[cluster]
        if queue and not any(self.world.attempts[name][0].cluster == cluster for name in self.world.running):
            name = queue.popleft()
            self._told.put_nowait(Started(name))
            self.world.running[name] = asyncio.ensure_future(self._play(*self.world.attempts[name]))

    async def _play(self, attempt: Attempt, bundle: Bundle) -> None:
        plan = Plan.of(bundle)
        self.world.logs[attempt.id] = "".join(f"| {line}\n" for line in plan.prints)
        self._note(plan, "+")
        await self._clock.sleep(plan.seconds)
        while plan.gate and not os.path.exists(plan.gate):  # noqa: ASYNC240, PTH110
            await self._clock.sleep(0.005)
        self._note(plan, "-")
        del self.world.running[attempt.id]
        if attempt.cluster in plan.lost_on:
            self._end(Ended(attempt.id, None, f"{attempt.cluster} went away"))
        else:
            self.world.logs[attempt.id] += "the end\n"
            self._end(Ended(attempt.id, self._report(attempt, bundle, plan)))
        self._start_next(attempt.cluster)

    def _report(self, attempt: Attempt, bundle: Bundle, plan: Plan) -> dict[str, object]:
        return {
            "attempt": attempt.id,
            "nonce": attempt.nonce,
            "status": "crash" if plan.score is None else "done",
            "metrics": {} if plan.score is None else {"val_bpb": plan.score},
            "accelerator": self._clusters[attempt.cluster].accelerator,
            "hashes": bundle.job["hashes"],
        }

    def _end(self, ended: Ended) -> None:
        self.world.reports[ended.attempt] = ended
        self._told.put_nowait(ended)

    def _collect(self, name: str) -> None:
        if name in self.world.reports:
            self._told.put_nowait(self.world.reports[name])

    def _note(self, plan: Plan, mark: str) -> None:
        if plan.diary:
            with Path(plan.diary).open("a") as diary:
                diary.write(mark)
