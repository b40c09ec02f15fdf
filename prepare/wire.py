"""Frames over a pair of pipes: what the trainer and the harness say to each other.

A frame is the header's length (4 bytes, big-endian), the header (a JSON object in UTF-8), and, if the header has a key
`bytes`, that many raw bytes. Lengths are checked before anything is allocated: the other end is not trusted.
A loss may be NaN, so headers use Python's JSON, which has NaN and Infinity.
"""

from __future__ import annotations

import json
import os
from typing import Any

MAX_HEADER = 2**20
MAX_PAYLOAD = 2**32

Header = dict[str, Any]


def send(fd: int, header: Header, payload: bytes | bytearray | memoryview = b"") -> None:
    """Write one frame; the payload may be any contiguous buffer and is not copied.

    Raises BrokenPipeError if the reader is gone, ValueError if the header is too long.
    """
    view = memoryview(payload).cast("B")
    if view.nbytes:
        header = {**header, "bytes": view.nbytes}
    text = json.dumps(header).encode()
    if len(text) > MAX_HEADER:
        raise ValueError(f"header of {len(text)} bytes, at most {MAX_HEADER} are allowed")
    _write(fd, memoryview(len(text).to_bytes(4, "big") + text))
    _write(fd, view)


def receive(fd: int, limit: int = MAX_PAYLOAD) -> tuple[Header, bytearray]:
    """Read one frame whose payload has at most `limit` bytes.

    Raises EOFError if the writer closed, within a frame or between two; ValueError if the frame is malformed or too
    long. After a ValueError the stream is out of step and of no further use.
    """
    length = int.from_bytes(_read(fd, 4), "big")
    if length > MAX_HEADER:
        raise ValueError(f"header of {length} bytes, at most {MAX_HEADER} are allowed")
    try:
        header = json.loads(_read(fd, length))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise ValueError(f"header is a JSON {type(header).__name__}, not an object")
    size = header.get("bytes", 0)
    if type(size) is not int or not 0 <= size <= limit:
        raise ValueError(f"payload of {size!r} bytes, at most {limit} are allowed")
    return header, _read(fd, size)


def _write(fd: int, view: memoryview) -> None:
    while view.nbytes:
        view = view[os.write(fd, view) :]


def _read(fd: int, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view.nbytes:
        count = os.readv(fd, [view])
        if count == 0:
            raise EOFError("the other end closed the pipe")
        view = view[count:]
    return data
