"""Keeps every cluster busy: takes queued experiments in order, submits them, records what becomes of them.

Intent is recorded before effect: an attempt is in the journal before its backend hears of it, and its traces on the
cluster are discarded only once its outcome is. After a crash the attempts that the backend still owns are adopted, and
the others are made again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.backends import Backend, BackendEvent, Bundle, Ended, Fleet, Progressed, Started
from controller.clock import Clock
from controller.journal import (
    AttemptEnded,
    AttemptStarted,
    AttemptSubmitted,
    ClusterSeen,
    ExperimentAbandoned,
    Journal,
    reading,
)
from controller.records import Attempt, Cluster, Experiment, Interrupted, Label, NothingRan, Outcome
from controller.settings import Settings
from controller.watcher import judge

ATTEMPTS = 3
"""Submissions an experiment gets before the infrastructure's failures make it give up."""

ARRIVAL_SECONDS = 900.0
"""How long work that asks for another accelerator, or might queue, waits for the rest of a fleet to come up."""

INTERRUPTED = "interrupted; everything finished so far is kept, and the same command goes on from here"


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt in flight, for whoever watches: `fraction` of its budget, None while it waits or starts up."""

    experiment: Experiment
    cluster: str
    fraction: float | None = None
    loss: float | None = None
    started: float | None = None


class Observer(Protocol):
    """Whoever watches a scheduler at work."""

    def changed(self, scheduler: Scheduler) -> None:
        """Something moved."""

    def ended(self, experiment: Experiment, cluster: str, outcome: Outcome) -> None:
        """An attempt at `experiment` is over."""


class Scheduler:
    """One study's clusters, and the attempts in flight on them."""

    def __init__(self, study: str, settings: Settings, journal: Journal, backend: Backend, clock: Clock) -> None:
        self.study = study
        self._settings = settings
        self.clusters: dict[str, Cluster] = {}
        self.running: dict[str, Running] = {}
        self.waiting: deque[Experiment] = deque()
        self.observer: Observer | None = None
        self.stopping = asyncio.Event()
        self._journal = journal
        self._backend = backend
        self._clock = clock
        self._attempts: dict[str, Attempt] = {}
        self._events = backend.events()
        self._next: asyncio.Task[BackendEvent] | None = None
        self._arriving: list[asyncio.Task[None]] = []
        self._complete = False
        self._news = asyncio.Event()
        self._failed_on: dict[str, set[str]] = {}

    async def acquire(self, fleet: Fleet) -> None:
        """Begin to bring clusters up. Returns when the first is up; the others join as they come.

        Raises Interrupted once `stopping` is set.
        """
        arriving = self._backend.acquire(fleet)
        first = asyncio.ensure_future(anext(arriving))
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({first, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                raise Interrupted(INTERRUPTED)
            self._arrived(first.result())
        except StopAsyncIteration:
            raise NothingRan("no cluster could be had") from None
        finally:
            stop.cancel()
            if first.cancel():
                await asyncio.wait({first})
        self._arriving = [asyncio.create_task(self._acquire_rest(arriving)), asyncio.create_task(self._lose_patience())]

    async def adopt(self) -> None:
        """Take up what an earlier controller left: open attempts that live on, and those that are gone."""
        owned = await self._backend.owned(self.study)
        for attempt in reading.attempts(self._journal, self.study, open_only=True):
            if attempt.id in owned:
                (result,) = reading.results_of(self._journal, self.study, name=attempt.experiment)
                self._attempts[attempt.id] = attempt
                self.running[attempt.id] = Running(result.experiment, attempt.cluster)
            else:
                gone = Outcome(Label.CANCELLED, "its controller ended before it had run")
                self._journal.record(self.study, AttemptEnded(attempt.id, gone))
        for stray in owned - set(self._attempts):
            await self._backend.cancel(stray)

    async def run(
        self,
        experiments: Sequence[Experiment],
        bundle: Callable[[Experiment], Bundle],
        pointless: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Run `experiments` in order until each has ended, or `pointless` says why those that wait need not run.

        Raises Interrupted, with nothing left running, once `stopping` is set.
        """
        adopted = {running.experiment.id for running in self.running.values()}
        self.waiting.extend(experiment for experiment in experiments if experiment.id not in adopted)
        while self.waiting or self.running:
            if self.stopping.is_set():
                await self._interrupt(bundle)
            await self._fill(bundle)
            if self.observer:
                self.observer.changed(self)
            event = await self._event()
            if event is not None:
                await self._handle(event, bundle)
            if isinstance(event, Ended) and self.waiting and (why := pointless()) is not None:
                given_up = [ExperimentAbandoned(one.id, Label.CANCELLED, why) for one in self.waiting]
                self._journal.record(self.study, *given_up)
                self.waiting.clear()

    async def close(self) -> None:
        """Give the clusters back."""
        for task in self._arriving:
            task.cancel()
        if self._next:
            self._next.cancel()
        await self._backend.release(list(self.clusters))

    async def _acquire_rest(self, arriving: AsyncIterator[Cluster]) -> None:
        try:
            async for cluster in arriving:
                self._arrived(cluster)
        finally:
            self._go_without_more()

    async def _lose_patience(self) -> None:
        await self._clock.sleep(ARRIVAL_SECONDS)
        self._go_without_more()

    def _go_without_more(self) -> None:
        self._complete = True
        self._news.set()

    def _arrived(self, cluster: Cluster) -> None:
        self.clusters[cluster.name] = cluster
        self._journal.record(self.study, ClusterSeen(cluster))
        self._news.set()

    async def _fill(self, bundle: Callable[[Experiment], Bundle]) -> None:
        for experiment in list(self.waiting):
            cluster = self._cluster_for(experiment)
            if cluster is None:
                continue
            self.waiting.remove(experiment)
            number = len(reading.attempts(self._journal, self.study, experiment=experiment.id)) + 1
            attempt = Attempt(f"{self.study}.{experiment.id}.{number}", experiment.id, cluster, self._clock.token())
            self._journal.record(self.study, AttemptSubmitted(attempt))
            self._attempts[attempt.id] = attempt
            self.running[attempt.id] = Running(experiment, cluster)
            await self._backend.submit(cluster, attempt, bundle(experiment))

    def _cluster_for(self, experiment: Experiment) -> str | None:
        """The cluster that is to get `experiment`; None while those that may are busy.

        Where no cluster has its tier's accelerator every one may, but that is known only once the fleet is complete.
        One on which the infrastructure has failed it gets it again only where there is no other. While plenty waits
        every cluster has its next one queued, so that it need not wait for us; near the end, or while clusters are
        still coming up, that would leave some idle beside others' queues.
        """
        wanted = self._settings.accelerators(experiment.tier)
        serving = [name for name, cluster in self.clusters.items() if cluster.accelerator in wanted]
        if not serving:
            if not self._complete:
                return None
            serving = list(self.clusters)
        failed_on = self._failed_on.get(experiment.id, set())
        load = dict.fromkeys([name for name in serving if name not in failed_on] or serving, 0)
        for running in self.running.values():
            if running.cluster in load:
                load[running.cluster] += 1
        depth = 2 if self._complete and len(self.waiting) > len(load) else 1
        cluster = min(load, key=lambda name: (load[name], name))
        return cluster if load[cluster] < depth else None

    async def _event(self) -> BackendEvent | None:
        """The next event of the backend; None where the user stops us first, or a cluster has come up."""
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._events))
        others = [asyncio.ensure_future(self.stopping.wait()), asyncio.ensure_future(self._news.wait())]
        await asyncio.wait({self._next, *others}, return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            other.cancel()
        self._news.clear()
        if not self._next.done():
            return None
        task, self._next = self._next, None
        return task.result()

    async def _handle(self, event: BackendEvent, bundle: Callable[[Experiment], Bundle]) -> None:
        running = self.running.get(event.attempt)
        if running is None:
            return
        match event:
            case Started():
                self._journal.record(self.study, AttemptStarted(event.attempt))
                self.running[event.attempt] = Running(
                    running.experiment, running.cluster, started=self._clock.monotonic()
                )
            case Progressed():
                self.running[event.attempt] = Running(
                    running.experiment, running.cluster, event.fraction, event.loss, running.started
                )
            case Ended():
                self._ended(event, running.experiment, bundle(running.experiment))
                await self._backend.discard(event.attempt)

    def _ended(self, event: Ended, experiment: Experiment, bundle: Bundle) -> None:
        attempt = self._attempts.pop(event.attempt)
        cluster = self.running.pop(event.attempt).cluster
        outcome = judge(attempt, event, bundle.job["hashes"], self._settings.metric.name)
        self._journal.record(self.study, AttemptEnded(attempt.id, outcome))
        if self.observer:
            self.observer.ended(experiment, cluster, outcome)
        if outcome.label is Label.CANCELLED and not self.stopping.is_set():
            self.waiting.appendleft(experiment)
        elif outcome.label is not None and outcome.label.infrastructure:
            self._failed_on.setdefault(experiment.id, set()).add(cluster)
            if reading.infrastructure_failures(self._journal, self.study, experiment.id) >= ATTEMPTS:
                given_up = ExperimentAbandoned(experiment.id, outcome.label, outcome.reason)
                self._journal.record(self.study, given_up)
            elif not self.stopping.is_set():
                self.waiting.appendleft(experiment)

    async def _interrupt(self, bundle: Callable[[Experiment], Bundle]) -> None:
        self.waiting.clear()
        for attempt in list(self.running):
            await self._backend.cancel(attempt)
        while self.running:
            if self._next is None:
                self._next = asyncio.ensure_future(anext(self._events))
            task, self._next = self._next, None
            await self._handle(await task, bundle)
        raise Interrupted(INTERRUPTED)
