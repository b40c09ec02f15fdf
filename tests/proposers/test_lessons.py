from __future__ import annotations

import random
from dataclasses import replace
from statistics import fmean

import pytest

from controller.designs import full_factorial
from controller.proposers import Observation, PastDesign, PastWave
from controller.proposers.lessons import Lesson, design_effects, hopeless, learn
from controller.records import Factor, Knobs, Value
from controller.stats import Effects, pooled

LR = Factor("LR", (0.02, 0.04))
DEPTH = Factor("DEPTH", (6, 8))
BASE: Knobs = {"LR": 0.02, "DEPTH": 6}


def wave(cells: list[Observation], controls: list[float], minimize: bool = True) -> PastWave:
    designs = (PastDesign((LR, DEPTH), tuple(cells)),)
    return PastWave("w01", BASE, designs, tuple(controls), False, minimize=minimize)


CONTROLS = (1.00, 1.01, 0.99)


def past(*designs: PastDesign, controls: tuple[float, ...] = CONTROLS) -> PastWave:
    return PastWave("w01", BASE, designs, controls, any(design.kept for design in designs))


def alone(knob: str, *found: tuple[Value, float | None], edited: bool = False, kept: bool = False) -> PastDesign:
    """A design of one knob, with the score at each of its values; what the incumbent has is a level of it."""
    levels = dict.fromkeys((BASE[knob], *(value for value, _ in found)))
    cells = tuple(Observation({**BASE, knob: value}, score) for value, score in found)
    return PastDesign((Factor(knob, tuple(levels)),), cells, edited, kept)


def lessons(*history: PastWave) -> dict[str, Lesson]:
    return learn(history, BASE, minimize=True, min_effect=0.0005)


def simulated(rng: random.Random, minimize: bool) -> PastWave:
    """A 2×2 in which LR makes a score worse by 0.6, DEPTH better by 0.5, and what is clearly worse is pruned."""
    sign = 1 if minimize else -1
    controls = [1 + rng.gauss(0, 0.1) for _ in range(4)]
    cells = []
    for knobs in full_factorial([LR, DEPTH]):
        score = 1 + 0.6 * (knobs["LR"] == 0.04) - 0.5 * (knobs["DEPTH"] == 8) + rng.gauss(0, 0.1)
        pruned = score > fmean(controls) + 0.2
        cells.append(Observation(knobs, None if pruned else sign * score, pruned))
    return wave(cells, [sign * score for score in controls], minimize)


def effect(effects: Effects, knob: str) -> float:
    return next((one.estimate for one in effects.estimated if one.term.knobs == (knob,)), 0.0)


@pytest.mark.parametrize("minimize", [True, False])
def test_pruned_cells_leave_an_effect_at_its_size(minimize: bool) -> None:
    rng = random.Random(5)
    sign = 1 if minimize else -1
    with_them, without = [], []
    for _ in range(300):
        found = simulated(rng, minimize)
        noise = pooled([found.controls])
        unpruned = [replace(cell, pruned=False) for cell in found.designs[0].cells]
        with_them.append(sign * effect(design_effects(found.designs[0], found, noise), "LR"))
        without.append(sign * effect(design_effects(PastDesign((LR, DEPTH), tuple(unpruned)), found, noise), "LR"))
    assert fmean(with_them) == pytest.approx(0.6, abs=0.03)
    assert fmean(without) < 0.52, "what is left out is what was worse"


def test_a_knob_whose_step_was_pruned_every_time_is_known_to_be_better_the_other_way() -> None:
    cells = [Observation({"LR": 0.04, "DEPTH": depth}, None, pruned=True) for depth in (6, 8)]
    cells.append(Observation({"LR": 0.02, "DEPTH": 8}, 1.0))
    controls = [1.00, 1.01, 0.99, 1.00, 1.01, 0.99]
    lesson = learn([wave(cells, controls)], BASE, minimize=True, min_effect=0.0)["LR"]
    assert lesson.direction == -1 and 0 < lesson.gain < 0.05
    upside_down = [replace(cell, score=None if cell.score is None else -cell.score) for cell in cells]
    mirrored = wave(upside_down, [-score for score in controls], minimize=False)
    assert learn([mirrored], BASE, minimize=False, min_effect=0.0)["LR"] == lesson


def test_without_a_control_a_pruned_cell_says_nothing() -> None:
    cells = [Observation({"LR": 0.04, "DEPTH": 6}, None, pruned=True), Observation({"LR": 0.02, "DEPTH": 8}, 1.0)]
    uncontrolled = wave(cells, [])
    assert design_effects(uncontrolled.designs[0], uncontrolled, None).estimated == ()


def test_a_pruned_cell_survived_and_a_failed_one_did_not() -> None:
    failed = [Observation({"LR": 0.04, "DEPTH": 8}, None), Observation({"LR": 0.04, "DEPTH": 6}, None)]
    assert hopeless([wave(failed, [1.0])]) == {("LR", "0.04")}
    assert hopeless([wave([failed[0], replace(failed[1], pruned=True)], [1.0])]) == frozenset()


