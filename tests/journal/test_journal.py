from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
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
    ClusterGone,
    ClustersAsked,
    ClusterSeen,
    ConfirmationPlanned,
    Event,
    ExperimentAbandoned,
    Journal,
    NoteAdded,
    NoteRetired,
    ProposerAnswered,
    RunStarted,
    RunStopped,
    StudyStarted,
    WaveDecided,
    WaveDesigned,
    reading,
    study_lock,
)
from controller.journal.events import decode, encode
from controller.journal.lock import is_locked
from controller.journal.schema import TABLES
from controller.records import (
    Attempt,
    Candidate,
    Cluster,
    Design,
    Factor,
    Label,
    Note,
    Outcome,
    UserError,
    Wave,
)

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
    assert (study.incumbent, study.tip, study.baseline) == ("c0004", "e" * 40, "c0000")
    assert study.settings["budget"] == {"hours": 8.0}
    assert reading.candidate(full, TAG, "c0001").knobs == {"RATE": 0.3, "BETAS": (0.8, 0.95)}
    assert (reading.candidate(full, TAG, "c0001").origin, reading.candidate(full, TAG, "c0004").origin) == ("", "c0001")
    assert reading.unfinished_wave(full, TAG) is None and reading.open_waves(full, TAG) == []
    assert (reading.wave_state(full, TAG, "w01"), reading.waves(full, TAG, ended=True)) == ("ended", ["w01"])
    assert [one.sentence for one in reading.decisions(full, TAG)] == ["keep c0004, “better” by 0.04"]
    assert reading.decisions(full, TAG, candidate="c0004") == reading.decisions(full, TAG)
    assert reading.decisions(full, TAG, candidate="c0001") == []
    assert reading.totals(full, TAG) == {
        "waves": 1,
        "proposals": 2,
        "candidates": 5,
        "experiments": 7,
        "attempts": 11,
    }


def test_a_wave_says_where_it_stands_and_beside_whom_it_is_confirmed(
    journal: Journal, events: list[Event], designed: list[Event]
) -> None:
    stands = {WaveDesigned: "screening", ConfirmationPlanned: "confirming", WaveDecided: "decided"}
    for event in events:
        journal.record(TAG, replace(event, against="c0002") if isinstance(event, ConfirmationPlanned) else event)
        if type(event) in stands:
            ((wave, state),) = reading.open_waves(journal, TAG)
            assert (wave.id, state) == ("w01", stands[type(event)]) and reading.wave_state(journal, TAG, "w01") == state
            assert reading.waves(journal, TAG) == ["w01"] and reading.waves(journal, TAG, ended=True) == []
            assert reading.against(journal, TAG, "w01") == ("c0000" if state == "screening" else "c0002")


def test_a_cluster_is_billed_from_when_it_was_seen_until_it_is_gone(full: Journal) -> None:
    begun = VirtualClock().now()
    assert [(lease.cluster, lease.accelerator, lease.since, lease.until) for lease in reading.leases(full, TAG)] == [
        ("h100-1", "H100", begun, None),
        ("h200-1", "unknown", begun, begun + 30),
        ("h200-1", "H200", begun + 40, None),
    ]
    assert [lease.cluster for lease in reading.leases(full, TAG, open_only=True)] == ["h100-1", "h200-1"]
    # Seen again and gone again: both have been said before.
    full.record(TAG, ClusterSeen(Cluster("h100-1", "H100"), begun + 50), ClusterGone("nobody", begun, "it never was"))
    full.record(TAG, ClusterGone("h100-1", begun - 5, "a clock was set back"))
    full.record(TAG, ClusterGone("h100-1", begun + 99, "said twice"))
    first, *_ = reading.leases(full, TAG)
    assert (first.since, first.until, first.reason) == (begun, begun, "a clock was set back")
    assert len(reading.leases(full, TAG)) == 3


def test_the_latest_accelerator_of_a_cluster_s_name_is_what_counts(full: Journal) -> None:
    for accelerator in ("B200", "A100", "L4"):
        full.record(TAG, ClusterGone("h100-1", 2e9, ""), ClusterSeen(Cluster("h100-1", accelerator), 2e9))
    assert reading.clusters(full, TAG) == [("h100-1", "L4"), ("h200-1", "H200")]


def test_what_was_asked_for_and_has_not_come_is_known(full: Journal) -> None:
    assert reading.arriving(full, TAG) == 0, "both have come"
    full.record(TAG, ClustersAsked(2), ClusterSeen(Cluster("h100-2", "H100"), 0.0))
    assert reading.arriving(full, TAG) == 1
    full.record(TAG, ClusterSeen(Cluster("h100-2", "H100"), 0.0))
    assert reading.arriving(full, TAG) == 1, "that one was there"
    full.record(TAG, ClustersAsked(0))
    assert reading.arriving(full, TAG) == reading.arriving(full, "another") == 0


