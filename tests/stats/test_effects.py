from __future__ import annotations

import random
from itertools import product
from math import isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.designs import cells, full_factorial, screen
from controller.records import Design, Factor, Knobs, Value
from controller.stats import Effects, Noise, estimate_effects
from controller.stats.censoring import filled
from controller.stats.contrasts import Column

LR = Factor("LR", (0.02, 0.04))
DEPTH = Factor("DEPTH", (6, 8))
TIE = Factor("TIE", (False, True))
ACT = Factor("ACT", ("relu", "gelu", "swish"))


def estimates(effects: Effects) -> dict[str, float]:
    return {effect.term.name: effect.estimate for effect in effects.estimated}


def missing(effects: Effects) -> list[str]:
    return [term.name for term in effects.not_estimable]


def code(knob: Factor, run: Knobs) -> int:
    return 2 * knob.levels.index(run[knob.knob]) - 1


@given(st.tuples(*[st.floats(-1, 1)] * 8))
def test_known_effects_of_a_full_design_are_recovered(true: tuple[float, ...]) -> None:
    mean, a, b, c, ab, ac, bc, abc = true
    runs = []
    for run in full_factorial([LR, DEPTH, TIE]):
        x, y, z = code(LR, run), code(DEPTH, run), code(TIE, run)
        twice = 2 * mean + a * x + b * y + c * z + ab * x * y + ac * x * z + bc * y * z + abc * x * y * z
        runs.append((run, twice / 2))
    found = estimates(estimate_effects(runs, [LR, DEPTH, TIE], None))
    expected = {"LR": a, "DEPTH": b, "TIE": c, "LR × DEPTH": ab, "LR × TIE": ac, "DEPTH × TIE": bc}
    assert found == pytest.approx(expected, abs=1e-9)


def test_an_interaction_is_half_the_difference_of_two_changes() -> None:
    scores = {(0.02, 6): 1.0, (0.04, 6): 2.0, (0.02, 8): 5.0, (0.04, 8): 10.0}
    runs = [({"LR": lr, "DEPTH": depth}, score) for (lr, depth), score in scores.items()]
    found = estimates(estimate_effects(runs, [LR, DEPTH], None))
    assert found == pytest.approx({"LR": (1 + 5) / 2, "DEPTH": (4 + 8) / 2, "LR × DEPTH": (5 - 1) / 2})


def test_numbers_go_from_low_to_high_and_words_as_listed() -> None:
    falling, words = Factor("LR", (0.04, 0.02)), Factor("ACT", ("z", "a"))
    runs: list[tuple[Knobs, float]] = [
        ({"LR": lr, "ACT": act}, 10.0 * (lr == 0.04) + (act == "a")) for lr, act in product((0.02, 0.04), "az")
    ]
    found = estimate_effects(runs, [falling, words], None)
    assert [effect.term.levels for effect in found.estimated[:2]] == [(0.02, 0.04), ("z", "a")]
    assert [effect.estimate for effect in found.estimated] == pytest.approx([10.0, 1.0, 0.0])


def test_a_knob_with_three_levels_is_reported_level_by_level_against_their_mean() -> None:
    true = {"relu": 1.0, "gelu": 2.0, "swish": 6.0}
    runs = [(run, true[str(run["ACT"])] + code(LR, run)) for run in full_factorial([ACT, LR])]
    found = estimates(estimate_effects(runs, [ACT, LR], None))
    expected = {"ACT = 'relu'": -2.0, "ACT = 'gelu'": -1.0, "ACT = 'swish'": 3.0, "LR": 2.0}
    assert found == pytest.approx(expected)


def test_standard_errors_are_those_of_a_difference_of_means() -> None:
    runs: list[tuple[Knobs, float]] = [(run, 0.0) for run in full_factorial([LR, DEPTH, TIE])]
    for effect in estimate_effects(runs * 2, [LR, DEPTH, TIE], Noise(3.0, 10)).estimated:
        assert effect.se == pytest.approx(3.0 * sqrt(1 / 8 + 1 / 8))
        assert effect.high == pytest.approx(2.2281 * 3.0 / 2, rel=1e-4)
        assert effect.low == pytest.approx(-2.2281 * 3.0 / 2, rel=1e-4)


