"""This machine as a fleet: a cluster is a slot, an attempt a process group in a directory of its own.

As many attempts run at once as there are GPUs, or, without any, cores; slots beyond that wait rather than slow the
others. An attempt outlives the controller: its harness holds a file lock for as long as it lives, its result lies in
its directory, and a later controller adopts both.

    <workspace>/.autoresearch/attempts/<attempt>/   bundle/ harness/ tmp/   gone once the result is recorded
                                                    log.txt  progress.json  result.json  process.json  lock
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.backends.protocol import BackendEvent, Bundle, Ended, Fleet, Progressed, Started
from controller.clock import Clock
from controller.harness.environment import passed_on
from controller.harness.files import BUNDLE, PROGRESS, RESULT, write_json
from controller.harness.hardware import gpu_names
from controller.harness.processes import descendants, kill_marked
from controller.records import Attempt, Cluster, NothingRan

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 15.0
"""How long a harness may take to clean up after itself before it is killed."""

LEAST_SPACE = 256 * 1024
"""Bytes without which an attempt can't be expected to leave its result."""

PROCESS = "process.json"
PARTIAL = ".partial"
ASIDE = ".before-"
_SLOT = re.compile(r"local-[0-9]+")

HARNESS = Path(__file__).parent.parent / "harness"


@dataclass
class _Slot:
    queue: deque[str] = field(default_factory=deque)
    running: str | None = None


@dataclass
class _Process:
    directory: Path
    slot: str | None
    child: subprocess.Popen[bytes] | None
    progress: float = -1.0
    doomed_at: float | None = None


