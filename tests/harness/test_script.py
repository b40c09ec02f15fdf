"""A workspace's own run script, and the variables that it declares."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from controller.harness.environment import declared
from controller.harness.job import Job
from tests.harness.attempts import NONCE, Attempts, Ran
from tests.processes import alive_in

# As SkyPilot's example of parallel experiments has it: whatever becomes of the training, echo ends it, and ends well.
SCRIPT = """
uv run train.py 2>&1 | tee run.log
if [ ${PIPESTATUS[0]} -ne 0 ]; then
  echo "EXPERIMENT_STATUS: crash"
  echo "Experiment ${EXPERIMENT_ID} is over, see above."
else
  echo "EXPERIMENT_STATUS: done"
  echo "EXPERIMENT_RESULT: ${EXPERIMENT_ID} val_bpb=$(sed -n 's/^val_bpb: *//p' run.log) memory_gb="
fi
echo "EXPERIMENT_DESC: ${EXPERIMENT_DESC}"
"""


@pytest.fixture
def with_uv(attempts: Attempts, tmp_path: Path) -> Attempts:
    """Attempts that find a program called uv, whose `uv run FILE` is our Python's."""
    (tmp_path / "bin").mkdir()
    uv = tmp_path / "bin/uv"
    uv.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} "$@"\n')
    uv.chmod(0o755)
    attempts.environment["PATH"] = f"{uv.parent}:{os.environ['PATH']}"
    return attempts


def script(attempts: Attempts, run: str, source: str = "", **job: object) -> Ran:
    """Run a script beside a train.py."""
    return attempts.foreign(source, run=run, **job)


def test_a_script_that_echoes_its_score_is_scored(with_uv: Attempts) -> None:
    ran = script(with_uv, SCRIPT, "print('val_bpb:          1.250000\\npeak_vram_mb: 512')")
    assert ran.ending == ("done", "")
    assert ran.metrics == {"val_bpb": 1.25, "peak_vram_mb": 512}
    assert ran.result["self_reported"] is True
    name = ran.directory.name
    assert f"| EXPERIMENT_RESULT: {name.split('.')[1]} val_bpb=1.250000" in ran.output
    assert f"| EXPERIMENT_DESC: {name}" in ran.output


def test_a_script_finds_the_environment_that_the_set_up_made_and_which_machine_it_is_on(attempts: Attempts) -> None:
    attempts.environment |= {
        "UV_PROJECT_ENVIRONMENT": "/there/.venv",
        "SKYPILOT_NODE_RANK": "0",
        "SKYPILOT_NUM_NODES": "2",
        "UV_INDEX_PASSWORD": "hidden",
        "SKYPILOT_USER": "somebody",
    }
    ran = script(attempts, "env | grep -E '^(UV|SKYPILOT)_' | sort; echo val_bpb: 1.25")
    said = [line for line in ran.output.splitlines() if line.startswith(("| UV", "| SKY"))]
    assert said == [
        "| SKYPILOT_NODE_RANK=0",
        "| SKYPILOT_NUM_NODES=2",
        "| UV_PROJECT_ENVIRONMENT=/there/.venv",
    ]


FAILED: dict[str, tuple[str, str, str]] = {
    "a crash": ("raise ValueError('too wide')", "crash", "EXPERIMENT_STATUS: crash: ValueError: too wide"),
    "a crash after its score": (
        "print('val_bpb: 0.1', flush=True); raise SystemExit('no')",
        "crash",
        "EXPERIMENT_STATUS: crash: no",
    ),
    "no memory": ("raise MemoryError", "out_of_memory", "MemoryError"),
    "no score": ("print('val_bpb of 1.25')", "no_score", "it ended without a line `val_bpb: <number>`"),
    "no finite score": ("print('val_bpb: nan')", "diverged", "its last val_bpb is nan"),
}


@pytest.mark.parametrize("name", FAILED)
def test_a_script_that_ends_well_after_a_training_that_did_not_has_failed_by(with_uv: Attempts, name: str) -> None:
    source, label, reason = FAILED[name]
    ran = script(with_uv, SCRIPT, source)
    assert ran.ending == (label, reason)
    assert ran.metrics == {}


