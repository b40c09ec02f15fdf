"""What waits to be run, and which of it a free cluster is given. Nothing here submits, records or knows the time.

Confirmations come first, on the accelerators of their tier. A block of them, one seed with all its arms, is a
crossover: it stays on one cluster if it can, so that what distinguishes clusters falls out of the comparison, and its
arms follow each other closely, so that what drifts does too. Another cluster takes a part of it only when it has
nothing else to do.

Screening runs in the order in which waves arranged it. A cluster that is not of the screening tier *helps* when it has
nothing of its own to do. Scores are compared with controls on the same accelerator only, so it takes one of the wave's
controls first, and then at most as many cells for each as the wave itself has.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Container, Iterable, Iterator
from itertools import islice

from controller.records import Experiment, Role, Tier

CELLS_PER_CONTROL = 4
CONTROLS_LEFT = 3
"""Controls that helpers leave to the accelerators of the screening tier."""
LOOK_AHEAD = 64
"""How many that wait are looked at for one that suits."""


class Waiting:
    """Experiments that wait, by tier. `avoid` names, wherever it is an argument, those not to be given out."""

    def __init__(self) -> None:
        self._queues: dict[Tier, OrderedDict[str, Experiment]] = {tier: OrderedDict() for tier in Tier}
        self._blocks: dict[tuple[str, int], str] = {}
        self._astray: set[str] = set()
        self._placed: Counter[tuple[str, str, bool]] = Counter()
        self._controls: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Experiment]:
        for queue in self._queues.values():
            yield from queue.values()

    def count(self, tier: Tier) -> int:
        """How many of `tier` wait."""
        return len(self._queues[tier])

    def add(self, experiments: Iterable[Experiment]) -> None:
        """Append `experiments` in their order."""
        for experiment in experiments:
            self._queues[experiment.tier][experiment.id] = experiment
            self._note(experiment, +1)

    def put_back(self, experiment: Experiment, accelerator: str, *, astray: bool = False) -> None:
        """One that was given out, for `accelerator`, has to be run again: before all others.

        One that is `astray` belongs to no cluster any more: that of its block has failed it.
        """
        if astray:
            self._astray.add(experiment.id)
        if experiment.tier is Tier.SCREENING:
            self._placed[experiment.wave, accelerator, experiment.role is Role.CONTROL] -= 1
        self._queues[experiment.tier][experiment.id] = experiment
        self._queues[experiment.tier].move_to_end(experiment.id, last=False)
        self._note(experiment, +1)

    def withdraw(self, wave: str, tier: Tier) -> list[Experiment]:
        """Take out everything of `wave` and `tier`."""
        found = [experiment for experiment in self._queues[tier].values() if experiment.wave == wave]
        for experiment in found:
            self._remove(experiment)
        return found

    def placed(self, experiment: Experiment, cluster: str, accelerator: str) -> None:
        """`experiment` runs, or ran, on `cluster`: said of every one that was not taken here, after a restart."""
        if experiment.tier is Tier.CONFIRMATION:
            self._blocks.setdefault(_block(experiment), cluster)
        else:
            self._placed[experiment.wave, accelerator, experiment.role is Role.CONTROL] += 1

    def take_confirmation(self, cluster: str, accelerator: str, idle: bool, avoid: Container[str]) -> Experiment | None:
        """The confirmation that `cluster` should run next: of its own block, else of a new one, else of any if idle."""
        fresh = others = None
        for experiment in self._queues[Tier.CONFIRMATION].values():
            if experiment.id in avoid:
                continue
            home = self._home(experiment)
            if home == cluster:
                return self._take(experiment, cluster, accelerator)
            if home is None:
                fresh = fresh or experiment
            else:
                others = others or experiment
        found = fresh or (others if idle else None)
        return self._take(found, cluster, accelerator) if found else None

    def forget(self, cluster: str) -> None:
        """A cluster is gone: what is left of its blocks may find another one."""
        self._blocks = {block: home for block, home in self._blocks.items() if home != cluster}

    def has_block_of(self, cluster: str) -> bool:
        """Whether a confirmation waits that belongs on `cluster`."""
        return any(self._home(one) == cluster for one in self._queues[Tier.CONFIRMATION].values())

    def take_screening(self, cluster: str, accelerator: str, avoid: Container[str]) -> Experiment | None:
        """The next of screening, for a cluster of its tier."""
        for experiment in islice(self._queues[Tier.SCREENING].values(), LOOK_AHEAD):
            if experiment.id not in avoid:
                return self._take(experiment, cluster, accelerator)
        return None

    def take_to_help(self, cluster: str, accelerator: str, avoid: Container[str]) -> Experiment | None:
        """The next of screening that a cluster of another tier may run such that its score can be compared."""
        for experiment in self._queues[Tier.SCREENING].values():
            wave, control = experiment.wave, experiment.role is Role.CONTROL
            if experiment.id in avoid:
                continue
            controls = self._placed[wave, accelerator, True]
            if self._placed[wave, accelerator, False] < CELLS_PER_CONTROL * controls:
                suits = not control
            else:
                suits = control and self._controls[wave] > CONTROLS_LEFT
            if suits:
                return self._take(experiment, cluster, accelerator)
        return None

    def _take(self, experiment: Experiment, cluster: str, accelerator: str) -> Experiment:
        self._remove(experiment)
        self.placed(experiment, cluster, accelerator)
        return experiment

    def _home(self, experiment: Experiment) -> str | None:
        """The cluster that a confirmation belongs on, if any."""
        return None if experiment.id in self._astray else self._blocks.get(_block(experiment))

    def _remove(self, experiment: Experiment) -> None:
        del self._queues[experiment.tier][experiment.id]
        self._astray.discard(experiment.id)
        self._note(experiment, -1)

    def _note(self, experiment: Experiment, more: int) -> None:
        if experiment.tier is Tier.SCREENING and experiment.role is Role.CONTROL:
            self._controls[experiment.wave] += more


def _block(experiment: Experiment) -> tuple[str, int]:
    return experiment.wave, experiment.seed
