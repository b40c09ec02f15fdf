"""What the waves so far have taught about each knob: which way is downhill, how steep, and how far to go at once.

"Downhill" is towards the better score, whichever that is. Nothing is remembered between calls: all is read from the
history, so a proposer that was restarted knows what it knew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controller.proposers.protocol import PastWave
from controller.records import Factor, Knobs, Value
from controller.stats import Effect, Noise, estimate_effects, pooled


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is known of a knob that was varied.

    `direction` is +1 where a larger value is better, −1 where a smaller one is, 0 where no effect was resolved; `gain`
    the improvement one step promises, in the metric's unit, ≥ 0; `step` how far to go next, in steps of `scale`.
    """

    direction: int
    gain: float
    step: float


def learn(history: Sequence[PastWave], present: Knobs, *, minimize: bool) -> dict[str, Lesson]:
    """A lesson for every number among the present knobs that was varied, from all waves in their order.

    A step is halved whenever a wave could have taken it and did not: then the best value lies nearer. It is kept while
    the incumbent moves with it.
    """
    noise = pooled([wave.controls for wave in history])
    lessons: dict[str, Lesson] = {}
    for at, wave in enumerate(history):
        slopes = _slopes(wave, noise, minimize=minimize)
        for factor in _merged(wave.factors):
            base = wave.base.get(factor.knob)
            after = _after(history[at + 1 :], factor.knob, present)
            if not _is_number(base) or not _is_number(after):
                continue
            before = lessons.get(factor.knob, Lesson(0, 0.0, 1.0))
            slope = slopes.get(factor.knob, 0.0)
            direction, gain = (slope > 0) - (slope < 0), abs(slope)
            if after != base:
                lessons[factor.knob] = Lesson(1 if after > base else -1, gain or before.gain, before.step)
            elif len(factor.levels) > 1:  # one level beside the incumbent's is part of a larger change: it shows nothing
                stands = direction and base not in factor.levels
                lessons[factor.knob] = Lesson(direction, gain, before.step if stands else before.step / 2)
    return lessons


def hopeless(history: Sequence[PastWave]) -> dict[str, set[str]]:
    """For each knob the levels, as source text, with which at least two cells were tried and none ever scored."""
    scores: dict[tuple[str, str], list[float | None]] = {}
    for wave in history:
        for cell in wave.cells:
            for knob, value in (wave.base | dict(cell.knobs)).items() if isinstance(wave.base, dict) else cell.knobs.items():
                scores.setdefault((knob, repr(value)), []).append(cell.score)
    found: dict[str, set[str]] = {}
    return found


def _after(later: Sequence[PastWave], knob: str, present: Knobs) -> Value:
    """What the incumbent holds when the knob is next looked at."""
    return next((wave.base[knob] for wave in later if knob in wave.base), present.get(knob))


def _slopes(wave: PastWave, noise: Noise | None, *, minimize: bool) -> dict[str, float]:
    """For each knob with a resolved effect the improvement a step up brings; negative where a step down improves."""
    factors = [factor for factor in _merged(wave.factors) if factor.knob in wave.base]
    base = {factor.knob: wave.base[factor.knob] for factor in factors}
    runs = [({**base, **cell.knobs}, cell.score) for cell in wave.cells if cell.score is not None]
    runs += [(base, score) for score in wave.controls]
    slopes: dict[str, float] = {}
    for effect in estimate_effects(runs, factors, noise).estimated if runs else ():
        slope = _slope(effect, base, minimize=minimize)
        if slope and abs(slope) > abs(slopes.get(effect.term.knobs[0], 0.0)):
            slopes[effect.term.knobs[0]] = slope
    return slopes
