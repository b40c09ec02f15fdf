"""`python -m harness`: one attempt, in its own directory, with the job on standard input."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from .evaluated import Evaluated
from .failure import Failure
from .files import MARK, RESULT, write_json
from .job import Job
from .lines import say
from .processes import adopt_orphans
from .run import Run
from .self_scored import SelfScored
from .survey import survey


def main() -> None:
    """Read the job, run it, leave the result."""
    job = Job(**json.load(sys.stdin))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    adopt_orphans()
    signal.signal(signal.SIGTERM, _cancelled)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begin = time.monotonic()
    run: Run = Evaluated(job, Path.cwd()) if job.evaluated else SelfScored(job, Path.cwd())
    status, reason, surveyed = "done", "", {}
    try:
        if job.survey:
            surveyed = {"environment": survey()}
        run.check_code()
        run.train()
    except Failure as failure:
        status, reason = failure.label, str(failure)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(OSError):  # A result that is known counts, whatever cleaning up meets.
            run.stop()
    run.timings["total"] = round(time.monotonic() - begin, 3)
    result = {
        "attempt": job.attempt,
        "nonce": job.nonce,
        "status": status,
        "reason": reason,
        "metrics": run.metrics if status == "done" else {},
        "accelerator": run.accelerator,
        "device": run.device,
        "hashes": run.hashes,
        "budget": run.budget,
        "timings": run.timings,
        "self_reported": not job.evaluated,
        "sandbox": run.sandbox,
        **surveyed,
    }
    write_json(Path(RESULT), result)
    # The result counts even where nobody reads what is printed.
    with contextlib.suppress(OSError):
        if status == "done" and (summary := run.summary()):
            say(summary)
        say(f"{MARK} {json.dumps(result)}")


def _cancelled(signum: int, frame: object) -> NoReturn:
    raise Failure("cancelled", "ended by the controller")


if __name__ == "__main__":
    main()
