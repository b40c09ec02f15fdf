"""The story a study tells: the confirmed incumbents one after another, and how much their scores vary by chance.

A step's score is the mean of the runs that confirmed it. A screening score never enters: the best of many noisy scores
is better than what it measures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any

from controller.records import Decision, Role, Tier, Verdict
from controller.stats import Noise, pooled
from dashboards.text import knob_list

Row = Mapping[str, Any]
"""One object of `autoresearch results --json`."""


@dataclass(frozen=True, slots=True)
class Step:
    """An incumbent: known from experiment `number` on, with its mean score and the `decision` that kept it.

    The baseline is the first step and has no decision. `noise` is that of single runs on `accelerator`.
    """

    number: int
    candidate: str
    score: float
    runs: int
    accelerator: str
    description: str
    noise: Noise | None = None
    decision: Decision | None = None


def score_of(row: Row, metric: str) -> float | None:
    """The row's score by `metric`; None where there is none that can be drawn."""
    score: float | None = row["metrics"].get(metric) if row["status"] == "done" else None
    return score if score is not None and isfinite(score) else None


def history(
    rows: Sequence[Row],
    decisions: Sequence[Decision],
    kept: Sequence[tuple[str, str]],
    baseline: str,
    metric: str,
    changed: Mapping[str, Mapping[str, Any]],
) -> list[Step]:
    """The baseline and every kept candidate, oldest first; empty before the baseline has a score.

    `kept` holds (wave, candidate) of the kept winners in order. The baseline's score is the mean of its controls on
    the hardware that confirmed the first winner, so that the line compares like with like as far as it can. `changed`
    holds the knobs that each kept candidate changed: a step is called by them, and by its hypothesis if there are none.
    """
    replicates = _replicates(rows, {baseline, *(candidate for _, candidate in kept)}, metric)
    noise = _noise(replicates)
    steps = []
    verdicts = {(one.wave, one.candidate): one for one in decisions if one.verdict is Verdict.KEEP}
    places = _places(rows, set(kept))
    for key in kept:
        decision = verdicts.get(key)
        if decision is not None and decision.scores and key in places:
            number = places[key]
            steps.append(
                Step(
                    number=number,
                    candidate=decision.candidate,
                    score=fmean(decision.scores),
                    runs=len(decision.scores),
                    accelerator=decision.accelerator,
                    description=knob_list(changed.get(decision.candidate, {})) or _idea(rows[number - 1]),
                    noise=noise.get(decision.accelerator),
                    decision=decision,
                )
            )
    first = _baseline(replicates, baseline, steps[0].accelerator if steps else "", noise)
    return [first, *steps] if first else steps


Replicates = Mapping[tuple[str, str, str], Sequence[tuple[int, float]]]
"""(number, score) of every run of an incumbent, by candidate, accelerator and tier."""


def _replicates(rows: Sequence[Row], incumbents: set[str], metric: str) -> Replicates:
    """Runs in which an incumbent was repeated, not those that made it look good enough to be one."""
    groups: dict[tuple[str, str, str], list[tuple[int, float]]] = defaultdict(list)
    for number, row in enumerate(rows, 1):
        if row["candidate"] in incumbents and row["role"] != Role.CELL:
            score = score_of(row, metric)
            if score is not None:
                groups[row["candidate"], row["accelerator"] or "", row["tier"]].append((number, score))
    return groups


def _noise(replicates: Replicates) -> dict[str, Noise]:
    """By accelerator, the standard deviation within the replicates of one incumbent, pooled over all incumbents."""
    groups: dict[str, list[list[float]]] = defaultdict(list)
    for (_, accelerator, _), runs in replicates.items():
        groups[accelerator].append([score for _, score in runs])
    return {accelerator: noise for accelerator, scores in groups.items() if (noise := pooled(scores)) is not None}


def _places(rows: Sequence[Row], kept: set[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The last experiment of each kept candidate in its wave: from there on it was known."""
    return {key: number for number, row in enumerate(rows, 1) if (key := (row["wave"], row["candidate"])) in kept}


def _baseline(replicates: Replicates, baseline: str, accelerator: str, noise: Mapping[str, Noise]) -> Step | None:
    groups = [(key, runs) for key, runs in replicates.items() if key[0] == baseline]
    if not groups:
        return None
    (_, where, _), runs = max(
        groups, key=lambda group: (group[0][1] == accelerator, group[0][2] == Tier.CONFIRMATION, len(group[1]))
    )
    return Step(
        number=min(number for _, runs in groups for number, _ in runs),
        candidate=baseline,
        score=fmean(score for _, score in runs),
        runs=len(runs),
        accelerator=where,
        description="baseline",
        noise=noise.get(where),
    )


def _idea(row: Row) -> str:
    return str(row["hypothesis"] or row["candidate"])
