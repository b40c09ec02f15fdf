"""One attempt on the cluster: check its code, start its trainer, know why it has ended, leave nothing of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import site
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from .containment import Contained, View, plan_for
from .environment import declared, looks_secret, passed_on
from .failure import Failure
from .files import BUNDLE
from .fingerprint import files_below, fingerprint
from .hardware import device_for, memory_bytes, observed_accelerator, wake_gpu
from .job import Job
from .lines import say
from .output import Output
from .processes import Watchdog, kill_descendants

GRACE_SECONDS = 5.0


class Run(ABC):
    """One attempt, from its child process to its metrics.

    accelerator: what the cluster has. device: what is trained on, "cpu" or "cuda".
    """

    def __init__(self, job: Job, directory: Path) -> None:
        self.job = job
        self.root = directory / BUNDLE
        self.accelerator = observed_accelerator()
        self.device = device_for(self.accelerator)
        self.metrics: dict[str, float] = {}
        self.hashes: dict[str, str] = {}
        self.timings: dict[str, float] = {}
        self.budget = f"{job.timeout:g} s in all"
        self.sandbox = ""
        self._trainer: Contained | None = None
        self._output: Output | None = None
        self._watchdog: Watchdog | None = None
        self._pipes: list[int] = []

    def check_code(self) -> None:
        """Raises Failure where the bundle is not the code that was asked for."""
        self.hashes = fingerprint(files_below(self.root), self.job.edit)
        for name, wanted in self.job.hashes.items():
            if self.hashes.get(name) != wanted:
                raise Failure("mismatch", f"the {name} code on the cluster is not the code that was asked for")

    @abstractmethod
    def train(self) -> None:
        """From the trainer's start to its metrics. Raises Failure."""

    def summary(self) -> str:
        """What a person is shown of a run that is done, "" where it has printed all there is itself."""
        return ""

    def stop(self) -> None:
        """Kill everything this attempt started. Returns when all of it is gone."""
        if self._watchdog:
            self._watchdog.stop()
        kill_descendants()
        for fd in self._pipes:
            os.close(fd)
        if self._output:
            self._output.join()
        if self._trainer:
            self._trainer.close()

    def _start(
        self,
        command: Sequence[str],
        view: View | None = None,
        additions: Mapping[str, str] | None = None,
        passed: Sequence[int] = (),
    ) -> tuple[int, int]:
        """Start the trainer; returns the descriptors to write to it and to read from it.

        It sees `view`, where namespaces allow for it; without one, as in a workspace that scores itself, everything.
        additions: to its environment. passed: descriptors that it inherits.
        """
        theirs_in, to_trainer = os.pipe()
        from_trainer, theirs_out = os.pipe()
        scratch = self.root.parent / "tmp"
        scratch.mkdir(exist_ok=True)
        # From here on nothing is imported from where the trainer can write.
        sys.path[:] = [path for path in sys.path if not Path(path).resolve().is_relative_to(self.root.parent)]
        for name in filter(looks_secret, self.job.environment):
            say(f"not passed on, as it looks like a secret: {name!a}")
        environment = {name: value for name, value in os.environ.items() if passed_on(name)}
        environment |= declared(self.job.environment)
        environment |= {
            "AUTORESEARCH_TRIAL": f"{theirs_in},{theirs_out}",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "SEED": str(self.job.seed),
            "TMPDIR": str(scratch),
            **(additions or {}),
        }
        if view is not None:
            environment["HOME"] = str(scratch)
            if site.ENABLE_USER_SITE:  # else it would be looked for below the new home
                environment["PYTHONUSERBASE"] = site.getuserbase()
        kinds = [] if view is None else ["namespaces", "user"]
        memory = memory_bytes() // 2
        reserved = memory if self.device == "cpu" else None  # CUDA reserves more than it uses
        if self.device != "cpu":
            wake_gpu()
        plan = plan_for(view or View(), command, self.root, reserved, [theirs_in, theirs_out, *passed])
        try:
            self._trainer = Contained(plan, [*kinds, "none"], environment)
        except OSError as error:
            raise Failure("setup_failed", f"the trainer can't be started: {error.strerror or error}") from None
        self.sandbox = self._trainer.kind
        for refusal in self._trainer.refusals:
            say(f"no sandbox of {refusal}")
        os.close(theirs_in)
        os.close(theirs_out)
        self._pipes = [to_trainer, from_trainer]
        self._output = Output(self._trainer.child, self.job.metric)
        self._watchdog = Watchdog(time.monotonic() + self.job.timeout, f"past {self.job.timeout:.0f} s in all")
        self._watchdog.cap_memory(memory)
        return to_trainer, from_trainer

    def _settle(self) -> None:
        """Give the trainer a moment to end by itself, so that its last words reach the log."""
        assert self._trainer is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._trainer.child.wait(GRACE_SECONDS)

    def _explain(self, told: str = "") -> NoReturn:
        """Raise the Failure that says why the trainer stopped talking. told: how it says itself that it has failed."""
        assert self._trainer is not None and self._output is not None and self._watchdog is not None
        self._settle()
        if self._watchdog.breach:
            raise Failure(*self._watchdog.breach)
        code = self._trainer.exit_code()
        kill_descendants()
        self._output.join()
        last = self._output.last_line()
        out_of_memory = re.search(r"OutOfMemoryError|MemoryError|out of memory", last)
        if self._output.silenced:
            last = "what it printed while it was scored is not shown, as it may quote what it was asked"
        if code is None:
            raise Failure("tampered", "it closed the protocol's pipes and went on running")
        if code == 0 and not told:
            raise Failure("no_score", f"it ended without being scored; its last words: {last}")
        # A shell says so of its command that it was killed.
        killed = code == -signal.SIGKILL or (self.job.run and code == 128 + signal.SIGKILL)
        if killed or out_of_memory:
            raise Failure("out_of_memory", last or "killed, most likely for its memory")
        raise Failure("crash", f"{f'exit code {code}' if code else told}: {last}")
