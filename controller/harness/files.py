"""What the harness leaves on the cluster's disk for whoever looks: its progress, and its result."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from .lines import say

MARK = "AUTORESEARCH"
PROGRESS_MARK = "AUTORESEARCH_PROGRESS"
"""What the lines of ours begin with that somebody reads: the result, and progress where it is told."""
BUNDLE = "bundle"
RESULT = "result.json"
PROGRESS = "progress.json"


class Reporter:
    """Leaves the trainer's progress where the backend can read it, at most twice a second.

    The loss it leaves is the mean of those since the last time: a single step's says more of its batch than of the run.
    telling: it is printed as well.
    """

    def __init__(self, *, telling: bool) -> None:
        self._telling = telling
        self._due = 0.0
        self._sum = 0.0
        self._count = 0

    def report(self, progress: float, loss: Any, steps: int, *, force: bool = False) -> None:
        if isinstance(loss, float) and math.isfinite(loss):
            self._sum += loss
            self._count += 1
        now = time.monotonic()
        if force or now >= self._due:
            self._due = now + 0.5
            mean = self._sum / self._count if self._count else None
            self._sum, self._count = 0.0, 0
            told = mean if mean is not None and math.isfinite(mean) else None
            report = {"progress": round(progress, 4), "loss": told, "steps": steps}
            # A full disk, a log that nobody reads: the attempt does not depend on being watched.
            with contextlib.suppress(OSError):
                write_json(Path(PROGRESS), report)
            with contextlib.suppress(OSError):
                if self._telling:
                    say(f"{PROGRESS_MARK} {json.dumps(report)}")


def write_json(path: Path, value: Any) -> None:
    """Write `value` so that a reader sees the whole of it or none, whatever a trainer has put in its place."""
    descriptor, partial = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        Path(partial).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(partial).unlink()
        raise
