"""Two-level screening designs: many knobs in few cells, every main effect estimated from all of them.

The price is aliasing: a main effect cannot be told from some interactions. That is a good trade while few knobs matter
and interactions are small beside main effects, which is what screening assumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from controller.designs.factorial import full_factorial
from controller.records import Factor, Value


def screen(factors: Sequence[Factor]) -> list[dict[str, Value]]:
    """The smallest orthogonal two-level design that estimates every main effect.

    With k factors: a full factorial where that takes no more runs than a Plackett–Burman design; for four, the regular
    half fraction; otherwise Plackett–Burman (Biometrika 33, 1946) in the next multiple of 4 above k, or the one
    after where no construction of that size is at hand (k = 24–27, 32–35, …). Every pair of levels of two
    knobs occurs equally often. Raises ValueError naming a knob that does not have exactly two different levels.
    """
    for factor in factors:
        if len(factor.levels) != 2 or repr(factor.levels[0]) == repr(factor.levels[1]):
            raise ValueError(f"{factor.knob}: a screening design needs exactly 2 different levels")
    if 2 ** len(factors) <= _plackett_burman_runs(len(factors)):
        return full_factorial(factors)
    return [
        {factor.knob: factor.levels[high] for factor, high in zip(factors, row, strict=True)}
        for row in _rows(len(factors))
    ]


def _rows(factors: int) -> list[list[bool]]:
    """The design matrix, one row a cell, True for a factor's second level."""
    from pyDOE3 import fracfact, pbdesign

    # Four is the only number of factors for which a regular fraction as small as Plackett–Burman's has resolution IV:
    # its main effects are aliased with no two-factor interaction (Box, Hunter & Hunter, 2nd ed., ch. 6).
    half_fraction = factors == 4
    matrix = fracfact("a b c abc") if half_fraction else pbdesign(_plackett_burman_runs(factors) - 1)[:, :factors]
    return [[bool(sign > 0) for sign in row] for row in matrix]


def _plackett_burman_runs(factors: int) -> int:
    """The fewest runs above `factors` that pyDOE3 can construct: 4, 12 or 20 times a power of two."""
    return next(runs for runs in count(4 * (factors // 4 + 1), 4) if runs // (runs & -runs) in (1, 3, 5))
