"""Bundles to run: small train.py files whose first line says, for a backend that runs no code, what the rest does."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from controller.backends import Backend, BackendEvent, Bundle, Ended, Progressed, Started
from controller.harness.fingerprint import fingerprint
from controller.records import Attempt
from tests.processes import PATIENCE_SECONDS

HEADER = "# plays: "

TRAINER = """
import os, sys, time
for line in plays["prints"]:
    print(line, flush=True)
if plays["helper"]:
    import subprocess
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", plays["helper"]], start_new_session=True)
if plays["diary"]:
    with open(plays["diary"], "a") as diary:
        diary.write("+")
while plays["gate"] and not os.path.exists(plays["gate"]):
    time.sleep(0.005)
if os.environ.get("SEED") in plays["kills_harness_with_seeds"]:
    os.kill(os.getppid(), 9)
    time.sleep(600)
if plays["diary"]:
    with open(plays["diary"], "a") as diary:
        diary.write("-")
if plays["score"] is None:
    sys.exit("no luck")
print("val_bpb:", plays["score"])
"""


@dataclass(frozen=True)
class Plan:
    """What a train.py does: prints, waits until the file `gate` is there, then scores, or fails where score is None.

    seconds: how long that takes where time is virtual. losses: what it tells of meanwhile, there. lost_on: clusters
    that vanish under it, and hangs_on: on which it never ends, where clusters are made up. diary: a file that gets a +
    when it begins and a - when it ends.
    helper: the last argument of a process it starts and leaves behind. kills_harness_with_seeds: seeds with which it
    kills its own harness.
    """

    score: float | None = 1.25
    gate: str = ""
    prints: Sequence[str] = ()
    diary: str = ""
    helper: str = ""
    seconds: float = 0.0
    losses: Sequence[float] = ()
    lost_on: Sequence[str] = ()
    hangs_on: Sequence[str] = ()
    kills_harness_with_seeds: Sequence[str] = ()

    def bundle(self, seed: int = 1) -> Bundle:
        """The plan as what an attempt is sent."""
        fields = json.dumps(vars(self))
        return bundle_of(f"{HEADER}{fields}\nimport json\nplays = json.loads({fields!r})\n{TRAINER}", seed=seed)

    @classmethod
    def of(cls, bundle: Bundle) -> Plan:
        """The plan in a bundle."""
        with tarfile.open(fileobj=io.BytesIO(bundle.archive)) as tar:
            file = tar.extractfile("train.py")
            assert file is not None
            fields: dict[str, Any] = json.loads(file.readline().decode().removeprefix(HEADER))
            return cls(**fields)


def bundle_of(source: str, *others: tuple[str, str], seed: int = 1) -> Bundle:
    """A train.py that reports its own score, and perhaps other files, as what an attempt is sent."""
    files = [("train.py", source.encode()), *((name, text.encode()) for name, text in others)]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    job = {"edit": "train.py", "evaluated": False, "metric": "val_bpb", "seed": seed, "timeout": PATIENCE_SECONDS}
    return Bundle(archive.getvalue(), job | {"hashes": fingerprint(files, "train.py")})


def attempt(number: int, cluster: str, study: str = "study") -> Attempt:
    """The first attempt at an experiment, with a nonce of its own; numbers are counted from `begin_at`."""
    number += _first
    name = f"e{number:04d}"
    return Attempt(f"{study}.{name}.1", name, cluster, f"{number:032x}")


_first = 0


def begin_at(first: int) -> None:
    """Count experiments from `first` on: where clusters outlive a test, no two tests may have the same."""
    global _first
    _first = first


E = TypeVar("E", Started, Progressed, Ended)


class Ear:
    """Listens to a backend's events and remembers them."""

    def __init__(self, backend: Backend) -> None:
        self._events = backend.events()
        self.heard: list[BackendEvent] = []

    async def until(self, kind: type[E], name: str) -> E:
        """The first event of `kind` about the attempt called `name`; listens until it comes."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for event in self.heard:
                    if isinstance(event, kind) and event.attempt == name:
                        return event
                self.heard.append(await anext(self._events))

    def about(self, name: str) -> list[str]:
        """What was heard of the attempt called `name`, progress left out."""
        told = [event for event in self.heard if isinstance(event, (Started, Ended)) and event.attempt == name]
        return [type(event).__name__ for event in told]

    async def hang_up(self) -> None:
        """Listen no more."""
        await self._events.aclose()  # type: ignore[attr-defined]


def report_of(event: Ended) -> dict[str, Any]:
    """The report an attempt ended with."""
    assert event.report is not None, event.reason
    return dict(event.report)


def open_gate(path: str) -> None:
    """Let those go on that wait at a gate."""
    Path(path).touch()
