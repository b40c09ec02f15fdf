"""Keeps every cluster busy: gives each its next experiment before it is free, and records what becomes of them.

Intent is recorded before effect: an attempt is in the journal before its backend hears of it, and its traces on the
cluster are discarded only once its outcome is. After a crash the attempts that the backend still owns are adopted, and
the others are made again.

Nobody waits for anybody: whatever takes time (a submission, a cluster that comes up, a backend that does not answer)
goes on beside the rest, is repeated with growing patience where it fails, and is heard of when it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Set
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Protocol

from controller.backends import Backend, BackendEvent, Bundle, Ended, Fleet, Progressed, Started, Unreachable, Vanished
from controller.budget import Ledger
from controller.clock import Clock
from controller.journal import (
    AttemptEnded,
    AttemptPruned,
    AttemptStarted,
    AttemptSubmitted,
    ClusterGone,
    ClustersAsked,
    ClusterSeen,
    ExperimentAbandoned,
    Journal,
    reading,
)
from controller.pruning import Curve
from controller.records import Attempt, Cluster, Experiment, Label, NothingRan, Outcome, Tier
from controller.settings import Settings
from controller.waiting import Waiting
from controller.watcher import judge

log = logging.getLogger(__name__)

DEPTH = 2
"""Attempts on a cluster at once: one that runs, and the next."""
ATTEMPTS = 3
"""Submissions an experiment gets before the infrastructure's failures make it give up."""
STRIKES = 3
"""Failures of the infrastructure in a row before a cluster is replaced."""
ARRIVAL_SECONDS = 900.0
"""How long work that asks for another accelerator, or might queue, waits for the rest of a fleet to come up."""
CHECK_SECONDS = 30.0
"""How often is looked for what no event tells of: attempts that never end, clusters that idle, caps that come near."""
CANCEL_SECONDS = 120.0
"""How long an attempt that was cancelled may go on before its cluster is replaced."""
START_SECONDS = 600.0
"""How long a cluster may take to start what it was given, while nothing else runs on it, before it is replaced."""
IDLE_SECONDS = 600.0
"""How long a cluster may have nothing to do before it is released, should it not shut itself down much sooner."""
RETRY_SECONDS = 5.0
"""How long an experiment waits after the infrastructure's first failure; twice as long after each further one."""
FAREWELL_SECONDS = 600.0
"""How long the end of a run waits for a backend that does not answer."""
PATIENCE_SECONDS = 60.0
"""The longest pause between two questions to a backend that does not answer."""


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


