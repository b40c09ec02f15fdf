"""A backend without processes, for schedulers under a virtual clock: reads what a train.py would do, and waits.

It is a whole backend: it passes the conformance class. Its clusters are made up, with the accelerators a test names,
and it has a switch for everything that can go wrong between a controller and a cloud.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controller.backends import BackendEvent, Bundle, Ended, Fleet, Progressed, Started, Unreachable, Vanished
from controller.clock import Clock
from controller.records import Attempt, Cluster, NothingRan
from tests.backends.workshop import Plan


@dataclass
class World:
    """What outlives a controller: clusters, attempts with their bundles, logs and reports, and queues by cluster."""

    clusters: dict[str, Cluster] = field(default_factory=dict)
    studies: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, tuple[Attempt, Bundle]] = field(default_factory=dict)
    reports: dict[str, Ended] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    queues: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    discarded: set[str] = field(default_factory=set)
    listener: Memory | None = None
    requests: int = 0


class Memory:
    """One controller's view of a World. Clusters are called m-01, m-02, … and have `accelerators`, over and over."""

    name = "memory"
    capacity = 1000
    idle_seconds = 0.0

    def __init__(self, world: World, clock: Clock, accelerators: Sequence[str] = ("CPU",)) -> None:
        self.world = world
        self.prices: Mapping[str, float] = {}
        self.boot_seconds = 0.0
        """How long each cluster takes to come up, one after another."""
        self.most = 1000
        """Clusters that can be had at once."""
        self.away: dict[str, float] = {}
        """Until which of the clock's monotonic seconds a call gives no answer: `acquire`, or `submit m-01`."""
        self.heard = False
        """Whether what gives no answer is done all the same."""
        self.stuck: set[str] = set()
        """Clusters that start nothing they are given from now on."""
        self.deaf: set[str] = set()
        """Clusters that heed no cancelling."""
        self.mute: set[str] = set()
        """Clusters of which no end is told."""
        self.tells_twice = False
        """Whether every end is told twice."""
        self.calls: Counter[str] = Counter()
        self._clock = clock
        self._accelerators = accelerators
        self._told: asyncio.Queue[BackendEvent] = asyncio.Queue()
        self._mine: set[str] = set()
        world.listener = self

    # The protocol

    async def acquire(self, fleet: Fleet) -> AsyncIterator[Cluster]:
        self._ask("acquire")
        wanted = [self._accelerators[number % len(self._accelerators)] for number in range(fleet.clusters)]
        wanted = wanted[: self.most]
        if not wanted:
            raise NothingRan("no cluster could be had")
        for cluster in (await self.up(fleet.study))[: fleet.clusters]:
            wanted.remove(cluster.accelerator)
            yield cluster
        coming = [self._request(fleet.study, accelerator) for accelerator in wanted]
        for cluster in coming:
            await self._clock.sleep(self.boot_seconds)
            self._ask("acquire")
            yield cluster

    async def up(self, study: str) -> list[Cluster]:
        self._ask("up")
        return [cluster for name, cluster in self.world.clusters.items() if self.world.studies[name] == study]

    async def submit(self, cluster: str, attempt: Attempt, bundle: Bundle) -> None:
        away = self._is_away("submit") or self._is_away(f"submit {cluster}")
        if (not away or self.heard) and attempt.id not in self.world.attempts:
            self.world.attempts[attempt.id] = attempt, bundle
            self._mine.add(attempt.id)
            if cluster in self.world.clusters:
                self.world.queues[cluster].append(attempt.id)
                self._start_next(cluster)
            else:
                self._end(Ended(attempt.id, None, "there is no such cluster"))
        self._answer(away)

    async def events(self) -> AsyncIterator[BackendEvent]:
        while True:
            self._ask("events")
            yield await self._told.get()

    async def discard(self, attempt: str) -> None:
        self._ask("discard")
        self.world.discarded.add(attempt)

    async def log(self, attempt: str, tail: int | None = None) -> str:
        text = self.world.logs.get(attempt, "")
        return text if tail is None else "".join(text.splitlines(keepends=True)[-tail:])

    async def cancel(self, attempt: str) -> None:
        away = self._is_away("cancel")
        known = attempt in self.world.attempts
        if (not away or self.heard) and known and self.world.attempts[attempt][0].cluster not in self.deaf:
            self._stop(attempt, Ended(attempt, {"attempt": attempt, "status": "cancelled"}, "cancelled"))
        self._answer(away)

    async def owned(self, study: str) -> set[str]:
        self._ask("owned")
        found = {name for name in self.world.attempts if name.rsplit(".", 2)[0] == study} - self.world.discarded
        for name in sorted(found - self._mine):
            self._mine.add(name)
            if name in self.world.reports:
                self.tell(self.world.reports[name])
            elif name in self.world.running:
                self.tell(Started(name))
        return found

    async def release(self, clusters: Iterable[str]) -> None:
        away = self._is_away("release")
        if not away or self.heard:
            for name in clusters:
                self.world.clusters.pop(name, None)
                for attempt in self.on(name):
                    self._stop(attempt, Ended(attempt, {"attempt": attempt, "status": "cancelled"}, "released"))
        self._answer(away)

    # What a test makes happen

    def tell(self, event: BackendEvent) -> None:
        """Say so to whoever listens to `events`."""
        self._told.put_nowait(event)

    def vanish(self, cluster: str, *, ends_first: bool = True) -> None:
        """A cluster is preempted."""
        del self.world.clusters[cluster]
        if not ends_first:
            self.tell(Vanished(cluster, "preempted"))
        for attempt in self.on(cluster):
            self._stop(attempt, Ended(attempt, None, "its cluster was preempted"))
        if ends_first:
            self.tell(Vanished(cluster, "preempted"))

    def on(self, cluster: str) -> list[str]:
        """What runs or waits on a cluster, the last first."""
        there = [name for name, (one, _) in self.world.attempts.items() if one.cluster == cluster]
        return [name for name in reversed(there) if name not in self.world.reports]

    # How it works

    def _ask(self, call: str) -> None:
        self._answer(self._is_away(call))

    def _is_away(self, call: str) -> bool:
        self.calls[call] += 1
        return self._clock.monotonic() < self.away.get(call, 0.0)

    def _answer(self, away: bool) -> None:
        if away:
            raise Unreachable("the memory has lapsed")

    def _request(self, study: str, accelerator: str) -> Cluster:
        self.world.requests += 1
        cluster = Cluster(f"m-{self.world.requests:02d}", accelerator)
        self.world.clusters[cluster.name] = cluster
        self.world.studies[cluster.name] = study
        return cluster

    def _start_next(self, cluster: str) -> None:
        queue = self.world.queues[cluster]
        busy = any(self.world.attempts[name][0].cluster == cluster for name in self.world.running)
        if queue and not busy and cluster not in self.stuck:
            name = queue.popleft()
            self._tell_owner(Started(name))
            self.world.running[name] = asyncio.ensure_future(self._play(*self.world.attempts[name]))

    async def _play(self, attempt: Attempt, bundle: Bundle) -> None:
        plan = Plan.of(bundle)
        self.world.logs[attempt.id] = "".join(f"| {line}\n" for line in plan.prints)
        self._note(plan, "+")
        for number, loss in enumerate(plan.losses, 1):
            await self._clock.sleep(plan.seconds / len(plan.losses))
            self._tell_owner(Progressed(attempt.id, number / len(plan.losses), loss))
        await self._clock.sleep(0.0 if plan.losses else plan.seconds)
        if attempt.cluster in plan.hangs_on:
            await asyncio.Event().wait()
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
            "accelerator": self.world.clusters[attempt.cluster].accelerator,
            "hashes": bundle.job["hashes"],
        }

    def _stop(self, attempt: str, ended: Ended) -> None:
        """End an attempt before its time, if it is not over."""
        if attempt in self.world.reports:
            return
        cluster = self.world.attempts[attempt][0].cluster
        task = self.world.running.pop(attempt, None)
        if task is None:
            self.world.queues[cluster].remove(attempt)
        else:
            task.cancel()
        self._end(ended)
        if cluster in self.world.clusters:
            self._start_next(cluster)

    def _end(self, ended: Ended) -> None:
        self.world.reports[ended.attempt] = ended
        if self.world.attempts[ended.attempt][0].cluster not in self.mute:
            for _ in range(2 if self.tells_twice else 1):
                self._tell_owner(ended)

    def _tell_owner(self, event: Started | Progressed | Ended) -> None:
        """Tell the controller of now, if it knows of the attempt: another one may have submitted it."""
        listener = self.world.listener
        if listener is not None and event.attempt in listener._mine:
            listener.tell(event)

    def _note(self, plan: Plan, mark: str) -> None:
        if plan.diary:
            with Path(plan.diary).open("a") as diary:
                diary.write(mark)
