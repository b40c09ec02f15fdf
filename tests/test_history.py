from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from controller.history import history, past_wave, pending
from controller.journal import Event, ExperimentAbandoned, reading
from controller.proposers import Observation, PastWave
from controller.records import Experiment, Factor, Knobs, Label, Proposal, Role
from controller.study import Study
from tests.foreign import TRAIN, commit, workspace
from tests.studies import Answer, Answers, factors, finish, open_in, wave_of

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


async def test_what_was_lost_or_called_off_is_not_among_what_was_seen(study: Study) -> None:
    def answer(knobs: Knobs, one: Experiment) -> float | Label:
        return {0.1: Label.LOST, 0.2: Label.CANCELLED, 0.3: Label.CRASH}.get(rate(knobs), 1.0)

    waiting = seen(await screened(study, answer, lambda one, knobs: H100))
    assert waiting.keys() == {0.2, 0.3, 0.4}, "it may be run again"
    results = reading.results_of(study.journal, study.tag)
    off = [ExperimentAbandoned(one.experiment.id, Label.CANCELLED, "") for one in results if one.status == "queued"]
    study.journal.record(study.tag, *off)
    past = past_wave(study.journal, study.tag, "w01")
    scores = {value: (cell.score, cell.pruned) for value, cell in seen(past).items()}
    assert len(off) == 1 and scores == {0.3: (None, False), 0.4: (1.0, False)}


async def test_of_a_cell_that_lost_one_of_its_seeds_the_others_are_seen(tmp_path: Path) -> None:
    root = workspace(tmp_path / "seeds")
    commit(root, {"program.md": "---\ntiers: {screening: {seeds: 2}}\n---\nResearch.\n"})
    study = open_in(root)

    def answer(knobs: Knobs, one: Experiment) -> float | Label:
        ends = {0.1: Label.LOST, 0.3: Label.CRASH} if one.replicate == 1 else {}
        return ends.get(rate(knobs), 1.0 + one.replicate)

    cells = seen(await screened(study, answer, lambda one, knobs: H100))
    assert {value: cell.score for value, cell in cells.items()} == {0.1: 3.0, 0.2: 2.5, 0.3: None, 0.4: 2.5}
    study.journal.close()


async def test_designs_say_whether_they_had_an_edit_and_whether_they_were_kept(study: Study) -> None:
    text = f"{TRAIN}EXTRA = 1\nprint(EXTRA)\n"
    edit = Proposal("edit", "another way", (Factor("RATE", (0.5, 0.3)), Factor("EXTRA", (1, 2))), edit=text)

    def answer(knobs: Knobs, one: Experiment) -> float:
        return 1 + (rate(knobs) - 0.3) ** 2 - 0.1 * ("EXTRA" in knobs) + one.seed % 7 / 1e5

    wave = await wave_of(study, factors(WIDTH=(5, 6)), edit)
    assert [(one.edited, one.kept) for one in pending(study)] == [(False, False), (True, False)]
    finish(study, wave, Answers(study, answer))
    (past,) = history(study)
    assert past.kept and [(one.edited, one.kept) for one in past.designs] == [(False, False), (True, True)]
    assert [cell.knobs for cell in past.designs[1].cells] == [
        {"RATE": value, "WIDTH": 4, "EXTRA": extra} for value in (0.5, 0.3) for extra in (1, 2)
    ]
