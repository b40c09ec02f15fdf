from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.designs import cells, full_factorial, sweep
from controller.records import Design, Factor

LR = Factor("LR", (0.02, 0.04))
DEPTH = Factor("DEPTH", (6, 8, 10))
BASE = {"LR": 0.04, "DEPTH": 8, "SEED": 1}

factor_lists = st.lists(
    st.builds(
        Factor,
        st.sampled_from("ABCDE"),
        st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True).map(tuple),
    ),
    max_size=4,
    unique_by=lambda factor: factor.knob,
)


def test_a_full_factorial_is_in_standard_order() -> None:
    assert full_factorial([LR, DEPTH]) == [
        {"LR": 0.02, "DEPTH": 6},
        {"LR": 0.02, "DEPTH": 8},
        {"LR": 0.02, "DEPTH": 10},
        {"LR": 0.04, "DEPTH": 6},
        {"LR": 0.04, "DEPTH": 8},
        {"LR": 0.04, "DEPTH": 10},
    ]


@given(factor_lists)
def test_a_full_factorial_has_every_combination_once(factors: list[Factor]) -> None:
    found = full_factorial(factors)
    expected = 1
    for factor in factors:
        expected *= len(factor.levels)
    assert len(found) == len({tuple(cell.items()) for cell in found}) == expected


def test_a_sweep_moves_one_knob_at_a_time() -> None:
    assert sweep([LR, DEPTH], BASE) == [
        {"LR": 0.02, "DEPTH": 8},
        {"LR": 0.04, "DEPTH": 8},
        {"LR": 0.04, "DEPTH": 6},
        {"LR": 0.04, "DEPTH": 8},
        {"LR": 0.04, "DEPTH": 10},
    ]


def test_the_base_of_a_sweep_is_one_cell_however_often_it_is_listed() -> None:
    assert cells(Design.SWEEP, [LR, DEPTH], BASE) == [
        {"LR": 0.02, "DEPTH": 8},
        {"LR": 0.04, "DEPTH": 8},
        {"LR": 0.04, "DEPTH": 6},
        {"LR": 0.04, "DEPTH": 10},
    ]


def test_a_sweep_without_a_base_names_the_knob() -> None:
    with pytest.raises(ValueError, match="DEPTH"):
        cells(Design.SWEEP, [LR, DEPTH], {"LR": 0.04})


@pytest.mark.parametrize("design", Design)
def test_a_proposal_without_factors_is_one_cell(design: Design) -> None:
    assert cells(design, [], BASE) == [{}]


@pytest.mark.parametrize("design", Design)
def test_every_design_names_every_knob_in_every_cell(design: Design) -> None:
    factors = [LR, Factor("DEPTH", (6, 10))]
    assert all(list(cell) == ["LR", "DEPTH"] for cell in cells(design, factors, BASE))


def test_repeated_levels_give_no_repeated_cells() -> None:
    assert cells(Design.FULL, [Factor("LR", (0.1, 0.2, 0.1))], {}) == [{"LR": 0.1}, {"LR": 0.2}]


def test_values_that_are_equal_but_not_the_same_source_are_different_cells() -> None:
    found = cells(Design.FULL, [Factor("X", (1, 1.0, True))], {})
    assert [repr(cell["X"]) for cell in found] == ["1", "1.0", "True"]


@pytest.mark.parametrize("factors", [[LR, LR], [LR, Factor("DEPTH", ())]], ids=["twice", "no levels"])
def test_factors_that_make_no_design_are_named(factors: list[Factor]) -> None:
    with pytest.raises(ValueError, match=factors[1].knob):
        cells(Design.FULL, factors, BASE)
