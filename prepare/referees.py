"""Who judges a trial: the harness at the other end of a pipe, or, for a run by hand, this very process.

Both keep the same rules, because both use `budget` and `evaluation`. The difference is who can be trusted: what this
process says about itself is self-reported.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prepare import dataset, evaluation, wire
from prepare.block import format_block, mfu_percent
from prepare.budget import Grant, Meter
from prepare.memory import Memory
from prepare.profile import CURRENT, Budget, Profile

ENVIRONMENT = "AUTORESEARCH_TRIAL"
"""Set by the harness to "<read fd>,<write fd>"."""

ROWS_AT_ONCE_LOGITS = 2**25
"""How many logits a run by hand asks for at a time: 128 MiB of float32."""


class Answer(Protocol):
    """A model as a function of numpy arrays."""

    def __call__(self, rows: NDArray[np.uint16], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Tokens [n, T] in, raw logits [n, T, V] out: in `out` if it is given. Raises ValueError if they do not fit."""


@dataclass(frozen=True)
class Terms:
    """What a trial is given at its start. device is "cpu" or "cuda"."""

    seed: int
    device: str
    budget: Budget


@dataclass(frozen=True)
class Description:
    """What is about to be trained, read from the live objects before the first counted step.

    parameters: (name, shape, dtype) of each; groups: (optimizer class, elements, learning rate) of each.
    """

    parameters: tuple[tuple[str, tuple[int, ...], str], ...]
    groups: tuple[tuple[str, int, float], ...]


class Referee(Protocol):
    """Gives the terms, grants the steps, and scores the result."""

    def open(self, device: str) -> Terms:
        """The trial's terms; `device` is what this process would use if it may choose."""

    def ready(self, description: Description) -> None:
        """Returns when the budget is running."""

    def more(self, tokens: int, loss: float | None) -> Grant:
        """May one more step be taken?"""

    def score(self, answer: Answer, info: dict[str, Any]) -> None:
        """Asks `answer` for as many rows as it takes. `info` holds numbers the trainer tells about itself."""


class Harness:
    """The trusted process at the other end of two pipes. It owns the clock, the rows and the targets.

    Every method raises EOFError if the harness is gone and ValueError if it says something unexpected.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._memory: Memory | None = None

    def open(self, device: str) -> Terms:
        header, _ = self._receive("trial")
        if "memory" in header:
            self._memory = Memory(*header["memory"])
        return Terms(int(header["seed"]), str(header["device"]), Budget(**header["budget"]))

    def ready(self, description: Description) -> None:
        wire.send(self._write_fd, {"type": "ready", **asdict(description)})
        self._receive("go")

    def more(self, tokens: int, loss: float | None) -> Grant:
        wire.send(self._write_fd, {"type": "more", "tokens": tokens, "loss": loss})
        header, _ = self._receive("more")
        return Grant(bool(header["go"]), float(header["progress"]), header.get("label"))

    def score(self, answer: Answer, info: dict[str, Any]) -> None:
        wire.send(self._write_fd, {"type": "serve", "info": info})
        while True:
            header, payload = self._receive("rows", "done")
            if header["type"] == "done":
                return
            rows = np.frombuffer(payload, "<u2").reshape(header["rows"], header["length"])
            if self._memory is not None:
                shape = (*rows.shape, int(header["vocabulary"]))
                answer(rows, self._memory.floats(header["at"], shape))
                wire.send(self._write_fd, {"type": "logits", "shape": list(shape), "at": header["at"]})
            else:
                logits = answer(rows).astype("<f4", copy=False)
                wire.send(self._write_fd, {"type": "logits", "shape": list(logits.shape)}, logits.data)

    def _receive(self, *expected: str) -> tuple[wire.Header, bytearray]:
        header, payload = wire.receive(self._read_fd)
        if header.get("type") not in expected:
            raise ValueError(f"the harness sent {header.get('type')!r} where {' or '.join(expected)} was due")
        return header, payload


class Oneself:
    """A run by hand: the budget is counted and the rows are scored in this process, and the summary is printed.

    seed: by default $SEED, else 42. values: the summary, once there is a score.
    """

    def __init__(self, profile: Profile = CURRENT, seed: int | None = None) -> None:
        self.profile = profile
        self.seed = int(os.environ.get("SEED", "42")) if seed is None else seed
        self.meter = Meter(profile.budget)
        self.values: dict[str, Any] = {}
        self._begin = time.monotonic()

    def open(self, device: str) -> Terms:
        dataset.ensure(self.profile)
        return Terms(self.seed, device, self.profile.budget)

    def ready(self, description: Description) -> None:
        self.meter.start(time.monotonic(), time.process_time())

    def more(self, tokens: int, loss: float | None) -> Grant:
        return self.meter.more(tokens, loss, time.monotonic(), time.process_time())

    def score(self, answer: Answer, info: dict[str, Any]) -> None:
        directory = dataset.ensure(self.profile)
        inputs, targets = evaluation.rows(self.profile, directory)
        score = evaluation.Score(np.load(directory / "token_bytes.npy"))
        portion = max(1, ROWS_AT_ONCE_LOGITS // (self.profile.sequence_length * self.profile.vocab_size))
        for begin in range(0, len(inputs), portion):
            part = slice(begin, begin + portion)
            score.add(answer(inputs[part].astype(np.uint16)), targets[part])
        info = dict(info)
        rate = self.meter.tokens / max(self.meter.seconds, 1e-9)
        self.values = {
            "val_bpb": score.bits_per_byte,
            "training_seconds": self.meter.seconds,
            "total_seconds": time.monotonic() - self._begin,
            "peak_vram_mb": info.pop("peak_vram_mb"),
            "mfu_percent": mfu_percent(info.pop("flops_per_token"), rate, info.pop("device_name")),
            "total_tokens_M": self.meter.tokens / 1e6,
            "num_steps": self.meter.steps,
            "num_params_M": info.pop("num_params") / 1e6,
            **info,
        }
        print(format_block(self.values))


def referee() -> Referee:
    """The harness, if one started this process; else oneself. Raises ValueError if the variable is malformed."""
    pipes = os.environ.get(ENVIRONMENT)
    if not pipes:
        return Oneself()
    read_fd, _, write_fd = pipes.partition(",")
    return Harness(int(read_fd), int(write_fd))
