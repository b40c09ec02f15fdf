"""What an attempt does on its cluster, step by step, as long as nothing befalls it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from controller.backends.protocol import Bundle
from controller.backends.simulated.truth import Nature, Truth
from controller.records import Label

PROGRESS = tuple(number / 10 for number in range(1, 10))
"""Fractions of its budget at which a run tells its loss."""


@dataclass(frozen=True, slots=True)
class Run:
    """An attempt that begins to run. `began` is in seconds of the world; `machine` is what its cluster consists of."""

    attempt: str
    bundle: Bundle
    cluster: str
    machine: str
    accelerator: str
    began: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The run has spent `fraction` of its budget, and this is its loss."""

    fraction: float
    loss: float


@dataclass(frozen=True, slots=True)
class Result:
    """The run is over: what its harness says of it."""

    status: str
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)


Step: TypeAlias = tuple[float, str | Progress | Result | None]
"""So many seconds after the step before: a line of its log, its progress, its result, or nothing yet."""


class Behaviour(Protocol):
    """What runs do."""

    def __call__(self, run: Run) -> Iterator[Step]:
        """The steps of a run. After a result none is taken; a run whose steps end without one goes on for ever."""


class Lifelike:
    """Runs that train, report and score as `truth` has it."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    def __call__(self, run: Run) -> Iterator[Step]:
        truth, seconds, job = self._truth, self._truth.scenario.seconds, run.bundle.job
        nature = truth.nature(edited_file(run.bundle))
        yield 0.0, f"simulated on {run.accelerator}: {', '.join(nature.changes) or 'the baseline'}"
        match nature.fate:
            case "crash":
                wait = seconds.around * (0.5 + truth.draw("crash", nature.name))
                yield wait, Result(Label.CRASH, "exit code 1: simulated")
            case "overtime":
                yield float(job["timeout"]), Result(Label.OVERTIME, "past its time limit: simulated")
            case _:
                yield from self._trains(run, nature)

    def _trains(self, run: Run, nature: Nature) -> Iterator[Step]:
        truth, seconds, job = self._truth, self._truth.scenario.seconds, run.bundle.job
        score = truth.score(nature, run.accelerator, run.machine, int(job["seed"]), run.attempt, run.began)
        around = seconds.around * (truth.numbers.slow.by if truth.is_slow(run.machine) else 1.0)
        before = 0.0
        for fraction in PROGRESS:
            pause = seconds.training * (fraction - before) + (0.0 if before else around / 2)
            yield pause, Progress(fraction, truth.loss(nature, score, run.attempt, fraction))
            before = fraction
        metrics = {str(job["metric"]): score, "training_seconds": seconds.training}
        rest = seconds.training * (1 - before) + around / 2
        yield rest, Result("done", metrics=metrics, timings={"training": seconds.training})


def edited_file(bundle: Bundle) -> str:
    """The text of the editable file in a bundle."""
    with tarfile.open(fileobj=io.BytesIO(bundle.archive), mode="r:") as tar:
        file = tar.extractfile(str(bundle.job["edit"]))
        assert file is not None
        return file.read().decode(errors="surrogateescape")
