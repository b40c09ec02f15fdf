"""Keeps every cluster busy: gives each its next experiment before it is free, and records what becomes of them.

Intent is recorded before effect: an attempt is in the journal before its backend hears of it, and its traces on the
cluster are discarded only once its outcome is. After a crash the attempts that the backend still owns are adopted, and
the others are made again.

Nobody waits for anybody: whatever takes time (a submission, a cluster that comes up, a backend that does not answer)
goes on beside the rest, is repeated with growing patience where it fails, and is heard of when it is done (`errands`).
Which cluster is given what is decided in `placing`; clusters come and go in `clusters`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Protocol

from controller.backends import (
    Awaited,
    Backend,
    BackendEvent,
    Bundle,
    Ended,
    Progressed,
    Started,
    Unreachable,
    Vanished,
)
from controller.budget import Ledger
from controller.clock import Clock
from controller.clusters import Clusters, Demand, Tenant
from controller.errands import FAREWELL_SECONDS, PATIENCE_SECONDS, Errands
from controller.journal import (
    AttemptEnded,
    AttemptPruned,
    AttemptStarted,
    AttemptSubmitted,
    ExperimentAbandoned,
    Journal,
    reading,
)
from controller.placing import Placing
from controller.pruning import Curve
from controller.records import Attempt, Experiment, Label, Outcome, Tier
from controller.settings import Settings
from controller.waiting import Waiting
from controller.watcher import judge

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Submissions an experiment gets before the infrastructure's failures make it give up."""
STRIKES = 3
"""Failures of the infrastructure in a row before a cluster is replaced."""
GONE = frozenset({Label.LOST, Label.PREEMPTED})
"""What an attempt ends as of which nothing has come back."""
CHECK_SECONDS = 30.0
"""How often is looked for what no event tells of: attempts that never end, clusters that idle, caps that come near."""
CANCEL_SECONDS = 120.0
"""How long an attempt that was cancelled may go on before its cluster is replaced."""
START_SECONDS = 600.0
"""How long a cluster may take to start what it was given, while nothing else runs on it, before it is replaced."""
RETRY_SECONDS = 5.0
"""How long an experiment waits after the infrastructure's first failure; twice as long after each further one."""


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt in flight, for whoever watches: `fraction` of its budget, None while it waits or starts up.

    Times are the clock's monotonic seconds. `cancelled` is when its end was asked for; `overdue` says that this was
    because it should have ended by itself.
    """

    experiment: Experiment
    cluster: str
    submitted: float = 0.0
    started: float | None = None
    fraction: float | None = None
    loss: float | None = None
    cancelled: float | None = None
    overdue: bool = False


class Observer(Protocol):
    """Whoever watches a scheduler at work."""

    def changed(self, scheduler: Scheduler) -> None:
        """Something moved."""

    def ended(self, experiment: Experiment, cluster: str, outcome: Outcome) -> None:
        """An attempt at `experiment` is over."""


@dataclass
class Hooks:
    """What the search wants to hear, and to be asked."""

    finished: Callable[[Experiment, Outcome], None] = lambda experiment, outcome: None
    """An experiment will not be run again."""
    hopeless: Callable[[Experiment, str, Curve], str | None] = lambda experiment, accelerator, curve: None
    """Why a run on `accelerator` is to be ended, now that its curve has passed another look."""


class Scheduler:
    """One study's clusters, what waits for them, and the attempts in flight on them."""

    def __init__(
        self,
        study: str,
        settings: Settings,
        journal: Journal,
        backend: Backend,
        clock: Clock,
        ledger: Ledger,
        bundle: Callable[[Experiment], Bundle],
    ) -> None:
        self.study = study
        self.running: dict[str, Running] = {}
        self.waiting = Waiting()
        self.observer: Observer | None = None
        self.hooks = Hooks()
        self.draining = False
        """Nothing more is submitted."""
        self.expecting: frozenset[Tier] = frozenset(Tier)
        """The tiers that more work may come for, so that a cluster of theirs that idles is not given back at once."""
        self.replaced = 0
        self._settings = settings
        self._journal = journal
        self._backend = backend
        self._clock = clock
        self._ledger = ledger
        self._bundle = bundle
        self._attempts: dict[str, Attempt] = {}
        self._hashes: dict[str, Any] = {}
        self._curves: dict[str, Curve] = {}
        self._strikes: Counter[str] = Counter()
        self._free_since: dict[str, float] = {}
        """Since when a cluster has had nothing that runs, in the clock's monotonic seconds."""
        self._resting: dict[str, Experiment] = {}
        self._never_began: Counter[str] = Counter()
        self._inbox: deque[BackendEvent] = deque()
        self._news = asyncio.Event()
        self._errands = Errands(clock, self._news.set)
        self._submitting: dict[str, asyncio.Task[Any]] = {}
        self._discarding: set[asyncio.Task[Any]] = set()
        self._silent_at = -inf
        self._moved = True
        self._stirred = False
        self._check_due = False
        tenant = Tenant(self._demand, self._came, self._vacate, self._gone, self._settled)
        self.clusters = Clusters(study, settings, journal, backend, clock, ledger, self._errands, tenant)
        self._placing = Placing(self.waiting, self.clusters, ledger)

    # What the search asks for

    def begin(self, setup: Bundle, clusters: int) -> None:
        """Listen to the backend, and have so many clusters up, which are set up with `setup`."""
        self._errands.spawn(self._listen())
        self._errands.spawn(self._tick())
        self.clusters.begin(setup, clusters)

    async def adopt(self) -> None:
        """Take up what an earlier controller left: attempts that live on, those that are gone, clusters still up."""
        for attempt in reading.attempts(self._journal, self.study, open_only=True):
            self._attempts[attempt.id] = attempt
        owned = await self._errands.patiently(self._backend.owned, self.study)
        await self.clusters.adopt()
        for attempt in list(self._attempts.values()):
            if attempt.id in owned:
                (result,) = reading.results_of(self._journal, self.study, name=attempt.experiment)
                self._fly(attempt, result.experiment)
                if reading.pruned(self._journal, self.study, attempt.id):
                    self._cancel(attempt.id)
            else:
                pruned = reading.pruned(self._journal, self.study, attempt.id)
                gone = Outcome(Label.CANCELLED, "its controller ended before it had run")
                self._journal.record(
                    self.study, AttemptEnded(attempt.id, Outcome(Label.PRUNED, pruned) if pruned else gone)
                )
                del self._attempts[attempt.id]
        for stray in owned - set(self._attempts):
            self._errands.spawn(self._errands.patiently(self._backend.cancel, stray))

    def add(self, experiments: Iterable[Experiment]) -> None:
        """Have `experiments` run, in order; those that an earlier controller left running are running already."""
        adopted = {running.experiment.id for running in self.running.values()}
        self.waiting.add(experiment for experiment in experiments if experiment.id not in adopted)
        self._changed()

    def withdraw(self, wave: str, tier: Tier, why: str) -> list[Experiment]:
        """Give up what still waits of a wave: it is recorded as cancelled, and will not be run."""
        found = self.waiting.withdraw(wave, tier)
        found += [one for one in self._resting.values() if one.wave == wave and one.tier is tier]
        for experiment in found:
            self._resting.pop(experiment.id, None)
        if found:
            self._journal.record(self.study, *(ExperimentAbandoned(one.id, Label.CANCELLED, why) for one in found))
        return found

    def drain(self) -> None:
        """Submit nothing more; what was submitted and has not begun goes back to those that wait."""
        self.draining = True
        for attempt, running in list(self.running.items()):
            if running.started is None:
                self._cancel(attempt)
        self.wake()

    def cancel(self) -> None:
        """Submit nothing more, and end everything that runs."""
        self.draining = True
        for attempt in list(self.running):
            self._cancel(attempt)
        self.wake()

    def wake(self) -> None:
        """Let `step` return, so that whoever calls it looks around."""
        self._stirred = True
        self._news.set()

    def serving(self, tier: Tier) -> int:
        """How many clusters serve `tier` as their own."""
        return self.clusters.serving(tier)

    @property
    def blocked(self) -> Mapping[Tier, str]:
        """Why the budget lets nothing more of a tier be submitted."""
        return self._placing.blocked

    @property
    def idle(self) -> bool:
        """Whether nothing runs, and nothing that waits is about to."""
        return not self.running and (self.draining or (not len(self.waiting) and not self._resting))

    @property
    def stuck(self) -> bool:
        """Whether nothing runs or is coming up, and the budget allows for nothing of what waits."""
        coming = self.clusters.coming and not self.clusters
        waiting = {tier for tier in Tier if self.waiting.count(tier)}
        return not self.running and not coming and bool(waiting) and waiting <= self.blocked.keys()

    async def step(self) -> None:
        """Give clusters what they can take, then deal with what happens until it changes what can be done."""
        self._stirred = False
        self._fill()
        while not self._stirred:
            if self.observer:
                self.observer.changed(self)
            await self._news.wait()
            self._news.clear()
            if self._errands.failure is not None:
                raise self._errands.failure
            self._hear()
            if self._check_due:
                self._check_due = False
                self._check()
                self._changed()

    async def close(self) -> None:
        """Give the clusters back, and record that they are; those that can't be reached shut themselves down."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await asyncio.gather(*self._discarding, return_exceptions=True)
        await self._errands.end()
        await self.clusters.close()

    # Submitting

    def _fill(self) -> None:
        if self._moved and not self.draining and len(self.waiting):
            self._moved = False
            for experiment, cluster in self._placing.fill():
                self._submit(experiment, cluster)

    def _changed(self) -> None:
        """Something may be placed now that could not be before."""
        self._moved = True
        self.wake()

    def _submit(self, experiment: Experiment, cluster: str) -> None:
        number = len(reading.attempts(self._journal, self.study, experiment=experiment.id)) + 1
        attempt = Attempt(f"{self.study}.{experiment.id}.{number}", experiment.id, cluster, self._clock.token())
        bundle = self._bundle(experiment)
        self._journal.record(self.study, AttemptSubmitted(attempt))
        self._attempts[attempt.id] = attempt
        self._hashes[attempt.id] = bundle.job["hashes"]
        self._fly(attempt, experiment)
        task = self._errands.spawn(self._errands.patiently(self._backend.submit, cluster, attempt, bundle))
        self._submitting[attempt.id] = task
        task.add_done_callback(lambda _: self._submitting.pop(attempt.id, None))

    def _fly(self, attempt: Attempt, experiment: Experiment) -> None:
        now = self._clock.monotonic()
        self.running[attempt.id] = Running(experiment, attempt.cluster, submitted=now)
        self._placing.given(attempt.id, attempt.cluster)
        self._changed()
        self._ledger.submitted(attempt.id, self.clusters.accelerator_of(attempt.cluster))

    # What is heard

    async def _listen(self) -> None:
        while True:
            try:
                async for event in self._backend.events():
                    self._inbox.append(event)
                    self._news.set()
            except Unreachable as error:
                log.warning("the backend does not answer", extra={"reason": str(error)})
                self._silent_at = self._clock.monotonic()
                await self._clock.sleep(PATIENCE_SECONDS / 4)

    def _hear(self) -> None:
        while self._inbox:
            self._handle(self._inbox.popleft())

    def _handle(self, event: BackendEvent) -> None:
        if isinstance(event, Vanished):
            self.clusters.vanished(event.cluster, event.reason)
            return
        if isinstance(event, Awaited):
            self.clusters.awaited(event.reason)
            return
        running = self.running.get(event.attempt)
        if running is None:
            if isinstance(event, Ended):  # told twice, or of an attempt that a dead controller had recorded already
                self._discard(event.attempt)
            return
        match event:
            case Started():
                if running.started is None:
                    self._journal.record(self.study, AttemptStarted(event.attempt))
                    self.running[event.attempt] = replace(running, started=self._clock.monotonic())
            case Progressed():
                self.running[event.attempt] = replace(running, fraction=event.fraction, loss=event.loss)
                self._progressed(event, running)
            case Ended():
                self._ended(event, running)

    def _progressed(self, event: Progressed, running: Running) -> None:
        curve = self._curves.setdefault(event.attempt, Curve())
        before = len(curve.points())
        curve.add(event.fraction, event.loss)
        if len(curve.points()) == before or running.cancelled is not None:
            return
        cluster = self.clusters.get(running.cluster)
        if cluster is None:
            return
        why = self.hooks.hopeless(running.experiment, cluster.accelerator, curve)
        if why is not None:
            self._journal.record(self.study, AttemptPruned(event.attempt, why))
            self._cancel(event.attempt)

    def _ended(self, event: Ended, running: Running) -> None:
        attempt = self._attempts.pop(event.attempt)
        del self.running[event.attempt]
        curve = self._curves.pop(event.attempt, None)
        experiment, name = running.experiment, running.cluster
        self._free_since[name] = self._clock.monotonic()
        self._placing.ended(event.attempt, name)
        self._changed()
        self._ledger.ended(event.attempt)
        hashes = self._hashes.pop(event.attempt, None)
        outcome = judge(
            attempt,
            event,
            self._bundle(experiment).job["hashes"] if hashes is None else hashes,
            self._settings.metric.name,
        )
        outcome = self._understood(outcome, event, running)
        if curve is not None:
            outcome = replace(outcome, curve=curve.points())
        self._journal.record(self.study, AttemptEnded(attempt.id, outcome))
        self._discard(event.attempt)
        log.info(
            "attempt ended",
            extra={"attempt": attempt.id, "cluster": name, "label": outcome.label or "done", "reason": outcome.reason},
        )
        if self.observer:
            self.observer.ended(experiment, name, outcome)
        self._consequences(experiment, name, outcome)

    def _discard(self, attempt: str) -> None:
        task = self._errands.spawn(self._errands.patiently(self._backend.discard, attempt))
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)

    def _understood(self, outcome: Outcome, event: Ended, running: Running) -> Outcome:
        """What the end of an attempt means, seeing what we asked of it."""
        if outcome.label is Label.CANCELLED or (outcome.label in GONE and running.cancelled is not None):
            why = reading.pruned(self._journal, self.study, event.attempt)
            if why is not None:
                return Outcome(Label.PRUNED, why, accelerator=self.clusters.accelerator_of(running.cluster))
        if outcome.label is Label.CANCELLED and running.overdue:
            return replace(outcome, label=Label.LOST, reason="it did not end in time")
        if outcome.label in GONE and event.report is None and running.started is None:
            self._never_began[running.experiment.id] += 1
            # It had not begun: that says nothing of it, unless it never does.
            if self._never_began[running.experiment.id] <= ATTEMPTS:
                return replace(outcome, label=Label.CANCELLED)
        return outcome

    def _consequences(self, experiment: Experiment, cluster: str, outcome: Outcome) -> None:
        if outcome.label is Label.CANCELLED:
            self.waiting.put_back(experiment, self.clusters.accelerator_of(cluster))
            self._changed()
            return
        if outcome.label is None or not outcome.label.infrastructure:
            self._strikes[cluster] = 0
            self._finish(experiment, outcome)
            return
        self._strikes[cluster] += 1
        strikes = self._strikes[cluster]
        if strikes >= STRIKES and len(self.clusters) > 1:
            self._replace(cluster, f"{strikes} failures in a row, the last {outcome.label}: {outcome.reason}")
        self._placing.failed(experiment.id, cluster)
        failures = reading.infrastructure_failures(self._journal, self.study, experiment.id)
        if failures >= ATTEMPTS:
            self._journal.record(self.study, ExperimentAbandoned(experiment.id, outcome.label, outcome.reason))
            self._finish(experiment, outcome)
        else:
            self._resting[experiment.id] = experiment
            accelerator = self.clusters.accelerator_of(cluster)
            self._errands.spawn(self._rest(experiment, accelerator, RETRY_SECONDS * 2 ** (failures - 1)))

    async def _rest(self, experiment: Experiment, accelerator: str, seconds: float) -> None:
        await self._clock.sleep(seconds)
        if self._resting.pop(experiment.id, None) is not None:
            self.waiting.put_back(experiment, accelerator, astray=True)
            self._changed()

    def _finish(self, experiment: Experiment, outcome: Outcome) -> None:
        self._never_began.pop(experiment.id, None)
        self._placing.finished(experiment.id)
        self.hooks.finished(experiment, outcome)

    def _cancel(self, attempt: str, overdue: bool = False) -> None:
        running = self.running[attempt]
        if running.cancelled is None:
            self.running[attempt] = replace(running, cancelled=self._clock.monotonic(), overdue=overdue)
            self._errands.spawn(self._cancel_when_submitted(attempt))

    async def _cancel_when_submitted(self, attempt: str) -> None:
        submitting = self._submitting.get(attempt)
        if submitting is not None:
            await asyncio.wait({submitting})
        await self._errands.patiently(self._backend.cancel, attempt)

    # What the clusters ask and tell

    def _demand(self) -> Demand:
        waiting = {tier: 0 if tier in self.blocked else self.waiting.count(tier) for tier in Tier}
        return Demand(len(self.running), waiting, self.expecting, self.draining)

    def _came(self, cluster: str) -> None:
        self._strikes[cluster], self._free_since[cluster] = 0, self._clock.monotonic()
        self._placing.came(cluster)
        self._changed()

    def _vacate(self, cluster: str, reason: str) -> None:
        self._hear()
        for attempt in list(self._placing.on(cluster)):
            self._handle(Ended(attempt, None, f"its cluster was given up: {reason}"))

    def _gone(self, cluster: str) -> None:
        self._placing.gone(cluster)
        self._changed()

    def _settled(self, refused: str | None) -> None:
        if refused is not None:
            self._placing.blocked = dict.fromkeys(Tier, refused)
        self._changed()

    # What no event tells of

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(CHECK_SECONDS)
            self._check_due = True
            self._news.set()

    def _check(self) -> None:
        now = self._clock.monotonic()
        # Of a backend that tells nothing, nobody can be held to be late.
        heard = now - self._silent_at > 2 * PATIENCE_SECONDS
        for attempt, running in list(self.running.items()) if heard else ():
            if running.cancelled is not None:
                if now - running.cancelled > CANCEL_SECONDS:
                    self._abandon(attempt, running, "it could not be cancelled")
            elif running.started is not None:
                if now - running.started > self._ledger.worst_seconds:
                    self._cancel(attempt, overdue=True)
            else:
                since = max(running.submitted, self._free_since.get(running.cluster, 0.0))
                if self._placing.on(running.cluster)[0] == attempt and now - since > START_SECONDS:
                    self._abandon(attempt, running, "it does not start what it is given")
        self.clusters.tend({name: self._free_since[name] for name in self.clusters if not self._placing.on(name)})

    def _replace(self, cluster: str, reason: str) -> None:
        """Give up a cluster that fails what it is given; another one is asked for in its place."""
        if self.clusters.stays(cluster):
            log.warning("cluster is replaced", extra={"cluster": cluster, "reason": reason})
            self.replaced += 1
            self.clusters.release(cluster, reason)

    def _abandon(self, attempt: str, running: Running, reason: str) -> None:
        if running.cluster in self.clusters:
            self._replace(running.cluster, reason)
        else:
            self._handle(Ended(attempt, None, f"its cluster is gone, {reason}"))