def test_without_noise_there_is_an_estimate_and_no_interval() -> None:
    runs: list[tuple[Knobs, float]] = [({"LR": 0.02}, 1.0), ({"LR": 0.04}, 3.0)]
    (effect,) = estimate_effects(runs, [LR], None).estimated
    assert effect.estimate == pytest.approx(2.0)
    assert effect.se is effect.low is effect.high is None


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = random.Random(7)
    design = full_factorial([LR, DEPTH])[:3]
    hits = 0
    for _ in range(1000):
        runs = [(run, 2.0 * (run["LR"] == 0.04) + rng.gauss(0, 1)) for run in design]
        replicates = [rng.gauss(0, 1) for _ in range(5)]
        sigma = sqrt(sum((x - sum(replicates) / 5) ** 2 for x in replicates) / 4)
        effect = estimate_effects(runs, [LR, DEPTH], Noise(sigma, 4)).estimated[0]
        assert effect.low is not None
        assert effect.high is not None
        hits += effect.low <= 2.0 <= effect.high
    assert abs(hits - 950) < 4 * sqrt(1000 * 0.95 * 0.05)


def test_a_crashed_cell_costs_the_interaction_and_not_the_main_effects() -> None:
    runs = [(run, 3.0 * code(LR, run) + code(DEPTH, run)) for run in full_factorial([LR, DEPTH])[1:]]
    found = estimate_effects(runs, [LR, DEPTH], None)
    assert estimates(found) == pytest.approx({"LR": 6.0, "DEPTH": 2.0})
    assert missing(found) == ["LR × DEPTH"]


def test_a_corner_that_always_crashes_costs_only_its_own_interaction() -> None:
    runs = [
        (run, code(LR, run) + code(LR, run) * code(TIE, run) / 2)
        for run in full_factorial([LR, DEPTH, TIE])
        if (run["LR"], run["DEPTH"]) != (0.04, 8)
    ]
    found = estimate_effects(runs, [LR, DEPTH, TIE], None)
    assert missing(found) == ["LR × DEPTH"]
    expected = {"LR": 2.0, "DEPTH": 0.0, "TIE": 0.0, "LR × TIE": 1.0, "DEPTH × TIE": 0.0}
    assert estimates(found) == pytest.approx(expected, abs=1e-9)


def test_a_level_that_always_crashes_is_named() -> None:
    runs = [(run, float(code(LR, run))) for run in full_factorial([LR, DEPTH, ACT])]
    runs = [(run, score) for run, score in runs if run["DEPTH"] == 6 and run["ACT"] != "gelu"]
    found = estimate_effects(runs, [LR, DEPTH, ACT], None)
    assert estimates(found) == pytest.approx({"LR": 2.0, "ACT = 'relu'": 0.0, "ACT = 'swish'": 0.0}, abs=1e-9)
    assert missing(found) == ["DEPTH", "ACT = 'gelu'", "LR × DEPTH"]


def test_knobs_that_always_moved_together_are_not_told_apart() -> None:
    runs: list[tuple[Knobs, float]] = [
        ({"LR": 0.02, "DEPTH": 6, "TIE": False}, 1.0),
        ({"LR": 0.04, "DEPTH": 8, "TIE": False}, 2.0),
        ({"LR": 0.02, "DEPTH": 6, "TIE": True}, 4.0),
        ({"LR": 0.04, "DEPTH": 8, "TIE": True}, 5.0),
    ]
    found = estimate_effects(runs, [LR, DEPTH, TIE], None)
    assert estimates(found) == pytest.approx({"TIE": 3.0})
    assert missing(found) == ["LR", "DEPTH", "LR × DEPTH", "LR × TIE", "DEPTH × TIE"]


@pytest.mark.parametrize("runs", [0, 1])
def test_of_one_cell_or_none_nothing_is_estimable(runs: int) -> None:
    only: list[tuple[Knobs, float]] = [({"LR": 0.02, "DEPTH": 6, "ACT": "relu"}, 1.0)]
    found = estimate_effects(only[:runs], [LR, DEPTH, ACT], Noise(1.0, 3))
    assert found.estimated == ()
    assert missing(found) == ["LR", "DEPTH", "ACT = 'relu'", "ACT = 'gelu'", "ACT = 'swish'", "LR × DEPTH"]


def test_no_factors_have_no_effects() -> None:
    assert estimate_effects([({}, 1.0), ({}, 2.0)], [], None) == Effects((), ())


