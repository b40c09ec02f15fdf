from __future__ import annotations

import random
from math import isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.records import Verdict
from controller.stats import Comparison, Noise, compare, pooled, prediction_interval, residual, verdict

KEEP, DISCARD, INCONCLUSIVE = Verdict.KEEP, Verdict.DISCARD, Verdict.INCONCLUSIVE
DRAWS = 2000
SIGMA = 0.0005


def within_binomial_bounds(hits: int, rate: float) -> bool:
    return abs(hits - DRAWS * rate) < 4 * sqrt(DRAWS * rate * (1 - rate))


def layout(rng: random.Random, means: list[float], seeds: int, shared: float = 0.3) -> list[list[float]]:
    """Arms × seeds with total noise SIGMA, of whose variance `shared` belongs to the seed."""
    offsets = [rng.gauss(0, SIGMA * sqrt(shared)) for _ in range(seeds)]
    return [[mean + offset + rng.gauss(0, SIGMA * sqrt(1 - shared)) for offset in offsets] for mean in means]


def covers(found: Comparison, truth: float) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low <= truth <= found.high


def test_a_comparison_is_paired_and_has_students_interval() -> None:
    found = compare([0.97, 0.98, 0.96], [0.98, 0.99, 0.98], Noise(0.01, 6), arms=1)
    assert isclose(found.change or 0, -0.04 / 3)
    half = 2.4469 * 0.01 * sqrt(2 / 3)
    assert isclose(found.low or 0, -0.04 / 3 - half, rel_tol=1e-4)
    assert isclose(found.high or 0, -0.04 / 3 + half, rel_tol=1e-4)


def test_the_interval_of_one_candidate_covers_the_truth_as_often_as_it_says() -> None:
    rng = random.Random(2)
    hits = 0
    for _ in range(DRAWS):
        arms = layout(rng, [0.98, 0.979, 0.981, 0.98], seeds=3)
        hits += covers(compare(arms[1], arms[0], residual(arms), arms=1), -0.001)
    assert within_binomial_bounds(hits, 0.95)


def test_the_intervals_of_three_candidates_cover_all_their_truths_together() -> None:
    rng = random.Random(3)
    means = [0.98, 0.979, 0.98, 0.985]
    hits = 0
    for _ in range(DRAWS):
        arms = layout(rng, means, seeds=3)
        noise = residual(arms)
        hits += all(covers(compare(arms[i], arms[0], noise, arms=3), means[i] - means[0]) for i in (1, 2, 3))
    assert hits / DRAWS > 0.95 - 4 * sqrt(0.05 * 0.95 / DRAWS)


@pytest.mark.parametrize("minimize", [True, False])
@pytest.mark.parametrize("paired", [True, False], ids=["residual", "pooled"])
def test_three_worthless_candidates_are_kept_in_fewer_than_five_waves_of_a_hundred(
    minimize: bool, paired: bool
) -> None:
    rng = random.Random(4)
    kept = 0
    for _ in range(DRAWS):
        arms = layout(rng, [0.98] * 4, seeds=3)
        noise = residual(arms) if paired else pooled(arms)
        found = [verdict(compare(arm, arms[0], noise, arms=3), 0.0, minimize=minimize) for arm in arms[1:]]
        kept += KEEP in found
    assert kept / DRAWS < 0.05


def test_a_large_improvement_is_kept_with_pooled_noise_and_mostly_missed_without() -> None:
    rng = random.Random(5)
    kept = {"own": 0, "pooled": 0}
    for _ in range(500):
        control, candidate = layout(rng, [0.98, 0.98 - 3 * SIGMA], seeds=5, shared=0)
        for name, noise in {"own": residual([control[:2], candidate[:2]]), "pooled": Noise(SIGMA, 60)}.items():
            found = verdict(compare(candidate, control, noise, arms=3), SIGMA, minimize=True)
            kept[name] += found is KEEP
    assert kept["pooled"] > 450
    assert kept["own"] < 250


def test_what_could_not_be_known_is_none() -> None:
    assert compare([], [], Noise(1.0, 5), arms=1) == Comparison(None, None, None)
    assert compare([1.0], [3.0], None, arms=1) == Comparison(-2.0, None, None)
    for unknown in (Comparison(None, None, None), Comparison(-2.0, None, None)):
        assert verdict(unknown, 0.0, minimize=True) is INCONCLUSIVE