class Local:
    """The local backend of one workspace. `directory` is the controller's own folder in it."""

    name = "local"
    idle_seconds = 0.0

    def __init__(self, directory: Path, python: Path, clock: Clock, capacity: int | None = None) -> None:
        self.prices: Mapping[str, float] = {}
        self._attempts = directory / "attempts"
        self._python = python
        self._clock = clock
        self._gpus = gpu_names()
        self.capacity = capacity or len(self._gpus) or len(os.sched_getaffinity(0))
        self._slots: dict[str, _Slot] = {}
        self._up: dict[str, Cluster] = {}
        self._waiting: dict[str, str] = {}
        self._jobs: dict[str, dict[str, Any]] = {}
        self._submitted: set[str] = set()
        self._running: dict[str, _Process] = {}
        self._untold: deque[Started | Progressed | Ended] = deque()
        self._is_set_up = False

    async def acquire(self, fleet: Fleet) -> AsyncIterator[Cluster]:
        if not self._is_set_up:
            await self._set_up(fleet.setup)
            self._is_set_up = True
        for number in range(fleet.clusters):
            cluster = Cluster(f"local-{number + 1:02d}", self._gpus[number % len(self._gpus)] if self._gpus else "CPU")
            self._slots.setdefault(cluster.name, _Slot())
            self._up[cluster.name] = cluster
            yield cluster

    async def up(self, study: str) -> list[Cluster]:
        return list(self._up.values())

    async def submit(self, cluster: str, attempt: Attempt, bundle: Bundle) -> None:
        if attempt.id in self._submitted:
            return
        self._submitted.add(attempt.id)
        directory = self._attempts / attempt.id
        if directory.exists():
            await self._set_aside(directory)
        # Made under another name and renamed, so that a directory that is there is complete.
        partial = directory.with_name(attempt.id + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _unpack(bundle.archive, partial / BUNDLE)
        (partial / "harness").mkdir()
        for module in HARNESS.glob("*.py"):
            shutil.copyfile(module, partial / "harness" / module.name)
        partial.rename(directory)
        # The nonce stays in memory: a queued attempt whose controller dies is submitted anew.
        self._jobs[attempt.id] = {**bundle.job, "attempt": attempt.id, "nonce": attempt.nonce}
        self._waiting[attempt.id] = cluster
        self._slots.setdefault(cluster, _Slot()).queue.append(attempt.id)

    async def events(self) -> AsyncIterator[BackendEvent]:
        while True:
            for attempt in list(self._running):
                self._look(attempt)
            self._start_waiting()
            while self._untold:
                yield self._untold.popleft()
            await self._clock.sleep(POLL_SECONDS)

    async def discard(self, attempt: str) -> None:
        for name in (BUNDLE, "harness", "tmp"):
            shutil.rmtree(self._attempts / attempt / name, ignore_errors=True)

    async def log(self, attempt: str, tail: int | None = None) -> str:
        path = self._attempts / attempt / "log.txt"
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return text if tail is None else "".join(text.splitlines(keepends=True)[-tail:])

    async def cancel(self, attempt: str) -> None:
        slot = self._waiting.pop(attempt, None)
        if slot is not None:
            self._slots[slot].queue.remove(attempt)
            self._jobs.pop(attempt, None)
            self._untold.append(_cancelled(attempt, "cancelled before it ran"))
        elif attempt in self._running:
            process = self._running[attempt]
            pid = _harness(process)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            process.doomed_at = self._clock.monotonic() + PATIENCE_SECONDS

    async def owned(self, study: str) -> set[str]:
        found = set()
        for directory in self._attempts.glob("*.*.*"):
            # A tag may have dots itself: an attempt is called <study>.<experiment>.<number>.
            if directory.name.removesuffix(PARTIAL).rsplit(".", 2)[0] != study:
                continue
            if directory.name.endswith(PARTIAL):
                shutil.rmtree(directory, ignore_errors=True)
            elif directory.name in self._running:
                found.add(directory.name)
            elif directory.name in self._waiting or not (directory / BUNDLE).exists():
                continue
            elif _is_held(directory) or (directory / RESULT).exists():
                self._adopt(directory)
                found.add(directory.name)
            else:
                _end_strays(directory)
                await self.discard(directory.name)
        return found

    async def release(self, clusters: Iterable[str]) -> None:
        names = {*clusters, None}
        self._up = {name: cluster for name, cluster in self._up.items() if name not in names}
        ending = [attempt for attempt, slot in self._waiting.items() if slot in names]
        ending += [attempt for attempt, process in self._running.items() if process.slot in names]
        for attempt in ending:
            await self.cancel(attempt)
        while left := [attempt for attempt in ending if attempt in self._running]:
            for attempt in left:
                self._look(attempt)
            await self._clock.sleep(POLL_SECONDS)

    async def _set_up(self, bundle: Bundle) -> None:
        """Prepare the data once, as the workspace's own code does it."""
        if not bundle.job["evaluated"]:
            return
        directory = self._attempts / "setup"
        shutil.rmtree(directory, ignore_errors=True)
        _unpack(bundle.archive, directory)
        process = await asyncio.create_subprocess_exec(
            *(self._python, "-m", "prepare"),
            cwd=directory,
            env=self._environment(None),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us, and we end it.
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            shutil.rmtree(directory, ignore_errors=True)
        if process.returncode != 0:
            lines = output.decode(errors="replace").strip().splitlines()
            raise NothingRan(f"the data could not be prepared (`python -m prepare`): {lines[-1] if lines else ''}")

    def _start_waiting(self) -> None:
        busy = {self._gpu(process.slot) for process in self._running.values()} - {None}
        for attempt, slot_name in list(self._waiting.items()):
            if len(self._running) >= self.capacity:
                return
            slot, gpu = self._slots[slot_name], self._gpu(slot_name)
            if slot.running is None and slot.queue[0] == attempt and gpu not in busy:
                slot.queue.popleft()
                slot.running = attempt
                del self._waiting[attempt]
                self._spawn(attempt, slot_name)
                self._untold.append(Started(attempt))
                if gpu is not None:
                    busy.add(gpu)

    def _gpu(self, slot: str | None) -> str | None:
        """Which GPU a slot is; several slots may share one, and take turns."""
        return str((int(slot.rpartition("-")[2]) - 1) % len(self._gpus)) if slot and self._gpus else None

    def _adopt(self, directory: Path) -> None:
        slot = _read_object(directory / PROCESS).get("slot")
        slot = slot if isinstance(slot, str) and _SLOT.fullmatch(slot) else None
        self._running[directory.name] = _Process(directory, slot, child=None)
        if slot is not None:
            self._slots.setdefault(slot, _Slot()).running = directory.name
        if _is_held(directory):
            self._untold.append(Started(directory.name))

    async def _set_aside(self, directory: Path) -> None:
        """End and rename an attempt of another journal, since lost, that had the name of one of this journal's."""
        process = self._running.pop(directory.name, None) or _Process(directory, slot=None, child=None)
        self._untold = deque(event for event in self._untold if event.attempt != directory.name)
        while _is_held(directory):
            _kill(process)
            await self._clock.sleep(POLL_SECONDS)
        if process.slot is not None:
            self._slots[process.slot].running = None
        await self.discard(directory.name)
        _rename_aside(directory)

    def _spawn(self, attempt: str, slot: str) -> None:
        directory = self._attempts / attempt
        with (directory / "log.txt").open("wb") as log, (directory / "lock").open("w") as lock:
            # Taken here and inherited: there is no moment at which the harness lives and the lock is free.
            fcntl.flock(lock, fcntl.LOCK_EX)
            child = subprocess.Popen(
                [self._python, "-m", "harness"],
                cwd=directory,
                env={**self._environment(self._gpu(slot)), **_mark(directory)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
        assert child.stdin is not None
        try:
            write_json(directory / PROCESS, {"pid": child.pid, "slot": slot})
        except OSError:  # a full disk
            child.stdin.close()  # Without a job it ends at once.
            child.wait()
            raise
        with contextlib.suppress(BrokenPipeError):  # It has died already: the next look finds it without a result.
            child.stdin.write(json.dumps(self._jobs.pop(attempt)).encode())
            child.stdin.close()
        self._running[attempt] = _Process(directory, slot, child)

    def _environment(self, gpu: str | None) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if passed_on(name)}
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        return environment

    def _look(self, attempt: str) -> None:
        process = self._running[attempt]
        if process.doomed_at is not None and self._clock.monotonic() > process.doomed_at:
            _kill(process)
        if process.child is not None:
            process.child.poll()
        if _is_held(process.directory):
            told = _read_object(process.directory / PROGRESS)
            fraction, loss = told.get("progress"), told.get("loss")
            if isinstance(fraction, float) and fraction != process.progress:
                process.progress = fraction
                self._untold.append(Progressed(attempt, fraction, loss if isinstance(loss, float) else None))
            return
        if process.child is not None:
            process.child.wait()  # It lets the lock go a moment before it is over.
        del self._running[attempt]
        if process.slot is not None and self._slots[process.slot].running == attempt:
            self._slots[process.slot].running = None
        report = _read_object(process.directory / RESULT)
        if "nonce" in report:  # a harness always gives it
            self._untold.append(Ended(attempt, report))
            return
        _end_strays(process.directory)
        _check_space(process.directory)
        if process.doomed_at is not None:
            self._untold.append(_cancelled(attempt, "cancelled before it had begun, or after it had hung"))
        else:
            self._untold.append(Ended(attempt, None, "its harness vanished without a result"))


def _kill(process: _Process) -> None:
    pid = _harness(process)
    if pid is not None:
        for one in [*descendants(pid), pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
    _end_strays(process.directory)


def _harness(process: _Process) -> int | None:
    """The process id of an attempt's harness, while it lives."""
    # Only while the lock is held is the number still that harness's.
    if not _is_held(process.directory):
        return None
    if process.child is not None:
        return process.child.pid
    # A trainer could have written another number: a harness works in its attempt's own directory.
    pid = _read_object(process.directory / PROCESS).get("pid")
    with contextlib.suppress(OSError):
        if isinstance(pid, int) and Path(f"/proc/{pid}/cwd").samefile(process.directory):
            return pid
    return None


def workspace_python(root: Path, own: str) -> Path:
    """The Python that trains: the workspace's virtual environment where it has one, else the controller's."""
    theirs = root / ".venv" / "bin" / "python"
    return theirs if theirs.exists() else Path(own)


def _unpack(archive: bytes, directory: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")


def _cancelled(attempt: str, reason: str) -> Ended:
    return Ended(attempt, {"attempt": attempt, "status": "cancelled", "reason": reason})


def _mark(directory: Path) -> dict[str, str]:
    """What every process of an attempt has in its environment: the harness gives its trainer the same."""
    return {"TMPDIR": f"{directory.resolve()}/tmp"}


def _end_strays(directory: Path) -> None:
    """End every process of an attempt, as far as they can be told: for what a harness can no longer clean up."""
    for name, value in _mark(directory).items():
        kill_marked(f"{name}={value}")


def _rename_aside(directory: Path) -> None:
    number = 1
    while (aside := directory.with_name(f"{directory.name}{ASIDE}{number}")).exists():
        number += 1
    directory.rename(aside)


def _check_space(directory: Path) -> None:
    """Raises OSError where the disk is full: what ended without a result has none for that, and so would the next."""
    with contextlib.suppress(FileNotFoundError):
        if shutil.disk_usage(directory).free < LEAST_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def _is_held(directory: Path) -> bool:
    try:
        with (directory / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, which a trainer could have written; an empty one where there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
