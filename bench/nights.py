"""Simulated nights, for benchmarks and tests: a workspace of known ideas, a proposer that hands them out, and what came
of it beside what is true.

The workspace's train.py has 30 knobs that are 0. Setting one of them to one of the values 1 to 30 is an idea: 900 of
them, as many as the scenario has proposals, so that its counts hold exactly. Which are good is for the search to find.

    python bench/nights.py [SEED] [SCENARIO]      one night, and what it found
"""

from __future__ import annotations

import logging
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.backends import Backend
from controller.backends.simulated import Scenario, Simulated, Truth, World, load
from controller.budget import Caps
from controller.clock import VirtualClock
from controller.journal import Journal, reading
from controller.proposers import Context, Proposer
from controller.records import Design, Experiment, Factor, Outcome, Proposal
from controller.repo import initialise
from controller.scheduler import Observer, Scheduler
from controller.search import Order, Outside, Search, Stop
from controller.study import Study, open_study
from controller.workspace import Workspace, find, open_directory

KNOBS = [f"K{number:02d}" for number in range(1, 31)]
LEVELS = range(1, 31)
SOURCE = "".join(f"{knob} = 0\n" for knob in KNOBS) + f"print('val_bpb:', {' + '.join(KNOBS)})\n"
IDEAS = [f"{knob}={level}" for knob in KNOBS for level in LEVELS]
PROGRAM = "---\nmin_effect: 0\n{settings}---\nA simulated night.\n"
TAG = "night"
THINKING_SECONDS = (60.0, 120.0)
"""How long somebody who has ideas thinks about the next wave, at least and at most."""


def make_workspace(root: Path, settings: str = "") -> Workspace:
    """A workspace with the 900 ideas in a new folder `root`; `settings` are lines for its front matter."""
    root.mkdir(parents=True)
    (root / "train.py").write_text(SOURCE)
    (root / "program.md").write_text(PROGRAM.format(settings=settings))
    initialise(root)
    return find(root)


class Ideas:
    """Proposes the ideas in an order of its own, a sweep of as many as there is room for, after some thought.

    Once all were proposed it goes on with pairs of them, of which there are more than a night has time for.
    """

    name = "ideas"
    usd_at_most = 0.0
    usd_spent = 0.0

    def __init__(self, clock: VirtualClock, seed: int, seconds: tuple[float, float] = THINKING_SECONDS) -> None:
        self._clock = clock
        self._random = random.Random(f"{seed}:ideas of the night")
        self._ideas = [(knob, level) for knob in KNOBS for level in LEVELS]
        self._random.shuffle(self._ideas)
        self._seconds = seconds

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        await self._clock.sleep(self._random.uniform(*self._seconds))
        chosen, self._ideas = self._ideas[:room], self._ideas[room:]
        sweep: dict[str, list[int]] = {}
        for knob, level in chosen:
            sweep.setdefault(knob, []).append(level)
        factors = tuple(Factor(knob, tuple(levels)) for knob, levels in sorted(sweep.items()))
        ideas = [Proposal("ideas", "one of these is better", factors, Design.SWEEP)] if factors else []
        return ideas + [self._pair() for _ in range(room - len(chosen))]

    def _pair(self) -> Proposal:
        pair = tuple(Factor(knob, (self._random.choice(LEVELS),)) for knob in self._random.sample(KNOBS, 2))
        return Proposal(" and ".join(factor.knob for factor in pair), "these two are better together", pair)


class Nobody:
    """Watches, and says nothing."""

    def changed(self, scheduler: Scheduler) -> None:
        pass

    def ended(self, experiment: Experiment, cluster: str, outcome: Outcome) -> None:
        pass


@dataclass
class Night:
    """A world around a workspace, and the controllers that come and go in it."""

    workspace: Workspace
    scenario: Scenario
    seed: int
    clock: VirtualClock = field(default_factory=VirtualClock)
    world: World = field(init=False)
    alive: bool = True

    def __post_init__(self) -> None:
        self.world = World(Truth(self.scenario, self.seed, SOURCE, IDEAS), self._jump)

    def _jump(self, seconds: float) -> None:
        # The clock of a machine on which nothing runs is nobody's concern.
        if self.alive:
            self.clock.jump(seconds)

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        """The workspace's journal, which is not made to outlast a power cut."""
        journal = Journal.open(open_directory(self.workspace), self.clock, durable=False)
        try:
            yield journal
        finally:
            journal.close()

    def search(
        self,
        journal: Journal,
        order: Order,
        proposer: Proposer | None = None,
        observer: Observer | None = None,
        backend: Backend | None = None,
    ) -> Search:
        """A controller of this night, over `journal`."""
        outside = Outside(
            backend or Simulated(self.world, self.clock),
            proposer or Ideas(self.clock, self.seed),
            observer or Nobody(),
        )
        return Search(open_study(self.workspace, journal, TAG), order, outside, self.clock)

    def run(self, search: Search) -> Stop:
        """A controller from beginning to end."""
        return self.clock.run(search.run())

    def true_score(self, commit: str, accelerator: str | None = None) -> float:
        """What the editable file at `commit` scores in truth, on the confirming accelerator if not said otherwise."""
        truth, fleet = self.world.truth, self.scenario.fleet
        where = accelerator or ("H200" if "H200" in fleet else max(fleet, key=lambda name: fleet[name]))
        return truth.expected(truth.nature(self.workspace.source(commit)), where)


def order(clusters: int = 16, hours: float | None = 8, caps: Caps | None = None, **more: Any) -> Order:
    """What `autoresearch run --clusters 16 --hours 8` asks for; `more` are further fields of an Order."""
    return Order({"proposer": "ideas"}, 0, clusters, caps=caps or Caps(hours=hours), **more)


def finished(study: Study) -> dict[str, int]:
    """Experiments that came to an end, by how they did: `done` or a failure's label."""
    counts = reading.counts(study.journal, study.tag)
    return {status: number for status, number in counts.items() if status not in ("queued", "running")}


def cpu_seconds() -> float:
    """Processor time of this process, and of those that it started and that have ended."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(one)[:2]) for one in who)


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Seconds that its body took: real ones under `real`, the processor's under `cpu`."""
    found: dict[str, float] = {}
    real, cpu = time.perf_counter(), cpu_seconds()
    yield found
    found["real"], found["cpu"] = time.perf_counter() - real, cpu_seconds() - cpu


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    scenario = load(Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as scratch:
        night = Night(make_workspace(Path(scratch, "workspace")), scenario, seed)
        with night.journal() as journal:
            search = night.search(journal, order())
            with stopwatch() as spent:
                print(night.run(search).sentence)
            print(f"{spent['real']:.1f} s, {spent['cpu']:.1f} s of them the processor's")
            print(finished(search.study), reading.totals(journal, TAG))
            print(night.world.use())
            for decision in reading.decisions(journal, TAG):
                print(decision.sentence)
            scores = [night.true_score(commit) for commit in (night.workspace.head, search.study.now.tip)]
            print(f"true scores: {scores[0]:.6f} before, {scores[1]:.6f} after")


if __name__ == "__main__":
    main()
