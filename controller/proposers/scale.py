"""How far one step of a knob is: large enough to see, small enough to survive.

A step depends on the knob's kind, which its name and value give away. It is the same relative change wherever a knob
stands: a learning rate doubles or halves, a momentum of 0.95 goes to 0.975 or 0.9, a batch of 64 to 128 or 32.
"""

from __future__ import annotations

import re
from math import copysign, isfinite

RATIO = re.compile(r"(^|_)(RATIO|FRAC|FRACTION|PROB|DROPOUT|WARMUP|WARMDOWN|COOLDOWN|SHARE)(_|$)")
DECAY = re.compile(r"(^|_)(MOMENTUM|BETA\d*|EMA|GAMMA)(_|$)")

RATIO_STEP = 0.2
ZERO_STEP = 0.1
GROWTH = 1.5
"""By what a whole number that is large and no power of two grows in a step."""

LARGE = 16
"""From here on whole numbers are multiplied, below they are counted."""


def moved(knob: str, value: float, steps: float) -> float | None:
    """`value`, an int or a float, `steps` of its knob's steps up (positive) or down; None where that is no other value.

    Ints stay ints. No value changes its sign, and only ratios reach 0.
    """
    found = _int_moved(value, steps) if isinstance(value, int) else _float_moved(knob, value, steps)
    return None if found is None or found == value or not isfinite(found) else found


def _int_moved(value: int, steps: float) -> int | None:
    if value < 0:
        return None  # -1 and its like are usually not numbers but words
    if value >= LARGE and value & (value - 1) == 0:
        # Powers of two are meant to divide each other, so there is nothing between two of them.
        doublings = int(steps)
        return value << doublings if doublings >= 0 else max(value >> -doublings, 1)
    if value >= LARGE:
        return max(round(value * float(GROWTH**steps)), 1)
    step = steps * max(value // 4, 1)
    change = int(copysign(int(abs(step) + 0.5), step)) if abs(step) >= 1 else 0
    return max(value + change, 1) if value else max(change, 0)


def _float_moved(knob: str, value: float, steps: float) -> float | None:
    if value == 0:
        return _rounded(ZERO_STEP * steps) if steps > 0 else None
    if DECAY.search(knob) and 0.5 <= value < 1:
        return 1 - _rounded((1 - value) * 2**-steps) if steps > -1 or value > 0.5 else None
    if RATIO.search(knob) and ZERO_STEP <= value <= 1:
        return _rounded(min(max(value + RATIO_STEP * steps, 0.0), 1.0))
    return _rounded(value * 2 ** (steps if value > 0 else -steps))


def _rounded(value: float) -> float:
    """Three significant digits: nobody wants to read 0.047568."""
    return float(f"{value:.3g}")
