"""One door to all designs: from the factors of a proposal to its cells."""

from __future__ import annotations

from collections.abc import Sequence

from controller.designs.factorial import full_factorial, sweep
from controller.designs.screening import screen
from controller.records import Design, Factor, Knobs, Value


def cells(design: Design, factors: Sequence[Factor], base: Knobs) -> list[dict[str, Value]]:
    """The cells of a design in its standard order, each once; the order to run them in is `arrange`'s.

    `base` holds the incumbent's knobs; only a sweep reads it. No factors give one cell that sets nothing: the proposal
    is its edit. Raises ValueError naming a knob that is listed twice, has no levels, or does not suit the design.
    """
    named: set[str] = set()
    for factor in factors:
        if not factor.levels:
            raise ValueError(f"{factor.knob}: a factor needs at least one level")
        if factor.knob in named:
            raise ValueError(f"{factor.knob}: listed as a factor twice")
        named.add(factor.knob)
    if not factors:
        return [{}]
    match design:
        case Design.FULL:
            return _distinct(full_factorial(factors))
        case Design.SWEEP:
            return _distinct(sweep(factors, base))
        case Design.SCREEN:
            return _distinct(screen(factors))


def _distinct(found: list[dict[str, Value]]) -> list[dict[str, Value]]:
    # Compared as source text, because that is what becomes of a knob: 1, 1.0 and True are equal, but not the same edit.
    return list({repr(cell): cell for cell in found}.values())