@dataclass
class _Load:
    """One cluster's attempts in the order of their submission, and since when it has had none that runs."""

    attempts: list[str] = field(default_factory=list)
    strikes: int = 0
    free_since: float = 0.0


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
        self.clusters: dict[str, Cluster] = {}
        self.running: dict[str, Running] = {}
        self.waiting = Waiting()
        self.observer: Observer | None = None
        self.hooks = Hooks()
        self.blocked: dict[Tier, str] = {}
        """Why the budget lets nothing more of a tier be submitted."""
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
        self._setup: Bundle | None = None
        self._asked = 0
        self._attempts: dict[str, Attempt] = {}
        self._hashes: dict[str, Any] = {}
        self._curves: dict[str, Curve] = {}
        self._loads: dict[str, _Load] = defaultdict(_Load)
        self._resting: dict[str, Experiment] = {}
        self._failed_on: dict[str, set[str]] = defaultdict(set)
        self._shunned: dict[str, set[str]] = defaultdict(set)
        self._never_began: Counter[str] = Counter()
        self._inbox: deque[BackendEvent] = deque()
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._submitting: dict[str, asyncio.Task[Any]] = {}
        self._discarding: set[asyncio.Task[Any]] = set()
        self._acquiring: asyncio.Task[None] | None = None
        self._complete = False
        self._leaving: set[str] = set()
        self._with_room: set[str] = set()
        self._absent: list[str] = []
        self._silent_at = -inf
        self._served: dict[str, tuple[Tier, ...]] = {}
        self._serving: dict[Tier, int] = {}
        self._moved = True
        self._stirred = False
        self._failure: BaseException | None = None
        self._check_due = False
        self._began = clock.monotonic()
        self._ever = False
        self._before = reading.last_at(journal, study)
        """When an earlier controller was last alive, in Unix seconds."""
        self._left = 0
        """Clusters it has left up."""
        self._asked_at = clock.now()

    # What the search asks for

    def begin(self, setup: Bundle, clusters: int) -> None:
        """Listen to the backend, and have so many clusters up, which are set up with `setup`."""
        self._setup = setup
        self._asked = clusters
        self._spawn(self._listen())
        self._spawn(self._tick())
        self._spawn(self._lose_patience())
        self._acquire()

    async def adopt(self) -> None:
        """Take up what an earlier controller left: attempts that live on, those that are gone, clusters still up."""
        for attempt in reading.attempts(self._journal, self.study, open_only=True):
            self._attempts[attempt.id] = attempt
        owned = await self._patiently(self._backend.owned, self.study)
        up = {cluster.name for cluster in await self._patiently(self._backend.up, self.study)}
        self._left = len(up)
        self._settle(up)
        for attempt in list(self._attempts.values()):
            if attempt.id in owned:
                (result,) = reading.results_of(self._journal, self.study, name=attempt.experiment)
                self._fly(attempt, result.experiment)
                if reading.pruned(self._journal, self.study, attempt.id):
                    self._cancel(attempt.id)
            else:
                pruned = reading.pruned(self._journal, self.study, attempt.id)
                gone = Outcome(Label.CANCELLED, "its controller ended before it had run")
                self._record(AttemptEnded(attempt.id, Outcome(Label.PRUNED, pruned) if pruned else gone))
                del self._attempts[attempt.id]
        for stray in owned - set(self._attempts):
            self._spawn(self._patiently(self._backend.cancel, stray))

    def _settle(self, up: Collection[str]) -> None:
        """Close the books of clusters that are no longer `up`, billed for as long as they may have been."""
        idling, last = self._backend.idle_seconds, self._before
        # What was in flight may have gone on, and its cluster idled, for as long as was reserved, and no longer.
        # Nobody can say how long ago that was: the clock may have been set meanwhile.
        until = last + DEPTH * self._ledger.worst_seconds + idling if idling else last
        leases = reading.leases(self._journal, self.study, open_only=True)
        for lease in leases:
            if lease.cluster not in up:
                self._record(ClusterGone(lease.cluster, until, "it went while no controller was there"))
                self._ledger.gone(lease.cluster, until)
        # Those that were asked for may have come up, found nobody, and shut themselves down.
        unseen = reading.arriving(self._journal, self.study) - len(set(up) - {lease.cluster for lease in leases})
        until = last + ARRIVAL_SECONDS + idling
        for number in range(1, unseen + 1 if idling else 1):
            cluster = Cluster(f"unseen-{number:02d}", self._ledger.dearest_named)
            self._record(
                ClusterSeen(cluster, last),
                ClusterGone(cluster.name, until, "it was asked for, and nobody was there to see it come"),
            )
            self._ledger.seen(cluster.name, cluster.accelerator, last)
            self._ledger.gone(cluster.name, until)
        self._record(ClustersAsked(0))

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
        self._record(*(ExperimentAbandoned(one.id, Label.CANCELLED, why) for one in found))
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
        if tier not in self._serving:
            tiers = [self._tiers(cluster.accelerator) for cluster in self.clusters.values()]
            self._serving[tier] = sum(tier in one for one in tiers)
        return self._serving[tier]

    @property
    def idle(self) -> bool:
        """Whether nothing runs, and nothing that waits is about to."""
        return not self.running and (self.draining or (not len(self.waiting) and not self._resting))

    @property
    def stuck(self) -> bool:
        """Whether nothing runs or is coming up, and the budget allows for nothing of what waits."""
        coming = self._acquiring is not None and not self._acquiring.done() and not self.clusters
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
            if self._failure is not None:
                raise self._failure
            while self._inbox:
                self._handle(self._inbox.popleft())
            if self._check_due:
                self._check_due = False
                self._check()
                self._changed()

    async def close(self) -> None:
        """Give the clusters back, and record that they are; those that can't be reached shut themselves down."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await asyncio.gather(*self._discarding, return_exceptions=True)
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._patiently(self._backend.release, list(self.clusters))
                for name in list(self.clusters):
                    self._gone(name, "released")
                await self._return_unknown()
        except TimeoutError:
            log.warning("clusters could not be released", extra={"clusters": ", ".join(self.clusters)})

    # Clusters

    def _acquire(self) -> None:
        if self._acquiring is None or self._acquiring.done():
            self._acquiring = self._spawn(self._bring_up())

    async def _bring_up(self) -> None:
        pause = PATIENCE_SECONDS
        while not self.draining and (missing := self._missing()) > 0:
            before = len(self.clusters)
            # What an earlier controller left up is taken over, whatever it is good for.
            affordable = max(self._ledger.affordable(missing), min(missing, self._left))
            self._left = 0
            if not affordable:
                break
            self._ledger.arriving(affordable)
            assert self._setup is not None
            fleet = Fleet(before + affordable, self._setup, self.study)
            self._record(ClustersAsked(affordable))
            self._asked_at = self._clock.now()
            try:
                async for cluster in self._backend.acquire(fleet):
                    self._arrived(cluster)
                    self._ledger.arriving(max(0, before + affordable - len(self.clusters)))
            except Unreachable as error:
                log.warning("clusters could not be asked for", extra={"reason": str(error)})
                await self._return_unknown()
            except NothingRan as error:
                # That of a backend that can have none whatever comes is final, where there are none yet.
                if not self.clusters and not self._complete:
                    raise
                log.warning("no cluster could be had", extra={"reason": str(error)})
            finally:
                self._ledger.arriving(0)
            self._record(ClustersAsked(0))
            self._go_without_more()
            if self._missing() <= 0:
                await self._return_unknown()
            if not self._ever and self._clock.monotonic() - self._began >= ARRIVAL_SECONDS:
                raise NothingRan(f"no cluster could be had within {ARRIVAL_SECONDS / 60:.0f} minutes")
            if self._missing() > 0:
                await self._clock.sleep(pause)
                pause = min(2 * pause, 10 * PATIENCE_SECONDS)
        if not self.clusters and not self.draining and not self._ledger.affordable(1):
            why = "the budget, or the time that is left, does not suffice for a cluster that could run anything"
            self.blocked = dict.fromkeys(Tier, why)
        self._go_without_more()

    async def _return_unknown(self) -> None:
        """Release clusters of ours that nobody here has seen come: asked for without an answer, or an earlier run's."""
        for cluster in await self._patiently(self._backend.up, self.study):
            if cluster.name not in self.clusters and cluster.name not in self._leaving:
                await self._patiently(self._backend.release, [cluster.name])
                until = self._clock.now()
                since = until - (cluster.billed_seconds or 0.0)
                self._record(ClusterSeen(cluster, since), ClusterGone(cluster.name, until, "released"))
                self._ledger.seen(cluster.name, cluster.accelerator, since)
                self._ledger.gone(cluster.name, until)

    def _missing(self) -> int:
        """Clusters to ask for: all that are not there, at first; later as many as there is work for again."""
        lacking = self._asked - len(self.clusters)
        if not self._complete or lacking <= 0:
            return max(0, lacking)
        able = sum(self.waiting.count(tier) for tier in Tier if tier not in self.blocked)
        wanted = len(self.running) + able - len(self.clusters)
        never_came = max(0, lacking - len(self._absent))
        return max(0, min(wanted, lacking, never_came + sum(map(self._has_work, self._absent))))

    def _has_work(self, accelerator: str) -> bool:
        """Whether something waits that a cluster with `accelerator` would be given."""
        tiers = (tier for tier in Tier if accelerator in self._settings.accelerators(tier))
        return any(self.waiting.count(tier) and tier not in self.blocked for tier in tiers)

    async def _lose_patience(self) -> None:
        await self._clock.sleep(ARRIVAL_SECONDS)
        self._go_without_more()

    def _go_without_more(self) -> None:
        self._complete = True
        self._absent = [accelerator for accelerator in self._absent if not self._has_work(accelerator)]
        self._fleet_changed()

    def _arrived(self, cluster: Cluster) -> None:
        if cluster.name in self.clusters or cluster.name in self._leaving:
            return
        since = self._clock.now() - (cluster.billed_seconds or 0.0)
        self._ledger.seen(cluster.name, cluster.accelerator, since)
        self._record(ClusterSeen(Cluster(cluster.name, cluster.accelerator), since))
        self.clusters[cluster.name] = cluster
        self._ever = True
        if cluster.accelerator in self._absent:
            self._absent.remove(cluster.accelerator)
        load = self._loads[cluster.name]
        load.strikes, load.free_since = 0, self._clock.monotonic()
        log.info("cluster is up", extra={"cluster": cluster.name, "accelerator": cluster.accelerator})
        self._note_room(cluster.name)
        self._fleet_changed()

    def _gone(self, name: str, reason: str) -> None:
        cluster = self.clusters.pop(name, None)
        if cluster is None:
            return
        self._absent.append(cluster.accelerator)
        self._bill(name, reason)
        log.info("cluster is gone", extra={"cluster": name, "reason": reason})
        self._with_room.discard(name)
        self.waiting.forget(name)
        self._fleet_changed()

    def _bill(self, name: str, reason: str) -> None:
        until = self._clock.now()
        self._record(ClusterGone(name, until, reason))
        self._ledger.gone(name, until)

    def _release(self, name: str, reason: str) -> None:
        """Give a cluster back; attempts that are still held to be on it by then are lost."""
        if name not in self._leaving:
            self._leaving.add(name)
            self._spawn(self._see_off(name, reason))

    async def _see_off(self, name: str, reason: str) -> None:
        await self._patiently(self._backend.release, [name])
        # What the backend has to tell of its attempts comes first.
        await self._clock.sleep(1.0)
        while self._inbox:
            self._handle(self._inbox.popleft())
        for attempt in list(self._loads[name].attempts):
            self._handle(Ended(attempt, None, f"its cluster was given up: {reason}"))
        self._leaving.discard(name)
        self._gone(name, reason)

    def _replace(self, name: str, reason: str) -> None:
        if name in self.clusters and name not in self._leaving:
            log.warning("cluster is replaced", extra={"cluster": name, "reason": reason})
            self.replaced += 1
            self._release(name, reason)

    # Placing

    def _fill(self) -> None:
        """Give each cluster that runs nothing something to run, then each that has nothing queued something to queue.

        Near the end, or while clusters are still coming up, what is queued on one would leave another one idle.
        """
        if not self._moved or self.draining or not len(self.waiting):
            return
        self._moved = False
        self.blocked = {}
        plenty = {tier for tier in Tier if self._complete and self.waiting.count(tier) > self.serving(tier)}
        for depth in (0, 1):
            if depth and not plenty and not self.waiting.count(Tier.CONFIRMATION):
                return
            for name in sorted(self._with_room):
                if len(self._loads[name].attempts) != depth or name in self._leaving or name not in self.clusters:
                    continue
                experiment = self._pick(self.clusters[name], plenty if depth else set(Tier), idle=not depth)
                if experiment is not None:
                    self._submit(experiment, name)
                if len(self.blocked) == len(Tier) or not len(self.waiting):
                    return

    def _pick(self, cluster: Cluster, tiers: Set[Tier], idle: bool) -> Experiment | None:
        """What `cluster` should have next, of `tiers` or of a block it has begun; None where there is nothing."""
        name, accelerator = cluster.name, cluster.accelerator
        own, avoid = self._tiers(accelerator), self._avoided(cluster.name)
        if (
            Tier.CONFIRMATION in own
            and self.waiting.count(Tier.CONFIRMATION)
            # What it would queue of another tier instead has no more need of this cluster.
            and (not tiers.isdisjoint(own) or self.waiting.has_block_of(name))
            and self._may(Tier.CONFIRMATION, cluster)
        ):
            found = self.waiting.take_confirmation(name, accelerator, idle, avoid)
            if found is not None:
                return found
        if Tier.SCREENING not in tiers or not self.waiting.count(Tier.SCREENING):
            return None
        if Tier.SCREENING in own:
            may = self._may(Tier.SCREENING, cluster)
            return self.waiting.take_screening(name, accelerator, avoid) if may else None
        # Until the fleet is complete nobody knows whether this cluster is needed for its own tier; and what it has
        # queued would keep it from the confirmations of others once it is free.
        if not self._complete or (not idle and any(self.waiting.count(tier) for tier in own)):
            return None
        # That a helper would be too dear says nothing of the tier's own clusters.
        if self._ledger.refusal(Tier.SCREENING, accelerator) is not None:
            return None
        return self.waiting.take_to_help(name, accelerator, avoid)

    def _tiers(self, accelerator: str) -> tuple[Tier, ...]:
        """The tiers that a cluster with `accelerator` serves: its own, and those that no cluster is there for."""
        if accelerator not in self._served:
            there = {*self._absent, *(cluster.accelerator for cluster in self.clusters.values())}
            self._served[accelerator] = tuple(
                tier
                for tier in Tier
                if accelerator in (wanted := self._settings.accelerators(tier))
                or (self._complete and there.isdisjoint(wanted))
            )
        return self._served[accelerator]

    def _note_room(self, cluster: str) -> None:
        if len(self._loads[cluster].attempts) < DEPTH:
            self._with_room.add(cluster)
        else:
            self._with_room.discard(cluster)
        self._changed()

    def _fleet_changed(self) -> None:
        self._served.clear()
        self._serving.clear()
        self._changed()

    def _changed(self) -> None:
        """Something may be placed now that could not be before."""
        self._moved = True
        self.wake()

    def _may(self, tier: Tier, cluster: Cluster) -> bool:
        refused = self._ledger.refusal(tier, cluster.accelerator)
        if refused is not None:
            self.blocked[tier] = refused
        return refused is None

    def _avoided(self, cluster: str) -> set[str]:
        """What the infrastructure has failed on this cluster, as long as there is another one."""
        shunned = self._shunned.get(cluster)
        if not shunned:
            return set()
        return {one for one in shunned if not self._failed_on[one].issuperset(self.clusters)}

    def _submit(self, experiment: Experiment, cluster: str) -> None:
        number = len(reading.attempts(self._journal, self.study, experiment=experiment.id)) + 1
        attempt = Attempt(f"{self.study}.{experiment.id}.{number}", experiment.id, cluster, self._clock.token())
        bundle = self._bundle(experiment)
        self._record(AttemptSubmitted(attempt))
        self._attempts[attempt.id] = attempt
        self._hashes[attempt.id] = bundle.job["hashes"]
        self._fly(attempt, experiment)
        task = self._spawn(self._patiently(self._backend.submit, cluster, attempt, bundle))
        self._submitting[attempt.id] = task
        task.add_done_callback(lambda _: self._submitting.pop(attempt.id, None))

    def _fly(self, attempt: Attempt, experiment: Experiment) -> None:
        now = self._clock.monotonic()
        self.running[attempt.id] = Running(experiment, attempt.cluster, submitted=now)
        self._loads[attempt.cluster].attempts.append(attempt.id)
        self._note_room(attempt.cluster)
        self._ledger.submitted(attempt.id, self._accelerator_of(attempt.cluster))

    def _accelerator_of(self, cluster: str) -> str:
        if cluster in self.clusters:
            return self.clusters[cluster].accelerator
        return dict(reading.clusters(self._journal, self.study)).get(cluster, "")

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

    def _handle(self, event: BackendEvent) -> None:
        if isinstance(event, Vanished):
            log.warning("cluster has vanished", extra={"cluster": event.cluster, "reason": event.reason})
            if event.cluster in self.clusters:
                self._gone(event.cluster, event.reason)
            else:  # while it was coming up, or being given back
                coming = self._acquiring is not None and not self._acquiring.done()
                if coming and not self._ledger.bills(event.cluster):
                    cluster = Cluster(event.cluster, self._ledger.dearest_named)
                    self._ledger.seen(cluster.name, cluster.accelerator, self._asked_at)
                    self._record(ClusterSeen(cluster, self._asked_at))
                self._bill(event.cluster, event.reason)
            return
        running = self.running.get(event.attempt)
        if running is None:
            if isinstance(event, Ended):  # told twice, or of an attempt that a dead controller had recorded already
                self._discard(event.attempt)
            return
        match event:
            case Started():
                if running.started is None:
                    self._record(AttemptStarted(event.attempt))
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
            self._record(AttemptPruned(event.attempt, why))
            self._cancel(event.attempt)

    def _ended(self, event: Ended, running: Running) -> None:
        attempt = self._attempts.pop(event.attempt)
        del self.running[event.attempt]
        curve = self._curves.pop(event.attempt, None)
        experiment, name = running.experiment, running.cluster
        load = self._loads[name]
        load.attempts.remove(event.attempt)
        load.free_since = self._clock.monotonic()
        self._note_room(name)
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
        self._record(AttemptEnded(attempt.id, outcome))
        self._discard(event.attempt)
        log.info(
            "attempt ended",
            extra={"attempt": attempt.id, "cluster": name, "label": outcome.label or "done", "reason": outcome.reason},
        )
        if self.observer:
            self.observer.ended(experiment, name, outcome)
        self._consequences(experiment, name, outcome)

    def _discard(self, attempt: str) -> None:
        task = self._spawn(self._patiently(self._backend.discard, attempt))
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)

    def _understood(self, outcome: Outcome, event: Ended, running: Running) -> Outcome:
        """What the end of an attempt means, seeing what we asked of it."""
        if outcome.label is Label.CANCELLED or (outcome.label is Label.LOST and running.cancelled is not None):
            why = reading.pruned(self._journal, self.study, event.attempt)
            if why is not None:
                return Outcome(Label.PRUNED, why, accelerator=self._accelerator_of(running.cluster))
        if outcome.label is Label.CANCELLED and running.overdue:
            return replace(outcome, label=Label.LOST, reason="it did not end in time")
        if outcome.label is Label.LOST and event.report is None and running.started is None:
            self._never_began[running.experiment.id] += 1
            # It had not begun: that says nothing of it, unless it never does.
            if self._never_began[running.experiment.id] <= ATTEMPTS:
                return replace(outcome, label=Label.CANCELLED)
        return outcome

    def _consequences(self, experiment: Experiment, cluster: str, outcome: Outcome) -> None:
        load = self._loads[cluster]
        if outcome.label is Label.CANCELLED:
            self.waiting.put_back(experiment, self._accelerator_of(cluster))
            self._changed()
            return
        if outcome.label is None or not outcome.label.infrastructure:
            load.strikes = 0
            self._finish(experiment, outcome)
            return
        load.strikes += 1
        if load.strikes >= STRIKES and len(self.clusters) > 1:
            self._replace(cluster, f"{load.strikes} failures in a row, the last {outcome.label}: {outcome.reason}")
        self._failed_on[experiment.id].add(cluster)
        self._shunned[cluster].add(experiment.id)
        failures = reading.infrastructure_failures(self._journal, self.study, experiment.id)
        if failures >= ATTEMPTS:
            self._record(ExperimentAbandoned(experiment.id, outcome.label, outcome.reason))
            self._finish(experiment, outcome)
        else:
            self._resting[experiment.id] = experiment
            self._spawn(self._rest(experiment, self._accelerator_of(cluster), RETRY_SECONDS * 2 ** (failures - 1)))

    async def _rest(self, experiment: Experiment, accelerator: str, seconds: float) -> None:
        await self._clock.sleep(seconds)
        if self._resting.pop(experiment.id, None) is not None:
            self.waiting.put_back(experiment, accelerator, astray=True)
            self._changed()

    def _finish(self, experiment: Experiment, outcome: Outcome) -> None:
        self._never_began.pop(experiment.id, None)
        for cluster in self._failed_on.pop(experiment.id, ()):
            self._shunned[cluster].discard(experiment.id)
        self.hooks.finished(experiment, outcome)

    def _cancel(self, attempt: str, overdue: bool = False) -> None:
        running = self.running[attempt]
        if running.cancelled is None:
            self.running[attempt] = replace(running, cancelled=self._clock.monotonic(), overdue=overdue)
            self._spawn(self._cancel_when_submitted(attempt))

    async def _cancel_when_submitted(self, attempt: str) -> None:
        submitting = self._submitting.get(attempt)
        if submitting is not None:
            await asyncio.wait({submitting})
        await self._patiently(self._backend.cancel, attempt)

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
                load = self._loads[running.cluster]
                since = max(running.submitted, load.free_since)
                if load.attempts[0] == attempt and now - since > START_SECONDS:
                    self._abandon(attempt, running, "it does not start what it is given")
        self._release_idle(now)
        if self._missing() > 0 and not self.draining:
            self._acquire()

    def _abandon(self, attempt: str, running: Running, reason: str) -> None:
        if running.cluster in self.clusters:
            self._replace(running.cluster, reason)
        else:
            self._handle(Ended(attempt, None, f"its cluster is gone, {reason}"))

    def _release_idle(self, now: float) -> None:
        """Release clusters for which there is nothing to do, and none in sight; those that idle over the budget too."""
        blocked = self._ledger.overdrawn()
        for name, cluster in list(self.clusters.items()):
            load = self._loads[name]
            if load.attempts or name in self._leaving:
                continue
            tiers = () if self.draining else self._tiers(cluster.accelerator)
            useless = all(not self.waiting.count(tier) or tier in self.blocked for tier in tiers)
            patience = min(IDLE_SECONDS, self._backend.idle_seconds / 2) if self.expecting.intersection(tiers) else 0.0
            if blocked or (useless and now - load.free_since >= patience and self._backend.idle_seconds):
                self._release(name, "the budget" if blocked else "idle")

    # Doing things beside the rest

    def _record(self, *events: Any) -> None:
        if events:
            self._journal.record(self.study, *events)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self._news.set()

    async def _patiently(self, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """What `call` returns, asked again with growing pauses as long as the backend can't be reached."""
        try:
            return await call(*arguments)
        except Unreachable:
            pass
        from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unreachable),
            wait=wait_exponential(multiplier=2, max=PATIENCE_SECONDS),
            sleep=self._clock.sleep,
        )
        return await retrying(call, *arguments)
