from __future__ import annotations

import random
from math import inf, nan, sqrt
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.pruning import FALSE_STOP_RATE, LOOKS, Curve, hopeless

MEANS = (4.1, 3.7, 3.5, 3.3)
"""The incumbent's losses at the looks."""
SD = 0.02

Points = tuple[tuple[float, float], ...]


def run(rng: random.Random, shared: float, worse: float = 0.0) -> Points:
    """A curve that is `worse` standard deviations worse than the incumbent's all along; of its variance `shared` is one
    luck that all looks have in common."""
    luck = rng.gauss(0, 1)
    return tuple(
        (look, mean + SD * (worse + sqrt(shared) * luck + sqrt(1 - shared) * rng.gauss(0, 1)))
        for look, mean in zip(LOOKS, MEANS, strict=True)
    )


def ended(curve: Points, references: list[list[Points]]) -> bool:
    """Whether a run is ended at any of its looks, each tested once."""
    return any(hopeless(curve[:looks], references) for looks in range(1, len(curve) + 1))


def rate_of_ending(worse: float, shared: float, controls: int, earlier: int, runs: int = 4000) -> float:
    """The part of runs that is ended, with fresh controls for each: of their own and of an earlier, worse incumbent."""
    rng = random.Random(f"{worse} {shared} {controls} {earlier}")
    stopped = 0
    for _ in range(runs):
        own = [run(rng, shared) for _ in range(controls)]
        before = [run(rng, shared, worse=30.0) for _ in range(earlier)]
        stopped += ended(run(rng, shared, worse), [own, before])
    return stopped / runs


@pytest.mark.parametrize(("controls", "earlier"), [(5, 0), (2, 5), (12, 0)])
@pytest.mark.parametrize("shared", [0.0, 0.6, 1.0])
def test_of_runs_like_the_incumbents_own_hardly_any_is_ended(shared: float, controls: int, earlier: int) -> None:
    slack = 3 * sqrt(FALSE_STOP_RATE / 4000)
    assert rate_of_ending(0.0, shared, controls, earlier) <= FALSE_STOP_RATE + slack


@pytest.mark.parametrize("shared", [0.0, 0.6])
def test_clearly_worse_runs_are_mostly_ended_and_better_ones_hardly_ever(shared: float) -> None:
    assert rate_of_ending(5.0, shared, 5, 5, 500) > 0.8
    assert rate_of_ending(10.0, shared, 5, 5, 500) > 0.95
    assert rate_of_ending(-1.0, shared, 5, 5, 2000) <= 0.002


def like(*losses: float) -> list[Points]:
    """Controls with these losses at 0.35 of the budget, and at 0.5."""
    return [((0.35, loss), (0.5, loss)) for loss in losses]


def at(loss: float, before: float | None = None) -> Points:
    """A run with this loss at 0.5, and at 0.35 as much or what it was `before`."""
    return ((0.35, loss if before is None else before), (0.5, loss))


OWN = like(1.00, 1.01, 1.02, 1.01, 1.00)


def test_why_a_run_is_ended_is_said_in_numbers() -> None:
    assert hopeless(at(1.3), [OWN]) == (
        "at 50% of its budget its loss 1.3 is 0.292 above the mean of 5 controls, where chance explains 0.0474, and it"
        " does not catch up in time"
    )
    assert hopeless(at(1.0), [OWN]) is None


def test_the_limit_is_the_one_sided_prediction_limit_of_student() -> None:
    # s = 0.0083666, n = 5, and t at 4 degrees of freedom is 5.16684 with probability 1 − 0.01/3.
    limit = fmean([1.00, 1.01, 1.02, 1.01, 1.00]) + 5.16684 * 0.0083666 * sqrt(1 + 1 / 5)
    assert hopeless(at(limit + 1e-6), [OWN])
    assert not hopeless(at(limit - 1e-6), [OWN])


def test_a_run_that_catches_up_fast_enough_is_not_ended() -> None:
    # Behind by 0.3 at half of the budget: the line ends ahead if at 0.35 it was behind by more than 0.39.
    mean = fmean([1.00, 1.01, 1.02, 1.01, 1.00])
    assert hopeless(at(mean + 0.3, before=mean + 0.389), [OWN])
    assert not hopeless(at(mean + 0.3, before=mean + 0.391), [OWN])


def test_the_line_is_drawn_from_the_first_look() -> None:
    controls: list[Points] = [((0.2, points[0][1]), *points) for points in OWN]
    mean = fmean([1.00, 1.01, 1.02, 1.01, 1.00])
    stagnant = ((0.35, mean + 0.1), (0.5, mean + 0.1))
    assert not hopeless(((0.2, mean + 0.2), *stagnant), [controls])
    assert hopeless(((0.2, mean + 0.15), *stagnant), [controls])


