"""From a report to an outcome: what counts, and whose failure it is."""

from __future__ import annotations

from typing import Any

import pytest

from controller.backends import Ended
from controller.records import Attempt, Label, Outcome
from controller.watcher import REASON_CHARACTERS, judge

ATTEMPT = Attempt("study.e0001.1", "e0001", "local-01", "5eed" * 8)
EXPECTED = {"train": "aa", "fixed": "bb"}
GOOD: dict[str, Any] = {
    "attempt": ATTEMPT.id,
    "nonce": ATTEMPT.nonce,
    "status": "done",
    "reason": "",
    "metrics": {"val_bpb": 1.25, "depth": 2},
    "accelerator": "H100",
    "hashes": {**EXPECTED, "data": "cc"},
    "budget": "262144 tokens",
    "timings": {"training": 9.5},
    "self_reported": False,
}


def outcome(report: dict[str, Any] | None, reason: str = "", metric: str = "val_bpb") -> Outcome:
    return judge(ATTEMPT, Ended(ATTEMPT.id, report, reason), EXPECTED, metric)


def test_a_result_with_the_right_id_nonce_and_hashes_is_a_measurement() -> None:
    assert outcome(GOOD) == Outcome(
        label=None,
        metrics={"val_bpb": 1.25, "depth": 2.0},
        accelerator="H100",
        hashes={**EXPECTED, "data": "cc"},
        budget="262144 tokens",
        timings={"training": 9.5},
    )


def test_a_score_the_trainer_reported_itself_is_marked() -> None:
    assert outcome({**GOOD, "self_reported": True}).self_reported


@pytest.mark.parametrize(
    "change", [{"attempt": "study.e0002.1"}, {"nonce": "0" * 32}, {"nonce": None}, {"attempt": None}]
)
def test_the_result_of_another_attempt_does_not_count(change: dict[str, Any]) -> None:
    found = outcome(GOOD | change)
    assert (found.label, found.reason) == (Label.LOST, "the result it left is not this attempt's")
    assert not found.metrics


@pytest.mark.parametrize("kind", ["train", "fixed"])
def test_a_score_of_other_code_does_not_count(kind: str) -> None:
    for hashes in ({**EXPECTED, kind: "zz"}, {name: value for name, value in EXPECTED.items() if name != kind}, None):
        found = outcome(GOOD | {"hashes": hashes})
        assert found.label is Label.MISMATCH
        assert not found.metrics


def test_no_report_is_the_infrastructures_failure_with_its_reason() -> None:
    assert outcome(None, "preempted") == Outcome(Label.LOST, "preempted")


@pytest.mark.parametrize("label", [label for label in Label if label is not Label.CANCELLED])
def test_a_failure_keeps_its_label_and_never_a_score(label: Label) -> None:
    found = outcome(GOOD | {"status": label.value, "reason": "because"})
    assert (found.label, found.reason, found.metrics) == (label, "because", {})


def test_an_attempt_is_cancelled_where_its_backend_says_so_or_its_own_harness() -> None:
    assert outcome({"status": "cancelled"}, "by hand") == Outcome(Label.CANCELLED, "by hand")
    assert outcome(GOOD | {"status": "cancelled"}).label is Label.CANCELLED
    assert outcome(GOOD | {"status": "cancelled", "nonce": "0" * 32}).label is Label.LOST


@pytest.mark.parametrize("status", ["finished", "", None, 7, ["done"], {"done": True}])
def test_an_unknown_status_is_the_infrastructures_failure(status: Any) -> None:
    found = outcome(GOOD | {"status": status})
    assert found.label is Label.LOST
    assert "unknown status" in found.reason


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "1.25", None, [1.25], True])
def test_a_score_that_is_no_finite_number_is_no_score(value: Any) -> None:
    found = outcome(GOOD | {"metrics": {"val_bpb": value}})
    assert found.label is Label.NO_SCORE
    assert not found.metrics


def test_the_score_is_the_metric_asked_for() -> None:
    assert outcome(GOOD, metric="accuracy").label is Label.NO_SCORE
    assert outcome(GOOD | {"metrics": {"accuracy": 0.5}}, metric="accuracy").metrics == {"accuracy": 0.5}


@pytest.mark.parametrize("field", ["metrics", "hashes", "timings"])
@pytest.mark.parametrize("value", ["oops", 7, [1, 2]])
def test_a_result_that_makes_no_sense_is_a_failure_and_no_error(field: str, value: Any) -> None:
    assert outcome(GOOD | {field: value}).label in (Label.LOST, Label.NO_SCORE, Label.MISMATCH, None)


def test_a_report_that_is_no_object_is_a_failure_and_no_error() -> None:
    assert outcome(["done"]).label is Label.LOST  # type: ignore[arg-type]


def test_a_reason_is_one_line_of_bounded_length() -> None:
    found = outcome(GOOD | {"status": "crash", "reason": "a\nb\x00 " + "x" * 1000})
    assert "\n" not in found.reason
    assert len(found.reason) == REASON_CHARACTERS
