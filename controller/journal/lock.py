"""One controller a study: a lock that the kernel releases with the process, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def holder(directory: Path, study: str) -> int | None:
    """The process that holds `study`; None where nobody does, or who does is not known."""
    if not is_locked(directory, study):
        return None
    try:
        return int((directory / f"{study}.lock").read_text())
    except (OSError, ValueError):
        return None


@contextmanager
def study_lock(directory: Path, study: str) -> Iterator[None]:
    """Hold `study` for this process. Raises UserError where another live process holds it."""
    path = directory / f"{study}.lock"
    try:
        opened = path.open("a+")
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}); make it writable and run again") from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(
                f"study {study} is already being run by process {holder}; wait for it, or choose another --tag"
            ) from None
        # On a full disk it stays empty: who holds it is only told, the kernel knows.
        with suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), str(os.getpid()).encode())
        yield
