"""A cluster whose Python is old and has nothing installed can run a workspace that scores itself."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.attempts import ROOT, Attempts

OLDEST = (3, 10)
PYTHONS = [f"{sys.executable} -S", "python3.10"]


def found(python: str) -> str:
    """`python` with its path; skips where it is not there, or only as a shim that has none to run."""
    program, _, option = python.partition(" ")
    path = shutil.which(program) or ""
    if not path or subprocess.run([path, "--version"], capture_output=True).returncode != 0:
        pytest.skip(f"there is no {program}")
    return f"{path} {option}".strip()


@pytest.mark.parametrize("python", PYTHONS)
def test_it_runs_without_any_package(attempts: Attempts, tmp_path: Path, python: str) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {found(python)} "$@"\n')
    bare.chmod(0o755)
    for name in ("numpy", "torch", "yaml"):
        assert subprocess.run([bare, "-c", f"import {name}"], capture_output=True).returncode == 1
    attempts.python = str(bare)
    ran = attempts.foreign("", run="echo val_bpb: 1.25", survey=True)
    assert ran.ending == ("done", ""), ran.output
    assert ran.metrics == {"val_bpb": 1.25}
    assert ran.result["environment"]["packages"].get("numpy") is None
    assert attempts.foreign("print('val_bpb: 1.5')").metrics == {"val_bpb": 1.5}


def test_a_trial_without_numpy_is_no_candidates_fault(attempts: Attempts, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {found(PYTHONS[0])} "$@"\n')
    bare.chmod(0o755)
    attempts.python = str(bare)
    ran = attempts.evaluated("ready(); train(); serve()\n")
    assert ran.ending == ("setup_failed", "prepare/ can't be imported: No module named 'numpy'")


@pytest.mark.parametrize("path", sorted((ROOT / "controller/harness").glob("*.py")), ids=lambda path: path.name)
def test_it_is_written_for_an_old_python(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=OLDEST)
