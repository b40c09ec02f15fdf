"""What is sent to a cluster for one attempt: a directory that has only what is its own, under a path never used before.

SkyPilot copies every job's working directory into the same one on the cluster, at once, even while another job runs
from it. So nothing may lie there under a name that another attempt's files have.
"""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controller.backends.protocol import Bundle, Unreachable
from controller.records import Attempt

FOLDER = "autoresearch-attempts"
OVERHEAD_SECONDS = 120.0
"""Beside its own time limit, how long a job may take before the cluster itself ends it."""

HARNESS = Path(__file__).parents[2] / "harness"
SCRIPTS = Path(__file__).parent


@contextmanager
def packed(
    scratch: Path, attempt: Attempt, bundle: Bundle, additions: Mapping[str, Any], setup: bool = False
) -> Iterator[Path]:
    """A working directory to send for `attempt`; with the commit's own files for a `setup`.

    It is gone with the context, unless nobody knows whether the server, on this machine, reads it still: then until it
    is `forgotten`, or packed anew.
    """
    root = scratch / attempt.id
    forgotten(scratch, attempt.id)
    mine = root / FOLDER / attempt.id
    (mine / "harness").mkdir(parents=True)
    try:
        if setup:
            with tarfile.open(fileobj=io.BytesIO(bundle.archive)) as tar:
                tar.extractall(root, filter="data")
        # It says what of the directory is not to be sent: all of it is.
        (root / ".skyignore").write_text("")
        for module in HARNESS.glob("*.py"):
            shutil.copyfile(module, mine / "harness" / module.name)
        for script in ("start.sh", "keep.sh"):
            shutil.copyfile(SCRIPTS / script, mine / script)
        (mine / "bundle.tar").write_bytes(bundle.archive)
        job = {**bundle.job, **additions, "attempt": attempt.id, "nonce": attempt.nonce}
        (mine / "run.sh").write_text(str(job.get("run") or ""))
        (mine / "job.json").touch(mode=0o600)
        (mine / "job.json").write_text(json.dumps(job))
        yield root
    except (Unreachable, asyncio.CancelledError):
        raise
    except BaseException:
        forgotten(scratch, attempt.id)
        raise
    forgotten(scratch, attempt.id)


def forgotten(scratch: Path, attempt: str) -> None:
    """Remove what may be left of what was sent for an attempt."""
    shutil.rmtree(scratch / attempt, ignore_errors=True)


def command(attempt: str, bundle: Bundle, idle_seconds: float) -> str:
    """What a job runs to have an attempt made of what was sent for it."""
    seconds = round(bundle.job["timeout"] + OVERHEAD_SECONDS)
    return f"bash {FOLDER}/{attempt}/start.sh {attempt} {seconds} {round(idle_seconds)}"


def keep(attempt: str, seconds: float) -> str:
    """What a set-up runs first, for its cluster to be there so long at most before its first attempt says more."""
    return f"bash {FOLDER}/{attempt}/keep.sh {round(seconds)}"
