"""The lives of a study's clusters: asked for, come up, billed, released, and asked for again.

Before clusters are asked for the journal says so, and each is in the journal before it is given anything: after a crash
the next controller takes over what is still up, and closes the books of what is not. What runs on a cluster, and which
of it comes first, is not known here: whoever has the clusters, the *tenant*, says what it needs them for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from controller.backends import Backend, Bundle, Fleet, Unreachable
from controller.budget import Ledger
from controller.clock import Clock
from controller.errands import FAREWELL_SECONDS, PATIENCE_SECONDS, Errands
from controller.journal import ClusterGone, ClustersAsked, ClustersAwaited, ClusterSeen, Journal, reading
from controller.records import Cluster, NothingRan, Tier
from controller.settings import Settings

log = logging.getLogger(__name__)

DEPTH = 2
"""Attempts on a cluster at once: one that runs, and the next."""
ARRIVAL_SECONDS = 900.0
"""How long work that asks for another accelerator, or might queue, waits for the rest of a fleet to come up."""
IDLE_SECONDS = 600.0
"""How long a cluster may have nothing to do before it is released, should it not shut itself down much sooner."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a tenant needs clusters for at the moment."""

    running: int
    """Attempts in flight."""
    waiting: Mapping[Tier, int]
    """Experiments that wait, by tier; none of a tier that the budget lets nothing more be submitted of."""
    expected: Collection[Tier]
    """The tiers that more work may come for."""
    draining: bool
    """Nothing more will be submitted."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whoever the clusters are up for: what it is asked, and what it is told. Clusters are given by name."""

    demand: Callable[[], Demand]
    """What it needs clusters for."""
    came: Callable[[str], None]
    """A cluster is up."""
    vacate: Callable[[str, str], None]
    """A cluster has been given back, and why: what is still held to be on it is lost."""
    gone: Callable[[str], None]
    """A cluster is no more."""
    settled: Callable[[str | None], None]
    """No more clusters come for now; why, where the budget pays for none at all."""


