"""Studies in a foreign workspace whose experiments are answered by a function instead of by clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from controller.backends import Bundle
from controller.clock import VirtualClock
from controller.journal import (
    AttemptEnded,
    AttemptStarted,
    AttemptSubmitted,
    Event,
    ExperimentAbandoned,
    Journal,
    reading,
)
from controller.proposers import Context
from controller.records import Attempt, Experiment, Factor, Knobs, Label, Outcome, Proposal
from controller.study import Study, open_study
from controller.wave import Request, begin, design
from controller.workspace import find, open_directory

Answer = Callable[[Knobs, Experiment], float | Label]
"""The score of an experiment with these knobs, or how it fails."""

HASHES = {"train": "1" * 64, "fixed": "2" * 64}


def open_in(root: Path, tag: str = "mar5") -> Study:
    """The study of the workspace in `root`, begun where it is new."""
    workspace = find(root)
    return open_study(workspace, Journal.open(open_directory(workspace), VirtualClock()), tag)


class Says:
    """A proposer that says what it was told to say, once."""

    name = "told"

    def __init__(self, *proposals: Proposal) -> None:
        self._proposals = list(proposals)

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        said, self._proposals = self._proposals, []
        return said


def factors(**levels: Sequence[object]) -> Proposal:
    """A full factorial of these levels."""
    crossed = tuple(Factor(knob, tuple(values)) for knob, values in levels.items())  # type: ignore[arg-type]
    return Proposal("crossed", "one of these is better", crossed)


async def wave_of(study: Study, *proposals: Proposal, seed: int = 0, clusters: int = 2) -> str:
    """Design and begin a wave; returns its id."""
    request = Request({"seed": seed}, seed, clusters, 12)
    proposer = Says(*proposals)
    return begin(study, proposer, request, await design(study, proposer, request), VirtualClock()).id


class Answers:
    """In the scheduler's place: runs what it is given at once, by asking a function."""

    def __init__(self, study: Study, answer: Answer, accelerator: str = "H100") -> None:
        self._study = study
        self._answer = answer
        self._accelerator = accelerator
        self.ran: list[Experiment] = []

    async def run(
        self,
        experiments: Sequence[Experiment],
        bundle: Callable[[Experiment], Bundle],
        pointless: Callable[[], str | None] = lambda: None,
    ) -> None:
        events: list[Event] = []
        try:
            for experiment in experiments:
                self.ran.append(experiment)
                events += self._events_of(experiment)
        finally:
            self._study.journal.record(self._study.tag, *events)

    def _events_of(self, experiment: Experiment) -> list[Event]:
        journal, tag = self._study.journal, self._study.tag
        wave = reading.wave(journal, tag, experiment.wave)
        changed = reading.candidate(journal, tag, experiment.candidate).knobs
        said = self._answer({**wave.base, **({} if experiment.candidate == wave.incumbent else changed)}, experiment)
        if isinstance(said, Label):
            outcome = Outcome(said, "as the test has it", accelerator=self._accelerator)
        else:
            metrics = {self._study.now.metric: said}
            outcome = Outcome(None, "", metrics, self._accelerator, HASHES, "300 s", {"training": 9.0})
        name = f"{tag}.{experiment.id}.{len(reading.attempts(journal, tag, experiment=experiment.id)) + 1}"
        attempt = Attempt(name, experiment.id, "cluster-1", "nonce")
        events: list[Event] = [AttemptSubmitted(attempt), AttemptStarted(name), AttemptEnded(name, outcome)]
        if outcome.label is not None and outcome.label.infrastructure:
            events.append(ExperimentAbandoned(experiment.id, outcome.label, outcome.reason))
        return events
