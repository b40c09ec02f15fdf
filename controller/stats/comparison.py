"""Is a candidate better than its control, by how much, and what follows.

A change is candidate minus control in the metric's unit, whichever direction is better; only `verdict` knows that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt

from controller.records import Verdict
from controller.stats.noise import Noise


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus control, and the interval in which the true change lies; None is what could not be known."""

    change: float | None
    low: float | None
    high: float | None


def compare(
    candidate: Sequence[float],
    control: Sequence[float],
    noise: Noise | None,
    arms: int,
    confidence: float = 0.95,
) -> Comparison:
    """The mean change over n pairs of runs, with ± t·σ·√(2/n).

    Scores at the same position share a seed. The two-sided intervals of all `arms` candidates confirmed together hold
    jointly with `confidence` (Bonferroni), although they share the control. `noise` should be that of paired runs
    (`residual`); that of independent runs (`pooled`) makes the interval too wide where seeds matter, never too
    narrow. No pairs give no change, no noise no interval. Raises ValueError where scores are not in pairs.
    """
    if len(candidate) != len(control):
        raise ValueError(f"scores: {len(candidate)} of the candidate and {len(control)} of the control are not pairs")
    pairs = len(candidate)
    if not pairs:
        return Comparison(None, None, None)
    change = fsum(a - b for a, b in zip(candidate, control, strict=True)) / pairs
    if noise is None:
        return Comparison(change, None, None)
    half = noise.half_width(sqrt(2 / pairs), confidence, together=arms)
    return Comparison(change, change - half, change + half)


def verdict(comparison: Comparison, min_effect: float, *, minimize: bool, cost: float = 0.0) -> Verdict:
    """What a comparison allows to be said about its candidate.

    Keep: the whole interval is an improvement, and the estimate one of at least `min_effect` (≥ 0, in the metric's
    unit) and the `cost` of more code. Of less code the cost is negative: the interval may then reach that far into
    what is worse, and the estimate must be no worse. Discard: even the favourable end of the interval improves by less
    than is asked for. Inconclusive: anything else, and whatever has no interval.
    """
    change, low, high = comparison.change, comparison.low, comparison.high
    if change is None or low is None or high is None:
        return Verdict.INCONCLUSIVE
    worst, gain, best = (-high, -change, -low) if minimize else (low, change, high)
    if worst > min(cost, 0.0) and gain >= max(min_effect + cost, 0.0):
        return Verdict.KEEP
    if best < max(min_effect + cost, 0.0):
        return Verdict.DISCARD
    return Verdict.INCONCLUSIVE


def prediction_interval(
    scores: Sequence[float],
    noise: Noise,
    repeats: int,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Where the mean of `repeats` new runs of the same thing should fall: mean ± t·σ·√(1/n + 1/repeats).

    (Montgomery & Runger, Applied Statistics and Probability for Engineers, ch. 8.) `noise` should be that of
    independent runs (`pooled`), as new runs do not share a layout's seeds. Raises ValueError where there is no
    score or no repeat.
    """
    if not scores or repeats < 1:
        raise ValueError("a prediction needs at least one score and one repeat")
    mean = fsum(scores) / len(scores)
    half = noise.half_width(sqrt(1 / len(scores) + 1 / repeats), confidence)
    return mean - half, mean + half
