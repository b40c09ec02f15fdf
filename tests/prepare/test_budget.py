from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare.budget import Grant, Meter
from prepare.profile import Budget

TOKENS = Budget(tokens=1000, seconds=None, cpu_seconds=10.0, warmup_seconds=60.0)
SECONDS = Budget(tokens=None, seconds=300.0, cpu_seconds=None, warmup_seconds=60.0)


def running(budget: Budget) -> Meter:
    meter = Meter(budget)
    meter.start(now=5.0, cpu=3.0)
    return meter


def test_a_token_budget_is_spent_exactly_where_steps_divide_it() -> None:
    meter = running(TOKENS)
    grants = [meter.more(250, None, 5.0, 3.0) for _ in range(5)]
    assert [grant.go for grant in grants] == [True] * 4 + [False]
    assert [grant.progress for grant in grants] == [0, 0.25, 0.5, 0.75, 1]
    assert (meter.tokens, meter.steps) == (1000, 4)


@given(st.lists(st.integers(1, 700)))
def test_a_token_budget_is_never_exceeded(steps: list[int]) -> None:
    meter = running(TOKENS)
    taken = sum(step for step in steps if meter.more(step, None, 5.0, 3.0).go)
    assert taken == meter.tokens <= 1000


def test_a_time_budget_ends_when_the_seconds_are_over() -> None:
    meter = running(SECONDS)
    assert meter.more(512, None, 5.0, 3.0) == Grant(True, 0.0)
    assert meter.more(512, 2.0, 5.0 + 150, 3.0) == Grant(True, 0.5)
    assert meter.more(512, 2.0, 5.0 + 300, 3.0) == Grant(False, 1.0)
    assert meter.more(512, 2.0, 5.0 + 400, 3.0) == Grant(False, 1.0)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 100.1])
def test_a_loss_that_is_not_finite_or_above_100_has_diverged(loss: float) -> None:
    assert running(TOKENS).more(250, loss, 5.0, 3.0) == Grant(False, 0.0, "diverged")


def test_divergence_in_the_very_last_step_is_noticed() -> None:
    meter = running(TOKENS)
    assert meter.more(1000, None, 5.0, 3.0).go
    assert meter.more(1000, math.nan, 5.0, 3.0).label == "diverged"


def test_more_cpu_seconds_than_allowed_are_overtime() -> None:
    meter = running(TOKENS)
    assert meter.more(250, None, 5.0, 13.0).go
    assert meter.more(250, 2.0, 5.0, 13.1) == Grant(False, 0.25, "overtime")


def test_steps_before_the_start_and_empty_steps_are_refused() -> None:
    with pytest.raises(RuntimeError, match="ready"):
        Meter(TOKENS).more(250, None, 5.0, 3.0)
    with pytest.raises(ValueError, match="positive"):
        running(TOKENS).more(0, None, 5.0, 3.0)


def test_a_budget_is_counted_in_one_unit() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Budget(tokens=1, seconds=1.0, cpu_seconds=None, warmup_seconds=1.0)
    with pytest.raises(ValueError, match="exactly one"):
        Budget(tokens=None, seconds=None, cpu_seconds=None, warmup_seconds=1.0)