@pytest.mark.parametrize("count", [3, 4, 5, 8, 11, 15])
def test_a_screen_gives_every_main_effect_and_no_aliased_interaction(count: int) -> None:
    factors = [Factor(f"K{i}", (0, 1)) for i in range(count)]
    true = {factor.knob: float(i - 3) for i, factor in enumerate(factors)}
    runs = [(run, sum(true[knob] * (value == 1) for knob, value in run.items())) for run in screen(factors)]
    found = estimate_effects(runs, factors, Noise(1.0, 5))
    assert estimates(found) == pytest.approx(true, abs=1e-9)
    assert all(effect.se == pytest.approx(2 / sqrt(len(runs))) for effect in found.estimated)
    assert len(found.not_estimable) == count * (count - 1) // 2


def test_a_sweep_rests_on_its_base_whether_or_not_the_base_is_a_level() -> None:
    true: dict[Value, float] = {0.02: 5.0, 0.03: 1.0, 0.04: 2.0, 6: 0.0, 7: 0.5, 8: 4.0}
    bases: list[Knobs] = [{"LR": 0.03, "DEPTH": 7}, {"LR": 0.02, "DEPTH": 6}]
    for base in bases:
        ran: list[Knobs] = [*cells(Design.SWEEP, [LR, DEPTH], base), base, base]
        runs = [(run, true[run["LR"]] + true[run["DEPTH"]]) for run in ran]
        found = estimate_effects(runs, [LR, DEPTH], Noise(1.0, 3))
        assert estimates(found) == pytest.approx({"LR": -3.0, "DEPTH": 4.0})


def test_controls_at_a_cell_sharpen_it_and_controls_elsewhere_change_nothing() -> None:
    runs: list[tuple[Knobs, float]] = [(run, float(code(LR, run))) for run in full_factorial([LR, DEPTH])]
    at: list[tuple[Knobs, float]] = [({"LR": 0.02, "DEPTH": 6}, -1.0)] * 3
    off: list[tuple[Knobs, float]] = [({"LR": 0.03, "DEPTH": 7}, 99.0)] * 3
    alone, at_a_cell, elsewhere = (
        estimate_effects(runs + controls, [LR, DEPTH], Noise(1.0, 3)).estimated[0] for controls in ([], at, off)
    )
    assert alone.se is not None
    assert at_a_cell.se is not None
    assert elsewhere.se is not None
    assert isclose(alone.estimate, at_a_cell.estimate)
    assert isclose(alone.estimate, elsewhere.estimate)
    assert at_a_cell.se < alone.se
    assert isclose(alone.se, elsewhere.se)


def test_a_run_that_does_not_say_what_it_ran_with_is_refused() -> None:
    with pytest.raises(ValueError, match="DEPTH"):
        estimate_effects([({"LR": 0.02}, 1.0)], [LR, DEPTH], None)


def screening(rng: random.Random, worse: float, sigma: float) -> tuple[list[tuple[Knobs, float]], list[Knobs]]:
    """A replicated 2×2 of which runs worse than 1 are censored. LR makes a score `worse`, DEPTH better by a half."""
    measured, ended = [], []
    for run in full_factorial([LR, DEPTH]) * 2:
        score = 1 + worse * (run["LR"] == 0.04) - 0.5 * (run["DEPTH"] == 8) + rng.gauss(0, sigma)
        if score > 1 + 2 * sigma:
            ended.append(run)
        else:
            measured.append((run, score))
    return measured, ended


@pytest.mark.parametrize("minimize", [True, False])
def test_a_censored_run_biases_an_effect_less_than_its_bound_does_or_leaving_it_out(minimize: bool) -> None:
    rng = random.Random(3)
    sign = 1 if minimize else -1
    base: Knobs = {"LR": 0.02, "DEPTH": 6}
    found: dict[str, list[float]] = {"censored": [], "bound": [], "left out": []}
    for _ in range(200):
        measured, ended = screening(rng, 0.7, 0.1)
        measured = [(run, sign * score) for run, score in measured]
        measured += [(base, sign * (1 + rng.gauss(0, 0.1))) for _ in range(3)]
        bounds = [(run, sign * 1.0) for run in ended]
        noise = Noise(0.1, 6)
        ways = {
            "censored": estimate_effects(measured, [LR, DEPTH], noise, censored=bounds, minimize=minimize),
            "bound": estimate_effects(measured + bounds, [LR, DEPTH], noise),
            "left out": estimate_effects(measured, [LR, DEPTH], noise),
        }
        for way, effects in ways.items():
            if "LR" in estimates(effects):
                found[way].append(sign * estimates(effects)["LR"])
    means = {way: sum(values) / len(values) for way, values in found.items()}
    assert means["bound"] < 0.3
    assert means["left out"] < 0.63
    assert 0.65 < means["censored"] < 0.72
    assert len(found["censored"]) == 200 > len(found["left out"]) + 20, "and it can be told more often"


