"""Studies in a foreign workspace whose experiments are answered by a function instead of by clusters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from controller.clock import VirtualClock
from controller.edits import read_knobs
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
from controller.records import Attempt, Experiment, Factor, Knobs, Label, Outcome, Proposal, Role, Tier
from controller.study import Study, open_study
from controller.wave import Request, advance, begin, design, pointless
from controller.workspace import find, open_directory

Answer = Callable[[Knobs, Experiment], float | Label]
"""The score of an experiment with a file of these knobs, or how it fails."""

HASHES = {"train": "1" * 64, "fixed": "2" * 64}


def open_in(root: Path, tag: str = "mar5") -> Study:
    """The study of the workspace in `root`, begun where it is new."""
    workspace = find(root)
    return open_study(workspace, Journal.open(open_directory(workspace), VirtualClock()), tag)


class Says:
    """A proposer that says what it was told to say, once."""

    name = "told"
    usd_at_most = 0.0
    usd_spent = 0.0

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
        self._knobs: dict[str, Knobs] = {}

    def run(self, experiments: Sequence[Experiment]) -> None:
        """Answer `experiments` in order; what is pointless by then is withdrawn, as the search does it."""
        waiting = deque(experiments)
        events: list[Event] = []
        try:
            while waiting:
                experiment = waiting.popleft()
                self.ran.append(experiment)
                events += self._events_of(experiment)
                if experiment.role is Role.CONTROL and _label(events[-1]) is not None:
                    # One transaction for many results, but what is asked below has to be in the journal.
                    self._record(events)
                    self._withdraw(experiment.wave, waiting)
        finally:
            self._record(events)

    def _withdraw(self, wave: str, waiting: deque[Experiment]) -> None:
        why = pointless(self._study, reading.wave(self._study.journal, self._study.tag, wave))
        if why is not None:
            off = [one for one in waiting if one.wave == wave and one.tier is Tier.SCREENING]
            self._record([ExperimentAbandoned(one.id, Label.CANCELLED, why) for one in off])
            for one in off:
                waiting.remove(one)

    def _record(self, events: list[Event]) -> None:
        if events:
            self._study.journal.record(self._study.tag, *events)
            events.clear()

    def _knobs_of(self, name: str) -> Knobs:
        if name not in self._knobs:
            candidate = reading.candidate(self._study.journal, self._study.tag, name)
            self._knobs[name] = read_knobs(self._study.workspace.source(candidate.commit))
        return self._knobs[name]

    def _events_of(self, experiment: Experiment) -> list[Event]:
        journal, tag = self._study.journal, self._study.tag
        said = self._answer(self._knobs_of(experiment.candidate), experiment)
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


def _label(event: Event) -> Label | None:
    return event.outcome.label if isinstance(event, AttemptEnded) else None


def finish(study: Study, wave: str, answers: Answers) -> None:
    """Take `wave` from where it stands to its end, with `answers` for clusters. Raises NothingRan as `advance` does."""
    results = reading.results_of(study.journal, study.tag, wave=wave)
    more: list[Experiment] | None = [one.experiment for one in results if one.status in ("queued", "running")]
    found = reading.wave(study.journal, study.tag, wave)
    while more is not None:
        answers.run(more)
        more = advance(study, found, VirtualClock())
