"""Studies to draw: a made-up one of any size, and a small one written line by line."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from controller.clock import VirtualClock
from controller.journal import (
    AttemptEnded,
    AttemptSubmitted,
    ConfirmationPlanned,
    Event,
    Journal,
    StudyStarted,
    WaveDecided,
    WaveDesigned,
    WaveEnded,
)
from controller.records import (
    Attempt,
    Candidate,
    Decision,
    Experiment,
    Label,
    Outcome,
    Proposal,
    Role,
    Tier,
    Verdict,
    Wave,
)


def _synthetic() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "synthetic.py"
    spec = importlib.util.spec_from_file_location("bench_synthetic", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fill() -> Callable[[Path, int], str]:
    function: Callable[[Path, int], str] = _synthetic().fill
    return function


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    journal = Journal.open(tmp_path / "journal", VirtualClock())
    yield Study(journal)
    journal.close()


class Study:
    """A study told in a few lines: `start`, `design` a wave, `run` its experiments, `keep` a winner."""

    tag = "mar5"

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def start(self, metric: str = "val_bpb", minimize: bool = True) -> None:
        baseline = Candidate("k0", "a" * 40, "", {}, "m0")
        self.record(StudyStarted(baseline, f"autoresearch/{self.tag}", metric, minimize, {}))

    def design(self, *runs: tuple[str, str, Role], wave: str = "w1", hypothesis: str = "", **knobs: Any) -> None:
        """A wave of (experiment, candidate, role); every candidate but the baseline is new, and all share `knobs`."""
        names = sorted({candidate for _, candidate, _ in runs} - {"k0"})
        candidates = tuple(Candidate(name, "b" * 40, "a" * 40, knobs, name, f"p-{wave}") for name in names)
        proposal = Proposal("idea", hypothesis, ())
        design = Wave(wave, int(wave[1:]), 1, "k0", "doe", {}, {})
        self.record(WaveDesigned(design, {f"p-{wave}": proposal}, (), candidates, _experiments(wave, runs)))

    def confirm(self, *runs: tuple[str, str, Role], wave: str = "w1") -> None:
        self.record(ConfirmationPlanned(wave, "k0", {}, _experiments(wave, runs, Tier.CONFIRMATION)))

    def run(
        self,
        experiment: str,
        result: float | Label,
        accelerator: str = "H100",
        metric: str = "val_bpb",
        self_reported: bool = False,
    ) -> None:
        label = result if isinstance(result, Label) else None
        metrics = {} if isinstance(result, Label) else {metric: result}
        outcome = Outcome(label, "it broke" if label else "", metrics, accelerator, self_reported=self_reported)
        self.record(
            AttemptSubmitted(Attempt(f"a-{experiment}", experiment, "c1", "0")),
            AttemptEnded(f"a-{experiment}", outcome),
        )

    def keep(self, candidate: str, scores: tuple[float, ...], wave: str = "w1", sentence: str = "better") -> None:
        decision = Decision(
            *(wave, candidate, Verdict.KEEP, -0.01, -0.015, -0.005, sentence), (1, 2, 3), scores, (1.0,), "H200"
        )
        self.record(WaveDecided(wave, (decision,)), WaveEnded(wave, candidate, "b" * 40))

    def record(self, *events: Event) -> None:
        self.journal.record(self.tag, *events)


def _experiments(
    wave: str, runs: tuple[tuple[str, str, Role], ...], tier: Tier = Tier.SCREENING
) -> tuple[Experiment, ...]:
    return tuple(
        Experiment(experiment, wave, candidate, role, tier, seed)
        for seed, (experiment, candidate, role) in enumerate(runs, 1)
    )
