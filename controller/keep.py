"""The commit of a winner: its trailers carry all that is needed to run it again without the journal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from controller.journal import reading
from controller.promotion import Block, replicate_noise, reproduction_interval
from controller.records import Candidate, Decision, Tier, Wave
from controller.study import Study
from controller.text import describe, one_line

PREFIX = "Autoresearch-"
DIGITS = 10
"""Significant digits of a score in a trailer: more than any report prints."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a commit says of itself, read back from its trailers.

    `low` and `high` bound where the mean of as many new runs should fall; `hashes` are those of train.py, the fixed
    files, data and tokenizer.
    """

    study: str
    candidate: str
    metric: str
    value: float
    low: float
    high: float
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    accelerator: str
    budget: str
    hashes: Mapping[str, str]


def commit_winner(study: Study, wave: Wave, decision: Decision, earlier: Sequence[Block], here: Sequence[Block]) -> str:
    """Fast-forward the study branch to the winner's code; returns the commit.

    Its time is the decision's, so that doing it again after a crash makes the same commit.
    """
    candidate = reading.candidate(study.journal, study.tag, decision.candidate)
    repository = study.workspace.repository
    noise = replicate_noise([*earlier, *here], decision.accelerator)
    runs = [
        result
        for result in reading.results_of(study.journal, study.tag, wave=wave.id)
        if result.experiment.candidate == decision.candidate
        and result.experiment.tier is Tier.CONFIRMATION
        and result.experiment.seed in decision.seeds
        and result.accelerator == decision.accelerator
    ]
    at = reading.decided_at(study.journal, study.tag, wave.id)
    message = _message(study, wave, candidate, decision, reproduction_interval(decision, noise), runs)
    commit = repository.commit_tree(candidate.commit, study.tip, message, at)
    repository.advance(study.branch, commit, study.tip)
    return commit


def claim_of(message: str) -> Claim | None:
    """What a commit message claims in its last paragraph; None where it isn't a winner's."""
    trailers = message.rstrip().rpartition("\n\n")[2]
    found = dict(re.findall(rf"^{PREFIX}([A-Za-z]+): (.+)$", trailers, flags=re.MULTILINE))
    try:
        metric, value = found["Metric"].split()
        low, high = found["Interval"].split()
        return Claim(
            study=found["Study"],
            candidate=found["Candidate"],
            metric=metric,
            value=float(value),
            low=float(low),
            high=float(high),
            seeds=tuple(int(seed) for seed in found["Seeds"].split()),
            scores=tuple(float(score) for score in found["Scores"].split()),
            accelerator=found["Accelerator"],
            budget=found["Budget"],
            hashes=dict(pair.split("=", 1) for pair in found["Hashes"].split()),
        )
    except (KeyError, ValueError):
        return None


def _message(
    study: Study,
    wave: Wave,
    candidate: Candidate,
    decision: Decision,
    interval: tuple[float, float],
    runs: Sequence[reading.Result],
) -> str:
    name, hypothesis = reading.hypotheses(study.journal, study.tag, wave=wave.id)[candidate.proposal]
    trailers = {
        "Study": study.tag,
        "Wave": wave.id,
        "Candidate": candidate.id,
        "Metric": f"{study.now.metric} {fmean(decision.scores):.{DIGITS}g}",
        "Interval": f"{interval[0]:.{DIGITS}g} {interval[1]:.{DIGITS}g}",
        "Change": f"{decision.change:+.6g} {decision.low:+.6g} {decision.high:+.6g}",
        "Seeds": " ".join(str(seed) for seed in decision.seeds),
        "Scores": " ".join(f"{score:.{DIGITS}g}" for score in decision.scores),
        "Control-Scores": " ".join(f"{score:.{DIGITS}g}" for score in decision.control_scores),
        "Accelerator": decision.accelerator,
        "Budget": runs[0].budget,
        "Hashes": " ".join(f"{kind}={digest}" for kind, digest in runs[0].hashes.items()),
        "Experiments": " ".join(run.experiment.id for run in runs),
    }
    if any(run.self_reported for run in runs):
        trailers["Scored-By"] = "the trainer itself (self-reported)"
    lines = "\n".join(f"{PREFIX}{key}: {value}" for key, value in trailers.items())
    subject = f"Keep {candidate.id}: {untrailered(describe(candidate.knobs) or name)}"
    return f"{subject}\n\n{untrailered(decision.sentence)}\n{untrailered(hypothesis)}\n\n{lines}\n"


def untrailered(text: str) -> str:
    """`text` as one line that can't be taken for a trailer of ours, whatever the agent who wrote it had in mind."""
    return one_line(re.sub(PREFIX, "autoresearch ", one_line(text), flags=re.IGNORECASE))
