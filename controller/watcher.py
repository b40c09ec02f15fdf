"""From what a backend reports to an outcome: only a result with the right id, nonce and hashes counts.

A missing answer is never evidence of death: an attempt is over when its backend says so, and not before.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller.backends import Ended
from controller.records import Attempt, Label, Outcome
from controller.text import one_line

REASON_CHARACTERS = 300
LARGEST = sys.float_info.max


def judge(attempt: Attempt, ended: Ended, expected: Mapping[str, str], metric: str) -> Outcome:
    """The outcome of `attempt`. `expected` are the hashes of the code it was given; `metric` the name of the score."""
    report = ended.report
    if report is None:
        return Outcome(ended.label, ended.reason)
    # A trainer can write to where its result is read from: nothing about a report is taken for granted.
    if not isinstance(report, Mapping):
        return Outcome(Label.LOST, "the result it left is not a JSON object")
    if report.get("status") == Label.CANCELLED and "nonce" not in report:  # the backend's own word
        return Outcome(Label.CANCELLED, _text(report.get("reason") or ended.reason))
    if report.get("attempt") != attempt.id or report.get("nonce") != attempt.nonce:
        return Outcome(Label.LOST, "the result it left is not this attempt's")
    told = Outcome(
        label=None,
        reason=_text(report.get("reason")),
        metrics=_numbers(report.get("metrics")),
        accelerator=_text(report.get("accelerator")),
        hashes={str(name): str(value) for name, value in _mapping(report.get("hashes")).items()},
        timings=_numbers(report.get("timings")),
        budget=_text(report.get("budget")),
        self_reported=bool(report.get("self_reported")),
        unsandboxed=report.get("sandbox") == "none",
    )
    status = report.get("status")
    if status != "done":
        known = isinstance(status, str) and status in set(Label)
        label = Label(str(status)) if known else Label.LOST
        reason = told.reason if known else f"its result has an unknown status {_text(status)!r}"
        return replace(told, label=label, reason=reason, metrics={})
    wrong = [name for name, value in expected.items() if told.hashes.get(name) != value]
    if wrong:
        return replace(told, label=Label.MISMATCH, reason=f"it ran another {wrong[0]} than it was given", metrics={})
    if metric not in told.metrics:
        return replace(told, label=Label.NO_SCORE, reason=f"its result has no finite {metric}", metrics={})
    return told


def _text(value: Any) -> str:
    return one_line(str(value or "")[: 10 * REASON_CHARACTERS])[:REASON_CHARACTERS]


def _mapping(found: Any) -> Mapping[Any, Any]:
    return found if isinstance(found, Mapping) else {}


def _numbers(found: Any) -> dict[str, float]:
    return {
        str(name): float(value)
        for name, value in _mapping(found).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST
    }
