"""A made-up study of any size, written through the journal's own events: material for tests and measurements.

The search it pretends to be is plausible – waves of factor levels around an incumbent, controls, failures, a few
winners that get rarer – and the same for the same number of experiments.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from controller.clock import VirtualClock
from controller.journal import (
    AttemptEnded,
    AttemptStarted,
    AttemptSubmitted,
    ClusterSeen,
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
    Cluster,
    Decision,
    Experiment,
    Factor,
    Label,
    Outcome,
    Proposal,
    Role,
    Tier,
    Verdict,
    Wave,
)

TAG = "synthetic"
SEEDS = 3
PROMOTED = 2
CONTROLS = 3
NOISE = 0.0009
FLOOR = 0.925
OFFSET = {"H100": 0.0, "H200": -0.0045}
FAILURES = (Label.CRASH, Label.OUT_OF_MEMORY, Label.DIVERGED, Label.OVERTIME)
IDEAS: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("MATRIX_LR", "a higher matrix learning rate, since the loss still falls at the end", (0.03, 0.04, 0.05, 0.06)),
    ("EMBEDDING_LR", "embeddings learn too slowly for the short budget", (0.2, 0.4, 0.6, 0.8)),
    ("WARMDOWN_RATIO", "a longer warmdown lets the weights settle", (0.3, 0.5, 0.7, 0.9)),
    ("WEIGHT_DECAY", "less weight decay, because five minutes cannot overfit", (0.0, 0.05, 0.1, 0.2)),
    ("DEPTH", "a shallower and faster model sees more tokens", (6, 8, 10, 12)),
    ("ADAM_BETA2", "a shorter second-moment memory follows the early curvature", (0.9, 0.95, 0.98, 0.99)),
    ("SOFTCAP", "a lower softcap keeps the logits in the range of bf16", (10.0, 15.0, 20.0, 30.0)),
)


def fill(directory: Path, experiments: int, tag: str = TAG, wave_size: int | None = None) -> str:
    """Write a study of exactly `experiments` experiments into the journal in `directory`; its tag.

    Waves screen `wave_size` experiments; if that is not said, more where the study is large, so that it is soon made.
    """
    clock = VirtualClock(seed=experiments)
    journal = Journal.open(directory, clock)
    try:
        search = _Search(journal, clock, tag, experiments)
        search.wave_size = wave_size or search.wave_size
        search.run()
    finally:
        journal.close()
    return tag


@dataclass(frozen=True)
class _Arm:
    """A candidate with the score it would have on an H100 if there were no noise."""

    candidate: Candidate
    truth: float


class _Search:
    def __init__(self, journal: Journal, clock: VirtualClock, tag: str, experiments: int) -> None:
        self.journal = journal
        self.clock = clock
        self.tag = tag
        self.left = experiments
        self.random = random.Random(experiments)
        # Few large events: planning costs one transaction a wave, whatever its size.
        self.wave_size = 12 if experiments < 1000 else 500
        self.candidates = self.experiments = self.waves = 0
        self.incumbent = _Arm(self._candidate("", {}, ""), 0.9979)

    def run(self) -> None:
        branch = f"autoresearch/{self.tag}"
        baseline = self.incumbent.candidate
        start = StudyStarted(baseline, branch, "val_bpb", True, {"budget": {"hours": 8}})
        began = self.clock.now()
        clusters = [ClusterSeen(Cluster(f"c{number:02}", _accelerator(number)), began) for number in range(16)]
        self._record(start, *clusters)
        while self.left:
            self._wave()

    def _wave(self) -> None:
        self.waves += 1
        wave = f"w{self.waves:04}"
        incumbent = self.incumbent
        confirming = (PROMOTED + 1) * SEEDS
        room = min(self.wave_size, max(self.left - confirming, 1))
        controls = [_Arm(incumbent.candidate, incumbent.truth)] * min(CONTROLS, room)
        knob, hypothesis, levels = self.random.choice(IDEAS)
        proposal = f"p{self.waves:04}"
        cells = [self._cell(proposal, knob, levels) for _ in range(room - len(controls))]
        arms = controls + cells
        roles = [Role.CONTROL] * len(controls) + [Role.CELL] * len(cells)
        planned = [
            self._experiment(wave, arm, role, Tier.SCREENING, seed)
            for seed, (arm, role) in enumerate(zip(arms, roles, strict=True), 1)
        ]
        designed = WaveDesigned(
            Wave(wave, self.waves, self.waves, incumbent.candidate.id, "doe", {}, {knob: levels[0]}),
            {proposal: Proposal(knob.lower(), hypothesis, (Factor(knob, levels),))},
            (),
            tuple(arm.candidate for arm in cells),
            tuple(planned),
        )
        self._record(designed)
        scores = self._measure(planned, arms, "H100")

        scored = [(score, arm) for score, arm in zip(scores[len(controls) :], cells, strict=True) if score is not None]
        ranked = sorted(scored, key=lambda pair: pair[0])
        promoted = [arm for _, arm in ranked[:PROMOTED]] if self.left >= confirming else []
        contenders = [*promoted, incumbent] if promoted else []
        confirmed = [arm for arm in contenders for _ in range(SEEDS)]
        planned = [
            self._experiment(wave, arm, Role.CONFIRMATION, Tier.CONFIRMATION, number % SEEDS)
            for number, arm in enumerate(confirmed)
        ]
        self._record(ConfirmationPlanned(wave, incumbent.candidate.id, {}, tuple(planned)))
        by_arm = _split(self._measure(planned, confirmed, "H200"), SEEDS)
        decisions = [self._decision(wave, arm, runs, by_arm[-1]) for arm, runs in zip(promoted, by_arm, strict=False)]
        kept = [arm for arm, decision in zip(promoted, decisions, strict=True) if decision.verdict is Verdict.KEEP]
        if kept:
            self.incumbent = min(kept, key=lambda arm: arm.truth)
        winner = self.incumbent.candidate if kept else None
        self._record(
            WaveDecided(wave, tuple(decisions)),
            WaveEnded(wave, winner.id if winner else None, winner.commit if winner else None),
        )

    def _measure(self, planned: list[Experiment], arms: list[_Arm], accelerator: str) -> list[float | None]:
        """Run the experiments, all at once: three transactions."""
        if not planned:
            return []
        scores = [self._score(arm, accelerator) for arm in arms]
        attempts = [Attempt(f"{one.id}-1", one.id, f"c{self.random.randrange(16):02}", "0" * 32) for one in planned]
        ended = [
            AttemptEnded(attempt.id, self._outcome(score, accelerator))
            for attempt, score in zip(attempts, scores, strict=True)
        ]
        self._record(*map(AttemptSubmitted, attempts))
        self._record(*(AttemptStarted(attempt.id) for attempt in attempts), after=4)
        self._record(*ended, after=320)
        return scores

    def _score(self, arm: _Arm, accelerator: str) -> float | None:
        if arm.candidate != self.incumbent.candidate and self.random.random() < 0.05:
            return None
        return arm.truth + OFFSET[accelerator] + self.random.gauss(0, NOISE)

    def _outcome(self, score: float | None, accelerator: str) -> Outcome:
        if score is None:
            return Outcome(self.random.choice(FAILURES), "train.py ended with exit code 1", accelerator=accelerator)
        metrics = {"val_bpb": round(score, 6), "peak_vram_mb": 45060.2, "training_seconds": 300.1}
        return Outcome(None, metrics=metrics, accelerator=accelerator, timings={"train": 300.1, "score": 9.6})

    def _decision(self, wave: str, arm: _Arm, runs: list[float | None], control: list[float | None]) -> Decision:
        scores = tuple(score for score in runs if score is not None)
        controls = tuple(score for score in control if score is not None)
        if not scores or not controls:
            return Decision(wave, arm.candidate.id, Verdict.DISCARD, None, None, None, "it failed when confirmed")
        change = fmean(scores) - fmean(controls)
        verdict = Verdict.KEEP if change + 2 * NOISE < 0 else Verdict.INCONCLUSIVE
        return Decision(
            *(wave, arm.candidate.id, verdict, change, change - 2 * NOISE, change + 2 * NOISE),
            sentence=f"{verdict.value}: {change:+.4f} against concurrent controls",
            seeds=tuple(range(SEEDS)),
            scores=scores,
            control_scores=controls,
            accelerator="H200",
        )

    def _cell(self, proposal: str, knob: str, levels: tuple[float, ...]) -> _Arm:
        knobs = {knob: self.random.choice(levels), "WARMUP_RATIO": round(self.random.uniform(0, 0.3), 2)}
        truth = self.incumbent.truth + self._effect()
        return _Arm(self._candidate(self.incumbent.candidate.id, knobs, proposal), truth)

    def _effect(self) -> float:
        """Most ideas cost a little, some a lot; some gain a part of what is left to gain above `FLOOR`."""
        kind = self.random.random()
        if kind < 0.04:
            return self.random.uniform(0.03, 0.4)
        if kind < 0.2:
            return -self.random.uniform(0.02, 0.12) * (self.incumbent.truth - FLOOR)
        return abs(self.random.gauss(0.002, 0.006))

    def _candidate(self, parent: str, knobs: dict[str, float], proposal: str) -> Candidate:
        commit = f"{self.random.getrandbits(160):040x}"
        name = f"k{self.candidates:05}"
        self.candidates += 1
        return Candidate(name, commit, parent, knobs, commit[:16], proposal)

    def _experiment(self, wave: str, arm: _Arm, role: Role, tier: Tier, seed: int) -> Experiment:
        self.experiments += 1
        self.left -= 1
        return Experiment(f"e{self.experiments:06}", wave, arm.candidate.id, role, tier, seed)

    def _record(self, *events: Event, after: float = 1) -> None:
        self.clock.leap(after)
        self.journal.record(self.tag, *events)


def _accelerator(cluster: int) -> str:
    return "H100" if cluster < 12 else "H200"


def _split(scores: list[float | None], size: int) -> list[list[float | None]]:
    return [scores[start : start + size] for start in range(0, len(scores), size)]
