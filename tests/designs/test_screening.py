from __future__ import annotations

import subprocess
import sys
from itertools import combinations, product

import pytest

from controller.designs import cells, full_factorial, screen
from controller.records import Design, Factor


def two_level(count: int) -> list[Factor]:
    return [Factor(f"K{i}", (-1, 1)) for i in range(count)]


def signs(count: int) -> list[tuple[int, ...]]:
    return [tuple(int(str(value)) for value in cell.values()) for cell in screen(two_level(count))]


RUNS = {1: 2, 2: 4, 3: 4, 4: 8, 5: 8, 7: 8, 8: 12, 11: 12, 12: 16, 16: 20, 20: 24, 23: 24, 24: 32, 31: 32, 35: 40}


@pytest.mark.parametrize(("count", "runs"), RUNS.items())
def test_a_screen_takes_the_fewest_runs_there_are(count: int, runs: int) -> None:
    assert len(screen(two_level(count))) == runs


@pytest.mark.parametrize("count", [*range(1, 28), 32, 40])
def test_every_pair_of_levels_of_two_knobs_occurs_equally_often(count: int) -> None:
    columns = list(zip(*signs(count), strict=True))
    for column in columns:
        assert sum(column) == 0
    for one, other in combinations(columns, 2):
        pairs = list(zip(one, other, strict=True))
        assert all(pairs.count((a, b)) * 4 == len(pairs) for a, b in product((-1, 1), repeat=2))


@pytest.mark.parametrize("count", [1, 2])
def test_a_full_factorial_is_used_where_it_costs_no_more(count: int) -> None:
    assert screen(two_level(count)) == full_factorial(two_level(count))


def test_four_knobs_have_main_effects_clear_of_every_two_factor_interaction() -> None:
    columns = list(zip(*signs(4), strict=True))
    for main in columns:
        for one, other in combinations(columns, 2):
            assert sum(m * a * b for m, a, b in zip(main, one, other, strict=True)) == 0


def test_a_screen_uses_the_levels_given() -> None:
    factors = [Factor("LR", (0.02, 0.04)), Factor("ACT", ("relu", "gelu")), Factor("TIE", (False, True))]
    found = cells(Design.SCREEN, factors, {})
    assert len(found) == 4
    for factor in factors:
        assert sorted(str(cell[factor.knob]) for cell in found) == sorted(str(level) for level in factor.levels * 2)


@pytest.mark.parametrize("levels", [(1,), (1, 2, 3), (1, 1)])
def test_a_knob_without_exactly_two_levels_is_named(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="DEPTH"):
        screen([Factor("LR", (0.1, 0.2)), Factor("DEPTH", levels)])


@pytest.mark.parametrize("package", ["designs", "stats"])
def test_importing_the_package_imports_nothing_heavy(package: str) -> None:
    code = f"import sys, controller.{package}; print(sorted({{'numpy', 'scipy', 'pyDOE3'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
