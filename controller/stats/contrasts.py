"""Least squares for models in which not everything can be estimated.

After crashes, in a sweep, in a screening design, the cells may not tell all parameters apart. Some solution always
comes out of a pseudo-inverse; this module returns only those numbers that are the same in every solution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

Column: TypeAlias = tuple[str, ...]
"""The name of a model column."""

Contrast: TypeAlias = Mapping[Column, float]
"""A weighted sum of model parameters, one parameter a column."""


def least_squares(
    columns: Mapping[Column, Sequence[float]], scores: Sequence[float], contrasts: Sequence[Contrast]
) -> list[tuple[float, float] | None]:
    """Each contrast's estimate and, in units of σ, its standard error; None where the scores do not determine it.

    A contrast c is estimable exactly if it is a combination of the rows of the model matrix X: with w = cX⁺, if wX = c
    (Searle, Linear Models, 1971, ch. 5). Then its estimate is w·y, with standard error σ‖w‖, whichever pseudo-inverse
    is taken. An empty contrast, or one that names a column the model lacks, is not estimable.
    """
    import numpy as np

    names = list(columns)
    matrix = np.array([columns[name] for name in names], dtype=float).T
    inverse = pseudo_inverse(matrix)
    results: list[tuple[float, float] | None] = []
    for contrast in contrasts:
        wanted = np.array([contrast.get(name, 0.0) for name in names])
        weights = wanted @ inverse
        known = any(contrast.values()) and contrast.keys() <= columns.keys()
        if known and np.allclose(weights @ matrix, wanted, atol=1e-8):
            results.append((float(weights @ np.array(scores)), float(np.linalg.norm(weights))))
        else:
            results.append(None)
    return results


def pseudo_inverse(matrix: NDArray[Any]) -> NDArray[Any]:
    """The pseudo-inverse of a model matrix, rows for runs and columns for parameters."""
    import numpy as np

    # Columns hold 0 and ±1, so a singular value that is not zero is far above rounding; numpy's default is not.
    return np.linalg.pinv(matrix, rcond=1e-10)
