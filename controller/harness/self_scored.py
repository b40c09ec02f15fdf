"""An attempt whose workspace scores itself: our clock, its word."""

from __future__ import annotations

import math
import shutil
import sys
import time
from pathlib import Path

from .failure import Failure
from .processes import kill_descendants
from .run import Run


class SelfScored(Run):
    """Runs the file under research, or the job's script, and reads the score from what is printed."""

    def train(self) -> None:
        begin = time.monotonic()
        if self.job.run:
            # As SkyPilot runs it. What its experiment is called is for the lines that it ends with.
            names = {"EXPERIMENT_ID": self.job.experiment, "EXPERIMENT_DESC": self.job.attempt}
            self._start([_bash(), "-c", self.job.run], additions=names)
        else:
            self._start([sys.executable, self.job.edit])
        assert self._trainer is not None and self._output is not None and self._watchdog is not None
        while self._trainer.child.poll() is None:
            time.sleep(0.05)
        kill_descendants()  # What it left behind may hold its output open.
        self._output.join()
        self.timings["training"] = round(time.monotonic() - begin, 3)
        # A script may end well whatever became of its training, and say so.
        told = f"EXPERIMENT_STATUS: {self._output.status}" if self.job.run and self._output.failed else ""
        if self._watchdog.breach or self._trainer.exit_code() != 0 or told:
            self._explain(told)
        score = None if self._output.failed else self._output.reported.get(self.job.metric)
        if score is None:
            raise Failure("no_score", f"it ended without a line `{self.job.metric}: <number>`")
        if not math.isfinite(score):
            raise Failure("diverged", f"its last {self.job.metric} is {score}")
        self.metrics = {name: value for name, value in self._output.reported.items() if math.isfinite(value)}


def _bash() -> str:
    found = shutil.which("bash")
    if found is None:
        raise Failure("setup_failed", "there is no bash on this cluster")
    return str(Path(found).absolute())
