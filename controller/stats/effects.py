"""Which knobs move the metric: main effects and two-factor interactions, by least squares.

Only what the measured cells can tell is reported; the rest is named as not estimable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

from controller.records import Factor, Knobs, Value
from controller.stats.censoring import filled
from controller.stats.contrasts import Column, Contrast, least_squares
from controller.stats.noise import Noise


@dataclass(frozen=True, slots=True)
class Term:
    """A main effect (one knob) or an interaction (two).

    `levels` is (low, high) for a knob with two levels, the one level meant for a knob with any other number, and () for
    an interaction.
    """

    knobs: tuple[str, ...]
    levels: tuple[Value, ...] = ()

    @property
    def name(self) -> str:
        """`LR`, `DEPTH = 8` or `LR × DEPTH`."""
        name = " × ".join(self.knobs)
        return f"{name} = {self.levels[0]!r}" if len(self.levels) == 1 else name

    @property
    def description(self) -> str:
        """The name, and for a knob with two levels from which to which: `LR 0.02 → 0.04`."""
        return f"{self.name} {self.levels[0]!r} → {self.levels[1]!r}" if len(self.levels) == 2 else self.name


@dataclass(frozen=True, slots=True)
class Effect:
    """What a term does to the metric, in its unit; `se`, `low` and `high` are None where the noise is not known.

    A knob with two levels: the change from low to high, averaged over the other knobs. A knob with more: one level
    minus the mean over its measured levels. An interaction: half the difference between one knob's change at the
    other's high and at its low level (Box, Hunter & Hunter, Statistics for Experimenters, 2nd ed., ch. 5), so that in
    a full two-level design all effects have the same standard error.
    """

    term: Term
    estimate: float
    se: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Effects:
    """What could be estimated and what could not: main effects first, each in the order of the factors."""

    estimated: tuple[Effect, ...]
    not_estimable: tuple[Term, ...]


Asked: TypeAlias = list[tuple[Term, Contrast]]
Columns: TypeAlias = dict[Column, list[float]]


def estimate_effects(
    observations: Sequence[tuple[Knobs, float]],
    factors: Sequence[Factor],
    noise: Noise | None,
    confidence: float = 0.95,
    *,
    censored: Sequence[tuple[Knobs, float]] = (),
    minimize: bool = True,
) -> Effects:
    """All main effects, and the interactions of knobs with two levels that the cells can tell apart.

    An observation is one run: the knobs it ran with, every factor's among them, and its score. Replicates, controls and
    missing cells are welcome. A value that is not among its factor's levels, as a control's may be, has an offset of
    its own: it supports an effect only where it is common ground, as the base of a sweep is.

    Interactions that cannot be told from main effects or from each other are named as not estimable and taken to be
    zero, the assumption of every screening design. Intervals are two-sided, each at `confidence` by itself.

    A run that was ended early is `censored`: all that is known is that its score is worse than the bound beside its
    knobs, and `minimize` says which way that is. In its place stands what is to be expected of it, by the fit alone
    where `noise` is None (`stats.censoring`). So it counts in the main effects, whose intervals take it for measured
    and are a little too narrow for that. What interactions can be told apart is for the measured runs to say.

    Raises ValueError naming a knob that an observation lacks.
    """
    runs = [knobs for knobs, _ in (*observations, *censored)]
    scores = [score for _, score in observations]
    for factor in factors:
        if any(factor.knob not in run for run in runs):
            raise ValueError(f"{factor.knob}: an observation does not say which value it ran with")

    mains, columns = _main_effects(factors, runs)
    interactions, products = _interactions(factors, runs)
    measured = {column: values[: len(scores)] for column, values in (columns | products).items()}
    found = least_squares(measured, scores, [contrast for _, contrast in interactions])
    told_apart = {column: products[column] for column, result in zip(products, found, strict=True) if result}

    asked = mains + interactions
    model = columns | told_apart
    # Worse is above the bound where less is better; otherwise all is done upside down.
    sign = 1 if minimize else -1
    upward = filled(
        model,
        [sign * score for score in scores],
        [sign * bound for _, bound in censored],
        noise.sigma if noise else 0.0,
    )
    results = least_squares(model, [sign * score for score in upward], [contrast for _, contrast in asked])
    estimated = []
    not_estimable = []
    for (term, _), result in zip(asked, results, strict=True):
        if result is None:
            not_estimable.append(term)
        else:
            estimated.append(_effect(term, *result, noise, confidence))
    return Effects(tuple(estimated), tuple(not_estimable))


def _effect(term: Term, estimate: float, scale: float, noise: Noise | None, confidence: float) -> Effect:
    """`scale` is the standard error in units of σ."""
    if noise is None:
        return Effect(term, estimate, None, None, None)
    half = noise.half_width(scale, confidence)
    return Effect(term, estimate, scale * noise.sigma, estimate - half, estimate + half)


def _main_effects(factors: Sequence[Factor], runs: Sequence[Knobs]) -> tuple[Asked, Columns]:
    """The main effects as contrasts of the model's columns: a mean, and an indicator for every value of every knob."""
    asked: Asked = []
    columns: Columns = {(): [1.0] * len(runs)}
    for factor in factors:
        ran = [_indicator(factor, run[factor.knob]) for run in runs]
        columns |= {column: [float(other == column) for other in ran] for column in dict.fromkeys(ran)}
        if len(factor.levels) == 2:
            low, high = _low_high(factor)
            change = {_indicator(factor, low): -1.0, _indicator(factor, high): 1.0}
            asked.append((Term((factor.knob,), (low, high)), change))
            continue
        indicators = [_indicator(factor, level) for level in factor.levels]
        measured = [column for column in indicators if column in columns]
        minus_mean = {column: -1 / len(measured) for column in measured}
        for level, column in zip(factor.levels, indicators, strict=True):
            from_mean = minus_mean | {column: 1 + minus_mean.get(column, 0.0)}
            asked.append((Term((factor.knob,), (level,)), from_mean))
    return asked, columns


def _interactions(factors: Sequence[Factor], runs: Sequence[Knobs]) -> tuple[Asked, Columns]:
    """The interactions of knobs with two levels, each with its column: the product of the two knobs' codes."""
    asked: Asked = []
    columns: Columns = {}
    for one, other in combinations([factor for factor in factors if len(factor.levels) == 2], 2):
        column = (one.knob, "×", other.knob)
        columns[column] = [_code(one, run) * _code(other, run) for run in runs]
        # From −1 to +1 is two steps: the difference of the two changes is four times the coefficient, half of it two.
        asked.append((Term((one.knob, other.knob)), {column: 2.0}))
    return asked, columns


def _indicator(factor: Factor, value: Value) -> Column:
    # Values are told apart as source text: 1, 1.0 and True are equal, but not the same edit.
    return factor.knob, repr(value)


def _code(factor: Factor, run: Knobs) -> float:
    """−1 at the low level, +1 at the high one, 0 elsewhere."""
    low, high = _low_high(factor)
    return {repr(low): -1.0, repr(high): 1.0}.get(repr(run[factor.knob]), 0.0)


def _low_high(factor: Factor) -> tuple[Value, Value]:
    """The two levels of a factor: numbers in ascending order, others as listed."""
    first, second = factor.levels
    if isinstance(first, int | float) and isinstance(second, int | float) and second < first:
        return second, first
    return first, second
