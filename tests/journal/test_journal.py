from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.clock import VirtualClock
from controller.journal import (
    AttemptEnded,
    AttemptStarted,
    AttemptSubmitted,
    ClusterSeen,
    Event,
    Journal,
    StudyStarted,
    WaveDesigned,
    reading,
    study_lock,
)
from controller.journal.events import decode, encode
from controller.journal.lock import is_locked
from controller.journal.schema import TABLES
from controller.records import Attempt, Candidate, Cluster, Label, Outcome, UserError, Wave

TAG = "mar5"


def rows(journal: Journal) -> dict[str, list[Any]]:
    """Every row of every table."""
    return {name: journal.db.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3").fetchall() for name in TABLES}


def test_replaying_the_events_into_an_empty_journal_gives_the_same_tables(full: Journal, tmp_path: Path) -> None:
    copy = Journal.open(tmp_path / "copy", VirtualClock())
    full.replay_into(copy)
    assert rows(copy) == rows(full)
    assert list(copy.events()) == list(full.events())
    assert all(rows(full).values()), "a table that is empty proves nothing"
    copy.close()


def test_several_studies_replay_each_into_its_own_rows(full: Journal, events: list[Event], tmp_path: Path) -> None:
    full.record("apr6", *events)
    copy = Journal.open(tmp_path / "copy", VirtualClock())
    full.replay_into(copy)
    assert rows(copy) == rows(full)
    assert reading.tags(copy) == ["mar5", "apr6"]
    assert [event for _, _, event in copy.events("apr6")] == events
    copy.close()


def test_the_tables_say_what_the_events_said(full: Journal) -> None:
    results = {result.experiment.id: result for result in reading.results_of(full, TAG)}
    assert {name: (one.status, one.score, one.attempts) for name, one in results.items()} == {
        "e0001": ("done", 1.0, 1),
        "e0002": ("done", 0.95, 2),
        "e0003": ("crash", None, 1),
        "e0004": ("lost", None, 3),
        "e0005": ("done", 1.02, 2),
        "e0006": ("done", 0.96, 1),
        "e0007": ("done", 1.0, 1),
    }
    assert results["e0003"].reason == "exit code 1: ValueError: no"
    assert results["e0006"].accelerator == "H200"
    assert reading.clusters(full, TAG) == [("h100-1", "H100"), ("h200-1", "H200")]
    study = reading.study_of(full, TAG)
    assert (study.incumbent, study.tip, study.baseline) == ("c0001", "e" * 40, "c0000")
    assert study.settings["budget"] == {"hours": 8.0}
    assert reading.candidate(full, TAG, "c0001").knobs == {"RATE": 0.3, "BETAS": (0.8, 0.95)}
    assert reading.unfinished_wave(full, TAG) is None
    assert [one.sentence for one in reading.decisions(full, TAG)] == ["keep c0001, “better” by 0.04"]


def test_a_model_that_only_the_infrastructure_failed_has_not_been_tried(full: Journal) -> None:
    assert reading.known_models(full, TAG) == {"model 0": "c0000", "model 1": "c0001", "model 2": "c0002"}


def test_an_attempt_the_infrastructure_failed_puts_its_experiment_back_into_the_queue(
    journal: Journal, events: list[Event]
) -> None:
    lost = next(place for place, event in enumerate(events) if isinstance(event, AttemptEnded) and event.outcome.label)
    journal.record(TAG, *events[: lost + 1])
    (result,) = reading.results_of(journal, TAG, name="e0002")
    assert (result.status, result.score, result.reason) == ("queued", None, "its cluster was preempted")
    assert reading.infrastructure_failures(journal, TAG, "e0002") == 1
    assert reading.attempts(journal, TAG, open_only=True) == []


def test_events_that_cannot_all_be_applied_leave_nothing_behind(full: Journal) -> None:
    before = rows(full), list(full.events())
    good = ClusterSeen(Cluster("h100-9", "H100"))
    with pytest.raises(KeyError):
        full.record(TAG, good, AttemptStarted("an attempt that nobody submitted"))
    with pytest.raises(sqlite3.IntegrityError):
        full.record(TAG, good, AttemptSubmitted(Attempt("mar5.e0001.1", "e0001", "h100-1", "again")))
    assert (rows(full), list(full.events())) == before
    full.record(TAG, good)
    assert ("h100-9", "H100") in reading.clusters(full, TAG)


def test_a_second_study_of_the_same_name_is_refused_and_changes_nothing(full: Journal, events: list[Event]) -> None:
    before = rows(full)
    with pytest.raises(sqlite3.IntegrityError):
        full.record(TAG, events[0])
    assert rows(full) == before


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4).map(tuple),
    max_leaves=8,
)


