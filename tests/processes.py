"""What runs on this machine, as tests see it: who is alive in a folder, and waiting until they have ended."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
from pathlib import Path

PATIENCE_SECONDS = 60.0
"""How long a test waits for something that should happen at once before it fails."""


def namespaces_allowed() -> bool:
    """Whether this system lets a trainer have namespaces of its own, as most containers do not."""
    mounting = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    return shutil.which("unshare") is not None and subprocess.run(mounting, capture_output=True).returncode == 0


def alive_in(directory: Path) -> dict[int, str]:
    """Command lines, by process id, of the live processes that work in `directory` or name it."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            inside = (entry / "cwd").readlink().is_relative_to(directory)
            if command and int(entry.name) != os.getpid() and (inside or str(directory) in command):
                found[int(entry.name)] = command
    return found


def alive_with(marker: str) -> dict[int, str]:
    """Command lines, by process id, of the live processes whose command line holds `marker`."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if marker in command:
                found[int(entry.name)] = command
    return found


def wait_for_the_end_of(*pids: int) -> None:
    """Returns when every one of these processes has ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                ended, _, _ = select.select([handle], [], [], PATIENCE_SECONDS)
            finally:
                os.close(handle)
            assert ended, f"process {pid} has not ended within {PATIENCE_SECONDS:.0f} s"
