"""The whole command as a real process: killed, interrupted, started twice; what was finished stays finished."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes import PATIENCE_SECONDS, alive_in, wait_for_the_end_of

COMMAND = Path(sys.executable).with_name("autoresearch")

TRAIN = """\
import os, time
WIDTH = 1
seed = int(os.environ["SEED"])
while time.process_time() < 0.15:
    pass
while not os.path.exists({gate!r}):
    time.sleep(0.01)
with open({diary!r}, "a") as diary:
    diary.write(f"{{WIDTH}} {{seed}}\\n")
print(f"val_bpb: {{1 + (WIDTH - 3) ** 2 / 10 + (seed * 7919 % 101) / 100000:.6f}}")
"""

PROGRAM = "---\ntiers: {confirmation: {seeds: 2, promote: 2}}\n---\nMake it wider.\n"

ASKED = ("wave", "--clusters", "2", "--tag", "mar5", "--factor", "WIDTH=1,2,3,4")


@dataclass(frozen=True)
class Workshop:
    """A foreign workspace. `diary` has a line for every training that came to its end; without `gate` none does."""

    root: Path
    gate: Path
    diary: Path

    @contextmanager
    def wave(self, *more: str) -> Iterator[subprocess.Popen[str]]:
        """The command at work; killed should it take longer than any test waits."""
        command = [str(COMMAND), "-C", str(self.root), *ASKED, *more]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment()) as process:
            limit = threading.Timer(2 * PATIENCE_SECONDS, process.kill)
            limit.start()
            try:
                yield process
            finally:
                limit.cancel()
                process.kill()

    def run(self) -> tuple[int, str]:
        """The command from its start to its end: exit code and what it printed."""
        with self.wave() as process:
            output, errors = process.communicate()
            return process.returncode, output + errors

    def run_until(self, moment: Callable[[list[str]], bool], number: signal.Signals) -> tuple[int, list[str]]:
        """Run the command and send it a signal once the lines it has printed are those of `moment`."""
        with self.wave() as process:
            assert process.stdout is not None
            lines: list[str] = []
            for line in process.stdout:
                lines.append(line)
                if moment(lines):
                    process.send_signal(number)
                    break
            rest, errors = process.communicate()
            return process.returncode, [*lines, *rest.splitlines(), *errors.splitlines()]

    def results(self) -> list[dict[str, Any]]:
        """What `results --json` says."""
        command = [str(COMMAND), "-C", str(self.root), "results", "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment())
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def attempts(self, label: str) -> Counter[str]:
        """How many attempts of each experiment ended so: '' stands for a measurement."""
        query = "SELECT experiment FROM attempts WHERE ended IS NOT NULL AND coalesce(label, '') = ?"
        with closing(sqlite3.connect(self.root / ".autoresearch/journal.db")) as journal:
            return Counter(name for (name,) in journal.execute(query, (label,)))

    def finished(self) -> Counter[str]:
        """How often each training came to its end."""
        return Counter(self.diary.read_text().splitlines())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}


IDENTITY = ("-c", "user.name=tester", "-c", "user.email=tester@localhost")


def made_in(directory: Path) -> Workshop:
    made = Workshop(directory / "workspace", directory / "gate", directory / "diary")
    made.root.mkdir()
    made.gate.touch()
    made.diary.touch()
    (made.root / "train.py").write_text(TRAIN.format(gate=str(made.gate), diary=str(made.diary)))
    (made.root / "program.md").write_text(PROGRAM)
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], [*IDENTITY, "commit", "-q", "-m", "begin"]):
        subprocess.run(["git", *arguments], cwd=made.root, check=True)
    return made


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    yield made_in(tmp_path)
    left = alive_in(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    wait_for_the_end_of(*left)


def substance(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results without what may differ between two runs of one wave: when, where, and after how many attempts."""
    passing = {"cluster", "commit", "parent", "attempts", "started", "finished", "seconds"}
    return [{name: value for name, value in row.items() if name not in passing} for row in rows]


def decision(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("decision:")]


@dataclass(frozen=True)
class Undisturbed:
    """The wave where nothing happens to it."""

    results: list[dict[str, Any]]
    decision: list[str]
    winner: str


