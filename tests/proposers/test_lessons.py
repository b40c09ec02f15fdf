from __future__ import annotations

import random
from dataclasses import replace
from statistics import fmean

import pytest

from controller.designs import full_factorial
from controller.proposers import Observation, PastDesign, PastWave
from controller.proposers.lessons import design_effects, hopeless, learn
from controller.records import Factor, Knobs
from controller.stats import Effects, pooled

LR = Factor("LR", (0.02, 0.04))
DEPTH = Factor("DEPTH", (6, 8))
BASE: Knobs = {"LR": 0.02, "DEPTH": 6}


def wave(cells: list[Observation], controls: list[float], minimize: bool = True) -> PastWave:
    designs = (PastDesign((LR, DEPTH), tuple(cells)),)
    return PastWave("w01", BASE, designs, tuple(controls), False, minimize=minimize)


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
        past = simulated(rng, minimize)
        noise = pooled([past.controls])
        unpruned = [replace(cell, pruned=False) for cell in past.designs[0].cells]
        with_them.append(sign * effect(design_effects(past.designs[0], past, noise), "LR"))
        without.append(sign * effect(design_effects(PastDesign((LR, DEPTH), tuple(unpruned)), past, noise), "LR"))
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
    past = wave(cells, [])
    assert design_effects(past.designs[0], past, None).estimated == ()


def test_a_pruned_cell_survived_and_a_failed_one_did_not() -> None:
    failed = [Observation({"LR": 0.04, "DEPTH": 8}, None), Observation({"LR": 0.04, "DEPTH": 6}, None)]
    assert hopeless([wave(failed, [1.0])]) == {("LR", "0.04")}
    assert hopeless([wave([failed[0], replace(failed[1], pruned=True)], [1.0])]) == frozenset()
