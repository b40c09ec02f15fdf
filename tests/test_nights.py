"""Whole nights under virtual time: killed at every record, and with faults of every kind; the same holds each time."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import SMALL, Life, Trial, broken, fault_night, scratch
from nights import TAG, Night, make_workspace

from controller.backends.simulated import load
from controller.budget import Caps
from controller.journal import Journal, reading
from controller.search import Order

PARTS = 8
"""Of all records that the controller is killed after; a quarter of them it is killed just before as well."""


def study_in(root: Path, seed: int = 5) -> Trial:
    """A study of three waves on four clusters, in a world where nothing fails but candidates, and many are good."""
    scenario = load().with_faults(0)
    good = scenario.truth.good.model_copy(update={"count": 300})
    night = Night(make_workspace(root, SMALL), scenario.with_truth(good=good), seed)
    order = Order({"proposer": "ideas"}, 0, 4, room=5, waves=3, caps=Caps(hours=8, gpu_hours=30))
    return Trial(night, order)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many records the study has where nothing happens to it."""
    trial, life = study_in(tmp_path_factory.mktemp("undisturbed") / "workspace"), Life()
    assert trial.live(life)
    assert broken(trial) == []
    assert trial.stops == ["waves"]
    journal = Journal.read(trial.night.workspace.directory, trial.night.clock)
    assert journal is not None
    assert len(reading.kept(journal, TAG)) >= 2
    rebased = "SELECT count(*) FROM candidates WHERE origin != ''"
    assert journal.db.execute(rebased).fetchone() > (0,), "a wave should have been overtaken by another's keep"
    journal.close()
    return life.recorded


@pytest.mark.parametrize(("part", "before"), [*((part, False) for part in range(PARTS)), (2, True), (5, True)])
def test_a_controller_killed_at_any_record_loses_nothing_and_does_nothing_twice(
    records: int, part: int, before: bool
) -> None:
    assert records > 100
    # The last record says that the run is over: after that another would be another.
    for number in range(1 + part, records + before, PARTS):
        with scratch() as folder:
            trial = study_in(Path(folder, "workspace"))
            assert not trial.live(Life(records=number, before=before)), number
            trial.night.clock.leap(7 * number % 100)
            assert trial.live(Life()), number
            assert broken(trial) == [], number
            assert trial.stops == ["waves"], number
            journal = Journal.read(trial.night.workspace.directory, trial.night.clock)
            assert journal is not None
            labels = {label for (label,) in journal.db.execute("SELECT DISTINCT label FROM attempts")}
            assert labels <= {None, "cancelled", "crash", "overtime", "pruned"}, number
            # What had begun was adopted or collected, and not made again.
            again = "SELECT count(*) FROM attempts WHERE label = 'cancelled' AND started IS NOT NULL"
            assert journal.db.execute(again).fetchone() == (0,), number
            assert reading.totals(journal, TAG)["waves"] == 3, number
            journal.close()


@pytest.mark.parametrize("seed", range(2000, 2012))
def test_whatever_goes_wrong_in_a_night_the_same_holds_in_the_morning(tmp_path: Path, seed: int) -> None:
    trial = fault_night(tmp_path / "workspace", seed)
    assert broken(trial) == []


def test_the_journal_of_a_night_replays_to_the_same_tables(tmp_path: Path) -> None:
    trial = fault_night(tmp_path / "workspace", 7)
    clock = trial.night.clock
    journal = Journal.read(trial.night.workspace.directory, clock)
    assert journal is not None
    copy = Journal.open(tmp_path / "copy", clock)
    journal.replay_into(copy)
    for table in (
        "studies",
        "runs",
        "waves",
        "candidates",
        "experiments",
        "attempts",
        "leases",
        "decisions",
        "tallies",
    ):
        assert (
            journal.db.execute(f"SELECT * FROM {table}").fetchall()
            == copy.db.execute(f"SELECT * FROM {table}").fetchall()
        ), table
    journal.close()
    copy.close()
