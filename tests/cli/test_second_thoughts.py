"""Waves that go another way than they were begun: followed by another, on a broken file, interrupted early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tests.foreign import TRAIN, commit, git
from tests.processes import alive_in

Command = Callable[..., Any]
WAVE = ("wave", "--clusters", "1", "--tag", "mar5", "--factor")


def interrupted(root: Path, factor: str, after: str, reading: Path | None = None) -> tuple[int, str]:
    """A wave that gets Ctrl-C when a line beginning with `after` is printed: exit code and last words.

    And not before somebody reads the named pipe `reading`, if there is one.
    """
    command = [sys.executable, "-c", "from controller.cli import main; main()", *WAVE, factor]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=root, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(after):
                with reading.open("w") if reading else nullcontext():
                    process.send_signal(signal.SIGINT)
                    process.wait()
                break
        _, errors = process.communicate()
    return process.returncode, errors


def test_a_wave_that_is_finished_on_the_way_to_another_is_told_as_well(foreign: Path, run_process: Command) -> None:
    assert interrupted(foreign, "WIDTH=8,16", "e0001")[0] == 130
    done = run_process(*WAVE, "RATE=0.3", cwd=foreign)
    assert done.code == 0, done
    first, second = done.out.split("Screening, wave w01")[1].split("Screening, wave w02")
    assert "decision: keep c0002 (WIDTH=16)" in first
    assert "decision: keep c0003 (RATE=0.3)" in second


def test_a_wave_whose_incumbent_crashes_is_called_off_and_a_mended_file_is_pointed_out(
    foreign: Path, run_process: Command
) -> None:
    commit(foreign, {"train.py": f"import nowhere\n{TRAIN}"})
    rates = ",".join(f"0.{number}" for number in range(10, 40))
    done = run_process(*WAVE, f"RATE={rates}", cwd=foreign)
    assert done.code == 3
    assert "the incumbent itself gave no score (crash" in done.err and "No module named 'nowhere'" in done.err
    statuses = [row["status"] for row in json.loads(run_process("results", "--json", cwd=foreign).out)]
    assert statuses.count("cancelled") > 0 and set(statuses) == {"crash", "cancelled"}
    commit(foreign, {"train.py": TRAIN})
    again = run_process(*WAVE, "RATE=0.10", cwd=foreign)
    # What was called off was not tried, so it may be asked for again; but not of this incumbent.
    assert again.code == 3
    assert "train.py as checked out is not of study mar5: begin another with --tag to start from it\n" in again.out
    assert run_process("wave", "--clusters", "1", "--tag", "mar6", "--factor", "RATE=0.3", cwd=foreign).code == 0


def test_ctrl_c_while_the_data_is_prepared_ends_at_once(foreign: Path) -> None:
    gate = foreign.parent / "gate"
    os.mkfifo(gate)
    slow = f"open({str(gate)!r}).read()\n"
    commit(foreign, {"prepare/__init__.py": "", "prepare/__main__.py": slow, "prepare/protocol.py": ""})
    code, errors = interrupted(foreign, "RATE=0.3", "bringing up", gate)
    assert code == 130, errors
    assert errors.startswith("autoresearch: interrupted")
    assert alive_in(foreign) == {}


def test_uncommitted_changes_on_the_study_s_own_branch_are_pointed_out(ran: Path, run_process: Command) -> None:
    git(ran, "switch", "--quiet", "autoresearch/mar5")
    (ran / "train.py").write_text((ran / "train.py").read_text() + "# mine\n")
    said = run_process("wave", "--clusters", "1", "--factor", "WIDTH=16", cwd=ran).out.splitlines()
    assert said[0] == "train.py has uncommitted changes, which are not used: the committed version is"
    assert "a winner moves" in said[1]


def test_uncommitted_changes_of_what_is_fixed_are_pointed_out_as_well(foreign: Path, run_process: Command) -> None:
    commit(foreign, {"prepare.py": "SIZE = 1\n"})
    for name in ("train.py", "prepare.py"):
        (foreign / name).write_text((foreign / name).read_text() + "# mine\n")
    said = run_process("wave", "--clusters", "1", "--factor", "RATE=0.3", cwd=foreign).out.splitlines()
    assert said[0] == (
        "train.py and prepare.py have uncommitted changes, which are not used: the committed versions are"
    )


def test_a_train_py_that_ignores_its_seed_keeps_nothing(foreign: Path, run_process: Command) -> None:
    commit(foreign, {"train.py": 'RATE = 0.5\nprint(f"val_bpb: {RATE}")\n'})
    done = run_process(*WAVE, "RATE=0.3", cwd=foreign)
    assert done.code == 0, done
    assert "decision: nothing is kept" in done.out
    assert "change -0.200000 with no interval (that takes seeds, two or more, that matter)" in done.out
