"""`run`, `stop` and `watch` as a person gives them: real processes, killed, stopped, starved of disk and of budget."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.foreign import git, refs, workspace
from tests.processes import PATIENCE_SECONDS, alive_in, wait_for_the_end_of

COMMAND = Path(sys.executable).with_name("autoresearch")

TRAIN = """\
import os, time
RATE = 0.5
WIDTH = 4
DEPTH = 3
seed = int(os.environ["SEED"])
print("begun", flush=True)
while time.process_time() < 0.1:
    pass
while os.path.exists({gate!r}):
    time.sleep(0.01)
with open({diary!r}, "a") as diary:
    diary.write(f"{{RATE}} {{WIDTH}} {{DEPTH}} {{seed}}\\n")
print(f"val_bpb: {{1 + (RATE - 0.3) ** 2 + 0.1 / WIDTH + 0.05 / DEPTH + (seed * 7919 % 101) / 100000:.6f}}")
"""
PROGRAM = "---\ntiers: {{confirmation: {{seeds: 2, promote: 2}}}}\n{more}---\nMake it better.\n"


@dataclass(frozen=True)
class Bench:
    """A workspace for `run`. While `gate` is there no training ends; `diary` has a line for each that did."""

    root: Path
    gate: Path
    diary: Path

    @contextmanager
    def started(self, *arguments: str, command: str = "run") -> Iterator[subprocess.Popen[str]]:
        """A command at work; killed should it take longer than any test waits."""
        pipe = subprocess.PIPE
        words = [str(COMMAND), "-C", str(self.root), command, *arguments]
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
        with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=env) as process:
            limit = threading.Timer(3 * PATIENCE_SECONDS, process.kill)
            limit.start()
            try:
                yield process
            finally:
                limit.cancel()
                process.kill()

    def run(self, *arguments: str, command: str = "run") -> tuple[int, str, str]:
        """A command from its start to its end: exit code, output, errors."""
        with self.started(*arguments, command=command) as process:
            output, errors = process.communicate()
            return process.returncode, output, errors

    def query(self, text: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.root / ".autoresearch/journal.db")) as journal:
            return journal.execute(text).fetchall()

    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("--json", command="results")[1])
        return found


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    def made(more: str = "") -> Bench:
        gate, diary = tmp_path / "gate", tmp_path / "diary"
        diary.touch()
        train = TRAIN.format(gate=str(gate), diary=str(diary))
        root = workspace(tmp_path / "workspace", {"train.py": train, "program.md": PROGRAM.format(more=more)})
        return Bench(root, gate, diary)

    yield made
    left = alive_in(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    wait_for_the_end_of(*left)


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


def lines_until(process: subprocess.Popen[str], moment: Callable[[list[str]], bool]) -> list[str]:
    """What it printed until `moment` holds of that, or until it ended."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if moment(lines):
            break
    return lines


def is_as_long_as(wanted: int, lines: list[str]) -> bool:
    return len(lines) >= wanted


def results_in(lines: Sequence[str]) -> int:
    return sum(re.match(r"e\d{4} ", line) is not None for line in lines)


def assert_all_is_accounted_for(bench: Bench) -> None:
    rows = bench.rows()
    assert {row["status"] for row in rows} == {"done"}
    assert bench.query("SELECT count(*) FROM attempts WHERE ended IS NULL") == [(0,)]
    measured = dict(bench.query("SELECT experiment, count(*) FROM attempts WHERE label IS NULL GROUP BY experiment"))
    assert measured == dict.fromkeys((row["experiment"] for row in rows), 1)
    assert bench.query("SELECT count(*) FROM waves WHERE state != 'ended'") == [(0,)]
    assert bench.query("SELECT count(*) FROM leases WHERE until IS NULL") == [(0,)]
    assert alive_in(bench.root) == {}