def test_a_run_is_known_by_what_was_asked_of_it_and_by_its_end_where_it_had_one(full: Journal) -> None:
    run = reading.last_run(full, TAG)
    assert run is not None and run.stopped is not None and run.stopped > run.started
    assert (run.number, run.asked["clusters"], run.why) == (1, 2, "waves")
    full.record(TAG, RunStarted({"clusters": 3}))
    killed = reading.last_run(full, TAG)
    assert killed is not None
    assert (killed.number, killed.asked, killed.stopped, killed.why) == (2, {"clusters": 3}, None, None)
    full.record(TAG, RunStarted({"clusters": 4}), RunStopped("budget", "it is spent"))
    last = reading.last_run(full, TAG)
    assert last is not None and (last.number, last.why, last.reason) == (3, "budget", "it is spent")
    numbers = full.db.execute("SELECT number FROM runs WHERE stopped IS NULL").fetchall()
    assert numbers == [(2,)], "the one that was killed has no end to this day"
    assert reading.last_run(full, "another") is None


def test_a_call_without_an_answer_counts_as_the_most_that_it_may_have_cost(full: Journal) -> None:
    assert (reading.calls(full, TAG), reading.llm_usd(full, TAG)) == (2, 0.5 + 0.75)
    full.record(TAG, ProposerAnswered(2, 0.25))
    assert reading.llm_usd(full, TAG) == 0.75
    assert (reading.calls(full, "another"), reading.llm_usd(full, "another")) == (0, 0.0)


def test_a_proposal_comes_back_with_what_it_predicted_and_what_would_show_it_wrong(full: Journal) -> None:
    found = reading.proposals(full, TAG, "w01")
    first, second = found["p0001"], found["p0002"]
    assert (first.name, first.wave, first.factors, first.edited) == (
        "faster",
        "w01",
        (Factor("RATE", (0.3, 0.5)), Factor("WIDTH", (4, 8))),
        False,
    )
    assert (first.predicted, first.low, first.high, first.falsified_by, first.repairs) == (-0.01, None, None, "", "")
    assert (second.design, second.edited, second.predicted, second.low, second.high) == (
        Design.SWEEP,
        True,
        -0.02,
        -0.03,
        0.0,
    )
    assert (second.falsified_by, second.repairs) == ("no change at all", "c0009")
    assert reading.proposals(full, TAG, "w02") == reading.proposals(full, "another", "w01") == {}


def test_notes_are_open_until_they_are_retired(full: Journal) -> None:
    agents = Note("n0001", "deeper is slower", "agent", "it was noise")
    hint = Note("n0002", "try “less” decay", "person")
    assert reading.notes(full, TAG) == [hint]
    assert reading.notes(full, TAG, open_only=False) == [agents, hint]
    assert reading.next_note(full, TAG) == "n0003" and reading.next_note(full, "another") == "n0001"
    assert reading.note_of_hint(full, TAG, "mar5.1800000000.000000.77.json") == "n0002"
    assert reading.note_of_hint(full, TAG, "another.json") is reading.note_of_hint(full, TAG, "") is None
    full.record(TAG, NoteRetired("n0001", "said twice"), NoteRetired("n0009", "nobody's"))
    assert reading.notes(full, TAG, open_only=False) == [agents, hint]
    for bad in (
        NoteAdded("n0002", "the same id", "agent"),
        NoteAdded("n0003", "again", "person", hint="mar5.1800000000.000000.77.json"),
    ):
        with pytest.raises(sqlite3.IntegrityError):
            full.record(TAG, bad)


def test_the_program_is_the_last_that_was_recorded_and_its_changes_are_known(full: Journal) -> None:
    assert reading.program(full, TAG) == "Make it faster.\nAnd “smaller”."
    ((at, changed),) = reading.program_changes(full, TAG)
    assert changed == "1 line added" and reading.study_of(full, TAG).started < at < reading.last_at(full, TAG)
    assert (reading.program(full, "another"), reading.program_changes(full, "another")) == ("", [])


def test_the_candidates_of_a_wave_are_those_that_its_experiments_run(full: Journal) -> None:
    found = reading.candidates(full, TAG, "w01")
    assert sorted(found) == ["c0000", "c0001", "c0002", "c0003", "c0004"]
    assert all(found[name] == reading.candidate(full, TAG, name) for name in found)
    assert reading.candidates(full, TAG, "w02") == {}


def test_only_waves_after_a_number_are_asked_for(full: Journal) -> None:
    assert reading.waves(full, TAG, ended=True, after=0) == reading.waves(full, TAG, after=0) == ["w01"]
    assert reading.waves(full, TAG, ended=True, after=1) == reading.waves(full, TAG, after=1) == []