@given(knobs=st.dictionaries(st.text(max_size=8), values, max_size=4))
def test_knobs_come_back_from_the_journal_with_value_and_type(knobs: dict[str, Any]) -> None:
    event = WaveDesigned(Wave("w01", 1, 0, "c0000", "doe", knobs, knobs), {}, (), (), ())
    again = decode(encode(event))
    assert repr(again) == repr(event)


@given(text=st.text())
def test_whatever_an_agent_writes_comes_back_unchanged(text: str) -> None:
    event = AttemptEnded(text, Outcome(Label.CRASH, text, {text: 1.0}))
    assert decode(encode(event)) == event


READER = """
import sys
from pathlib import Path
from controller.clock import RealClock
from controller.journal import Journal
journal = Journal.read(Path(sys.argv[1]), RealClock())
seen = []
while not seen or seen[-1] < int(sys.argv[2]):
    (events,) = journal.db.execute("SELECT count(*) FROM events").fetchone()
    journal.db.execute("BEGIN")
    counts = [journal.db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("events", "clusters")]
    journal.db.execute("COMMIT")
    # The study's start is the one event without a cluster.
    assert counts[0] == counts[1] + 1, counts
    seen.append(counts[0])
assert seen == sorted(seen)
print(seen[-1])
"""


def test_readers_in_other_processes_see_whole_events_while_a_writer_writes(
    journal: Journal, directory: Path, events: list[Event]
) -> None:
    journal.record(TAG, events[0])
    command = [sys.executable, "-c", READER, str(directory), "301"]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for number in range(300):
        journal.record(TAG, ClusterSeen(Cluster(f"cluster-{number}", "H100")))
    for reader in readers:
        printed, failed = reader.communicate(timeout=60)
        assert (reader.returncode, printed, failed) == (0, b"301\n", b"")


def test_a_reader_cannot_write(full: Journal, directory: Path) -> None:
    reader = Journal.read(directory, VirtualClock())
    assert reader is not None
    before = rows(full)
    with pytest.raises(UserError, match="can't be written"):
        reader.record(TAG, ClusterSeen(Cluster("mine", "H100")))
    assert rows(reader) == before
    reader.close()


def test_there_is_no_journal_to_read_before_something_was_written(directory: Path) -> None:
    assert Journal.read(directory, VirtualClock()) is None
    directory.mkdir()
    (directory / "journal.db").touch()
    assert Journal.read(directory, VirtualClock()) is None
    assert (directory / "journal.db").read_bytes() == b""


def test_two_controllers_of_one_study_are_refused_and_two_studies_are_not(directory: Path) -> None:
    directory.mkdir()
    hold = (
        "import sys; from pathlib import Path; from controller.journal import study_lock\n"
        "with study_lock(Path(sys.argv[1]), 'mar5'): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        said = rf"study mar5 is already being run by process {other.pid}; wait for it, or choose another --tag"
        with pytest.raises(UserError, match=said), study_lock(directory, "mar5"):
            raise AssertionError("two controllers hold one study")
        assert is_locked(directory, "mar5")
        with study_lock(directory, "apr6"):
            assert is_locked(directory, "apr6")
        other.kill()
        other.wait()
    assert not is_locked(directory, "mar5"), "the kernel releases it, however its holder died"
    with study_lock(directory, "mar5"):
        assert is_locked(directory, "mar5")
    assert not is_locked(directory, "mar5")


def test_a_study_started_twice_in_one_call_is_not_there_at_all(journal: Journal) -> None:
    start = StudyStarted(Candidate("c0000", "a", "a", {}, "m"), "autoresearch/x", "val_bpb", True, {})
    with pytest.raises(sqlite3.IntegrityError):
        journal.record("x", start, start)
    assert reading.tags(journal) == []
