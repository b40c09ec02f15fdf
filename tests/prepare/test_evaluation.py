from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from prepare import evaluation
from prepare.evaluation import BadLogits, Score, cross_entropy
from prepare.profile import TINY


def random_logits(seed: int, n: int = 6, length: int = 64, vocab_size: int = 512, scale: float = 8.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, length, vocab_size)) * scale).astype(np.float32)


def test_bits_per_byte_agree_with_a_plain_float64_loop_in_torch() -> None:
    import torch

    random = np.random.default_rng(1)
    token_bytes = random.integers(0, 5, 512)
    targets = random.integers(0, 512, (6, 64))
    logits = random_logits(2)

    nats, count = 0.0, 0
    for row, wanted in zip(torch.from_numpy(logits).double(), targets, strict=True):
        for position, target in zip(row, wanted, strict=True):
            if token_bytes[target] > 0:
                nats -= torch.log_softmax(position, 0)[target].item()
                count += int(token_bytes[target])

    score = Score(token_bytes)
    score.add(logits, targets)
    assert score.bits_per_byte == pytest.approx(nats / (math.log(2) * count), abs=1e-6, rel=0)


def test_huge_and_tiny_logits_neither_overflow_nor_vanish() -> None:
    logits = np.array([[[3e38, -3e38, 0.0], [-1e30, -1e30, -1e30]]], np.float32)
    nats = cross_entropy(logits, np.array([[0, 2]]))
    assert nats[0] == pytest.approx([0, math.log(3)])


def test_the_score_does_not_depend_on_how_rows_are_portioned() -> None:
    targets = np.random.default_rng(3).integers(0, 512, (6, 64))
    logits = random_logits(4)
    whole, split = Score(np.ones(512)), Score(np.ones(512))
    whole.add(logits, targets)
    for i in range(6):
        split.add(logits[i : i + 1], targets[i : i + 1])
    assert split.bits_per_byte == pytest.approx(whole.bits_per_byte, rel=1e-14)


def test_special_tokens_count_neither_as_nats_nor_as_bytes() -> None:
    score = Score(np.array([1, 1, 0]))
    score.add(np.array([[[0, 0, -50.0], [0, 0, -50.0]]], np.float32), np.array([[0, 2]]))
    assert score.bits_per_byte == pytest.approx(1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_logit_that_is_not_finite_is_refused(value: float) -> None:
    logits = random_logits(5)
    logits[3, 10, 7] = value
    with pytest.raises(BadLogits, match="not finite"):
        Score(np.ones(512)).add(logits, np.zeros((6, 64), np.int64))


def test_answers_of_the_wrong_shape_or_type_are_refused() -> None:
    score, targets = Score(np.ones(512)), np.zeros((6, 64), np.int64)
    for logits in (
        random_logits(0, n=5),
        random_logits(0, vocab_size=511),
        random_logits(0, vocab_size=513),
        random_logits(0).astype(np.float64),
        random_logits(0)[0],
    ):
        with pytest.raises(BadLogits):
            score.add(logits, targets)


def test_rows_are_fixed_evenly_spaced_and_separate(tiny_data: Path) -> None:
    inputs, targets = evaluation.rows(TINY, tiny_data)
    stream = np.fromfile(tiny_data / "val.bin", "<u2")
    assert inputs.shape == targets.shape == (512, 64)
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    assert np.array_equal(inputs[0], stream[:64])
    assert np.array_equal(targets[-1], stream[-64:])


def test_too_short_a_validation_stream_is_an_error(tmp_path: Path) -> None:
    np.zeros(TINY.eval_tokens, "<u2").tofile(tmp_path / "val.bin")
    with pytest.raises(ValueError, match="too few"):
        evaluation.rows(TINY, tmp_path)
