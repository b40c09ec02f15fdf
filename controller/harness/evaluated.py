"""An attempt that is scored by us: the trial protocol, from the trainer's start to its score."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .containment import View
from .failure import Failure
from .files import Reporter
from .job import Job
from .limits import Limits
from .processes import cpu_seconds, family_cpu_seconds, peak_memory_bytes
from .run import Run


class Evaluated(Run):
    """Grants a trainer its steps, and scores what it answers."""

    def __init__(self, job: Job, directory: Path) -> None:
        super().__init__(job, directory)
        self.scoring = False

    def train(self) -> None:
        sys.path.insert(0, str(self.root))
        sys.dont_write_bytecode = True
        # All that the score depends on, code and rows, is loaded before the trainer starts, which could write to it.
        try:
            from prepare import block, corpus, dataset, wire  # noqa: F401
            from prepare.budget import Grant, Meter
            from prepare.profile import CURRENT

            from .scoring import Scoring

            directory = dataset.location()
            if not directory.exists():
                raise Failure("setup_failed", "the data is not prepared on this cluster; run `python -m prepare`")
            self.hashes |= dataset.hashes()
            scoring = Scoring()
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
        to_trainer, from_trainer = self._start(
            [sys.executable, self.job.edit],
            view,
            {"AUTORESEARCH_CACHE": str(dataset.cache_root())},
            [] if scoring.shared is None else [scoring.shared],
        )
        assert self._watchdog is not None and self._trainer is not None
        limits = Limits(CURRENT.budget, self.job.share)
        budget, pid = limits.budget, self._trainer.pid
        self.budget = str(limits)
        self._watchdog.expect(begin + budget.warmup_seconds, f"not ready after {budget.warmup_seconds:.0f} s")
        self._watchdog.cap_cpu(pid, limits.warmup_cpu)
        meter = Meter(budget)
        with _Protocol(self):
            terms = {"type": "trial", "seed": self.job.seed, "device": self.device, "budget": vars(budget)}
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
            if limits.training_seconds is not None:
                self._watchdog.expect(started + limits.training_seconds, f"still training after {budget.seconds:.0f} s")
            else:
                self._watchdog.expect(None)
            if budget.cpu_seconds is not None:
                self._watchdog.cap_cpu(pid, budget.cpu_seconds)
            self._trainer.hand_over()
            wire.send(to_trainer, {"type": "go"})
            reporter, refused = Reporter(telling=self.job.telling), False
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
                allowed = limits.training_cpu(meter.progress)
                if grant.go and allowed is not None:
                    # Who trains on more than it asks for is ahead with its CPU seconds.
                    self._watchdog.allow_cpu(allowed)
                if not grant.go and not refused:
                    refused = True
                    # What is left is to hand over the model, not to go on with it.
                    wait = limits.settle_seconds
                    self._watchdog.expect(time.monotonic() + wait, "still not serving after its budget")
                    if limits.settle_cpu is not None:
                        self._watchdog.cap_cpu(pid, limits.settle_cpu)
                wire.send(to_trainer, answer)
                if grant.label:
                    self._settle()
                    raise Failure(grant.label, f"{grant.label} at {grant.progress:.0%} of the budget, loss {loss}")
            ended = time.monotonic()
            meter.seconds, meter.cpu_seconds = ended - started, family_cpu_seconds() - before
            self.timings["training"] = round(ended - started, 3)
            self.timings["training_cpu"] = round(meter.cpu_seconds, 3)
            most = limits.evaluation_cpu(meter.cpu_seconds, meter.tokens, scoring.tokens)
            if most is not None:
                self._watchdog.cap_cpu(pid, most)
            limit = limits.evaluation_seconds
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

    def summary(self) -> str:
        """The block in upstream's form."""
        from prepare.block import FORMATS, format_block

        shown = {
            name: int(value) if (value == int(value) and name not in FORMATS) or name == "num_steps" else value
            for name, value in self.metrics.items()
            if name not in ("flops_per_token", "training_cpu_seconds", "peak_memory_mb", "leak_evidence")
        }
        return str(format_block(shown))


class _Protocol:
    """Turns what can go wrong in the conversation into a Failure."""

    def __init__(self, run: Evaluated) -> None:
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
