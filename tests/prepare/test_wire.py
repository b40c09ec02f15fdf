from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from prepare import wire


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_fd, write_fd = os.pipe()
    yield read_fd, write_fd
    for fd in (read_fd, write_fd):
        try:
            os.close(fd)
        except OSError:
            continue  # the test closed it


def test_frames_arrive_as_they_were_sent(pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    wire.send(write_fd, {"type": "more", "loss": None, "text": "naïve"})
    wire.send(write_fd, {"type": "rows"}, b"\x00\x01\xff")
    assert wire.receive(read_fd) == ({"type": "more", "loss": None, "text": "naïve"}, bytearray())
    assert wire.receive(read_fd) == ({"type": "rows", "bytes": 3}, bytearray(b"\x00\x01\xff"))


def test_a_loss_may_be_nan(pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    wire.send(write_fd, {"loss": math.nan})
    assert math.isnan(wire.receive(read_fd)[0]["loss"])


def test_payloads_larger_than_a_pipe_holds_arrive_whole(pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    logits = np.random.default_rng(0).normal(size=(8, 64, 512)).astype("<f4")
    sender = threading.Thread(target=wire.send, args=(write_fd, {"type": "logits"}, logits.data))
    sender.start()
    header, payload = wire.receive(read_fd)
    sender.join()
    assert header["bytes"] == logits.nbytes
    assert np.array_equal(np.frombuffer(payload, "<f4").reshape(logits.shape), logits)


@pytest.mark.parametrize("cut", [0, 2, 4, 10, 30])
def test_an_end_within_or_between_frames_is_an_eof(pipe: tuple[int, int], cut: int) -> None:
    read_fd, write_fd = pipe
    text = b'{"type": "rows", "bytes": 100}'
    os.write(write_fd, (len(text).to_bytes(4, "big") + text + b"x" * 99)[:cut])
    os.close(write_fd)
    with pytest.raises(EOFError):
        wire.receive(read_fd)


@pytest.mark.parametrize(
    "text",
    [
        b"not json",
        b"\xff\xfe",
        b"[1, 2]",
        b"[" * 100_000,
        b'{"bytes": -1}',
        b'{"bytes": true}',
        b'{"bytes": "9"}',
        b'{"bytes": 101}',
        b'{"bytes": 1e3}',
    ],
)
def test_malformed_headers_are_refused(pipe: tuple[int, int], text: bytes) -> None:
    read_fd, write_fd = pipe
    sender = threading.Thread(target=os.write, args=(write_fd, len(text).to_bytes(4, "big") + text))
    sender.start()
    with pytest.raises(ValueError):
        wire.receive(read_fd, limit=100)
    sender.join()


def test_a_huge_header_is_refused_before_it_is_read(pipe: tuple[int, int]) -> None:
    read_fd, write_fd = pipe
    os.write(write_fd, b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="4294967295"):
        wire.receive(read_fd)
    with pytest.raises(ValueError, match="at most"):
        wire.send(write_fd, {"text": "x" * wire.MAX_HEADER})
