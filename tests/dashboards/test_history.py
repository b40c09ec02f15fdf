"""The confirmed incumbents and the noise around them."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import stdev
from types import MappingProxyType
from typing import Any

import pytest

from controller.journal import export, reading
from controller.records import Knobs, Role
from dashboards.history import Step, history


def steps_of(study: Any, metric: str = "val_bpb", changed: Mapping[str, Knobs] = MappingProxyType({})) -> list[Step]:
    rows = export.results(study.journal, study.tag)
    kept = [(wave, candidate) for wave, candidate, *_ in reading.kept(study.journal, study.tag)]
    return history(rows, reading.decisions(study.journal, study.tag), kept, "k0", metric, changed)


@pytest.fixture
def confirmed(study: Any) -> Any:
    """A baseline at 1.0 on H100 and 0.99 on H200, and a winner at 0.98 on H200."""
    study.start()
    study.design(("e1", "k0", Role.CONTROL), ("e2", "k0", Role.CONTROL), ("e3", "k1", Role.CELL), hypothesis="faster")
    for experiment, score in (("e1", 1.0), ("e2", 1.002), ("e3", 0.9)):
        study.run(experiment, score)
    study.confirm(("e4", "k1", Role.CONFIRMATION), ("e5", "k0", Role.CONTROL), ("e6", "k1", Role.CONFIRMATION))
    for experiment, score in (("e4", 0.98), ("e5", 0.99), ("e6", 0.984)):
        study.run(experiment, score, "H200")
    study.keep("k1", (0.98, 0.984))
    return study


def test_a_step_is_the_mean_of_the_runs_that_confirmed_it_and_no_screening_score(confirmed: Any) -> None:
    winner = steps_of(confirmed)[-1]
    assert winner.score == pytest.approx(0.982)
    assert (winner.candidate, winner.runs, winner.description) == ("k1", 2, "faster")


def test_a_step_is_called_by_what_it_changed_rather_than_by_a_hypothesis_about_many(confirmed: Any) -> None:
    assert steps_of(confirmed, changed={"k1": {"DEPTH": 3}})[-1].description == "DEPTH = 3"


def test_a_step_stands_where_its_last_confirmation_made_it_known(confirmed: Any) -> None:
    assert [step.number for step in steps_of(confirmed)] == [1, 6]


def test_the_baseline_is_measured_on_the_hardware_that_confirmed_the_first_winner(confirmed: Any) -> None:
    first = steps_of(confirmed)[0]
    assert (first.description, first.score, first.accelerator) == ("baseline", 0.99, "H200")


def test_noise_is_the_spread_of_replicates_on_one_accelerator(confirmed: Any) -> None:
    noise = steps_of(confirmed)[-1].noise
    assert noise is not None
    assert noise.sigma == pytest.approx(stdev([0.98, 0.984]))
    assert noise.df == 1


def test_without_a_keep_the_baseline_is_the_mean_of_its_controls(study: Any) -> None:
    study.start()
    study.design(("e1", "k0", Role.CONTROL), ("e2", "k0", Role.CONTROL))
    study.run("e1", 1.0)
    study.run("e2", 1.002)
    (first,) = steps_of(study)
    assert first.score == pytest.approx(1.001)
    assert (first.runs, first.decision) == (2, None)


def test_no_score_no_history(study: Any) -> None:
    study.start()
    study.design(("e1", "k0", Role.CONTROL))
    assert steps_of(study) == []


def test_a_kept_candidate_that_was_not_committed_yet_is_no_step(confirmed: Any) -> None:
    rows = export.results(confirmed.journal, confirmed.tag)
    decisions = reading.decisions(confirmed.journal, confirmed.tag)
    assert [step.candidate for step in history(rows, decisions, [], "k0", "val_bpb", {})] == ["k0"]
