"""What the waves so far have taught about each knob: which way is downhill, how steep, and how far to go at once.

"Downhill" is towards the better score, whichever that is. Nothing is remembered between calls: all is read from the
history, so a proposer that was restarted knows what it knew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
    and the score spoke against it or said nothing: then the best value lies nearer. What ran on top of an edit teaches
    nothing of a file without it.
    """
    noise = pooled([wave.controls for wave in history])
    lessons: dict[str, Lesson] = {}
    for at, wave in enumerate(history):
        told = [(design, design_effects(design, wave, noise)) for design in wave.designs if design.of_incumbent]
        slopes = _slopes([effects for _, effects in told], wave.base, minimize=minimize)
        for factor in _merged(factor for design, effects in told for factor in _told_apart(design, effects, wave)):
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
            elif not (before.direction and _sign(after - base) == before.direction):
                lessons[factor.knob] = Lesson(0, 0.0, before.step / 2)
    return lessons


def design_effects(design: PastDesign, wave: PastWave, noise: Noise | None) -> Effects:
    """The effects of one design's factors on the metric, from its cells and the wave's controls.

    Of a pruned cell it is taken as known that its score is worse than the controls' mean. Nothing else is made of the
    controls where the design was edited: what the edit does would be put down to the knobs in which they differ.
    """
    runs = [({**wave.base, **cell.knobs}, cell.score) for cell in design.cells if cell.score is not None]
    pruned = [{**wave.base, **cell.knobs} for cell in design.cells if cell.pruned and wave.controls]
    scored = runs if design.edited else runs + [(wave.base, score) for score in wave.controls]
    known = [*(knobs for knobs, _ in scored), *pruned]
    factors = [factor for factor in design.factors if all(factor.knob in knobs for knobs in known)]
    if not (runs or pruned) or not scored or not factors:
        return Effects((), ())
    return estimate_effects(
        scored,
        factors,
        noise,
        censored=[(knobs, fmean(wave.controls)) for knobs in pruned],
        minimize=wave.minimize,
    )


def hopeless(history: Sequence[PastWave]) -> frozenset[tuple[str, str]]:
    """Knobs with values, as source text, that at least two cells tried and none survived. A pruned cell did: it ran.

    One of these cells must have had nothing else to fail of: all else in it survived in other cells, or in controls.
    What failed on top of an edit is left out, as it may have failed of that.
    """
    survived: set[tuple[str, str]] = set()
    failed: list[set[tuple[str, str]]] = []
    for wave in history:
        survived |= _levels(wave.base) if wave.controls else set()
        for cell in (cell for design in wave.designs if design.of_incumbent for cell in design.cells):
            if cell.score is not None or cell.pruned:
                survived |= _levels(cell.knobs)
            else:
                failed.append(_levels(cell.knobs))
    suspects = [levels - survived for levels in failed]
    tries = Counter(level for levels in suspects for level in levels)
    return frozenset(level for levels in suspects for level in levels if len(levels) == 1 and tries[level] > 1)


def _levels(knobs: Knobs) -> set[tuple[str, str]]:
    return {(knob, repr(value)) for knob, value in knobs.items()}


def _after(later: Sequence[PastWave], knob: str, present: Knobs) -> Value:
    """What the incumbent holds when the knob is next looked at."""
    return next((wave.base[knob] for wave in later if knob in wave.base), present.get(knob))


def _told_apart(design: PastDesign, effects: Effects, wave: PastWave) -> list[Factor]:
    """The factors of which a design of these `effects` can tell something, as it varies each apart from the others.

    A cell that changes many knobs at once shows nothing of any of them, however many such cells there are beside it.
    """
    if any(cell.score is None for cell in design.cells):
        # That cells fail says something of their values too.
        scored = replace(design, cells=tuple(replace(cell, score=0.0, pruned=False) for cell in design.cells))
        effects = design_effects(scored, wave, None)
    knobs = {effect.term.knobs for effect in effects.estimated}
    return [factor for factor in design.factors if (factor.knob,) in knobs]


def _slopes(found: Sequence[Effects], base: Knobs, *, minimize: bool) -> dict[str, float]:
    """For each knob with a resolved effect the improvement a step up brings; negative where a step down improves."""
    slopes: dict[str, float] = {}
    for effects in found:
        for effect in effects.estimated:
            slope = _slope(effect, base, minimize=minimize)
            if slope and abs(slope) > abs(slopes.get(effect.term.knobs[0], 0.0)):
                slopes[effect.term.knobs[0]] = slope
    return slopes


def _slope(effect: Effect, base: Knobs, *, minimize: bool) -> float:
    """An effect as improvement per step up, where it is that of one number and resolved; else 0."""
    knob, levels = effect.term.knobs[0], effect.term.levels
    at = base.get(knob)
    unresolved = effect.low is not None and effect.high is not None and effect.low <= 0 <= effect.high
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
