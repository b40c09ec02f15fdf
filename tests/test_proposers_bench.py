"""The bench that compares proposers holds their budgets equal; here a function stands in for training."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from math import log2
from pathlib import Path

import pytest
from proposers import (
    ARMS,
    FRESH,
    METRIC,
    MOST,
    SEEDS,
    Account,
    Random,
    Step,
    Trail,
    Training,
    Trainings,
    billed,
    differences,
    figure,
    never_began,
    search,
)

from controller.backends import Bundle
from controller.designs import cells, controls_for
from controller.edits import model_digest, read_knobs
from controller.proposers import Context
from controller.proposers.tpe import axes
from controller.records import Label, Outcome
from controller.search import CELLS

TRAIN = (Path(__file__).parents[1] / "train" / "train.py").read_text()
COST = 10.0
WAVE = COST * (CELLS + controls_for(CELLS) + 2 * SEEDS)
"""CPU-seconds of a wave of `CELLS` cells."""


def source(bundle: Bundle) -> str:
    with tarfile.open(fileobj=io.BytesIO(bundle.archive)) as tar:
        file = tar.extractfile("train/train.py")
        assert file is not None
        return file.read().decode()


class Bowl:
    """Scores a file by how far its Muon learning rate is from 0.08, and what its seed adds; notes what it trained."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    async def __call__(self, bundle: Bundle, model: str) -> Training:
        self.seeds.append(bundle.job["seed"])
        rate = read_knobs(source(bundle))["MATRIX_LR"]
        assert isinstance(rate, float)
        score = 2 + 0.1 * abs(log2(rate / 0.08)) + 1e-4 * ((int(model[:8], 16) ^ bundle.job["seed"]) % 7)
        return Training(Outcome(None, "", {METRIC: score}, "CPU", bundle.job["hashes"], "none"), COST)


@pytest.mark.parametrize("arm", ARMS)
async def test_an_arm_moves_its_incumbent_by_confirmed_waves_within_its_budget(arm: str, tmp_path: Path) -> None:
    bowl = Bowl()
    trail = await search(arm, 1, tmp_path / "workspace", Trainings(bowl, None), 2.2 * WAVE)
    assert trail.waves >= 2
    assert trail.steps[-1].score < trail.steps[0].score - 0.05
    assert all(step.at <= 2.2 * WAVE for step in trail.steps)
    assert trail.cpu_seconds == COST * trail.runs <= 2.2 * WAVE
    assert set(FRESH) <= set(bowl.seeds)


async def test_what_the_budget_cannot_screen_is_called_off_and_the_rest_is_confirmed(tmp_path: Path) -> None:
    bowl = Bowl()
    trail = await search("doe", 1, tmp_path / "workspace", bowl, 0.7 * WAVE)
    assert (trail.waves, len(trail.steps)) == (1, 2)
    assert 6 + 2 * SEEDS <= trail.runs < CELLS + 3 + 2 * SEEDS
    assert trail.cpu_seconds <= 0.7 * WAVE


async def test_a_confirmation_that_overruns_the_budget_changes_nothing(tmp_path: Path) -> None:
    class Dearer(Bowl):
        """Confirming takes three times as long."""

        async def __call__(self, bundle: Bundle, model: str) -> Training:
            training = await super().__call__(bundle, model)
            return replace(training, cpu_seconds=COST * (3 if bundle.job["seed"] % 1000 > 500 else 1))

    trail = await search("doe", 1, tmp_path / "workspace", Dearer(), 1.1 * WAVE)
    assert (trail.waves, len(trail.steps)) == (0, 1)
    assert trail.cpu_seconds == pytest.approx(1.1 * WAVE)


def test_enough_is_set_aside_to_confirm_the_dearest_cell() -> None:
    account = Account(budget=200.0)
    account.bill("c0000", Training(Outcome(None), 10.0))
    account.bill("c0001", Training(Outcome(None), 20.0))
    account.bill("c0002", Training(Outcome(Label.OVERTIME), 24.0))
    account.spent = 200 - MOST - SEEDS * (10 + 20)
    assert account.pays_for(1, "c0000")
    account.spent += 1
    assert not account.pays_for(1, "c0000")


