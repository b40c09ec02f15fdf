"""A study in two paragraphs: what has come of it, and how to read its picture. Plain text, not yet escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from controller.journal.reading import Study
from dashboards.figures import value_range
from dashboards.history import Row, Step, score_of
from dashboards.text import shorten


def summary(study: Study, rows: Sequence[Row], steps: Sequence[Step]) -> str:
    """The study, its experiments, what was kept, and the best with its interval."""
    if not rows:
        return f"No experiment has been planned yet on branch {shorten(study.branch, 80)}."
    counts = Counter(row["status"] for row in rows)
    done, waiting = counts["done"], counts["queued"] + counts["running"]
    failed = len(rows) - done - waiting
    also = [f"{number:,} {what}" for number, what in ((failed, "failed"), (waiting, "not ended yet")) if number]
    parts = [
        f"{_count(len(rows), 'experiment')} on branch {shorten(study.branch, 80)}: "
        + ", ".join([f"{done:,} with a score", *also])
        + "."
    ]
    if any(row["self_reported"] for row in rows):
        parts.append("The scores are self-reported: the trainer's own word, read from its log.")
    winners = [step for step in steps if step.decision]
    if not winners:
        parts.append("Nothing has been kept yet.")
        if steps:
            parts.append(f"The baseline scores {steps[0].score:.4f} on {_place(steps[0])}.")
        return " ".join(parts)
    best = winners[-1]
    parts.append(
        f"{_count(len(winners), 'candidate')} kept. The best, {best.candidate} ({shorten(best.description, 90)}),"
        f" reaches {shorten(study.metric, 40)} {best.score:.4f} on {_place(best)}{_interval(best)}."
    )
    first = steps[0]
    if first.decision is None and first.accelerator == best.accelerator:
        parts.append(f"The baseline had {first.score:.4f} there.")
    return " ".join(parts)


def caption(study: Study, rows: Sequence[Row], steps: Sequence[Step]) -> str:
    """What the marks mean, how the band was computed, and what lies outside the picture."""
    parts = [
        "Every grey mark is one experiment: light where it screened, dark where it confirmed; its shape is its"
        " accelerator. Crosses on the strip below failed and have no score. A green point is a kept"
        " candidate, at the mean of the runs that confirmed it; the line is the best so far. Screening scores never"
        " move it: the best of many was partly lucky."
    ]
    noises = {step.accelerator: step.noise for step in steps if step.noise}
    if noises:
        sizes = " and ".join(
            f"{noise.sigma:.2g} on {shorten(name or 'unknown', 24)} ({noise.df:,} degrees of freedom)"
            for name, noise in noises.items()
        )
        parts.append(
            f"The band is ± one standard deviation of a single run, {sizes}: how far repeated runs of an incumbent"
            " (its controls and confirmations) lie from their mean, pooled over all incumbents."
        )
    if len({step.accelerator for step in steps}) > 1:
        parts.append("The line joins scores from several accelerators, whose levels can't be compared.")
    scores = [score for row in rows if (score := score_of(row, study.metric)) is not None]
    if scores:
        shown = value_range(scores, steps, study.minimize)
        hidden = sum(not shown.low <= score <= shown.high for score in scores)
        if hidden:
            parts.append(f"Outside the axis: {_count(hidden, 'score')}; double-click the picture to see all.")
    return " ".join(parts)


def _interval(step: Step) -> str:
    decision = step.decision
    if decision is None or decision.change is None or decision.low is None or decision.high is None:
        return ""
    change, low, high = (
        f"{number:+.4f}".replace("-", "−") for number in (decision.change, decision.low, decision.high)
    )
    return f", a change of {change} [{low}, {high}] from its predecessor"


def _place(step: Step) -> str:
    runs = f"mean of {_count(step.runs, 'run')}"
    return f"{shorten(step.accelerator or 'an unknown accelerator', 24)} ({runs})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
