"""Feeds training: an endless, seeded order of windows over the training tokens.

The order is one sequence of windows, dealt out in portions of `rows`: two candidates with the same seed and row length
see the same text in the same order whatever their batch sizes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from prepare.dataset import ensure
from prepare.profile import CURRENT, Profile

if TYPE_CHECKING:
    import torch


def windows(tokens: int, length: int, seed: int) -> Iterator[int]:
    """Start of one window after another, endlessly, over a stream of `tokens` tokens.

    Each epoch is a fresh permutation of windows that do not overlap in their inputs, from a random phase, so that the
    cuts fall elsewhere every time. Raises ValueError if the stream is shorter than two rows.
    """
    if tokens < 2 * length + 1:
        raise ValueError(f"{tokens} tokens are too few for rows of {length}")
    random = np.random.default_rng(seed)
    while True:
        phase = int(random.integers(length))
        yield from (phase + length * random.permutation((tokens - 1 - phase) // length)).tolist()


def batches(
    rows: int, seed: int, device: str = "cpu", length: int | None = None, profile: Profile = CURRENT
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless pairs of inputs and targets, int64 [rows, length] on `device`; length defaults to the profile's.

    On CUDA the copy is asynchronous, from pinned memory. Raises RuntimeError where a harness has not shown the training
    text yet, and what `dataset.ensure` raises.
    """
    import torch

    length = length or profile.sequence_length
    path = ensure(profile) / "train.bin"
    if not path.stat().st_size:
        raise RuntimeError("the training text is there from trial.ready on: take the first batch after it")
    stream = np.memmap(path, dtype="<u2", mode="r")
    starts = windows(len(stream), length, seed)
    while True:
        batch = np.stack([stream[start : start + length + 1] for start in itertools.islice(starts, rows)])
        tokens = torch.from_numpy(batch.astype(np.int64))
        if device != "cpu":
            tokens = tokens.pin_memory().to(device, non_blocking=True)
        yield tokens[:, :-1], tokens[:, 1:]
