"""Memory that the harness and the trainer share: logits lie there instead of going through a pipe.

The full profile's logits are over 20 GB; `bench/scoring.py` shows how long they take either way. Its size is sealed:
who shares it can write to it, but not take it away from under the other's feet.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
from numpy.typing import NDArray


def make(size: int) -> int | None:
    """A descriptor of `size` bytes to be shared, for the caller to close; None where the system has no such thing."""
    if not hasattr(os, "memfd_create"):
        return None
    import fcntl

    descriptor = os.memfd_create("logits", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


class Memory:
    """The whole of what lies behind a descriptor, mapped."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._map = mmap.mmap(descriptor, size)

    def floats(self, offset: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """float32 numbers from `offset` bytes on; writes go to the other side. Raises ValueError if it is too small."""
        return np.frombuffer(self._map, "<f4", int(np.prod(shape)), offset).reshape(shape)
