"""A study with everything that can happen to one, as events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.clock import VirtualClock
from controller.journal import (
    AttemptEnded,
    AttemptPruned,
    AttemptStarted,
    AttemptSubmitted,
    ClusterGone,
    ClustersAsked,
    ClusterSeen,
    ConfirmationPlanned,
    Event,
    ExperimentAbandoned,
    Journal,
    NoteAdded,
    NoteRetired,
    ProgramChanged,
    ProposerAnswered,
    ProposerAsked,
    RunStarted,
    RunStopped,
    SettingsChanged,
    StudyStarted,
    WaveDecided,
    WaveDesigned,
    WaveEnded,
)
from controller.records import (
    Attempt,
    Candidate,
    Cluster,
    Decision,
    Design,
    Experiment,
    Factor,
    Label,
    Objection,
    Outcome,
    Proposal,
    Refusal,
    Role,
    Tier,
    Verdict,
    Wave,
)

TAG = "mar5"
BASE, EDIT, WIDER = "a" * 40, "b" * 40, "c" * 40


def _experiment(name: str, candidate: str, role: Role, seed: int, tier: Tier = Tier.SCREENING) -> Experiment:
    return Experiment(name, "w01", candidate, role, tier, seed, seed % 100)


def _attempt(number: int, experiment: str, cluster: str = "h100-1") -> Attempt:
    return Attempt(f"{TAG}.{experiment}.{number}", experiment, cluster, f"nonce of {experiment} {number}")


def _measured(score: float, accelerator: str = "H100") -> Outcome:
    return Outcome(
        label=None,
        metrics={"val_bpb": score, "peak_vram_mb": 2048.0},
        accelerator=accelerator,
        hashes={"train": "11", "fixed": "22"},
        budget="300 s",
        timings={"warmup": 2.5, "training": 300.0, "total": 310.0},
        curve=((0.2, 3.5), (0.35, 3.25)),
    )


def _run(number: int, experiment: str, outcome: Outcome, cluster: str = "h100-1", pruned: bool = False) -> list[Event]:
    attempt = _attempt(number, experiment, cluster)
    hopeless: list[Event] = [AttemptPruned(attempt.id, "far behind")] if pruned else []
    return [AttemptSubmitted(attempt), AttemptStarted(attempt.id), *hopeless, AttemptEnded(attempt.id, outcome)]


def night() -> list[Event]:
    """One wave, from its study's start to its keep: scores, a crash, a lost cluster, an experiment given up.

    Its winner was put on top of another incumbent before it was confirmed.
    """
    begun = VirtualClock().now()
    candidates = (
        Candidate("c0001", EDIT, BASE, {"RATE": 0.3, "BETAS": (0.8, 0.95)}, "model 1", "p0001"),
        Candidate("c0002", WIDER, BASE, {"WIDTH": 8}, "model 2", "p0001"),
        Candidate("c0003", "d" * 40, BASE, {"SHAPE": "steep"}, "model 3", "p0002"),
    )
    factors = (Factor("RATE", (0.3, 0.5)), Factor("WIDTH", (4, 8)))
    cells = (
        _experiment("e0001", "c0000", Role.CONTROL, 101),
        _experiment("e0002", "c0001", Role.CELL, 101),
        _experiment("e0003", "c0002", Role.CELL, 101),
        _experiment("e0004", "c0003", Role.CELL, 101),
        _experiment("e0005", "c0000", Role.CONTROL, 102),
    )
    confirmations = (
        _experiment("e0006", "c0004", Role.CONFIRMATION, 501, Tier.CONFIRMATION),
        _experiment("e0007", "c0000", Role.CONTROL, 501, Tier.CONFIRMATION),
    )
    moved = Candidate("c0004", "f" * 40, BASE, {"RATE": 0.3}, "model 4", "p0001", "c0001")
    lost = Outcome(Label.LOST, "its cluster was preempted")
    keep = Decision(
        *("w01", "c0004", Verdict.KEEP, -0.04, -0.05, -0.03, "keep c0004, “better” by 0.04"),
        *((501,), (0.96,), (1.0,), "H200"),
    )
    return [
        StudyStarted(
            Candidate("c0000", BASE, BASE, {}, "model 0"),
            f"autoresearch/{TAG}",
            "val_bpb",
            True,
            {"min_effect": 0.0005, "budget": {"hours": None}},
        ),
        ProgramChanged("Make it faster."),
        RunStarted({"clusters": 2, "caps": {"gpu_hours": 8.0}}),
        ClustersAsked(2),
        ClusterSeen(Cluster("h100-1", "H100"), begun),
        ClusterSeen(Cluster("h200-1", "unknown"), begun),
        ProposerAsked(1, 0.75),
        ProposerAnswered(1, 0.5),
        WaveDesigned(
            Wave("w01", 1, 7, "c0000", "doe", {"factors": ("RATE=0.3",), "seed": 7}, {"RATE": 0.5, "WIDTH": 4}),
            {
                "p0001": Proposal("faster", "it learns too fast\nand too “loud”", factors, predicted=-0.01),
                "p0002": Proposal(
                    *("steeper", "steeper is better", (), Design.SWEEP, "SHAPE = 'steep'\n"),
                    *(-0.02, -0.03, 0.0, "no change at all", "c0009"),
                ),
            },
            (Refusal("worse", "zero may do", "it fails its own assertion: WIDTH > 0", Objection.ASSERTION),),
            candidates,
            cells,
        ),
        *_run(1, "e0001", _measured(1.0)),
        *_run(1, "e0002", lost, "h100-2"),
        *_run(2, "e0002", _measured(0.95)),
        *_run(1, "e0003", Outcome(Label.CRASH, "exit code 1: ValueError: no", accelerator="H100"), pruned=True),
        *(event for number in (1, 2, 3) for event in _run(number, "e0004", lost)),
        ExperimentAbandoned("e0004", Label.LOST, "its cluster was preempted"),
        AttemptSubmitted(_attempt(1, "e0005")),
        AttemptEnded(_attempt(1, "e0005").id, Outcome(Label.CANCELLED, "stopped by the user")),
        SettingsChanged({"min_effect": 0.0005, "budget": {"hours": 8.0}}),
        ProgramChanged("Make it faster.\nAnd “smaller”.", "1 line added"),
        NoteAdded("n0001", "deeper is slower", "agent"),
        NoteAdded("n0002", "try “less” decay", "person", "mar5.1800000000.000000.77.json"),
        NoteRetired("n0001", "it was noise"),
        *_run(2, "e0005", _measured(1.02)),
        ClusterGone("h200-1", begun + 30, "idle"),
        ClusterSeen(Cluster("h200-1", "H200"), begun + 40),
        ConfirmationPlanned("w01", "c0000", {"RATE": 0.5, "WIDTH": 4}, confirmations, (moved,)),
        *_run(1, "e0006", _measured(0.96, "H200"), "h200-1"),
        *_run(1, "e0007", _measured(1.0, "H200"), "h200-1"),
        WaveDecided("w01", (keep,)),
        WaveEnded("w01", "c0004", "e" * 40),
        RunStopped("waves", "1 wave asked for, and done"),
        ProposerAsked(2, 0.75),
    ]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / ".autoresearch"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def journal(directory: Path, clock: VirtualClock) -> Iterator[Journal]:
    """An empty journal."""
    opened = Journal.open(directory, clock)
    yield opened
    opened.close()


@pytest.fixture
def events() -> list[Event]:
    return night()


@pytest.fixture
def designed(events: list[Event]) -> list[Event]:
    """The events as far as that of the wave's design."""
    return events[: 1 + next(place for place, event in enumerate(events) if isinstance(event, WaveDesigned))]


@pytest.fixture
def full(journal: Journal, clock: VirtualClock, events: list[Event]) -> Journal:
    """A journal with a whole wave in it, every event at a moment of its own."""
    for event in events:
        clock.leap(1.5)
        journal.record(TAG, event)
    return journal
