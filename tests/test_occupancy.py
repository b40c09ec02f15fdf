from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.occupancy import Occupancy, Span, occupancy


def test_slots_that_are_never_idle_are_fully_busy() -> None:
    spans = [Span(0, 10, 10), Span(0, 10, 10), Span(10, 20, 10), Span(10, 20, 10)]
    assert occupancy([spans], 2) == Occupancy(1.0, 1.0)


def test_waiting_between_attempts_counts_against_the_slots() -> None:
    assert occupancy([[Span(0, 5, 4), Span(10, 15, 4)]], 1) == Occupancy(0.5, 0.4)


def test_what_happens_after_the_last_start_does_not_count() -> None:
    short = [Span(0, 10, 10), Span(0, 10, 10), Span(10, 11, 1)]
    long = [Span(0, 10, 10), Span(0, 10, 10), Span(10, 99, 89)]
    assert occupancy([short], 2) == occupancy([long], 2) == Occupancy(1.0, 1.0)


def test_training_is_shared_out_over_an_attempt_that_was_cut_by_the_last_start() -> None:
    assert occupancy([[Span(0, 20, 10), Span(0, 10, 10), Span(10, 30, 10)]], 2) == Occupancy(1.0, 0.75)


def test_a_phase_that_never_filled_its_slots_says_nothing() -> None:
    assert occupancy([[Span(0, 10, 10), Span(0, 10, 10)]], 2) is None
    assert occupancy([[]], 1) is None
    assert occupancy([], 1) is None


def test_attempts_that_all_began_at_once_say_nothing() -> None:
    assert occupancy([[Span(3, 10, 7)] * 4], 2) is None


def test_the_pause_between_two_phases_does_not_count() -> None:
    screening = [Span(0, 10, 10), Span(10, 20, 10), Span(20, 30, 10)]
    confirmation = [Span(1000, 1010, 10), Span(1010, 1020, 10)]
    assert occupancy([screening, confirmation], 1) == Occupancy(1.0, 1.0)


def test_an_attempt_of_no_length_is_no_division_by_zero() -> None:
    assert occupancy([[Span(0, 0, 0), Span(4, 8, 4)]], 1) == Occupancy(0.0, 0.0)


@given(
    lengths=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30),
    slots=st.integers(1, 5),
)
def test_shares_lie_between_nothing_and_everything(lengths: list[tuple[int, int]], slots: int) -> None:
    free = [0] * slots
    spans = []
    for pause, length in lengths:
        slot = free.index(min(free))
        begin = free[slot] + pause
        free[slot] = begin + length
        spans.append(Span(begin, begin + length, length / 2))
    found = occupancy([spans], slots)
    if found is not None:
        assert 0 <= found.training <= found.busy <= 1
        assert found.training == pytest.approx(found.busy / 2)