class Clusters(Mapping[str, Cluster]):
    """One study's clusters that are up, by name."""

    def __init__(
        self,
        study: str,
        settings: Settings,
        journal: Journal,
        backend: Backend,
        clock: Clock,
        ledger: Ledger,
        errands: Errands,
        tenant: Tenant,
    ) -> None:
        self.complete = False
        """Whether all have come that will come for now."""
        self._study = study
        self._settings = settings
        self._journal = journal
        self._backend = backend
        self._clock = clock
        self._ledger = ledger
        self._errands = errands
        self._tenant = tenant
        self._up: dict[str, Cluster] = {}
        self._leaving: set[str] = set()
        self._absent: list[str] = []
        """Accelerators of clusters that are gone, and could be had again as far as is known."""
        self._setup: Bundle | None = None
        self._asked = 0
        self._asked_at = clock.now()
        self._why = ""
        """Why those that were asked for are not there yet."""
        self._acquiring: asyncio.Task[None] | None = None
        self._began = clock.monotonic()
        self._ever = False
        self._before = reading.last_at(journal, study)
        """When an earlier controller was last alive, in Unix seconds."""
        self._left = 0
        """Clusters it has left up."""
        self._served: dict[str, tuple[Tier, ...]] = {}
        self._serving: dict[Tier, int] = {}

    def __getitem__(self, name: str) -> Cluster:
        return self._up[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._up)

    def __len__(self) -> int:
        return len(self._up)

    @property
    def coming(self) -> bool:
        """Whether more are being asked for."""
        return self._acquiring is not None and not self._acquiring.done()

    def stays(self, name: str) -> bool:
        """Whether a cluster is up, and not being given back."""
        return name in self._up and name not in self._leaving

    def accelerator_of(self, name: str) -> str:
        """What a cluster has, or had while it was up; empty where it has never been."""
        if name in self._up:
            return self._up[name].accelerator
        return dict(reading.clusters(self._journal, self._study)).get(name, "")

    def tiers(self, accelerator: str) -> tuple[Tier, ...]:
        """The tiers that a cluster with `accelerator` serves: its own, and those that no cluster is there for."""
        if accelerator not in self._served:
            there = {*self._absent, *(cluster.accelerator for cluster in self._up.values())}
            self._served[accelerator] = tuple(
                tier
                for tier in Tier
                if accelerator in (wanted := self._settings.accelerators(tier))
                or (self.complete and there.isdisjoint(wanted))
            )
        return self._served[accelerator]

    def serving(self, tier: Tier) -> int:
        """How many serve `tier` as their own."""
        if tier not in self._serving:
            tiers = [self.tiers(cluster.accelerator) for cluster in self._up.values()]
            self._serving[tier] = sum(tier in one for one in tiers)
        return self._serving[tier]

    # From beginning to end

    async def adopt(self) -> None:
        """Close the books of those that an earlier controller had, and that are up no longer."""
        up = {cluster.name for cluster in await self._errands.patiently(self._backend.up, self._study)}
        self._left = len(up)
        self._settle(up)

    def begin(self, setup: Bundle, clusters: int) -> None:
        """Have so many up from now on, which are set up with `setup`."""
        self._setup = setup
        self._asked = clusters
        self._errands.spawn(self._lose_patience())
        self._acquire()

    def tend(self, idle: Mapping[str, float]) -> None:
        """Release what is not needed, and ask for more where there is work for more.

        `idle` has those with nothing to do, and since when, in the clock's monotonic seconds.
        """
        self._release_idle(idle)
        if self._missing() > 0 and not self._tenant.demand().draining:
            self._acquire()

    def release(self, name: str, reason: str) -> None:
        """Give a cluster back; attempts that are still held to be on it by then are lost."""
        if name not in self._leaving:
            self._leaving.add(name)
            self._errands.spawn(self._see_off(name, reason))

    def vanished(self, name: str, reason: str) -> None:
        """A cluster is no more, which nobody here has asked for."""
        log.warning("cluster has vanished", extra={"cluster": name, "reason": reason})
        if name in self._up:
            self._gone(name, reason)
            return
        # It did while it was coming up, or being given back.
        if self.coming and not self._ledger.bills(name):
            cluster = Cluster(name, self._ledger.dearest_named)
            self._ledger.seen(cluster.name, cluster.accelerator, self._asked_at)
            self._journal.record(self._study, ClusterSeen(cluster, self._asked_at))
        self._bill(name, self._clock.now(), reason)

    def awaited(self, reason: str) -> None:
        """Clusters are not there yet, and why."""
        if reason != self._why:
            self._why = reason
            log.info("clusters are awaited", extra={"reason": reason})
            self._journal.record(self._study, ClustersAwaited(reason))

    async def close(self) -> None:
        """Give all back, and record that they are; those that can't be reached shut themselves down."""
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._errands.patiently(self._backend.release, list(self._up))
                for name in list(self._up):
                    self._gone(name, "released")
                await self._return_unknown()
        except TimeoutError:
            log.warning("clusters could not be released", extra={"clusters": ", ".join(self._up)})

    # Coming up

    def _acquire(self) -> None:
        if not self.coming:
            self._acquiring = self._errands.spawn(self._bring_up())

    async def _bring_up(self) -> None:
        pause = PATIENCE_SECONDS
        while not self._tenant.demand().draining and (missing := self._missing()) > 0:
            # What an earlier controller left up is taken over, whatever it is good for.
            affordable = max(self._ledger.affordable(missing), min(missing, self._left))
            self._left = 0
            if not affordable:
                break
            await self._ask_for(affordable)
            self._go_without_more()
            if self._missing() <= 0:
                await self._return_unknown()
            if not self._ever and self._clock.monotonic() - self._began >= ARRIVAL_SECONDS:
                because = f": {self._why}" if self._why else ""
                raise NothingRan(f"no cluster could be had within {ARRIVAL_SECONDS / 60:.0f} minutes{because}")
            if self._missing() > 0:
                await self._clock.sleep(pause)
                pause = min(2 * pause, 10 * PATIENCE_SECONDS)
        refused = None
        if not self._up and not self._tenant.demand().draining and not self._ledger.affordable(1):
            refused = "the budget, or the time that is left, does not suffice for a cluster that could run anything"
        self._go_without_more(refused)

    async def _ask_for(self, more: int) -> None:
        """Have so many more up than there are, or as many as can be had."""
        wanted = len(self._up) + more
        self._ledger.arriving(more)
        assert self._setup is not None
        fleet = Fleet(wanted, self._setup, self._study)
        self._journal.record(self._study, ClustersAsked(more))
        self._asked_at = self._clock.now()
        try:
            async for cluster in self._backend.acquire(fleet):
                self._arrived(cluster)
                self._ledger.arriving(max(0, wanted - len(self._up)))
        except Unreachable as error:
            log.warning("clusters could not be asked for", extra={"reason": str(error)})
            await self._return_unknown()
        except NothingRan as error:
            # That of a backend that can have none whatever comes is final, where there are none yet.
            if not self._up and not self.complete:
                raise
            log.warning("no cluster could be had", extra={"reason": str(error)})
        finally:
            self._ledger.arriving(0)
        self._journal.record(self._study, ClustersAsked(0))
        if self._why and self._missing() > 0:
            self._journal.record(self._study, ClustersAwaited(self._why))

    def _missing(self) -> int:
        """How many to ask for: all that are not there, at first; later as many as there is work for again."""
        lacking = self._asked - len(self._up)
        if not self.complete or lacking <= 0:
            return max(0, lacking)
        demand = self._tenant.demand()
        wanted = demand.running + sum(demand.waiting.values()) - len(self._up)
        never_came = max(0, lacking - len(self._absent))
        useful = self._useful(demand)
        return max(0, min(wanted, lacking, never_came + sum(one in useful for one in self._absent)))

    def _useful(self, demand: Demand) -> set[str]:
        """The accelerators for which something waits that a cluster with one of them would be given."""
        return {name for tier in Tier if demand.waiting[tier] for name in self._settings.accelerators(tier)}

    async def _lose_patience(self) -> None:
        await self._clock.sleep(ARRIVAL_SECONDS)
        self._go_without_more()

    def _go_without_more(self, refused: str | None = None) -> None:
        self.complete = True
        self._tenant.settled(refused)
        # One that there is work for, and that does not come, can't be had: its tiers are left to the others.
        useful = self._useful(self._tenant.demand())
        self._absent = [accelerator for accelerator in self._absent if accelerator not in useful]
        self._changed()

    def _arrived(self, cluster: Cluster) -> None:
        if cluster.name in self._up or cluster.name in self._leaving:
            return
        since = self._clock.now() - (cluster.billed_seconds or 0.0)
        self._ledger.seen(cluster.name, cluster.accelerator, since)
        self._journal.record(self._study, ClusterSeen(Cluster(cluster.name, cluster.accelerator), since))
        self._up[cluster.name] = cluster
        self._ever = True
        if cluster.accelerator in self._absent:
            self._absent.remove(cluster.accelerator)
        self._changed()
        log.info("cluster is up", extra={"cluster": cluster.name, "accelerator": cluster.accelerator})
        self._tenant.came(cluster.name)

    def _changed(self) -> None:
        """Which tiers are served has to be found out anew."""
        self._served.clear()
        self._serving.clear()

    # Going

    def _release_idle(self, idle: Mapping[str, float]) -> None:
        """Release those for which there is nothing to do, and none in sight; those that idle over the budget too."""
        demand, now = self._tenant.demand(), self._clock.monotonic()
        blocked = self._ledger.overdrawn()
        for name, since in idle.items():
            if name in self._leaving:
                continue
            tiers = () if demand.draining else self.tiers(self._up[name].accelerator)
            useless = not any(demand.waiting[tier] for tier in tiers)
            expected = any(tier in demand.expected for tier in tiers)
            patience = min(IDLE_SECONDS, self._backend.idle_seconds / 2) if expected else 0.0
            if blocked or (useless and now - since >= patience and self._backend.idle_seconds):
                self.release(name, "the budget" if blocked else "idle")

    async def _see_off(self, name: str, reason: str) -> None:
        await self._errands.patiently(self._backend.release, [name])
        # What the backend has to tell of its attempts comes first.
        await self._clock.sleep(1.0)
        self._tenant.vacate(name, reason)
        self._leaving.discard(name)
        self._gone(name, reason)

    def _gone(self, name: str, reason: str) -> None:
        cluster = self._up.pop(name, None)
        if cluster is None:
            return
        self._absent.append(cluster.accelerator)
        self._changed()
        self._bill(name, self._clock.now(), reason)
        log.info("cluster is gone", extra={"cluster": name, "reason": reason})
        self._tenant.gone(name)

    async def _return_unknown(self) -> None:
        """Release clusters of ours that nobody here has seen come: asked for without an answer, or an earlier run's."""
        for cluster in await self._errands.patiently(self._backend.up, self._study):
            if cluster.name not in self._up and cluster.name not in self._leaving:
                await self._errands.patiently(self._backend.release, [cluster.name])
                until = self._clock.now()
                self._bill_unseen(cluster, until - (cluster.billed_seconds or 0.0), until, "released")

    # The books

    def _settle(self, up: Collection[str]) -> None:
        """Close the books of clusters that are no longer `up`, billed for as long as they may have been."""
        idling, last = self._backend.idle_seconds, self._before
        # What was in flight may have gone on, and its cluster idled, for as long as was reserved, and no longer.
        # Nobody can say how long ago that was: the clock may have been set meanwhile.
        until = last + DEPTH * self._ledger.worst_seconds + idling if idling else last
        leases = reading.leases(self._journal, self._study, open_only=True)
        for lease in leases:
            if lease.cluster not in up:
                self._bill(lease.cluster, until, "it went while no controller was there")
        # Those that were asked for may have come up, found nobody, and shut themselves down.
        unseen = reading.arriving(self._journal, self._study) - len(set(up) - {lease.cluster for lease in leases})
        until = last + ARRIVAL_SECONDS + idling
        for number in range(1, unseen + 1 if idling else 1):
            cluster = Cluster(f"unseen-{number:02d}", self._ledger.dearest_named)
            self._bill_unseen(cluster, last, until, "it was asked for, and nobody was there to see it come")
        self._journal.record(self._study, ClustersAsked(0))

    def _bill(self, name: str, until: float, reason: str) -> None:
        self._journal.record(self._study, ClusterGone(name, until, reason))
        self._ledger.gone(name, until)

    def _bill_unseen(self, cluster: Cluster, since: float, until: float, reason: str) -> None:
        """Bill a cluster that was up, and is no more, without anybody here having seen it."""
        self._journal.record(self._study, ClusterSeen(cluster, since), ClusterGone(cluster.name, until, reason))
        self._ledger.seen(cluster.name, cluster.accelerator, since)
        self._ledger.gone(cluster.name, until)
