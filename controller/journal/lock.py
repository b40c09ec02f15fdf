"""One controller a study: a lock that the kernel releases with the process, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.records import UserError


def is_locked(directory: Path, study: str) -> bool:
    """Whether a live process holds `study`."""
    try:
        with (directory / f"{study}.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def study_lock(directory: Path, study: str) -> Iterator[None]:
    """Hold `study` for this process. Raises UserError where another live process holds it."""
    path = directory / f"{study}.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(
                f"study {study} is already being run by process {holder}; wait for it, or choose another --tag"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
