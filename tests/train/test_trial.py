"""train.py as a process of its own: by hand, and under a harness of a few lines that speaks the trial protocol."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prepare import evaluation, wire
from prepare.budget import Meter
from prepare.dataset import ensure
from prepare.profile import TINY

BUDGET = replace(TINY.budget, tokens=2**13)


@dataclass
class Run:
    """What a harness learns from one trial."""

    bits_per_byte: float
    ready: dict[str, Any]
    info: dict[str, Any]
    losses: list[float]
    tokens: int
    exit_code: int


def under_a_harness(workspace: Path, seed: int) -> Run:
    (trainer_read, write_fd), (read_fd, trainer_write) = os.pipe(), os.pipe()
    environment = {**os.environ, "AUTORESEARCH_TRIAL": f"{trainer_read},{trainer_write}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train/train.py"]
    ends = (trainer_read, trainer_write)
    with subprocess.Popen(command, cwd=workspace, env=environment, pass_fds=ends, stdout=subprocess.DEVNULL) as process:
        for fd in ends:
            os.close(fd)
        try:
            return converse(process, read_fd, write_fd, seed)
        finally:
            for fd in (read_fd, write_fd):
                os.close(fd)


def converse(process: subprocess.Popen[bytes], read_fd: int, write_fd: int, seed: int) -> Run:
    wire.send(write_fd, {"type": "trial", "seed": seed, "device": "cpu", "budget": asdict(BUDGET)})
    ready, _ = wire.receive(read_fd)
    wire.send(write_fd, {"type": "go"})
    meter, losses = Meter(BUDGET), []
    meter.start(0.0, 0.0)
    while (header := wire.receive(read_fd)[0])["type"] == "more":
        grant = meter.more(header["tokens"], header["loss"], 0.0, 0.0)
        losses.append(header["loss"])
        wire.send(write_fd, {"type": "more", "go": grant.go, "progress": grant.progress})

    directory = ensure(TINY)
    inputs, targets = evaluation.rows(TINY, directory)
    score = evaluation.Score(np.load(directory / "token_bytes.npy"))
    for begin in range(0, len(inputs), 100):
        part = inputs[begin : begin + 100].astype("<u2")
        wire.send(write_fd, {"type": "rows", "rows": part.shape[0], "length": part.shape[1]}, part.data)
        answer, payload = wire.receive(read_fd, limit=part.size * TINY.vocab_size * 4)
        logits = np.frombuffer(payload, "<f4").reshape(answer["shape"])
        score.add(logits, targets[begin : begin + 100])
    wire.send(write_fd, {"type": "done"})
    return Run(score.bits_per_byte, ready, header["info"], losses, meter.tokens, process.wait())


def by_hand(workspace: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "train/train.py"],
        cwd=workspace,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def run(workspace: Path) -> Run:
    return under_a_harness(workspace, seed=3)


def test_a_trial_spends_its_budget_exactly_and_learns(run: Run) -> None:
    assert run.exit_code == 0
    assert run.tokens == 2**13
    assert run.losses[0] is None
    assert len(run.losses) == 9
    assert run.losses[1] == pytest.approx(np.log(512), abs=0.1)
    assert run.losses[-1] < run.losses[1] - 0.5


def test_a_trial_says_what_it_trains(run: Run) -> None:
    elements = {name: int(np.prod(shape)) for name, shape, _ in run.ready["parameters"]}
    assert elements["embedding.weight"] == 512 * 64
    assert sum(elements.values()) == sum(count for _, count, _ in run.ready["groups"]) == run.info["num_params"]
    assert {name for name, _, _ in run.ready["groups"]} == {"Muon", "AdamW"}
    assert run.info["depth"] == 2


def test_a_seed_repeats_to_the_last_digit(workspace: Path, run: Run) -> None:
    again = under_a_harness(workspace, seed=3)
    assert again.bits_per_byte == run.bits_per_byte
    assert again.losses == run.losses


def test_by_hand_the_same_seed_gives_the_same_score(workspace: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "prepare").mkdir()
    (tmp_path / "prepare/__init__.py").write_text("raise ImportError('an installed copy won')")
    output = by_hand(workspace, SEED="3", PYTHONPATH=str(tmp_path))
    printed = re.search(r"^---\nval_bpb: +(\S+)$", output, re.MULTILINE)
    assert printed is not None
    assert printed[1] == f"{run.bits_per_byte:.6f}"
    assert re.search(r"^num_steps: +8$", output, re.MULTILINE)


def test_another_seed_is_another_run(workspace: Path, run: Run) -> None:
    assert f"{run.bits_per_byte:.6f}" not in by_hand(workspace, SEED="4")
