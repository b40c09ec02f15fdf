"""What scoring the full profile costs beside the GPU's own work: moving its logits, and their cross-entropy.

    python bench/scoring.py            a table
    python bench/scoring.py --json     one JSON object

pipe_gb_s and shared_gb_s are how fast another process's float32 logits get here, through a pipe of 1 MiB and through
memory that is shared; logits_per_s is the harness's cross-entropy on all cores. Of these follow the seconds for all
questions of the full profile, probes included, and their share of its training time (target 0.05). What a GPU needs to
compute the logits and to copy them to this memory is not in it.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from controller.harness.probes import Examination

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # prepare/ belongs to a workspace and is not installed

from prepare import evaluation, memory, wire
from prepare.profile import FULL

ROWS = 4
F_SETPIPE_SZ = 1031
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what scoring the full profile costs beside the GPU's work.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    shape = (ROWS, FULL.sequence_length, FULL.vocab_size)
    logits = np.random.default_rng(1).normal(size=shape).astype("<f4")
    pipe, shared = through_a_pipe(logits), through_memory(logits)
    threads = len(os.sched_getaffinity(0))
    targets = np.zeros(shape[:2], np.int64)
    rate = logits.size / seconds(lambda: evaluation.cross_entropy(logits, targets, threads))
    asked = questions() * FULL.sequence_length * FULL.vocab_size
    assert FULL.budget.seconds is not None
    found = {
        "threads": threads,
        "pipe_gb_s": pipe,
        "shared_gb_s": shared,
        "logits_per_s": rate,
        "logits_asked": asked,
        "seconds_by_pipe": 4 * asked / (pipe * 1e9) + asked / rate,
        "seconds_by_shared_memory": max(4 * asked / (shared * 1e9), asked / rate),
    }
    found["share_of_training"] = found["seconds_by_shared_memory"] / FULL.budget.seconds
    if as_json:
        print(json.dumps(found))
        return
    table = Table(title="Scoring the full profile, the GPU's own work left out")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in found.items():
        table.add_row(name, f"{value:.3g}")
    Console().print(table)


def questions() -> int:
    """How many rows an evaluation of the full profile asks for."""
    random = np.random.default_rng(1)
    count, length = FULL.eval_tokens // FULL.sequence_length, FULL.sequence_length
    rows = random.integers(FULL.vocab_size, size=(2 * count, length + 1))
    sheet = rows[:count]
    examination = Examination(sheet[:, :-1], sheet[:, 1:], rows[count:], FULL.vocab_size, random)
    return sum(len(portion) for portion in examination.portions(ROWS))


def through_a_pipe(logits: np.ndarray) -> float:
    """GB/s, from another process."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 2**20)
    child = os.fork()
    if child == 0:
        while True:
            wire.send(writing, {}, logits.data)
    try:
        return float(logits.nbytes / seconds(lambda: wire.receive(reading)) / 1e9)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def through_memory(logits: np.ndarray) -> float:
    """GB/s, written by another process when it is asked to."""
    descriptor = memory.make(logits.nbytes)
    assert descriptor is not None, "this system has no memory to be shared"
    asked, ask = os.pipe()
    done, tell = os.pipe()
    child = os.fork()
    if child == 0:
        there = memory.Memory(descriptor, logits.nbytes).floats(0, logits.shape)
        while os.read(asked, 1):
            np.copyto(there, logits)
            os.write(tell, b".")

    def once() -> None:
        os.write(ask, b".")
        os.read(done, 1)

    try:
        return float(logits.nbytes / seconds(once) / 1e9)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def seconds(work: Callable[[], object]) -> float:
    """The median of some rounds, after one to warm up."""
    taken = []
    for _ in range(ROUNDS + 1):
        begin = time.monotonic()
        work()
        taken.append(time.monotonic() - begin)
    return float(np.median(taken[1:]))


if __name__ == "__main__":
    main()
