"""Attempts run as the local backend runs them: `python -m harness` in a folder of its own, the job on stdin."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.harness.fingerprint import fingerprint
from tests.processes import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]
NONCE = "5eed" * 8

SPEAKER = '''
"""A trainer of a few lines: speaks the trial protocol, learns nothing, answers from a fixed table."""
import json, os, signal, sys, time
import numpy as np
from prepare import wire

READ, WRITE = map(int, os.environ["AUTORESEARCH_TRIAL"].split(","))
TABLE = np.random.default_rng(7).normal(size=(512, 512)).astype("<f4")

def say(header, payload=b""):
    wire.send(WRITE, header, payload)

def hear():
    return wire.receive(READ)

def ready():
    global TERMS
    TERMS = hear()[0]
    say({"type": "ready", "parameters": [["table", [512, 512], "float32"]], "groups": []})
    hear()

def step(tokens=2**16, loss=2.0):
    say({"type": "more", "tokens": tokens, "loss": loss})
    return hear()[0]

def train():
    while step()["go"]:
        pass

def fixed(tokens):
    return TABLE[tokens]

def serve(answer=fixed, **info):
    say({"type": "serve", "info": info})
    while True:
        header, payload = hear()
        if header["type"] == "done":
            return
        logits = answer(np.frombuffer(payload, "<u2").reshape(header["rows"], header["length"]))
        say({"type": "logits", "shape": list(logits.shape)}, np.ascontiguousarray(logits).data)
'''


@dataclass(frozen=True)
class Ran:
    """What an attempt left: its result as JSON (None where there is none) and everything the harness printed."""

    directory: Path
    exit_code: int
    output: str

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "result.json").read_text())
        return found

    @property
    def ending(self) -> tuple[str, str]:
        """Status and reason."""
        return self.result["status"], self.result["reason"]

    @property
    def metrics(self) -> dict[str, float]:
        found: dict[str, float] = self.result["metrics"]
        return found


class Attempts:
    """Makes attempts, each in a folder of its own, and runs them."""

    def __init__(self, directory: Path, cache: Path, prepare: Mapping[str, bytes]) -> None:
        self.directory = directory
        self._prepare = prepare
        self._count = 0
        self.python = sys.executable
        self.environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "AUTORESEARCH_CACHE": str(cache)}

    def foreign(self, source: str, **job: Any) -> Ran:
        """Run a train.py that reports its own score."""
        return self.finish(self.lay_out({"train.py": source.encode()}, evaluated=False, **job))

    def evaluated(self, source: str, profile: Mapping[str, str] | None = None, **job: Any) -> Ran:
        """Run a train.py that speaks the trial protocol; `profile` replaces texts of prepare/profile.py."""
        return self.finish(self.speaker(source, profile, **job))

    def speaker(self, source: str, profile: Mapping[str, str] | None = None, **job: Any) -> tuple[Path, bytes]:
        """The folder and the job of what `evaluated` runs."""
        files = dict(self._prepare)
        text = files["prepare/profile.py"].decode()
        for old, new in (profile or {}).items():
            assert text.count(old) == 1, f"{old} is {text.count(old)} times in prepare/profile.py"
            text = text.replace(old, new)
        files |= {"prepare/profile.py": text.encode(), "train.py": (SPEAKER + source).encode()}
        return self.lay_out(files, evaluated=True, **job)

    def lay_out(self, files: Mapping[str, bytes], **job: Any) -> tuple[Path, bytes]:
        """An attempt's folder with `files` in its bundle, and its job."""
        self._count += 1
        directory = self.directory / f"study.e{self._count:04d}.1"
        shutil.copytree(ROOT / "controller/harness", directory / "harness", ignore=lambda *_: {"__pycache__"})
        for name, content in files.items():
            path = directory / "bundle" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        hashes = fingerprint(files.items(), "train.py")
        whole = {"attempt": directory.name, "nonce": NONCE, "edit": "train.py", "metric": "val_bpb", "seed": 11}
        whole |= {"timeout": PATIENCE_SECONDS, "hashes": hashes} | job
        return directory, json.dumps(whole).encode()

    @contextmanager
    def started(self, laid: tuple[Path, bytes], stderr: int = subprocess.STDOUT) -> Iterator[subprocess.Popen[bytes]]:
        """The harness at work, its output in a pipe; killed should it take longer than any test waits."""
        directory, job = laid
        command = [self.python, "-m", "harness"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, cwd=directory, env=self.environment, stdin=pipe, stdout=pipe, stderr=stderr, start_new_session=True
        ) as process:
            limit = threading.Timer(2 * PATIENCE_SECONDS, process.kill)
            limit.start()
            try:
                assert process.stdin is not None
                process.stdin.write(job)
                process.stdin.close()
                yield process
            finally:
                limit.cancel()
                process.kill()

    def finish(self, laid: tuple[Path, bytes]) -> Ran:
        """Run an attempt to its end."""
        with self.started(laid) as process:
            assert process.stdout is not None
            output = process.stdout.read().decode()
            return Ran(laid[0], process.wait(), output)

    def finish_after(self, laid: tuple[Path, bytes], line: str, then: Callable[[subprocess.Popen[bytes]], None]) -> Ran:
        """Run an attempt, doing `then` once it has printed `line`."""
        with self.started(laid) as process:
            assert process.stdout is not None
            before = b""
            for printed in process.stdout:
                before += printed
                if line.encode() in printed:
                    then(process)
                    break
            output = (before + process.stdout.read()).decode()
            return Ran(laid[0], process.wait(), output)
