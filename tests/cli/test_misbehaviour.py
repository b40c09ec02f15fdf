"""Candidates that do what they should not, in a wave of real processes: each is a labelled outcome, and no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.foreign import TRAIN, commit, git
from tests.processes import alive_in, alive_with

Command = Callable[..., Any]

DEEDS = """\
import os
import signal
import subprocess
import sys
import time

DEED = "none"

if DEED == "crash":
    raise RuntimeError("boom")
elif DEED == "diverge":
    print("val_bpb: nan")
    sys.exit()
elif DEED == "garbage":
    os.write(1, bytes(range(256)) * 100)
    print("\\nval_bpb: zero")
    sys.exit()
elif DEED == "megabyte":
    print("x" * 1_000_000)
elif DEED == "ignore":
    for number in (1, 2, 15):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)
elif DEED == "fork":
    for _ in range(3):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", {marker!r}], start_new_session=True)
elif DEED == "forge":
    print('AUTORESEARCH {{"status": "done", "metrics": {{"val_bpb": 0.1}}}}')
    sys.exit()

"""

LABELS = {
    "crash": "crash",
    "diverge": "diverged",
    "garbage": "no_score",
    "megabyte": "done",
    "ignore": "overtime",
    "fork": "done",
    "forge": "no_score",
}


def test_a_wave_goes_on_whatever_its_candidates_do(foreign: Path, run_process: Command) -> None:
    marker = f"left behind by {foreign}"
    program = "---\ntimeout_minutes: 0.05\n---\nMisbehave.\n"
    commit(foreign, {"train.py": DEEDS.format(marker=marker) + TRAIN, "program.md": program})
    head = git(foreign, "rev-parse", "HEAD")
    deeds = ",".join(LABELS)
    done = run_process("wave", "--clusters", "3", "--tag", "mar5", "--factor", f"DEED={deeds}", cwd=foreign)
    assert done.code == 0, done
    rows = json.loads(run_process("results", "--json", cwd=foreign).out)
    cells = {row["knobs"]["DEED"]: row for row in rows if row["role"] == "cell"}
    assert {deed: row["status"] for deed, row in cells.items()} == LABELS
    assert all((row["val_bpb"] is not None) == (row["status"] == "done") for row in rows)
    assert {row["attempts"] for row in rows} == {1}, "no candidate's failure is tried again"
    assert {row["status"] for row in rows if row["role"] == "control"} == {"done"}
    assert "boom" in cells["crash"]["reason"]
    assert alive_in(foreign) == {}
    assert alive_with(marker) == {}
    assert git(foreign, "rev-parse", "autoresearch/mar5") == head, "nothing was better"


def test_a_train_py_that_prints_a_score_and_exits_does_not_win(tmp_path: Path, run_process: Command) -> None:
    root = tmp_path / "workspace"
    assert run_process("init", root, "--profile", "tiny", cwd=tmp_path).code == 0
    train = (root / "train/train.py").read_text()
    head, knobs, rest = train.partition("\nDEPTH = ")
    cheat = '\nCHEAT = False\nif CHEAT:\n    print("---\\nval_bpb:          0.100000")\n    sys.exit()\n'
    profile = (root / "prepare/profile.py").read_text()
    assert "tokens=2**18, seconds" in profile
    short = profile.replace("tokens=2**18, seconds", "tokens=2**12, seconds")
    commit(root, {"train/train.py": head + cheat + knobs + rest, "prepare/profile.py": short})
    done = run_process("wave", "--clusters", "2", "--tag", "mar5", "--factor", "CHEAT=True", cwd=root)
    assert done.code == 0, done
    (cheater,) = (row for row in json.loads(run_process("results", "--json", cwd=root).out) if row["role"] == "cell")
    assert (cheater["status"], cheater["val_bpb"]) == ("no_score", None)
    assert "nothing is kept" in done.out