def test_a_run_goes_from_wave_to_wave_and_ends_with_what_came_of_it(bench: Bench) -> None:
    code, output, errors = bench.run("--clusters", "2", "--waves", "2", "--tag", "mar5")
    assert (code, errors) == (0, "")
    summary = output[output.index("\nstudy mar5") :].splitlines()[1:]
    assert re.fullmatch(
        r"study mar5 on branch autoresearch/mar5: 2 waves, \d+ experiments; not running: .*", summary[0]
    )
    assert summary[1].startswith("improved   val_bpb to ")
    assert re.search(r"keeps?, -0\.\d+ in all \(± 0\.\d+ at 95 %\)", summary[1])
    assert [line.split()[0] for line in summary] == ["study", "improved", "last", "cost", "look", "plot"]
    assert_all_is_accounted_for(bench)
    status = bench.run(command="status")[1].splitlines()
    assert status[: len(summary) - 1] == summary[:-1]
    log = (bench.root / ".autoresearch/log/controller.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in log]
    assert events.count("attempt ended") == len(bench.rows())


def test_the_next_wave_trains_while_the_first_is_confirmed(bench: Bench) -> None:
    assert bench.run("--clusters", "2", "--waves", "2", "--tag", "mar5")[0] == 0
    ((first_of_second,),) = bench.query("SELECT min(started) FROM experiments WHERE wave = 'w02'")
    ((last_of_first,),) = bench.query("SELECT max(finished) FROM experiments WHERE wave = 'w01'")
    assert first_of_second < last_of_first


def test_killed_ten_times_it_loses_nothing_and_does_nothing_twice(bench: Bench) -> None:
    draw, asked = random.Random(5), ("--clusters", "2", "--waves", "2", "--tag", "mar5")
    kills = 0
    while True:
        with bench.started(*asked) as process:
            if kills < 10:
                lines_until(process, partial(is_as_long_as, draw.randrange(1, 12)))
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += process.returncode == -signal.SIGKILL
                continue
            _, errors = process.communicate()
            break
    assert kills == 10
    assert (process.returncode, errors) == (0, "")
    assert_all_is_accounted_for(bench)
    # A training that outlives its controller is adopted or collected, never made again.
    trained = bench.diary.read_text().splitlines()
    assert len(trained) == len(set(trained)) == len(bench.rows())


def test_ctrl_c_lets_what_runs_come_to_its_end_and_a_second_one_does_not(bench: Bench) -> None:
    asked = ("--clusters", "2", "--tag", "mar5")
    with bench.started(*asked) as process:
        lines_until(process, lambda lines: results_in(lines) >= 2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert process.returncode == 130
    assert errors.startswith("autoresearch: interrupted; everything finished so far is kept")
    assert "improved" in output
    assert set(bench.query("SELECT DISTINCT label FROM attempts WHERE started IS NOT NULL")) == {(None,)}
    assert alive_in(bench.root) == {}

    bench.gate.touch()
    with bench.started(*asked) as process:
        before = len(bench.diary.read_text().splitlines())
        while not alive_in(bench.root / ".autoresearch/attempts"):
            pass
        process.send_signal(signal.SIGINT)
        lines_until(process, lambda lines: "Ctrl-C again" in lines[-1])
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert len(bench.diary.read_text().splitlines()) == before
    assert alive_in(bench.root) == {}

    bench.gate.unlink()
    assert bench.run(*asked, "--waves", "1")[0] == 0
    assert_all_is_accounted_for(bench)


def test_a_run_is_stopped_and_watched_from_elsewhere(bench: Bench) -> None:
    code, _, errors = bench.run(command="stop")
    assert code == 2 and "has no study yet" in errors
    with bench.started("--clusters", "2", "--tag", "mar5") as process:
        lines_until(process, lambda lines: results_in(lines) >= 1)
        with bench.started(command="watch") as watching:
            assert watching.stdout is not None
            assert re.match(r"e\d{4} ", watching.stdout.readline())
            code, output, _ = bench.run(command="stop")
            assert code == 0 and "begins nothing more of study mar5" in output
            output, errors = process.communicate()
            watched, _ = watching.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "not running: somebody asked it to stop" in output
    assert "not running: somebody asked it to stop" in watched
    assert watching.returncode == 0
    assert alive_in(bench.root) == {}
    code, _, errors = bench.run(command="stop")
    assert code == 2 and "not being run, so there is nothing to stop" in errors


def test_metrics_are_served_while_it_runs(bench: Bench) -> None:
    bench.gate.touch()
    with bench.started("--clusters", "2", "--tag", "mar5", "--waves", "1", "--metrics", "0") as process:
        lines = lines_until(process, lambda lines: lines[-1].startswith("metrics: "))
        with urlopen(lines[-1].removeprefix("metrics: ").strip()) as answer:
            text = answer.read().decode()
        bench.gate.unlink()
        process.communicate()
    assert process.returncode == 0
    assert 'autoresearch_controller_running{study="mar5"} 1.0' in text
    assert 'autoresearch_experiments{status="done",study="mar5"}' in bench.run("--prometheus", command="status")[1]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["--hours", "0.001"], "the 0.001 hours are over for anything that is not running yet"),
        (["--gpu-hours", "0.1"], "of 0.1 GPU-hours are spent"),
    ],
)
def test_a_budget_that_pays_for_nothing_is_said_before_anything_runs(
    bench: Bench, asked: list[str], sentence: str
) -> None:
    code, _, errors = bench.run("--clusters", "2", "--tag", "mar5", *asked)
    assert code == 3
    assert sentence in errors and errors.count("\n") == 1
    assert bench.query("SELECT count(*) FROM attempts") == [(0,)]


