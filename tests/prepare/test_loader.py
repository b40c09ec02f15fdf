from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare.loader import batches, windows
from prepare.profile import TINY


def first_rows(count: int, rows: int, seed: int) -> np.ndarray:
    taken = itertools.islice(batches(rows, seed, profile=TINY), count // rows)
    return np.concatenate([inputs.numpy() for inputs, _ in taken])


def test_inputs_and_targets_are_neighbours_in_the_stream(tiny_data: Path) -> None:
    import torch

    inputs, targets = next(batches(8, seed=1, profile=TINY))
    assert inputs.shape == targets.shape == (8, 64)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    stream = np.fromfile(tiny_data / "train.bin", "<u2")
    assert all(row.numpy().astype(np.uint16).tobytes() in stream.tobytes() for row in inputs)


def test_the_order_depends_on_the_seed_and_not_on_the_batch_size(tiny_data: Path) -> None:
    assert np.array_equal(first_rows(48, 8, seed=1), first_rows(48, 16, seed=1))
    assert np.array_equal(first_rows(48, 8, seed=1), first_rows(48, 3, seed=1))
    assert not np.array_equal(first_rows(48, 8, seed=1), first_rows(48, 8, seed=2))


@given(st.integers(1, 20), st.integers(41, 500), st.integers(0, 2**40))
def test_an_epoch_visits_every_window_once_and_the_next_in_another_order(length: int, tokens: int, seed: int) -> None:
    order = windows(tokens, length, seed)
    first = next(order)
    phase = first % length
    count = (tokens - 1 - phase) // length
    epoch = [first, *itertools.islice(order, count - 1)]
    assert sorted(epoch) == [phase + length * i for i in range(count)]
    assert max(epoch) + length + 1 <= tokens
    assert next(order) + length + 1 <= tokens


def test_too_little_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="too few"):
        next(windows(100, 64, seed=0))