ENDS: dict[str, tuple[str, str, str]] = {
    "an exit code": ("echo val_bpb: 0.1; exit 3", "crash", "exit code 3: val_bpb: 0.1"),
    "an exit code beside its word": ("echo why; echo EXPERIMENT_STATUS: crash; exit 3", "crash", "exit code 3: why"),
    "a syntax error": ("if", "crash", "exit code 2"),
    "a command that was killed": ("(kill -9 $BASHPID); exit $?", "out_of_memory", "Killed"),
    "another status": ("echo EXPERIMENT_STATUS: timeout", "crash", "EXPERIMENT_STATUS: timeout: "),
    "a score after its status": ("echo EXPERIMENT_STATUS: crash; echo val_bpb: 0.1", "crash", "STATUS: crash"),
    "a limit": ("sleep 600 & sleep 600", "overtime", "past 1 s in all"),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_script_fails_by(attempts: Attempts, name: str) -> None:
    run, label, reason = ENDS[name]
    ran = script(attempts, run, timeout=1.0 if label == "overtime" else 60.0)
    assert ran.ending[0] == label
    assert reason in ran.ending[1]
    assert ran.metrics == {}
    assert alive_in(ran.directory) == {}


def test_a_script_whose_second_try_succeeds_is_scored(attempts: Attempts) -> None:
    ran = script(attempts, "echo EXPERIMENT_STATUS: crash; echo EXPERIMENT_STATUS: done; echo val_bpb: 1.25")
    assert ran.ending == ("done", "")
    assert ran.metrics == {"val_bpb": 1.25}


def test_a_script_runs_where_its_files_are_and_nothing_of_it_is_left(attempts: Attempts) -> None:
    ran = script(attempts, "sleep 600 & pwd; ls; echo val_bpb: 1.25")
    assert ran.ending == ("done", "")
    assert ran.output.splitlines()[:2] == [f"| {ran.directory}/bundle", "| train.py"]
    assert alive_in(ran.directory) == {}


def test_a_trial_is_scored_by_us_whatever_script_there_is(attempts: Attempts) -> None:
    assert attempts.evaluated("ready(); train(); serve()\n", run="echo val_bpb: 0.1; exit 3").ending == ("done", "")


@pytest.mark.parametrize(
    ("run", "path", "reason"),
    [
        ("echo val_bpb: 1.25", "/nowhere", "there is no bash on this cluster"),
        ("#" * 2**20, os.environ["PATH"], "the trainer can't be started: Argument list too long"),
    ],
)
def test_a_script_that_cannot_be_started_is_no_candidates_fault(
    attempts: Attempts, run: str, path: str, reason: str
) -> None:
    attempts.environment["PATH"] = path
    assert script(attempts, run).ending == ("setup_failed", reason)


DECLARED = {
    "BATCH": "a b\nc",
    "EXPERIMENT_ID": "baseline",
    "SEED": "7",
    "TMPDIR": "/elsewhere",
    "PYTHONHASHSEED": "1",
    "CUDA_VISIBLE_DEVICES": "5",
    "WANDB_API_KEY": "hidden",
    "my_secret": "hidden",
}
SEEN = "{name: os.environ.get(name, '-') for name in " + repr([*DECLARED, "EXPERIMENT_DESC"]) + "}"


@pytest.mark.parametrize("how", ["evaluated", "foreign", "script"])
def test_declared_variables_reach_the_trainer_but_no_secrets_and_none_that_are_ours(
    attempts: Attempts, how: str
) -> None:
    attempts.environment["CUDA_VISIBLE_DEVICES"] = "0"
    source = f"import os; print({SEEN})\n"
    if how == "evaluated":
        ran = attempts.evaluated(source + "ready(); train(); serve()\n", environment=DECLARED)
    else:
        run = f"{sys.executable} train.py" if how == "script" else ""
        ran = attempts.foreign(source + "print('val_bpb: 1.25')", environment=DECLARED, run=run)
    assert ran.ending == ("done", "")
    seen = {
        "BATCH": "a b\nc",
        "EXPERIMENT_ID": ran.directory.name.split(".")[1] if how == "script" else "baseline",
        "SEED": "11",
        "TMPDIR": f"{ran.directory}/tmp",
        "PYTHONHASHSEED": "0",
        "CUDA_VISIBLE_DEVICES": "0",
        "WANDB_API_KEY": "-",
        "my_secret": "-",
        "EXPERIMENT_DESC": ran.directory.name if how == "script" else "-",
    }
    assert f"| {seen}" in ran.output
    for name in ("WANDB_API_KEY", "my_secret"):
        assert f"not passed on, as it looks like a secret: '{name}'\n" in ran.output
    assert "hidden" not in ran.output


def test_what_no_process_can_have_as_a_variable_is_left_out() -> None:
    assert declared({"A": "1", "": "2", "B=C": "3", "D E": "4", "2F": "5", "G": "\0"}) == {"A": "1"}


@pytest.mark.parametrize(
    ("attempt", "experiment"), [("study.e0001.1", "e0001"), ("v1.2.e0001.3", "e0001"), ("canary", "canary")]
)
def test_an_experiment_is_called_as_its_attempts_are(attempt: str, experiment: str) -> None:
    assert Job(attempt, NONCE, "train.py", False, "val_bpb", 1, 60.0, {}).experiment == experiment