def test_a_level_is_blamed_for_a_failure_only_where_nothing_else_can_be_to_blame() -> None:
    both = [Observation({"LR": 0.04, "DEPTH": 8}, None)] * 2
    assert hopeless([wave(both, [1.0])]) == frozenset(), "they were never tried apart"
    survived = Observation({"LR": 0.02, "DEPTH": 8}, 1.0)
    assert hopeless([wave([*both, survived], [1.0])]) == {("LR", "0.04")}


def test_what_the_controls_ran_with_is_not_blamed_for_the_failures_beside_them() -> None:
    moved = PastWave("w02", {"LR": 0.04, "DEPTH": 6}, (), (0.9,), True)
    failed = [Observation({"LR": 0.02, "DEPTH": 8}, None), Observation({"LR": 0.02, "DEPTH": 9}, None)]
    assert hopeless([wave(failed, [1.0]), moved]) == frozenset()


def test_what_failed_on_top_of_an_edit_is_blamed_on_no_knob() -> None:
    failed = alone("LR", (0.04, None), (0.08, None), (0.04, None))
    assert hopeless([past(failed)]) == {("LR", "0.04")}
    assert hopeless([past(replace(failed, edited=True))]) == frozenset()
    assert hopeless([past(failed, alone("LR", (0.04, 0.9), edited=True))]) == {("LR", "0.04")}, "nor is it a survival"


def test_what_an_edit_does_is_not_put_down_to_the_knobs_that_are_varied_with_it() -> None:
    same, one = alone("LR", (0.02, 0.9), (0.04, 0.9), edited=True), alone("LR", (0.04, 0.9), edited=True)
    assert effect(design_effects(replace(same, edited=False), past(same), None), "LR") < -0.05
    (found,) = design_effects(same, past(same), pooled([CONTROLS])).estimated
    assert found.estimate == pytest.approx(0.0)
    assert found.low is not None and found.high is not None and found.low < 0 < found.high, "there is noise, however"
    assert design_effects(one, past(one), None).estimated == (), "with what would it be compared?"


def test_of_a_pruned_cell_of_an_edit_it_is_known_that_it_is_worse_than_the_controls() -> None:
    cells = (Observation({**BASE, "LR": 0.02}, 0.9), Observation({**BASE, "LR": 0.04}, None, pruned=True))
    design = PastDesign((LR,), cells, edited=True)
    assert effect(design_effects(design, past(design), None), "LR") == pytest.approx(0.1)
    pruned = replace(design, cells=tuple(replace(cell, score=None, pruned=True) for cell in cells))
    assert design_effects(pruned, past(pruned), None).estimated == (), "both are: nothing says which is worse"


def test_knobs_that_an_edit_brings_have_effects_on_top_of_it_and_teach_nothing_of_the_incumbent() -> None:
    new = Factor("GATE", (1.0, 2.0))
    cells = tuple(Observation({**BASE, "GATE": value}, score) for value, score in ((1.0, 0.9), (2.0, 0.7)))
    for kept in (False, True):
        design = PastDesign((new,), cells, edited=True, kept=kept)
        assert effect(design_effects(design, past(design), None), "GATE") == pytest.approx(-0.2)
        assert learn([past(design)], {**BASE, "GATE": 2.0}, minimize=True, min_effect=0.0) == {}


def test_what_ran_on_top_of_an_edit_teaches_only_once_the_edit_was_kept() -> None:
    better = alone("LR", (0.02, 0.8), (0.04, 0.7), edited=True)
    assert lessons(past(better)) == {}
    (kept,) = lessons(past(replace(better, kept=True))).items()
    assert kept == ("LR", Lesson(1, pytest.approx(0.1), 1.0)), "0.3 of that were the edit's"
    assert lessons(past(better, alone("DEPTH", (8, 0.8)))).keys() == {"DEPTH"}


def test_cells_that_each_change_many_knobs_at_once_teach_nothing_however_many_they_are() -> None:
    """As optuna's are: each a proposal of its own, whose factors have a level each."""
    drawn = [{"LR": 0.03, "DEPTH": 7}, {"LR": 0.05, "DEPTH": 8}, {"LR": 0.01, "DEPTH": 5}]
    designs = [
        PastDesign(tuple(Factor(knob, (value,)) for knob, value in one.items()), (Observation(one, 1.1),))
        for one in drawn
    ]
    assert lessons(past(*designs)) == {}
    assert lessons(past(*designs, alone("LR", (0.04, 0.8)))).keys() == {"LR"}


def test_what_never_ran_apart_teaches_nothing() -> None:
    crossed = PastDesign((LR, DEPTH), (Observation({"LR": 0.04, "DEPTH": 8}, 1.0),))
    assert lessons(past(crossed)) == lessons(past(replace(crossed, cells=()))) == {}


def test_a_step_that_fails_or_says_nothing_is_halved() -> None:
    halved = {"LR": Lesson(0, 0.0, 0.5)}
    assert lessons(past(alone("LR", (0.04, None)))) == lessons(past(alone("LR", (0.04, 1.0)))) == halved