def winner(workshop: Workshop) -> str:
    """train.py at the tip of the study branch."""
    command = ["git", "show", "autoresearch/mar5:train.py"]
    text = subprocess.run(command, cwd=workshop.root, stdout=subprocess.PIPE, text=True, check=True).stdout
    return next(line for line in text.splitlines() if line.startswith("WIDTH"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    workshop = made_in(tmp_path_factory.mktemp("undisturbed"))
    code, output = workshop.run()
    assert code == 0, output
    rows = workshop.results()
    assert {row["status"] for row in rows} == {"done"}
    assert {row["tier"] for row in rows} == {"screening", "confirmation"}
    assert all(row["attempts"] == 1 for row in rows)
    assert set(workshop.finished().values()) == {1}
    assert len(workshop.finished()) == len(rows)
    assert alive_in(workshop.root) == {}
    assert winner(workshop) == "WIDTH = 3"
    return Undisturbed(substance(rows), decision(output), winner(workshop))


def ended(lines: list[str]) -> int:
    """How many experiments the command has said to have ended."""
    return sum(line.startswith("e0") for line in lines)


MOMENTS: dict[str, Callable[[list[str]], bool]] = {
    "the study has begun": lambda lines: lines[-1].startswith("study "),
    "the wave is designed": lambda lines: lines[-1].startswith("wave w01"),
    "the first result is in": lambda lines: ended(lines) == 1,
    "three results are in": lambda lines: ended(lines) == 3,
    "screening is over": lambda lines: any("confirmation" in line for line in lines),
    "the last result but one is in": lambda lines: (
        any("confirmation" in line for line in lines) and "[1 to go]" in lines[-1]
    ),
}


def assert_all_is_as_if_nothing_had_happened(workshop: Workshop, output: str, undisturbed: Undisturbed) -> None:
    rows = workshop.results()
    assert substance(rows) == undisturbed.results
    assert decision(output) == undisturbed.decision
    assert winner(workshop) == undisturbed.winner
    assert workshop.attempts("") == dict.fromkeys([row["experiment"] for row in rows], 1)
    assert alive_in(workshop.root) == {}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_wave_goes_on_where_it_was_killed_when(workshop: Workshop, undisturbed: Undisturbed, moment: str) -> None:
    code, lines = workshop.run_until(MOMENTS[moment], signal.SIGKILL)
    assert code == -signal.SIGKILL, lines
    before = workshop.attempts("") if ended(lines) else Counter()
    assert sum(before.values()) >= ended(lines)
    code, output = workshop.run()
    assert code == 0, output
    assert_all_is_as_if_nothing_had_happened(workshop, output, undisturbed)
    # A training that outlives its controller is adopted or collected, never made again.
    assert set(workshop.finished().values()) == {1}
    assert workshop.attempts("lost") == {}


def test_a_wave_that_is_killed_after_every_result_still_comes_to_its_end(
    workshop: Workshop, undisturbed: Undisturbed
) -> None:
    kills = 0
    while True:
        code, lines = workshop.run_until(lambda lines: ended(lines) == 1, signal.SIGKILL)
        if code == 0:
            break
        assert code == -signal.SIGKILL, lines
        kills += 1
        assert kills <= len(undisturbed.results)
    assert kills > 3
    assert_all_is_as_if_nothing_had_happened(workshop, "\n".join(lines), undisturbed)
    assert set(workshop.finished().values()) == {1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_wave_keeps_its_results_and_goes_on_with_the_same_command(
    workshop: Workshop, undisturbed: Undisturbed, number: signal.Signals
) -> None:
    code, lines = workshop.run_until(lambda lines: ended(lines) == 2, number)
    assert code == 130, lines
    assert lines[-1] == (
        "autoresearch: interrupted; everything finished so far is kept, and the same command goes on from here"
    )
    assert alive_in(workshop.root) == {}
    kept = {row["experiment"]: row["val_bpb"] for row in workshop.results() if row["status"] == "done"}
    assert len(kept) >= 2
    assert {row["status"] for row in workshop.results()} == {"done", "queued"}
    code, output = workshop.run()
    assert code == 0, output
    assert kept.items() <= {row["experiment"]: row["val_bpb"] for row in workshop.results()}.items()
    assert_all_is_as_if_nothing_had_happened(workshop, output, undisturbed)


def test_a_study_is_run_by_one_controller_at_a_time(workshop: Workshop) -> None:
    workshop.gate.unlink()
    with workshop.wave() as first:
        assert first.stdout is not None
        for line in first.stdout:
            if line.startswith("wave w01"):
                break
        with workshop.wave() as second:
            _, errors = second.communicate()
        assert second.returncode == 2
        assert errors.splitlines() == [
            f"autoresearch: study mar5 is already being run by process {first.pid};"
            " wait for it, or choose another --tag"
        ]
        workshop.gate.touch()
        first.communicate()
        assert first.returncode == 0
    assert {row["status"] for row in workshop.results()} == {"done"}
    assert set(workshop.finished().values()) == {1}