def test_the_decision_to_end_an_attempt_is_remembered_with_it(full: Journal) -> None:
    assert reading.pruned(full, TAG, "mar5.e0003.1") == "far behind"
    assert reading.pruned(full, TAG, "mar5.e0001.1") is None and reading.pruned(full, TAG, "nobody") is None


def test_a_pruned_experiment_is_a_result_of_its_candidate(journal: Journal, designed: list[Event]) -> None:
    attempt = Attempt("mar5.e0002.1", "e0002", "h100-1", "nonce")
    ended = AttemptEnded(attempt.id, Outcome(Label.PRUNED, "far behind", accelerator="H100", curve=((0.2, 4.0),)))
    journal.record(TAG, *designed, AttemptSubmitted(attempt), AttemptStarted(attempt.id), ended)
    (result,) = reading.results_of(journal, TAG, name="e0002")
    assert (result.status, result.score, result.reason, result.accelerator) == ("pruned", None, "far behind", "H100")
    assert "model 1" in reading.KnownModels(journal, TAG)


def test_the_curves_of_controls_with_a_score_come_back(full: Journal) -> None:
    curve = ((0.2, 3.5), (0.35, 3.25))
    assert reading.control_curves(full, TAG) == [("c0000", "H100", curve)] * 2 + [("c0000", "H200", curve)]


def test_what_started_before_a_restart_started_then(full: Journal, clock: VirtualClock) -> None:
    first = Attempt("mar5.e0001.2", "e0001", "h100-1", "nonce")
    full.record(TAG, AttemptEnded("mar5.e0001.1", Outcome(Label.LOST, "never mind")), AttemptSubmitted(first))
    full.record(TAG, AttemptStarted(first.id))
    begun = clock.now()
    clock.leap(100)
    full.record(TAG, AttemptStarted(first.id))
    (result,) = reading.results_of(full, TAG, name="e0001")
    assert (result.status, result.started) == ("running", begun)
    ((started,),) = full.db.execute("SELECT started FROM attempts WHERE attempt = ?", (first.id,)).fetchall()
    assert started == begun


def test_a_model_that_only_the_infrastructure_failed_has_not_been_tried(full: Journal) -> None:
    known = reading.KnownModels(full, TAG)
    assert dict(known) == {"model 0": "c0000", "model 1": "c0001", "model 2": "c0002", "model 4": "c0004"}
    assert len(known) == 4 and "model 3" not in known and known.get("model 3") is None
    with pytest.raises(KeyError):
        known["model 3"]


def test_neither_has_one_that_was_called_off_though_an_incumbent_has_whose_control_was(
    journal: Journal, designed: list[Event]
) -> None:
    off = [ExperimentAbandoned(name, Label.CANCELLED, "the budget") for name in ("e0001", "e0002")]
    journal.record(TAG, *designed, *off)
    assert set(reading.KnownModels(journal, TAG)) == {"model 0", "model 2", "model 3"}


def test_what_is_claimed_counts_as_tried_by_whoever_claims_it(full: Journal) -> None:
    known = reading.KnownModels(full, TAG)
    known.claim("model 3", "a cell")
    known.claim("model 9", "another cell")
    assert known["model 3"] == "a cell" and "model 9" in known and known["model 1"] == "c0001"
    assert "model 9" not in reading.KnownModels(full, TAG), "nobody else is told"
    assert set(known) == {f"model {number}" for number in (0, 1, 2, 3, 4, 9)}


def test_the_first_of_several_candidates_that_are_one_model_is_named(journal: Journal, designed: list[Event]) -> None:
    journal.record(TAG, *designed)
    again = Candidate("c0009", "9" * 40, "a" * 40, {}, "model 1", "p0001")
    journal.record(TAG, ConfirmationPlanned("w01", "c0000", {}, (), (again,)))
    assert reading.KnownModels(journal, TAG)["model 1"] == "c0001"


def test_the_last_moment_of_a_study_is_that_of_its_last_event(full: Journal, clock: VirtualClock) -> None:
    assert reading.last_at(full, TAG) == clock.now() and reading.last_at(full, "another") == 0.0


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
    good = ClusterSeen(Cluster("h100-9", "H100"), 0.0)
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
    counts = [journal.db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("events", "leases")]
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
        journal.record(TAG, ClusterSeen(Cluster(f"cluster-{number}", "H100"), 0.0))
    for reader in readers:
        printed, failed = reader.communicate(timeout=60)
        assert (reader.returncode, printed, failed) == (0, b"301\n", b"")


def test_a_reader_cannot_write(full: Journal, directory: Path) -> None:
    reader = Journal.read(directory, VirtualClock())
    assert reader is not None
    before = rows(full)
    with pytest.raises(UserError, match="can't be written"):
        reader.record(TAG, ClusterSeen(Cluster("mine", "H100"), 0.0))
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
