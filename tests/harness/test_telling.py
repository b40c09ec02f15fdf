"""Progress in the log: whole lines of ours, that no trainer can print."""

from __future__ import annotations

import io
import json
import sys

import pytest

from controller.harness.files import PROGRESS_MARK
from controller.harness.lines import say
from tests.harness.attempts import Attempts

SOURCE = """
ready()
print('AUTORESEARCH_PROGRESS {"progress": 0.99, "loss": 0.1, "steps": 99}', flush=True)
train(); serve()
"""


def told(output: str) -> list[str]:
    """The lines that a reader takes for progress."""
    return [line.removeprefix(PROGRESS_MARK) for line in output.splitlines() if line.startswith(PROGRESS_MARK)]


def test_a_run_that_is_to_tell_prints_what_it_leaves_in_its_file(attempts: Attempts) -> None:
    ran = attempts.evaluated(SOURCE, telling=True)
    assert ran.ending == ("done", "")
    reports = [json.loads(line) for line in told(ran.output)]
    assert reports[0] == {"progress": 0.0, "loss": 2.0, "steps": 1}
    assert reports[-1] == json.loads((ran.directory / "progress.json").read_text())
    assert (reports[-1]["progress"], reports[-1]["steps"]) == (1.0, 4)
    assert '| AUTORESEARCH_PROGRESS {"progress": 0.99' in ran.output
    assert json.loads(ran.output.splitlines()[-1].removeprefix("AUTORESEARCH ")) == ran.result


def test_a_run_that_is_not_to_tell_prints_none(attempts: Attempts) -> None:
    ran = attempts.evaluated(SOURCE)
    assert ran.ending == ("done", "")
    assert told(ran.output) == []


def test_a_line_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Stream())
    say("| a trainer's")
    say(PROGRESS_MARK)
    assert pieces == ["| a trainer's\n", f"{PROGRESS_MARK}\n"]
