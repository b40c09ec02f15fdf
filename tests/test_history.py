from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from controller.history import past_wave
from controller.journal import Event, reading
from controller.proposers import Observation, PastWave
from controller.records import Experiment, Knobs, Label, Role
from controller.study import Study
from tests.foreign import workspace
from tests.studies import Answer, Answers, factors, open_in, wave_of

H100, H200 = "H100", "H200"


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    opened = open_in(workspace(tmp_path / "foreign"))
    yield opened
    opened.journal.close()


class Placed(Answers):
    """Answers that come from the accelerator that `place` says."""

    def __init__(self, study: Study, answer: Answer, place: Callable[[Experiment, Knobs], str]) -> None:
        super().__init__(study, answer)
        self._place = place

    def _events_of(self, experiment: Experiment) -> list[Event]:
        candidate = reading.candidate(self._study.journal, self._study.tag, experiment.candidate)
        self._accelerator = self._place(experiment, candidate.knobs)
        return super()._events_of(experiment)


async def screened(study: Study, answer: Answer, place: Callable[[Experiment, Knobs], str]) -> PastWave:
    """A wave of RATE 0.1, 0.2, 0.3, 0.4 around 0.5 with its controls, as its next proposer sees it."""
    wave = await wave_of(study, factors(RATE=(0.1, 0.2, 0.3, 0.4)))
    experiments = [result.experiment for result in reading.results_of(study.journal, study.tag, wave=wave)]
    Placed(study, answer, place).run(experiments)
    return past_wave(study.journal, study.tag, wave)


def seen(past: PastWave) -> dict[object, Observation]:
    return {cell.knobs["RATE"]: cell for cell in past.designs[0].cells}


def rate(knobs: Knobs) -> float:
    return cast(float, knobs["RATE"])


async def test_on_one_accelerator_scores_are_as_they_were_measured(study: Study) -> None:
    past = await screened(study, lambda knobs, one: 1 + rate(knobs), lambda one, knobs: H100)
    assert {value: cell.score for value, cell in seen(past).items()} == {0.1: 1.1, 0.2: 1.2, 0.3: 1.3, 0.4: 1.4}
    assert len(past.controls) > 1 and set(past.controls) == {past.controls[0]}
    assert past.minimize


async def test_scores_from_another_accelerator_are_shifted_by_what_the_controls_differ(study: Study) -> None:
    controls = {1: 2.0, 2: 2.02, 3: 1.81}

    def answer(knobs: Knobs, one: Experiment) -> float:
        if one.role is Role.CONTROL:
            return controls.get(one.replicate, 2.01)
        return 1.5 - (0.2 if rate(knobs) in (0.1, 0.2) else 0.0)

    def place(one: Experiment, knobs: Knobs) -> str:
        helped = one.replicate == 3 if one.role is Role.CONTROL else knobs["RATE"] in (0.1, 0.2)
        return H200 if helped else H100

    replicates = await screened(study, answer, place)
    assert 1.81 not in replicates.controls and sum(replicates.controls) / len(replicates.controls) == pytest.approx(
        2.01
    )
    assert [cell.score for cell in seen(replicates).values()] == pytest.approx([1.5] * 4)


async def test_scores_from_an_accelerator_without_a_control_are_left_out_and_failures_there_are_not(
    study: Study,
) -> None:
    def answer(knobs: Knobs, one: Experiment) -> float | Label:
        return Label.CRASH if rate(knobs) == 0.1 else Label.PRUNED if rate(knobs) == 0.4 else 1.0

    def place(one: Experiment, knobs: Knobs) -> str:
        return H100 if one.role is Role.CONTROL or rate(knobs) == 0.3 else H200

    past = await screened(study, answer, place)
    cells = {value: (cell.score, cell.pruned) for value, cell in seen(past).items()}
    assert cells == {0.1: (None, False), 0.3: (1.0, False), 0.4: (None, True)}


async def test_without_any_control_only_the_accelerator_of_most_cells_is_looked_at(study: Study) -> None:
    def answer(knobs: Knobs, one: Experiment) -> float | Label:
        return Label.LOST if one.role is Role.CONTROL else 1 + rate(knobs)

    past = await screened(study, answer, lambda one, knobs: H200 if knobs.get("RATE") == 0.2 else H100)
    assert past.controls == ()
    assert {value: cell.score for value, cell in seen(past).items()} == {0.1: 1.1, 0.3: 1.3, 0.4: 1.4}
