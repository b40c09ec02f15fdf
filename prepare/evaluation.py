"""Scores raw logits: bits per byte over fixed rows of the validation stream, in numpy and float64.

Nothing here runs the model. The targets stay on this side, and whoever calls decides in which portions the rows are
asked for: the score does not depend on a batch size.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prepare.profile import Profile

CHUNK = 2**16
"""Logits handled at a time: 512 KiB of float64 stay in the cache."""


class BadLogits(ValueError):
    """The model's answer cannot be scored: wrong shape or type, or values that are not finite."""


def rows(profile: Profile, directory: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Inputs and targets, each [n, sequence_length], evenly spaced over the validation tokens in `directory`.

    Raises ValueError if there are fewer validation tokens than the profile evaluates.
    """
    stream, starts = _starts(profile, directory)
    windows = stream[starts[:, None] + np.arange(profile.sequence_length + 1)].astype(np.int64)
    return windows[:, :-1], windows[:, 1:]


def between(profile: Profile, directory: Path) -> NDArray[np.int64]:
    """Windows [m, sequence_length + 1] of the validation tokens between the rows that are scored, up to 4 a gap.

    There are none where the rows stand too close for it. Raises ValueError as `rows` does.
    """
    stream, starts = _starts(profile, directory)
    width = profile.sequence_length + 1
    begins = starts[:-1, None] + width * np.arange(1, 5)
    free = begins[begins + width <= starts[1:, None]]
    found: NDArray[np.int64] = stream[free[:, None] + np.arange(width)].astype(np.int64)
    return found


def _starts(profile: Profile, directory: Path) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    stream = np.memmap(directory / "val.bin", dtype="<u2", mode="r")
    length, count = profile.sequence_length, profile.eval_tokens // profile.sequence_length
    last = len(stream) - length - 1
    if last < (count - 1) * length:
        raise ValueError(f"{len(stream)} validation tokens are too few for {count} separate rows of {length}")
    return stream, np.arange(count) * last // max(1, count - 1)


def cross_entropy(logits: NDArray[np.float32], targets: NDArray[np.int64], threads: int = 1) -> NDArray[np.float64]:
    """-log softmax(logits)[target] in nats, [n, T], for raw float32 logits [n, T, V] and targets [n, T].

    The logits may lie where somebody else goes on writing: whatever is read is read once. Raises BadLogits if shapes do
    not fit, the type is not float32, or any logit is NaN or infinite.
    """
    if logits.ndim != 3 or logits.shape[:2] != targets.shape or logits.dtype != np.float32:
        raise BadLogits(f"logits {logits.dtype} {logits.shape} do not fit targets {targets.shape}")
    vocab_size = logits.shape[2]
    if vocab_size <= int(targets.max(initial=0)):
        raise BadLogits(f"{vocab_size} logits a token do not reach token {int(targets.max())}")
    flat, wanted = logits.reshape(-1, vocab_size), targets.reshape(-1)
    nats = np.empty(len(flat), np.float64)
    step = max(1, CHUNK // vocab_size)

    def score(begin: int) -> None:
        part = slice(begin, begin + step)
        nats[part] = _surprise(flat[part].copy(), wanted[part])

    if threads == 1:
        for begin in range(0, len(flat), step):
            score(begin)
    else:  # numpy lets go of the interpreter meanwhile
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(score, range(0, len(flat), step)))
    return nats.reshape(targets.shape)


def _surprise(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Nats, [n], for logits [n, V] that nobody else can reach."""
    top = logits.max(axis=1, keepdims=True)
    # A NaN is the maximum of its row and +inf its own; only -inf needs the minimum.
    if not (np.isfinite(top).all() and np.isfinite(logits.min())):
        raise BadLogits("the model returned logits that are not finite")
    shifted = np.subtract(logits, top, dtype=np.float64)
    target = shifted[np.arange(len(logits)), targets]
    found: NDArray[np.float64] = np.log(np.exp(shifted, out=shifted).sum(axis=1)) - target
    return found


class Score:
    """Adds up rows until there is a number. `token_bytes` [V]: each token's length in bytes, 0 for special ones."""

    def __init__(self, token_bytes: NDArray[np.integer]) -> None:
        self._token_bytes = np.asarray(token_bytes, np.int64)
        self.nats = 0.0
        self.bytes = 0

    def add(self, logits: NDArray[np.float32], targets: NDArray[np.int64]) -> None:
        """Count some rows: logits [n, T, V] as float32, targets [n, T]. Raises BadLogits."""
        if logits.shape[-1] != len(self._token_bytes):
            raise BadLogits(f"logits {logits.shape} are not over the vocabulary of {len(self._token_bytes)}")
        self.add_nats(cross_entropy(logits, targets), targets)

    def add_nats(self, nats: NDArray[np.float64], targets: NDArray[np.int64]) -> None:
        """Count some rows by their cross-entropy, as `cross_entropy` gives it: nats and targets [n, T]."""
        lengths = self._token_bytes[targets]
        self.nats += float(nats[lengths > 0].sum())
        self.bytes += int(lengths.sum())

    @property
    def bits_per_byte(self) -> float:
        """Nats over tokens that stand for text, as bits, per byte of that text. Raises ValueError before any row."""
        if not self.bytes:
            raise ValueError("no text has been scored")
        return self.nats / (math.log(2) * self.bytes)
