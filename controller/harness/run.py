"""One attempt on the cluster: start the trainer, hold the trial protocol with it, score it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import signal
import site
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .containment import Contained, View, plan_for
from .environment import passed_on
from .failure import Failure
from .files import BUNDLE, Reporter
from .fingerprint import files_below, fingerprint
from .hardware import memory_bytes, observed_accelerator, wake_gpu
from .output import Output
from .processes import Watchdog, cpu_seconds, family_cpu_seconds, kill_descendants, peak_memory_bytes
from .scoring import Scoring

WARMUP_SHARE = 0.35
"""Of the CPU budget that may pass before the budget begins: torch alone takes 2 CPU seconds to import."""
EVALUATION_SECONDS = 300.0
EVALUATION_SHARE = 0.25
"""Of the budget, in seconds or CPU seconds, that answering may take at most."""
ANSWERING_LEAST = 0.5
"""CPU seconds that answering may take beside what training took for as many tokens: who learns meanwhile takes more."""
SETTLE_SECONDS = 30.0
SETTLE_SHARE = 0.02
"""Of the budget, in seconds or CPU seconds, that may pass between the last step and serving."""
SETTLE_LEAST = 0.25
AHEAD = 0.25
"""By what fraction of its CPU seconds a trainer may be ahead of its tokens."""
GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Job:
    """What the controller asks for. `hashes` are those of the code that should lie in the bundle."""

    attempt: str
    nonce: str
    edit: str
    evaluated: bool
    metric: str
    seed: int
    timeout: float
    hashes: Mapping[str, str]


class Run:
    """One attempt, from its child process to its metrics."""

    def __init__(self, job: Job, directory: Path) -> None:
        self.job = job
        self.root = directory / BUNDLE
        self.accelerator = observed_accelerator()
        self.metrics: dict[str, float] = {}
        self.hashes: dict[str, str] = {}
        self.timings: dict[str, float] = {}
        self.budget = f"{job.timeout:g} s in all"
        self.sandbox = ""
        self.scoring = False
        self._trainer: Contained | None = None
        self._output: Output | None = None
        self._watchdog: Watchdog | None = None
        self._pipes: list[int] = []
        self._scoring: Scoring | None = None

    def check_code(self) -> None:
        """Raises Failure where the bundle is not the code that was asked for."""
        self.hashes = fingerprint(files_below(self.root), self.job.edit)
        for name, wanted in self.job.hashes.items():
            if self.hashes.get(name) != wanted:
                raise Failure("mismatch", f"the {name} code on the cluster is not the code that was asked for")

    def train_and_score(self) -> None:
        """The trial protocol from the trainer's start to its score."""
        sys.path.insert(0, str(self.root))
        sys.dont_write_bytecode = True
        # All that the score depends on, code and rows, is loaded before the trainer starts, which could write to it.
        try:
            from prepare import block, corpus, dataset, wire  # noqa: F401
            from prepare.budget import Grant, Meter
            from prepare.profile import CURRENT

            directory = dataset.location()
            if not directory.exists():
                raise Failure("setup_failed", "the data is not prepared on this cluster; run `python -m prepare`")
            self.hashes |= dataset.hashes()
            self._scoring = scoring = Scoring()
        except ImportError as error:
            raise Failure("setup_failed", f"prepare/ can't be imported: {error}") from None
        except (OSError, ValueError, KeyError) as error:
            raise Failure("setup_failed", f"the prepared data can't be read: {error}") from None

        begin = time.monotonic()
        view = View(
            readable=[str(directory / name) for name in (*dataset.TOKENIZER_FILES, "manifest.json")],
            withheld=[str(directory / "train.bin")],
            hidden=[str(corpus.AUSTEN), str(directory / "val.bin"), str(dataset.cache_root() / "data")],
            writable=[str(self.root), str(self.root.parent / "tmp")],
        )
        to_trainer, from_trainer = self._start(view, {"AUTORESEARCH_CACHE": str(dataset.cache_root())})
        assert self._watchdog is not None and self._trainer is not None
        budget, pid = CURRENT.budget, self._trainer.pid
        self._watchdog.expect(begin + budget.warmup_seconds, f"not ready after {budget.warmup_seconds:.0f} s")
        if budget.cpu_seconds is not None:
            self._watchdog.cap_cpu(pid, WARMUP_SHARE * budget.cpu_seconds)
        device = "cpu" if self.accelerator == "CPU" else "cuda"
        meter = Meter(budget)
        spent_on = [f"{budget.tokens} tokens" if budget.tokens else f"{budget.seconds:g} s"]
        self.budget = ", ".join(spent_on + ([f"{budget.cpu_seconds:g} CPU s"] if budget.cpu_seconds else []))
        with self._protocol():
            terms = {"type": "trial", "seed": self.job.seed, "device": device, "budget": vars(budget)}
            wire.send(to_trainer, terms | scoring.terms)
            scoring.close()
            scoring.prepare()  # while it gets ready, as later its clock runs
            ready, _ = wire.receive(from_trainer, limit=0)
            _expect(ready, "ready")
            self.hashes["model"] = hashlib.sha256(json.dumps(ready, sort_keys=True).encode()).hexdigest()
            started = time.monotonic()
            self.timings["warmup"] = round(started - begin, 3)
            meter.start(started, cpu_seconds(pid))
            before = family_cpu_seconds()
            if budget.seconds is not None:
                self._watchdog.expect(started + 1.1 * budget.seconds, f"still training after {budget.seconds:.0f} s")
            else:
                self._watchdog.expect(None)
            if budget.cpu_seconds is not None:
                self._watchdog.cap_cpu(pid, budget.cpu_seconds)
            self._trainer.hand_over()
            wire.send(to_trainer, {"type": "go"})
            reporter, refused = Reporter(), False
            while True:
                header, _ = wire.receive(from_trainer, limit=0)
                if header.get("type") == "serve":
                    break
                _expect(header, "more")
                tokens, loss = header["tokens"], header.get("loss")
                if not isinstance(tokens, int) or isinstance(tokens, bool):
                    raise TypeError(f"tokens must be a whole number, not {tokens!r}")
                if refused:
                    grant = Grant(False, meter.progress)
                else:
                    grant = meter.more(tokens, loss, time.monotonic(), cpu_seconds(pid))
                reporter.report(grant.progress, loss, meter.steps)
                answer = {"type": "more", "go": grant.go, "progress": grant.progress, "label": grant.label}
                if grant.go and budget.cpu_seconds is not None:
                    # Who trains on more than it asks for is ahead with its CPU seconds.
                    self._watchdog.allow_cpu(budget.cpu_seconds * min(1.0, meter.progress + AHEAD))
                if not grant.go and not refused:
                    refused = True
                    # What is left is to hand over the model, not to go on with it.
                    wait = max(1.0, SETTLE_SHARE * budget.seconds) if budget.seconds else SETTLE_SECONDS
                    self._watchdog.expect(time.monotonic() + wait, "still not serving after its budget")
                    if budget.cpu_seconds is not None:
                        self._watchdog.cap_cpu(pid, max(SETTLE_LEAST, SETTLE_SHARE * budget.cpu_seconds))
                wire.send(to_trainer, answer)
                if grant.label:
                    self._settle()
                    raise Failure(grant.label, f"{grant.label} at {grant.progress:.0%} of the budget, loss {loss}")
            ended = time.monotonic()
            meter.seconds, meter.cpu_seconds = ended - started, family_cpu_seconds() - before
            self.timings["training"] = round(ended - started, 3)
            self.timings["training_cpu"] = round(meter.cpu_seconds, 3)
            if budget.cpu_seconds is not None:
                most = EVALUATION_SHARE * budget.cpu_seconds
                if meter.tokens:
                    most = min(most, ANSWERING_LEAST + meter.cpu_seconds / meter.tokens * scoring.tokens)
                self._watchdog.cap_cpu(pid, most)
            limit = EVALUATION_SHARE * budget.seconds if budget.seconds else EVALUATION_SECONDS
            self._watchdog.expect(ended + limit, f"not scored after {limit:.0f} s")
            reporter.report(1.0, None, meter.steps, force=True)
            info = header.get("info")
            self.scoring = True
            assert self._output is not None
            self._output.silence()  # Whoever writes the next train.py reads the log: no row may come into it.
            bits_per_byte = scoring.score(to_trainer, from_trainer, pid)
            self.timings["evaluation"] = round(time.monotonic() - ended, 3)
            peak_memory = peak_memory_bytes(pid)
            wire.send(to_trainer, {"type": "done"})
        self.metrics = _reported(info if isinstance(info, dict) else {}) | {
            self.job.metric: bits_per_byte,
            "training_seconds": round(meter.seconds, 3),
            "training_cpu_seconds": round(meter.cpu_seconds, 3),
            "peak_memory_mb": round(peak_memory / 2**20, 1),
            "leak_evidence": round(scoring.leak_evidence, 2),
            "total_seconds": round(time.monotonic() - begin, 3),
            "total_tokens_M": meter.tokens / 1e6,
            "num_steps": float(meter.steps),
        }

    def train_and_read(self) -> None:
        """A trainer that scores itself: our clock, its word."""
        begin = time.monotonic()
        self._start(None, {})
        assert self._trainer is not None and self._output is not None and self._watchdog is not None
        while self._trainer.child.poll() is None:
            time.sleep(0.05)
        kill_descendants()  # What it left behind may hold its output open.
        self._output.join()
        self.timings["training"] = round(time.monotonic() - begin, 3)
        if self._watchdog.breach or self._trainer.exit_code() != 0:
            self._explain()
        score = self._output.reported.get(self.job.metric)
        if score is None:
            raise Failure("no_score", f"it ended without a line `{self.job.metric}: <number>`")
        if not math.isfinite(score):
            raise Failure("diverged", f"its last {self.job.metric} is {score}")
        self.metrics = {name: value for name, value in self._output.reported.items() if math.isfinite(value)}

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

    def block(self) -> str:
        """The summary in upstream's form."""
        from prepare.block import FORMATS, format_block

        shown = {
            name: int(value) if (value == int(value) and name not in FORMATS) or name == "num_steps" else value
            for name, value in self.metrics.items()
            if name not in ("flops_per_token", "training_cpu_seconds", "peak_memory_mb", "leak_evidence")
        }
        return format_block(shown)

    def _start(self, view: View | None, additions: Mapping[str, str]) -> tuple[int, int]:
        """Start train.py; returns the descriptors to write to it and to read from it.

        It sees `view`, where namespaces allow for it; without one, as in a workspace that scores itself, everything.
        """
        theirs_in, to_trainer = os.pipe()
        from_trainer, theirs_out = os.pipe()
        scratch = self.root.parent / "tmp"
        scratch.mkdir(exist_ok=True)
        # From here on nothing is imported from where the trainer can write.
        sys.path[:] = [path for path in sys.path if not Path(path).resolve().is_relative_to(self.root.parent)]
        environment = {name: value for name, value in os.environ.items() if passed_on(name)} | {
            "AUTORESEARCH_TRIAL": f"{theirs_in},{theirs_out}",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "SEED": str(self.job.seed),
            "TMPDIR": str(scratch),
            **additions,
        }
        if view is not None:
            environment["HOME"] = str(scratch)
            if site.ENABLE_USER_SITE:  # else it would be looked for below the new home
                environment["PYTHONUSERBASE"] = site.getuserbase()
        kinds = [] if view is None else ["namespaces", "user"]
        command, passed = [sys.executable, self.job.edit], [theirs_in, theirs_out]
        if self._scoring is not None and self._scoring.shared is not None:
            passed.append(self._scoring.shared)
        memory = memory_bytes() // 2
        reserved = memory if self.accelerator == "CPU" else None  # CUDA reserves more than it uses
        if self.accelerator != "CPU":
            wake_gpu()
        plan = plan_for(view or View(), command, self.root, reserved, passed)
        self._trainer = Contained(plan, [*kinds, "none"], environment)
        self.sandbox = self._trainer.kind
        for refusal in self._trainer.refusals:
            print(f"no sandbox of {refusal}", flush=True)
        os.close(theirs_in)
        os.close(theirs_out)
        self._pipes = [to_trainer, from_trainer]
        self._output = Output(self._trainer.child, self.job.metric)
        self._watchdog = Watchdog(time.monotonic() + self.job.timeout, f"past {self.job.timeout:.0f} s in all")
        self._watchdog.cap_memory(memory)
        return to_trainer, from_trainer

    def _protocol(self) -> _Protocol:
        return _Protocol(self)

    def _settle(self) -> None:
        """Give the trainer a moment to end by itself, so that its last words reach the log."""
        assert self._trainer is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._trainer.child.wait(GRACE_SECONDS)

    def _explain(self) -> NoReturn:
        """Raise the Failure that says why the trainer stopped talking."""
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
        if code == 0:
            raise Failure("no_score", f"it ended without being scored; its last words: {last}")
        if code == -signal.SIGKILL or out_of_memory:
            raise Failure("out_of_memory", last or "killed, most likely for its memory")
        raise Failure("crash", f"exit code {code}: {last}")


class _Protocol:
    """Turns what can go wrong in the conversation into a Failure."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (EOFError, BrokenPipeError)):
            self._run._explain()
        if isinstance(error, (ValueError, TypeError, KeyError, OverflowError)):
            # While it is scored, nothing it says is quoted: it could say what it was asked.
            what = "while it was scored" if self._run.scoring else f"with {str(error)[:200]}"
            raise Failure("tampered", f"it broke the trial protocol {what}") from None


def _expect(header: Mapping[str, Any], kind: str) -> None:
    if header.get("type") != kind:
        raise Failure("tampered", f"it said {str(header.get('type'))[:40]!r} where {kind!r} was due")


def _reported(info: Mapping[str, Any]) -> dict[str, float]:
    """What the trainer says of itself, as far as it is a few finite numbers."""
    numbers = {
        str(name): float(value)
        for name, value in list(info.items())[:16]
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", str(name))
        and isinstance(value, (int, float))
        and abs(value) < 1e18
    }
    if "num_params" in numbers:
        numbers["num_params_M"] = numbers.pop("num_params") / 1e6
    return numbers