def test_scores_that_are_not_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="not pairs"):
        compare([1.0, 2.0], [1.0], None, arms=1)


TRUTH_TABLE = [
    # change, low, high of a metric to be minimised; min_effect; verdict
    (-3.0, -4.0, -2.0, 1.0, KEEP),
    (-3.0, -6.0, -0.1, 1.0, KEEP),
    (-1.0, -1.5, -0.5, 1.0, KEEP),
    (-3.0, -6.0, 0.0, 1.0, INCONCLUSIVE),  # no change is not excluded
    (-0.9, -1.2, -0.6, 1.0, INCONCLUSIVE),  # certainly better, perhaps by too little
    (-0.5, -0.8, -0.2, 1.0, DISCARD),  # certainly better, certainly by too little
    (0.0, -1.0, 1.0, 1.0, INCONCLUSIVE),
    (0.0, -0.9, 0.9, 1.0, DISCARD),
    (2.0, -2.0, 6.0, 1.0, INCONCLUSIVE),
    (2.0, 1.0, 3.0, 1.0, DISCARD),
    (0.0, -0.1, 0.1, 0.0, INCONCLUSIVE),
    (0.2, 0.1, 0.3, 0.0, DISCARD),
    (-0.2, -0.3, -0.1, 0.0, KEEP),
    (0.0, 0.0, 0.0, 0.0, INCONCLUSIVE),
]


@pytest.mark.parametrize(("change", "low", "high", "min_effect", "expected"), TRUTH_TABLE)
def test_the_verdict_follows_from_estimate_and_interval(
    change: float, low: float, high: float, min_effect: float, expected: Verdict
) -> None:
    assert verdict(Comparison(change, low, high), min_effect, minimize=True) is expected
    assert verdict(Comparison(-change, -high, -low), min_effect, minimize=False) is expected


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(0, 5), st.booleans())
def test_what_would_be_kept_one_way_is_never_kept_the_other(
    change: float, half: float, min_effect: float, minimize: bool
) -> None:
    comparison = Comparison(change, change - half, change + half)
    if verdict(comparison, min_effect, minimize=minimize) is KEEP:
        assert verdict(comparison, min_effect, minimize=not minimize) is DISCARD or min_effect == 0


def test_new_runs_fall_into_the_prediction_interval_as_often_as_it_says() -> None:
    rng = random.Random(6)
    hits = 0
    for _ in range(DRAWS):
        history = layout(rng, [0.97, 0.99], seeds=4, shared=0)
        noise = pooled(history)
        assert noise is not None
        old, new = layout(rng, [0.98], seeds=3)[0], layout(rng, [0.98], seeds=2)[0]
        low, high = prediction_interval(old, noise, repeats=2)
        hits += low <= sum(new) / 2 <= high
    assert within_binomial_bounds(hits, 0.95)


@pytest.mark.parametrize(("scores", "repeats"), [([], 1), ([1.0], 0)])
def test_a_prediction_from_nothing_is_refused(scores: list[float], repeats: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        prediction_interval(scores, Noise(1.0, 3), repeats)


@pytest.mark.parametrize(
    ("change", "half", "cost", "expected"),
    [
        (-0.0015, 0.001, 0.0, KEEP),
        (-0.0015, 0.001, 0.0012, INCONCLUSIVE),
        (-0.0015, 0.0001, 0.0012, DISCARD),
        (-0.0030, 0.001, 0.0012, KEEP),
        (-0.0004, 0.001, -0.002, KEEP),
        (0.0, 0.001, -0.002, KEEP),
        (0.0001, 0.001, -0.002, INCONCLUSIVE),
        (0.0, 0.003, -0.002, INCONCLUSIVE),
        (-0.0004, 0.00005, 0.0, DISCARD),
        (-0.0004, 0.0001, -0.0002, KEEP),
        (0.002, 0.001, -0.1, DISCARD),
    ],
)
def test_more_code_has_to_earn_its_place_and_less_may_score_the_same(
    change: float, half: float, cost: float, expected: Verdict
) -> None:
    for sign in (1, -1):
        ends = sorted((sign * (change - half), sign * (change + half)))
        assert verdict(Comparison(sign * change, *ends), 0.0005, minimize=sign > 0, cost=cost) is expected