def test_a_level_that_was_only_tried_in_censored_runs_counts_and_leaves_the_others_alone() -> None:
    cells_of = full_factorial([LR, DEPTH])
    measured = [(run, 1 - 0.3 * (run["LR"] == 0.04)) for run in cells_of if run["DEPTH"] == 6]
    bounds = [(run, 1.0) for run in cells_of if run["DEPTH"] == 8]
    left_out = estimate_effects(measured, [LR, DEPTH], Noise(0.01, 6))
    assert missing(left_out) == ["DEPTH", "LR × DEPTH"]
    found = estimate_effects(measured, [LR, DEPTH], Noise(0.01, 6), censored=bounds)
    assert missing(found) == ["LR × DEPTH"], "no interaction rests on runs that were not measured"
    assert estimates(found)["LR"] == pytest.approx(-0.3, abs=0.01), "not halved by two equal bounds"
    # Both were worse than 1: the mean of DEPTH 6 is 0.85, and the better LR is 0.3 better there as well.
    assert 0.3 < estimates(found)["DEPTH"] < 0.5
    unknown = estimate_effects(measured, [LR, DEPTH], None, censored=bounds)
    assert estimates(unknown) == pytest.approx({"LR": -0.3, "DEPTH": 0.3}, abs=1e-6)
    assert all(effect.low is None for effect in unknown.estimated)


def test_where_the_noise_is_not_known_a_censored_run_alone_at_its_level_stands_at_its_bound() -> None:
    runs: list[tuple[Knobs, float]] = [({"LR": 0.02}, 0.9), ({"LR": 0.03}, 1.0)]
    found = estimate_effects(runs, [LR], None, censored=[({"LR": 0.04}, 1.0)])
    assert estimates(found) == pytest.approx({"LR": 0.1})
    upside_down = [(run, -score) for run, score in runs]
    found = estimate_effects(upside_down, [LR], None, censored=[({"LR": 0.04}, -1.0)], minimize=False)
    assert estimates(found) == pytest.approx({"LR": -0.1})


def test_a_censored_run_that_was_expected_to_be_better_stands_just_beyond_its_bound() -> None:
    ran: list[tuple[Knobs, float]] = [({"LR": 0.02}, 1.0)] * 20
    found = estimate_effects([*ran, ({"LR": 0.04}, -9.0)], [LR], Noise(1e-3, 6), censored=[({"LR": 0.04}, 1.0)])
    # The fit of one at −9 and one just above 1 is −4.
    assert estimates(found)["LR"] == pytest.approx(-5.0, abs=1e-3)


def test_censored_runs_alone_have_no_effects_between_them_but_noise_beyond_a_bound() -> None:
    bounds: list[tuple[Knobs, float]] = [({"LR": 0.02}, 1.0), ({"LR": 0.04}, 1.0)]
    found = estimate_effects([], [LR], Noise(1.0, 3), censored=bounds)
    assert estimates(found) == pytest.approx({"LR": 0.0}, abs=1e-9)


def test_a_censored_run_that_does_not_say_what_it_ran_with_is_refused() -> None:
    with pytest.raises(ValueError, match="LR"):
        estimate_effects([({"LR": 0.02}, 1.0)], [LR], None, censored=[({}, 1.0)])


@given(st.integers(0, 2**32), st.floats(0, 5), st.floats(1e-6, 1))
def test_what_is_expected_of_a_censored_run_is_beyond_its_bound(seed: int, worse: float, sigma: float) -> None:
    measured, ended = screening(random.Random(seed), worse, sigma)
    columns: dict[Column, list[float]] = {(): [1.0] * 8, ("LR",): []}
    columns["LR",] = [float(run["LR"] == 0.04) for run in [*(run for run, _ in measured), *ended]]
    scores = [score for _, score in measured]
    for known in (sigma, 0.0):
        after = filled(columns, scores, [1.0] * len(ended), known)
        assert after[: len(scores)] == scores
        assert all(1.0 <= value < 100 for value in after[len(scores) :])
