"""Least squares where some scores are only known to be worse than a bound.

To leave such runs out would say that nothing is known of them; to put the bound in their place, that they are no worse
than it. Both pull an effect towards zero, and the worse a change is, the surer it is to be pulled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.stats.contrasts import Column, pseudo_inverse

_MOST_ROUNDS = 200

SETTLED = 0.01
"""Expectations that move by less than this many σ are settled: estimates are not known to a tenth of σ."""


def filled(
    columns: Mapping[Column, Sequence[float]], scores: Sequence[float], bounds: Sequence[float], sigma: float
) -> list[float]:
    """`scores`, and after them what is to be expected of a further run for each of `bounds`, above which it is.

    The rows of the model's `columns` are first those of the scores, then those of the bounds. Iterated least squares
    (Schmee & Hahn, Technometrics 21, 1979): begin with the bounds themselves, fit the model, put in place of each
    censored score its expectation, given the fit, normal noise `sigma` and that it is above its bound, and fit again
    until they are settled.

    With a `sigma` of 0 the expectation is the fit, or the bound where the fit is below: what it is without noise, and
    all that can be said where the noise is not known. Where no score bounds a fit from above, as for a level that was
    tried in censored runs only, no end is in sight either: the expectation comes to rest some 2.7 σ above its bound,
    which by then excludes hardly anything.
    """
    import numpy as np
    from scipy.special import log_ndtr

    matrix = np.array(list(columns.values()), dtype=float).T
    known, bound = np.array(scores, dtype=float), np.array(bounds, dtype=float)
    if not len(bound):
        return [*scores]
    fit = matrix[len(known) :] @ pseudo_inverse(matrix)
    expected = bound
    for _ in range(_MOST_ROUNDS):
        means = fit @ np.concatenate([known, expected])
        if sigma:
            # φ/(1 − Φ) by logarithms: far out in the tail both are 0 as floats.
            short = (bound - means) / sigma
            hazard = np.exp(-(short**2) / 2 - np.log(2 * np.pi) / 2 - log_ndtr(-short))
            after = np.maximum(means + sigma * hazard, bound)  # by rounding it may fall short of it
        else:
            after = np.maximum(means, bound)
        moved = np.max(np.abs(after - expected))
        expected = after
        if moved <= SETTLED * sigma:
            break
    return [*scores, *(float(value) for value in expected)]
