from __future__ import annotations

import csv
import io
import json

import pandas as pd

from controller.clock import VirtualClock
from controller.journal import Event, Journal
from controller.journal.export import COLUMNS, results, to_csv, to_json, to_tsv

TAG = "mar5"
CONTRACT = [
    *("experiment", "wave", "proposal", "candidate", "commit", "parent", "role", "tier", "accelerator", "cluster"),
    *("seed", "replicate", "status", "val_bpb", "metrics", "knobs", "hypothesis", "attempts", "started", "finished"),
    "seconds",
]


def test_every_row_has_the_keys_of_the_contract_in_its_order(full: Journal) -> None:
    found = json.loads(to_json(full, TAG))
    assert [row["experiment"] for row in found] == [f"e000{number}" for number in range(1, 8)]
    for row in found:
        assert tuple(row) == COLUMNS
        assert list(row)[: len(CONTRACT)] == CONTRACT


def test_a_missing_score_is_null_and_never_zero(full: Journal) -> None:
    scores = {row["experiment"]: (row["status"], row["val_bpb"]) for row in json.loads(to_json(full, TAG))}
    assert scores["e0003"] == ("crash", None)
    assert scores["e0004"] == ("lost", None)
    assert scores["e0002"] == ("done", 0.95)


def test_an_experiment_that_has_not_run_has_no_times_and_no_score(journal: Journal, designed: list[Event]) -> None:
    journal.record(TAG, *designed)
    for row in json.loads(to_json(journal, TAG)):
        assert row["status"] == "queued" and row["attempts"] == 0
        missing = ("val_bpb", "accelerator", "cluster", "started", "finished", "seconds")
        assert [row[name] for name in missing] == [None] * 6


def test_controls_carry_the_factors_of_the_wave_with_the_incumbent_s_values(full: Journal) -> None:
    rows = {row["experiment"]: row for row in results(full, TAG)}
    assert rows["e0001"]["knobs"] == rows["e0007"]["knobs"] == {"RATE": 0.5, "WIDTH": 4}
    assert rows["e0002"]["knobs"] == {"RATE": 0.3, "WIDTH": 4, "BETAS": [0.8, 0.95]}
    assert rows["e0003"]["knobs"] == {"RATE": 0.5, "WIDTH": 8}


def test_a_row_names_its_commit_its_parent_and_its_hypothesis(full: Journal) -> None:
    row = results(full, TAG, "e0002")[0]
    assert (row["commit"], row["parent"], row["proposal"]) == ("b" * 40, "a" * 40, "p0001")
    assert row["hypothesis"] == "it learns too fast\nand too “loud”"
    assert (row["role"], row["tier"], row["seed"], row["attempts"]) == ("cell", "screening", 101, 2)


def test_times_are_utc_and_seconds_are_their_difference(full: Journal) -> None:
    row = results(full, TAG, "e0001")[0]
    started, finished = pd.Timestamp(row["started"]), pd.Timestamp(row["finished"])
    assert started.tzinfo is not None and started.timestamp() > VirtualClock().now() - 1
    assert row["seconds"] == 1.5 and started < finished


def test_the_comma_separated_rows_say_what_the_json_says(full: Journal) -> None:
    text = to_csv(full, TAG)
    rows = list(csv.DictReader(io.StringIO(text)))
    for row, told in zip(rows, results(full, TAG), strict=True):
        assert json.loads(row["metrics"]) == told["metrics"] and json.loads(row["knobs"]) == told["knobs"]
        assert row["hypothesis"] == told["hypothesis"]
    table = pd.read_csv(io.StringIO(text))
    assert tuple(table.columns) == COLUMNS and len(table) == 7
    assert table["val_bpb"].isna().sum() == 2
    assert list(table["val_bpb"].dropna()) == [1.0, 0.95, 1.02, 0.96, 1.0]


def test_the_tab_separated_rows_are_upstream_s(full: Journal) -> None:
    text = to_tsv(full, TAG)
    table = pd.read_csv(io.StringIO(text), sep="\t")
    assert list(table.columns) == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert list(table["status"]) == ["keep", "discard", "crash", "crash", "keep", "keep", "keep"]
    assert list(table["val_bpb"]) == [1.0, 0.95, 0.0, 0.0, 1.02, 0.96, 1.0]
    assert list(table["memory_gb"]) == [2.0, 2.0, 0.0, 0.0, 2.0, 2.0, 2.0]
    assert text.splitlines()[6].startswith("eeeeeee\t0.960000\t2.0\tkeep\tit learns too fast and too “loud” (RATE=0.3")


def test_upstream_s_rows_hold_no_experiment_that_has_not_ended(journal: Journal, designed: list[Event]) -> None:
    journal.record(TAG, *designed)
    assert to_tsv(journal, TAG) == "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"


def test_a_study_without_experiments_is_an_empty_list(journal: Journal, events: list[Event]) -> None:
    journal.record(TAG, events[0])
    assert json.loads(to_json(journal, TAG)) == []
    assert to_csv(journal, TAG).splitlines() == [",".join(COLUMNS)]
