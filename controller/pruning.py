"""Whether a run is hopeless: its loss, part of the way, is worse than its incumbent's ever is at that point.

The loss is the trainer's own word. Who reports too low a loss runs to the end and is scored there as everybody is, and
who reports too high a one is ended: a lie wastes the liar's time and nobody else's. The fraction of the budget is the
harness's word.

A run is looked at a few times. At a look its loss is compared with the losses of the incumbent's controls at the same
look on the same accelerator: one more draw from their distribution is above their mean by more than t·s·√(1 + 1/n) with
probability α (the one-sided prediction limit: Hahn & Meeker, Statistical Intervals, 1991, ch. 4). n is the number of
the incumbent's own controls, t the quantile for the degrees of freedom of s, which is pooled with the controls of
earlier incumbents. α is `FALSE_STOP_RATE` shared out equally among the looks that are tested (Bonferroni), since the
points of one curve are correlated in a way that nobody knows.

To be behind is not enough to be ended: the run must also be on its way to end behind. Under a time budget a bigger
model takes fewer steps and starts slowly, and curves cross. In runs of the tiny profile with equal compute, a bigger
model was 0.125 nats behind a smaller one at 0.3 of the budget, twice the limit, and ended 0.044 bits per byte ahead. So
what it is behind, drawn on in a straight line from its first look, must not vanish by the end. Such lags shrink ever
more slowly, so that the line errs in the run's favour. The first look itself is therefore never tested.

What the rate says: of runs whose losses at the looks are distributed, normally, as the incumbent's own, at most this
part is ended, over the draws of the controls too, and provided that each look is tested once. Of runs with lower losses
a smaller part is. What it does not say: how often a run is ended that is behind, and would yet end ahead after a
sharper turn than a straight line. Candidates that learn on another schedule make such turns, wherefore this rule is not
for them (`edits.same_schedule`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import sqrt
from statistics import fmean
from typing import TypeAlias, TypeGuard

from controller.stats import Noise, pooled

LOOKS = (0.2, 0.35, 0.5, 0.7)
"""Fractions of its budget at which a run is looked at. Earlier, curves tell of nothing but the start; later, there is
little left to save."""

FALSE_STOP_RATE = 0.01
"""The probability, over all looks together, that a run whose curve is distributed as the incumbent's own is ended."""

WINDOW = 0.1
"""A loss at a look is the mean over this much of the budget before it: a single step's depends on its batch."""

LEAST_DF = 4
"""At 2 degrees of freedom the limit lies 12 standard deviations off and at 4 it lies 5: fewer would end nobody, and a
spread estimated from so few has to be normal far out in its tails."""

_LARGEST = 1e6
"""Numbers beyond this are no losses, and their sum might be no number."""

Points: TypeAlias = Sequence[tuple[float, float]]
"""(look, smoothed loss) of one run."""


class Curve:
    """What was heard of one run's loss. It keeps a sum and a count for each look, however much it is told."""

    def __init__(self) -> None:
        self._reached = 0.0
        self._sums = [0.0] * len(LOOKS)
        self._counts = [0] * len(LOOKS)

    def add(self, fraction: float, loss: float | None) -> None:
        """At `fraction` of its budget the run's last loss was `loss`.

        A fraction that is none, or that goes back, is not heard at all; where only the loss is missing or no loss, the
        run has come that far in silence.
        """
        if not _is_number(fraction) or not self._reached <= fraction <= 1:  # NaN is nowhere between
            return
        self._reached = fraction
        if not _is_number(loss) or not abs(loss) <= _LARGEST:
            return
        for place, look in enumerate(LOOKS):
            if look - WINDOW < fraction <= look:
                self._sums[place] += loss
                self._counts[place] += 1

    def points(self) -> tuple[tuple[float, float], ...]:
        """(look, mean of the losses heard in the `WINDOW` before it) for each look that is behind the run.

        A point does not change any more. A look before which no loss was heard has none.
        """
        return tuple(
            (look, total / count)
            for look, total, count in zip(LOOKS, self._sums, self._counts, strict=True)
            if count and self._reached > look
        )


def hopeless(curve: Points, references: Sequence[Sequence[Points]]) -> str | None:
    """Why the run with this curve may be ended, in one line; None where it may not. See the top of this file.

    `references` are the curves of finished control runs on the run's accelerator, a group for each incumbent, the one
    that the run is compared with first; the others only say how far such losses spread. Only the latest look is tested,
    by what led to it: call it once for each, as soon as the run has its point. Losses are better when lower, whatever
    the metric's goal. None too where the spread has fewer than `LEAST_DF` degrees of freedom, or the incumbent no two
    controls that differ at the look. Of one alone nobody knows whether its train.py heeds the seed; and where several
    are equal it does not, and any change of the file, however slight, would be beyond a spread of 0.
    """
    if len(curve) < 2 or not references:
        return None
    (earlier, before), (look, loss) = curve[0], curve[-1]
    own = [points for points in map(dict, references[0]) if earlier in points and look in points]
    controls = [points[look] for points in own]
    others = [[loss for points in group for place, loss in points if place == look] for group in references[1:]]
    noise = pooled([group for group in (controls, *others) if _differ(group)])
    if not _differ(controls) or noise is None or noise.df < LEAST_DF:
        return None
    excess, limit = loss - fmean(controls), _limit(noise, len(controls))
    slope = (excess - (before - fmean(points[earlier] for points in own))) / (look - earlier)
    if not excess > limit or not excess + slope * (1 - look) > 0:
        return None
    return (
        f"at {look:.0%} of its budget its loss {loss:.5g} is {excess:.3g} above the mean of {len(controls)} controls,"
        f" where chance explains {limit:.3g}, and it does not catch up in time"
    )


def _limit(noise: Noise, controls: int) -> float:
    """How far above the controls' mean one more of them comes with a look's share of `FALSE_STOP_RATE`."""
    return _quantile(noise.df) * noise.sigma * sqrt(1 + 1 / controls)


@cache
def _quantile(df: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, 1 - FALSE_STOP_RATE / len(LOOKS[1:])))


def _differ(losses: Sequence[float]) -> bool:
    return len(set(losses)) > 1


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
