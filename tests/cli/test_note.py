"""`autoresearch note`: a person's hints, beside a controller that runs and without one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.clock import RealClock
from controller.journal import Journal, NoteAdded, reading, study_lock

Command = Callable[..., Any]
Files = Callable[[Path], dict[str, bytes]]


def record(root: Path, *events: NoteAdded) -> None:
    journal = Journal.open(root / ".autoresearch", RealClock())
    journal.record("mar5", *events)
    journal.close()


def waits(root: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text()) for path in sorted((root / ".autoresearch" / "hints").glob("mar5.*.json"))]


def test_a_hint_waits_until_the_study_is_run_again_and_then_is_taken_up(ran: Path, run_process: Command) -> None:
    assert run_process("note", cwd=ran).out == "study mar5 has no open notes\n"
    assert run_process("note", "wider is\nbetter", cwd=ran).out == "taken up when the study is run again\n"
    assert run_process("note", cwd=ran).out == "waits  person  wider is better\n"
    (ran / "program.md").write_text((ran / "program.md").read_text() + "\nTry widths.\n")
    done = run_process("wave", "--clusters", "1", "--infra", "local", "--factor", "WIDTH=16", cwd=ran)
    assert done.code == 0, done
    assert "hint n0001 is taken up: wider is better\n" in done.out
    assert "program.md has changed: 2 lines added; the next wave is proposed by it\n" in done.out
    assert run_process("note", cwd=ran).out == "n0001  person  wider is better\n"
    assert waits(ran) == []
    journal = Journal.read(ran / ".autoresearch", RealClock())
    assert journal is not None
    assert reading.program(journal, "mar5").endswith("\n\nTry widths.")
    journal.close()


def test_beside_a_controller_nothing_is_written_into_its_journal(ran: Path, run_process: Command, files: Files) -> None:
    record(ran, NoteAdded("n0001", "deeper is slower", "agent"))
    with study_lock(ran / ".autoresearch", "mar5"):
        run_process("note", cwd=ran)
        before = files(ran)
        assert run_process("note", "try less", cwd=ran).out == "taken up before the next wave is proposed\n"
        retired = run_process("note", "--retire", "n0001", cwd=ran).out
        assert retired == "n0001 is retired before the next wave is proposed\n"
        after = files(ran)
    assert {name for name in after if name not in before} == {name for name in after if "/hints/" in name}
    assert all(after[name] == content for name, content in before.items())
    listed = run_process("note", "--tag", "mar5", cwd=ran).out.splitlines()
    assert listed == ["n0001  agent   deeper is slower", "waits  person  try less", "waits  person  retires n0001"]


def test_hints_of_many_people_at_once_are_all_there(ran: Path) -> None:
    command = [sys.executable, "-c", "from controller.cli import main; main()", "note"]
    running = [subprocess.Popen([*command, f"hint {number}"], cwd=ran, stdout=subprocess.PIPE) for number in range(4)]
    assert [one.wait() for one in running] == [0] * 4
    for one in running:
        one.communicate()
    assert sorted(one["text"] for one in waits(ran)) == [f"hint {number}" for number in range(4)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("",), 'a note needs a text, such as autoresearch note "try deeper models"'),
        ((" \n\x1b",), "a note needs a text"),
        (("x" * 501,), "a note has 500 characters at most, this one 501; shorten it, or write it into program.md"),
        (("--retire", "n0001"), "study mar5 has no open note n0001; `autoresearch note` lists those there are"),
        (("--retire", ""), "study mar5 has no open note ; "),
        (("text", "--retire", "n0001"), "give the text of a note, or --retire one, not both"),
        (("text", "--tag", "apr6"), "there is no study apr6; there are mar5"),
        (("two", "words"), "got unexpected extra argument (words)"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing_behind(
    arguments: tuple[str, ...], said: str, ran: Path, run_process: Command, files: Files
) -> None:
    before = files(ran)
    assert said in run_process("note", *arguments, cwd=ran).sentence
    assert files(ran) == before


def test_before_there_is_a_study_there_is_nobody_to_tell(foreign: Path, cli: Command) -> None:
    assert "has no study yet" in cli("note", "try less").sentence
    assert not (foreign / ".autoresearch").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(ran: Path, run_process: Command) -> None:
    (ran / ".autoresearch" / "hints").write_text("a file in its place")
    assert "make it writable and run again" in run_process("note", "try less", cwd=ran).sentence
