"""How much a score varies when nothing was changed, estimated from replicates and pooled.

Pooling assumes one σ for all that is pooled: the same metric, accelerator and budget. It buys degrees of freedom: at 2
the 95 % interval is ±4.3 standard errors, at 30 it is ±2.04.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt


@dataclass(frozen=True, slots=True)
class Noise:
    """The standard deviation of one run, in the metric's unit, and the degrees of freedom it was estimated with."""

    sigma: float
    df: int

    def half_width(self, scale: float, confidence: float, together: int = 1) -> float:
        """Half of a two-sided Student interval for an estimate whose standard error is `scale`·σ.

        `together` intervals hold jointly with at least `confidence` (Bonferroni). Raises ValueError where `confidence`
        is not between 0 and 1, or `together` is less than 1.
        """
        from scipy.special import stdtrit

        if not 0 < confidence < 1:
            raise ValueError(f"confidence: {confidence} is not between 0 and 1")
        if together < 1:
            raise ValueError(f"together: {together} is not a number of intervals")
        return float(stdtrit(self.df, 1 - (1 - confidence) / (2 * together))) * self.sigma * scale


def pooled(groups: Sequence[Sequence[float]]) -> Noise | None:
    """The standard deviation within groups of replicates; None where no group has two.

    The squared deviations from each group's own mean, over Σ(n − 1) degrees of freedom (Box, Hunter & Hunter,
    Statistics for Experimenters, 2nd ed., ch. 3). Groups may differ in size and in mean.
    """
    df = sum(max(len(group) - 1, 0) for group in groups)
    return _noise(fsum(_squares(group) for group in groups), df)


def residual(layout: Sequence[Sequence[float]]) -> Noise | None:
    """The noise left in a layout of arms × seeds (rows × columns) once both are allowed for.

    Randomised complete blocks, a arms by s seeds, (a − 1)(s − 1) degrees of freedom (Montgomery, Design and Analysis of
    Experiments, ch. 4). What a seed does to all arms alike is not part of it: this is the noise of paired
    comparisons. None with fewer than two arms or seeds. Raises ValueError where a score is missing: leave out its arm
    or its seed.
    """
    arms = len(layout)
    seeds = len(layout[0]) if layout else 0
    if any(len(row) != seeds for row in layout):
        raise ValueError("layout: every arm needs a score for every seed")
    if arms < 2 or seeds < 2:
        return None
    offsets = [fsum(column) / arms for column in zip(*layout, strict=True)]
    without_seeds = [[score - offset for score, offset in zip(row, offsets, strict=True)] for row in layout]
    return _noise(fsum(_squares(row) for row in without_seeds), (arms - 1) * (seeds - 1))


def combine(*noises: Noise | None) -> Noise | None:
    """One noise from several estimates of the same σ, each weighted by its degrees of freedom; None from none."""
    known = [noise for noise in noises if noise is not None]
    return _noise(fsum(noise.df * noise.sigma**2 for noise in known), sum(noise.df for noise in known))


def _squares(scores: Sequence[float]) -> float:
    """The sum of squared deviations from the mean; 0 for no scores."""
    if not scores:
        return 0.0
    mean = fsum(scores) / len(scores)
    return fsum((score - mean) ** 2 for score in scores)


def _noise(squares: float, df: int) -> Noise | None:
    return Noise(sqrt(squares / df), df) if df > 0 else None
