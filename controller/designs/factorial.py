"""The two designs that need no construction: every combination, and one knob at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from controller.records import Factor, Knobs, Value


def full_factorial(factors: Sequence[Factor]) -> list[dict[str, Value]]:
    """Every combination of levels, the last knob changing fastest.

    Every main effect and every interaction can be estimated, each from all of the runs (Fisher, The Design of
    Experiments, 1935, ch. VI). No factors give one cell that sets nothing.
    """
    knobs = [factor.knob for factor in factors]
    return [dict(zip(knobs, levels, strict=True)) for levels in product(*(factor.levels for factor in factors))]


def sweep(factors: Sequence[Factor], base: Knobs) -> list[dict[str, Value]]:
    """One knob at a time through its levels, the others at `base`; every cell names every knob.

    A level equal to the base gives the incumbent itself, once for each knob that lists it. Cheap and easy to read, but
    each effect rests on its own cells only, and no interaction can be seen. Raises ValueError naming a knob that `base`
    lacks.
    """
    for factor in factors:
        if factor.knob not in base:
            raise ValueError(f"{factor.knob}: a sweep needs the value it has at the base")
    still = {factor.knob: base[factor.knob] for factor in factors}
    return [still | {factor.knob: level} for factor in factors for level in factor.levels]