def test_a_bigger_model_that_was_far_behind_and_ended_ahead_would_not_have_been_ended() -> None:
    # Measured: DEPTH 1, and DEPTH 2 with MLP_RATIO 8, in the tiny profile with equal compute; their difference in nats.
    behind = {0.2: 0.214, 0.35: 0.103, 0.5: 0.073, 0.7: -0.005}
    spread = (-0.02, -0.01, 0.0, 0.01, 0.02)
    smaller: list[Points] = [tuple((look, 3.0 + luck) for look in LOOKS) for luck in spread]
    bigger = tuple((look, 3.0 + behind[look]) for look in LOOKS)
    assert not ended(bigger, [smaller])
    assert ended(tuple((look, 3.103) for look in LOOKS), [smaller]), "as far behind and not catching up"


@pytest.mark.parametrize(
    ("curve", "references"),
    [
        ((), [OWN]),
        (at(9.0)[1:], [OWN]),
        (at(9.0), []),
        (at(9.0), [[], OWN]),
        (at(9.0), [OWN[:1], OWN]),
        (at(9.0), [OWN[:4]]),
        (((0.5, 9.0), (0.7, 9.0)), [OWN]),
        (((0.2, 9.0), (0.5, 9.0)), [OWN]),
        (at(9.0), [like(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)]),
        (at(9.0), [like(1.0, 1.0, 1.0), OWN]),
        (at(9.0), [OWN[:4], like(2.0, 2.0, 2.0)]),
    ],
    ids=[
        "no look",
        "one look",
        "no group",
        "no own",
        "one own",
        "df 3",
        "another look",
        "another look before",
        "no spread",
        "own without spread",
        "df 3 and an earlier one without spread",
    ],
)
def test_nobody_is_ended_without_enough_to_compare_with(curve: Points, references: list[list[Points]]) -> None:
    assert hopeless(curve, references) is None


def test_earlier_incumbents_add_to_the_spread_and_not_to_the_mean() -> None:
    worse = like(2.00, 2.01, 2.02, 1.99)
    assert hopeless(at(1.2), [OWN[:3], worse])
    assert hopeless(at(1.2), [worse, OWN[:3]]) is None, "better than its own incumbent"


def test_only_the_latest_look_is_tested() -> None:
    controls: list[Points] = [(*points, (0.7, points[0][1])) for points in OWN]
    assert hopeless(at(9.0), [controls])
    assert hopeless((*at(9.0), (0.7, 1.0)), [controls]) is None


def test_a_point_is_the_mean_of_what_was_heard_in_the_window_before_its_look() -> None:
    curve = Curve()
    for fraction, loss in [(0.05, 9.0), (0.09, 9.0), (0.11, 4.0), (0.15, 3.0), (0.2, 2.0)]:
        curve.add(fraction, loss)
    assert curve.points() == (), "more may be heard at 0.2"
    curve.add(0.21, 7.0)
    assert curve.points() == ((0.2, pytest.approx(3.0)),)
    curve.add(0.45, 1.0)
    curve.add(0.45, 2.0)
    curve.add(1.0, None)
    assert curve.points() == ((0.2, pytest.approx(3.0)), (0.5, pytest.approx(1.5))), "the others were passed in silence"


@pytest.mark.parametrize("loss", [None, nan, inf, -inf, 1e300, 10**400, "2", True, [1.0]])
def test_what_is_no_loss_only_moves_the_run_on(loss: object) -> None:
    curve = Curve()
    curve.add(0.15, 3.0)
    curve.add(0.18, loss)  # type: ignore[arg-type]
    curve.add(0.24, loss)  # type: ignore[arg-type]
    assert curve.points() == ((0.2, 3.0),)


@pytest.mark.parametrize("fraction", [nan, inf, -0.1, 1.1, 0.12, None, "0.18", True])
def test_a_fraction_out_of_range_or_going_back_is_not_heard(fraction: object) -> None:
    curve = Curve()
    curve.add(0.15, 3.0)
    curve.add(fraction, 9.0)  # type: ignore[arg-type]
    curve.add(0.19, 5.0)
    curve.add(0.21, None)
    assert curve.points() == ((0.2, 4.0),)


@given(st.lists(st.tuples(st.floats(), st.none() | st.floats()), max_size=200))
def test_whatever_is_heard_points_are_finite_in_order_and_do_not_change(
    heard: list[tuple[float, float | None]],
) -> None:
    curve, before = Curve(), Curve().points()
    for fraction, loss in heard:
        curve.add(fraction, loss)
        points = curve.points()
        assert points[: len(before)] == before
        assert [look for look, _ in points] == sorted({look for look, _ in points})
        assert all(abs(loss) <= 1e6 for _, loss in points)
        before = points
