from __future__ import annotations

import random
from math import isclose, sqrt
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.stats import Noise, combine, pooled, residual

scores = st.floats(-10, 10)
groups = st.lists(st.lists(scores, max_size=5), max_size=5)


def test_one_group_gives_its_standard_deviation() -> None:
    group = [0.9801, 0.9807, 0.9799]
    noise = pooled([group])
    assert noise is not None
    assert noise.df == 2
    assert isclose(noise.sigma, stdev(group))


def test_groups_are_pooled_by_degrees_of_freedom_whatever_their_means() -> None:
    assert pooled([[1.0, 3.0], [100.0, 104.0, 102.0], [7.0], []]) == Noise(sqrt((2 + 8) / 3), 3)


@pytest.mark.parametrize("groups", [[], [[]], [[1.0], [2.0]]])
def test_without_replicates_the_noise_is_not_known(groups: list[list[float]]) -> None:
    assert pooled(groups) is None


@given(groups, groups)
def test_pooling_at_once_or_in_parts_is_the_same(one: list[list[float]], other: list[list[float]]) -> None:
    whole, parts = pooled(one + other), combine(pooled(one), pooled(other))
    assert (whole is None) == (parts is None)
    if whole and parts:
        assert whole.df == parts.df
        assert isclose(whole.sigma, parts.sigma, rel_tol=1e-9, abs_tol=1e-9)


def test_combining_nothing_is_nothing() -> None:
    assert combine() is combine(None, None) is None
    assert combine(None, Noise(2.0, 3)) == Noise(2.0, 3)


def test_the_residual_of_two_arms_is_that_of_their_differences() -> None:
    one, other = [1.0, 2.5, 2.0], [1.5, 2.0, 4.0]
    noise = residual([one, other])
    assert noise is not None
    assert noise.df == 2
    assert isclose(noise.sigma, stdev(a - b for a, b in zip(one, other, strict=True)) / sqrt(2))


@given(st.lists(st.lists(scores, min_size=3, max_size=3), min_size=2, max_size=4), st.lists(scores, min_size=3))
def test_the_residual_ignores_what_a_seed_does_to_all_arms(layout: list[list[float]], seeds: list[float]) -> None:
    plain = residual(layout)
    shifted = residual([[score + seed for score, seed in zip(row, seeds, strict=False)] for row in layout])
    assert plain is not None
    assert shifted is not None
    assert plain.df == shifted.df == (len(layout) - 1) * 2
    assert isclose(plain.sigma, shifted.sigma, abs_tol=1e-9)


@pytest.mark.parametrize("layout", [[], [[1.0, 2.0]], [[1.0], [2.0]], [[], []]])
def test_a_layout_of_one_arm_or_one_seed_has_no_residual(layout: list[list[float]]) -> None:
    assert residual(layout) is None


def test_a_layout_with_a_hole_is_refused() -> None:
    with pytest.raises(ValueError, match="every seed"):
        residual([[1.0, 2.0], [1.0]])


def test_both_estimates_are_right_on_average() -> None:
    rng = random.Random(1)

    def layout() -> list[list[float]]:
        seeds = [rng.gauss(0, 3) for _ in range(3)]
        return [[arm + seed + rng.gauss(0, 2) for seed in seeds] for arm in range(4)]

    variances = [noise.sigma**2 for _ in range(2000) if (noise := residual(layout()))]
    assert abs(fmean(variances) - 4) < 4 * sqrt(2 / 6 / 2000) * 4
    variances = [noise.sigma**2 for _ in range(2000) if (noise := pooled(layout()))]
    assert 12 < fmean(variances) < 14


def test_the_half_width_is_students() -> None:
    assert isclose(Noise(1.0, 2).half_width(1.0, 0.95), 4.3027, rel_tol=1e-4)
    assert isclose(Noise(0.5, 30).half_width(2.0, 0.95), 2.0423, rel_tol=1e-4)
    assert isclose(Noise(1.0, 6).half_width(1.0, 0.95, together=5), Noise(1.0, 6).half_width(1.0, 0.99))


@pytest.mark.parametrize(("confidence", "together"), [(0.0, 1), (1.0, 1), (95, 1), (0.95, 0)])
def test_an_impossible_interval_is_refused(confidence: float, together: int) -> None:
    with pytest.raises(ValueError, match=r"is not"):
        Noise(1.0, 2).half_width(1.0, confidence, together)