def test_a_dollar_cap_without_a_price_is_refused_with_what_to_do(bench: Bench) -> None:
    code, _, errors = bench.run("--clusters", "2", "--usd", "5")
    assert code == 2
    assert errors == (
        "autoresearch: a dollar cap needs the price of an hour of H100; give it in program.md's front matter, such as"
        " `prices: {H100: 2.5}`, or cap gpu_hours instead\n"
    )


def test_a_run_ends_before_its_cap_and_a_larger_one_goes_on(make: Callable[..., Bench]) -> None:
    bench = make("timeout_minutes: 1\nprices: {CPU: 10, H100: 10, H200: 10}\n")
    code, output, _ = bench.run("--clusters", "2", "--tag", "mar5", "--usd", "8", "--plateau", "1")
    assert code == 0
    assert "of 8 dollars" in output
    spent = json.loads(bench.run("--json", command="status")[1])["budget"]["spent"]
    assert 0 < spent["usd"] <= 8
    assert spent["usd"] == pytest.approx(10 * spent["gpu_hours"])
    assert bench.query("SELECT count(*) FROM leases WHERE until IS NULL") == [(0,)]


def test_what_would_be_is_simulated_in_a_copy(bench: Bench) -> None:
    before = refs(bench.root)
    code, output, errors = bench.run("--clusters", "16", "--hours", "2", "--infra", "simulated", "--tag", "mar5")
    assert (code, errors) == (0, "")
    assert "study mar5 on branch autoresearch/mar5" in output
    assert "dollars" in output
    assert refs(bench.root) == before
    assert git(bench.root, "status", "--porcelain") == ""
    assert bench.diary.read_text() == ""
    assert not (bench.root / ".autoresearch/journal.db").exists()
    again = bench.run("--clusters", "16", "--hours", "2", "--infra", "simulated", "--tag", "mar5")[1]
    assert [line for line in again.splitlines() if line.startswith("e0")] == [
        line for line in output.splitlines() if line.startswith("e0")
    ]


def test_a_trainer_that_is_stopped_is_ended_at_its_time(make: Callable[..., Bench]) -> None:
    bench = make("timeout_minutes: 0.05\n")
    bench.gate.touch()
    with bench.started("--clusters", "2", "--tag", "mar5", "--waves", "1") as process:
        logs = bench.root / ".autoresearch/attempts"
        while not any("| begun" in log.read_text() for log in logs.glob("*/log.txt")):
            pass
        stopped = False
        while not stopped:
            for pid in (pid for pid, line in alive_in(bench.root).items() if line.endswith("train.py ")):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    stopped = True
        bench.gate.unlink()
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    statuses = [row["status"] for row in bench.rows()]
    assert statuses.count("overtime") >= 1 and "done" in statuses
    assert alive_in(bench.root) == {}


def test_an_attempt_whose_directory_is_removed_is_made_again(bench: Bench) -> None:
    bench.gate.touch()
    with bench.started("--clusters", "2", "--tag", "mar5", "--waves", "1") as process:
        attempts = bench.root / ".autoresearch/attempts"
        while not list(attempts.glob("mar5.*/process.json")):
            pass
        victim = next(attempts.glob("mar5.*/process.json")).parent
        shutil.rmtree(victim, ignore_errors=True)
        bench.gate.unlink()
        process.communicate()
    assert process.returncode == 0
    experiment = victim.name.split(".")[1]
    labels = bench.query(f"SELECT label FROM attempts WHERE experiment = '{experiment}' ORDER BY attempt")
    assert labels == [("lost",), (None,)]
    assert {row["status"] for row in bench.rows()} == {"done"}
    assert alive_in(bench.root) == {}


ON_A_SMALL_DISK = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.cli.conftest import process
from tests.foreign import workspace

disk = Path(sys.argv[1])
ballast = disk / "ballast"
root = workspace(disk / "workspace")
asked = ("run", "--clusters", "2", "--tag", "mar5", "--waves", "1")
said = []
for free in (100, 700, 1200, 1700, 2200, 3200, 100000):
    space = os.statvfs(disk)
    size = space.f_bavail * space.f_frsize - free * 1024
    ballast.write_bytes(bytes(max(size, 0)))
    done = process(*asked, cwd=root)
    said.append([done.code, done.err])
    ballast.unlink()
    if done.code == 0:
        break
print(json.dumps([said, json.loads(process("results", "--json", cwd=root).out)]))
"""


def test_a_full_disk_ends_a_run_with_a_sentence_and_it_goes_on_once_there_is_space(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    checkout = Path(__file__).resolve().parents[2]
    command = f'mount -t tmpfs -o size=6m tmpfs {disk} && exec {sys.executable} -c "$0" {disk} {checkout}'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", command, ON_A_SMALL_DISK],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, rows = json.loads(done.stdout)
    *full, (code, last) = said
    assert code == 0, last
    assert full
    for code, sentence in full:
        assert code == 2 and "free some space and run again" in sentence, sentence
    assert {row["status"] for row in rows} == {"done"}