async def test_a_model_is_trained_once_with_a_seed_also_by_a_bench_that_goes_on(tmp_path: Path) -> None:
    bowl, file = Bowl(), tmp_path / "cache"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("train/train.py")
        entry.size = len(TRAIN.encode())
        tar.addfile(entry, io.BytesIO(TRAIN.encode()))
    one, other = (Bundle(archive.getvalue(), {"seed": seed, "hashes": {"fixed": "f"}}) for seed in (1, 2))
    trainings = Trainings(bowl, file)
    first = await trainings(one, "c0ffee00")
    assert (await trainings(one, "c0ffee00")) is first
    file.write_text(file.read_text() + '\n{"key": "cut o')
    await trainings(other, "c0ffee00")
    later = Trainings(bowl, file)
    await later(other, "c0ffee00")
    again = await later(one, "c0ffee00")
    assert bowl.seeds == [1, 2]
    assert (again.cpu_seconds, again.outcome.metrics) == (first.cpu_seconds, first.outcome.metrics)


async def test_random_proposes_new_models_on_the_axes_of_optuna() -> None:
    present = read_knobs(TRAIN)
    models = {model_digest(TRAIN): "c0000"}
    for seed in (1, 2):
        context = Context(TRAIN, True, 0.0005, dict(models), (), seed)
        ranges = {axis.knob: axis for axis in axes(context, present)}
        proposals = await Random().propose(context, 12)
        assert len(proposals) == 12
        for proposal in proposals:
            (cell,) = cells(proposal.design, proposal.factors, present)
            assert model_digest(TRAIN, cell) not in models
            models[model_digest(TRAIN, cell)] = "tried"
            for factor in proposal.factors:
                at = ranges[factor.knob].coordinate(factor.levels[0])
                assert at is not None
                assert ranges[factor.knob].low * 0.99 <= at <= ranges[factor.knob].high * 1.01


def test_a_run_that_failed_is_billed_with_the_most_that_it_can_have_spent() -> None:
    ended = Outcome(Label.OVERTIME, timings={"warmup": 2.0, "total": 60.0})
    assert billed(ended, 0.25) == 12.0
    assert billed(ended, 1.0) == 24.0
    assert billed(Outcome(Label.DIVERGED, timings={"warmup": 2.0, "total": 5.0}), 0.25) == 3.0
    assert billed(Outcome(None, timings={"training_cpu": 7.1, "warmup": 2.0, "total": 60.0}), 1.0) == 7.1


def test_what_was_never_ready_says_nothing_of_its_candidate() -> None:
    assert never_began(Outcome(Label.OVERTIME, timings={"total": 60.2}))
    assert never_began(Outcome(Label.LOST))
    assert not never_began(Outcome(Label.OVERTIME, timings={"warmup": 2.0, "total": 12.0}))
    assert not never_began(Outcome(None, timings={"total": 9.0}))


def trails(finals: dict[str, list[float]]) -> list[Trail]:
    return [
        Trail(arm, seed, (Step(0.0, 2.0, ""), Step(100.0, score, "a change")), 200.0, 2, 40, 0)
        for arm, scores in finals.items()
        for seed, score in enumerate(scores)
    ]


def test_differences_between_arms_are_paired_by_seed() -> None:
    found = differences(trails({"doe": [1.8, 1.9], "optuna": [1.7, 1.81], "random": [1.8, 1.91]}))
    assert found["doe", "optuna"].change == pytest.approx(0.095)
    low, high = found["doe", "random"].low, found["doe", "random"].high
    assert low is not None and high is not None and low < 0 < high


def test_the_picture_has_a_line_for_each_arm_and_a_band_of_quartiles() -> None:
    drawn = figure(trails({"doe": [1.8, 1.9, 1.95], "optuna": [1.7] * 3, "random": [1.8] * 3}), 200.0)
    assert [one.name for one in drawn.data if one.name] == [*ARMS]
    low, high, middle = drawn.data[:3]
    assert list(middle.x) == [0.0, 100.0, 200.0]
    assert list(middle.y) == [2.0, 1.9, 1.9]
    assert list(low.y)[-1] == pytest.approx(1.85)
    assert list(high.y)[-1] == pytest.approx(1.925)
