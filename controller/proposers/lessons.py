"""What the waves so far have taught about each knob: which way is downhill, how steep, and how far to go at once.

"Downhill" is towards the better score, whichever that is. Nothing is remembered between calls: all is read from the
history, so a proposer that was restarted knows what it knew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeGuard

from controller.proposers.protocol import PastDesign, PastWave
from controller.records import Factor, Knobs, Value
from controller.stats import Effect, Effects, Noise, estimate_effects, pooled


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is known of a knob that was varied.

    `direction` is +1 where a larger value is better, −1 where a smaller one is, 0 where no effect was resolved; `gain`
    the improvement one step promises, in the metric's unit, ≥ 0; `step` how far to go next, in steps of `scale`.
    """

    direction: int
    gain: float
    step: float


def learn(history: Sequence[PastWave], present: Knobs, *, minimize: bool, min_effect: float) -> dict[str, Lesson]:
    """A lesson for every number among the present knobs that was varied, from all waves in their order.

    An effect counts if its interval excludes 0 and it is at least `min_effect`. A step is halved when a wave offered it
    and the score spoke against it or said nothing: then the best value lies nearer.
    """
    noise = pooled([wave.controls for wave in history])
    lessons: dict[str, Lesson] = {}
    for at, wave in enumerate(history):
        slopes = _slopes(wave, noise, minimize=minimize)
        for factor in _merged(factor for design in wave.designs for factor in design.factors):
            base = wave.base.get(factor.knob)
            after = _after(history[at + 1 :], factor.knob, present)
            if not _is_number(base) or not _is_number(after):
                continue
            before = lessons.get(factor.knob, Lesson(0, 0.0, 1.0))
            slope = slopes.get(factor.knob, 0.0)
            direction = _sign(slope) if abs(slope) >= min_effect else 0
            if direction:
                better = [level for level in factor.levels if _is_number(level) and _sign(level - base) == direction]
                lessons[factor.knob] = Lesson(direction, abs(slope), before.step if better else before.step / 2)
            elif len(factor.levels) > 1 and not (before.direction and _sign(after - base) == before.direction):
                # One level beside the incumbent's is part of a larger change, which shows nothing of this knob.
                lessons[factor.knob] = Lesson(0, 0.0, before.step / 2)
    return lessons


def design_effects(design: PastDesign, wave: PastWave, noise: Noise | None) -> Effects:
    """The effects of one design's factors on the metric, from its cells and the wave's controls.

    Of a pruned cell it is taken as known that its score is worse than the controls' mean.
    """
    factors = [factor for factor in design.factors if factor.knob in wave.base]
    runs = [({**wave.base, **cell.knobs}, cell.score) for cell in design.cells if cell.score is not None]
    pruned = [{**wave.base, **cell.knobs} for cell in design.cells if cell.pruned and wave.controls]
    if not (runs or pruned) or not factors:
        return Effects((), ())
    return estimate_effects(
        runs + [(wave.base, score) for score in wave.controls],
        factors,
        noise,
        censored=[(knobs, fmean(wave.controls)) for knobs in pruned],
        minimize=wave.minimize,
    )


def hopeless(history: Sequence[PastWave]) -> frozenset[tuple[str, str]]:
    """Knobs with values, as source text, that at least two cells tried and none survived. A pruned cell did: it ran."""
    survived: dict[tuple[str, str], list[bool]] = {}
    for wave in history:
        for cell in (cell for design in wave.designs for cell in design.cells):
            for knob, value in cell.knobs.items():
                survived.setdefault((knob, repr(value)), []).append(cell.score is not None or cell.pruned)
    return frozenset(level for level, found in survived.items() if len(found) > 1 and not any(found))


def _after(later: Sequence[PastWave], knob: str, present: Knobs) -> Value:
    """What the incumbent holds when the knob is next looked at."""
    return next((wave.base[knob] for wave in later if knob in wave.base), present.get(knob))


def _slopes(wave: PastWave, noise: Noise | None, *, minimize: bool) -> dict[str, float]:
    """For each knob with a resolved effect the improvement a step up brings; negative where a step down improves."""
    slopes: dict[str, float] = {}
    for design in wave.designs:
        for effect in design_effects(design, wave, noise).estimated:
            slope = _slope(effect, wave.base, minimize=minimize)
            if slope and abs(slope) > abs(slopes.get(effect.term.knobs[0], 0.0)):
                slopes[effect.term.knobs[0]] = slope
    return slopes


def _slope(effect: Effect, base: Knobs, *, minimize: bool) -> float:
    """An effect as improvement per step up, where it is that of one number and resolved; else 0."""
    knob, levels = effect.term.knobs[0], effect.term.levels
    at, unresolved = base[knob], effect.low is not None and effect.high is not None and effect.low <= 0 <= effect.high
    if unresolved or not _is_number(at):
        return 0.0
    better = -effect.estimate if minimize else effect.estimate
    match levels:
        case (int() | float() as low, int() | float() as high):
            return better / 2 if low < at < high else better
        case (int() | float() as level,) if better > 0:
            return better * _sign(level - at)
        case _:
            return 0.0


def _merged(factors: Iterable[Factor]) -> list[Factor]:
    """Each knob once, with all its levels: two proposals of a wave may vary the same knob."""
    levels: dict[str, dict[str, Value]] = {}
    for factor in factors:
        levels.setdefault(factor.knob, {}).update({repr(level): level for level in factor.levels})
    return [Factor(knob, tuple(found.values())) for knob, found in levels.items()]


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
