"""Which cluster is given what next: from what waits, what each has been given already, and what the budget allows.

A cluster has its next attempt before it is free. Confirmations go before screening, and its own tiers before others';
an experiment that the infrastructure has failed on one cluster goes to another. Nothing here submits, records or knows
the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence, Set

from controller.budget import Ledger
from controller.clusters import DEPTH, Clusters
from controller.records import Cluster, Experiment, Tier
from controller.waiting import Waiting


class Placing:
    """What every cluster has been given, and what it should be given next."""

    def __init__(self, waiting: Waiting, clusters: Clusters, ledger: Ledger) -> None:
        self.blocked: dict[Tier, str] = {}
        """Why the budget lets nothing more of a tier be submitted."""
        self._waiting = waiting
        self._clusters = clusters
        self._ledger = ledger
        self._on: dict[str, list[str]] = defaultdict(list)
        self._with_room: set[str] = set()
        self._failed_on: dict[str, set[str]] = defaultdict(set)
        self._shunned: dict[str, set[str]] = defaultdict(set)

    def on(self, cluster: str) -> Sequence[str]:
        """The attempts on a cluster, in the order of their submission."""
        return self._on[cluster]

    def came(self, cluster: str) -> None:
        """A cluster is up."""
        self._note_room(cluster)

    def gone(self, cluster: str) -> None:
        """A cluster is no more; what it was given may still have to be heard of."""
        self._with_room.discard(cluster)
        self._waiting.forget(cluster)

    def given(self, attempt: str, cluster: str) -> None:
        """An attempt is on its way to a cluster, or there already."""
        self._on[cluster].append(attempt)
        self._note_room(cluster)

    def ended(self, attempt: str, cluster: str) -> None:
        """An attempt is over."""
        self._on[cluster].remove(attempt)
        self._note_room(cluster)

    def failed(self, experiment: str, cluster: str) -> None:
        """The infrastructure has failed an experiment on this cluster."""
        self._failed_on[experiment].add(cluster)
        self._shunned[cluster].add(experiment)

    def finished(self, experiment: str) -> None:
        """An experiment will not be placed again."""
        for cluster in self._failed_on.pop(experiment, ()):
            self._shunned[cluster].discard(experiment)

    def fill(self) -> Iterator[tuple[Experiment, str]]:
        """What is to run on clusters that run nothing, then what is to queue on those that have nothing queued.

        Each is to be said to be `given` before the next is asked for. Near the end, or while clusters are still coming
        up, what is queued on one would leave another one idle.
        """
        waiting, clusters = self._waiting, self._clusters
        self.blocked = {}
        plenty = {tier for tier in Tier if clusters.complete and waiting.count(tier) > clusters.serving(tier)}
        for depth in (0, 1):
            if depth and not plenty and not waiting.count(Tier.CONFIRMATION):
                return
            for name in sorted(self._with_room):
                if len(self._on[name]) != depth or not clusters.stays(name):
                    continue
                experiment = self._pick(clusters[name], plenty if depth else set(Tier), idle=not depth)
                if experiment is not None:
                    yield experiment, name
                if len(self.blocked) == len(Tier) or not len(waiting):
                    return

    def _pick(self, cluster: Cluster, tiers: Set[Tier], idle: bool) -> Experiment | None:
        """What `cluster` should have next, of `tiers` or of a block it has begun; None where there is nothing."""
        waiting, name, accelerator = self._waiting, cluster.name, cluster.accelerator
        own, avoid = self._clusters.tiers(accelerator), self._avoided(name)
        if (
            Tier.CONFIRMATION in own
            and waiting.count(Tier.CONFIRMATION)
            # What it would queue of another tier instead has no more need of this cluster.
            and (not tiers.isdisjoint(own) or waiting.has_block_of(name))
            and self._may(Tier.CONFIRMATION, accelerator)
        ):
            found = waiting.take_confirmation(name, accelerator, idle, avoid)
            if found is not None:
                return found
        if Tier.SCREENING not in tiers or not waiting.count(Tier.SCREENING):
            return None
        if Tier.SCREENING in own:
            may = self._may(Tier.SCREENING, accelerator)
            return waiting.take_screening(name, accelerator, avoid) if may else None
        # Until the fleet is complete nobody knows whether this cluster is needed for its own tier; and what it has
        # queued would keep it from the confirmations of others once it is free.
        if not self._clusters.complete or (not idle and any(waiting.count(tier) for tier in own)):
            return None
        # That a helper would be too dear says nothing of the tier's own clusters.
        if self._ledger.refusal(Tier.SCREENING, accelerator) is not None:
            return None
        return waiting.take_to_help(name, accelerator, avoid)

    def _may(self, tier: Tier, accelerator: str) -> bool:
        refused = self._ledger.refusal(tier, accelerator)
        if refused is not None:
            self.blocked[tier] = refused
        return refused is None

    def _avoided(self, cluster: str) -> set[str]:
        """What the infrastructure has failed on this cluster, as long as there is another one."""
        shunned = self._shunned.get(cluster)
        if not shunned:
            return set()
        return {one for one in shunned if not self._failed_on[one].issuperset(self._clusters)}

    def _note_room(self, cluster: str) -> None:
        if len(self._on[cluster]) < DEPTH:
            self._with_room.add(cluster)
        else:
            self._with_room.discard(cluster)
