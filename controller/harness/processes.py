"""Process trees on the cluster: what they have used, and how they end. Linux tells all; elsewhere less is enforced."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

MOST_PROCESSES = 1024
"""That a trainer may have at once, whoever it is: of root the kernel counts none."""


def adopt_orphans() -> None:
    """Become the parent of every orphan below us (Linux), so that a double fork does not escape."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def die_with_parent() -> None:
    """For a child just forked: be killed when its parent ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def cpu_seconds(pid: int) -> float:
    """CPU seconds that process `pid` and its finished children have used; 0 where the system does not tell."""
    try:
        fields = _fields(Path(f"/proc/{pid}"))
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def peak_memory_bytes(pid: int) -> int:
    """The most memory that process `pid` has held at once; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def family_cpu_seconds() -> float:
    """CPU seconds of all processes below this one, by whomever they were started, also of those not reaped yet."""
    return sum(cpu_seconds(pid) for pid in _below(os.getpid(), _table()))


def family_memory_bytes() -> int:
    """Bytes that all processes below this one hold; what they share is counted for each."""
    held = 0
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            held += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return held * os.sysconf("SC_PAGE_SIZE")


def kill_descendants() -> None:
    """Kill every process this one has started, and theirs, until none is left: daemons come back to us as orphans."""
    deadline = time.monotonic() + 10.0
    while (pids := descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def kill_marked(variable: str) -> None:
    """Kill every process that was started with the environment variable `variable` ("NAME=value"), until none is left.

    For what a harness that was itself killed could not clean up: such processes have lost their place in the tree.
    """
    deadline = time.monotonic() + 10.0
    while (pids := _marked(variable.encode())) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _marked(variable: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if variable in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def children(parent: int) -> list[int]:
    """Process ids whose parent is `parent`, those that are only waiting to be reaped left out."""
    table = _table()
    return [pid for pid, (its_parent, alive) in table.items() if alive and its_parent == parent]


def descendants(root: int) -> list[int]:
    """Process ids below `root`, those that are only waiting to be reaped left out."""
    table = _table()
    return [pid for pid in _below(root, table) if table[pid][1]]


def _below(root: int, table: Mapping[int, tuple[int, bool]]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found, frontier = [], [root]
    while frontier:
        below = children.get(frontier.pop(), [])
        found += below
        frontier += below
    return found


def _table() -> dict[int, tuple[int, bool]]:
    """Each process's parent, and whether any of it is alive: one whose first thread has ended looks like a zombie."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = _fields(entry)
            found[int(entry.name)] = (int(fields[1]), fields[0] != b"Z" or int(fields[17]) > 1)
    return found


def _fields(process: Path) -> list[bytes]:
    """What the kernel says of a process in /proc/PID/stat after its name, which may be any bytes at all."""
    return (process / "stat").read_bytes().rpartition(b")")[2].split()


class Watchdog:
    """Kills the trainer when a deadline or a cap is passed; `breach` is then the label and the reason."""

    def __init__(self, deadline: float, reason: str) -> None:
        self.breach: tuple[str, str] | None = None
        self._memory: int | None = None
        self._outer = (deadline, reason)
        self._phase: tuple[float, str] | None = None
        self._cpu = (0, 0.0, 0.0)
        self._cpu_left: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def expect(self, deadline: float | None, reason: str = "") -> None:
        """The present phase must end by `deadline` (monotonic seconds)."""
        self._phase = None if deadline is None else (deadline, reason)

    def cap_cpu(self, pid: int, seconds: float | None) -> None:
        """From now on process `pid`, and with it everything else below us, may use at most `seconds` of CPU."""
        self._cpu_left = None
        if seconds is not None:
            self._cpu = (pid, cpu_seconds(pid), family_cpu_seconds())
            self._cpu_left = seconds

    def allow_cpu(self, seconds: float) -> None:
        """Make the present cap `seconds` since it was set."""
        self._cpu_left = seconds

    def cap_memory(self, most: int | None) -> None:
        """All processes below us may hold at most `most` bytes of memory together, what they share counted for each."""
        self._memory = most

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            self._look()
        except Exception as error:
            # Nobody is watching any more, so nobody goes on.
            self.breach = self.breach or ("crash", f"its watchdog failed: {error!r:.200}")
            kill_descendants()

    def _look(self) -> None:
        for look in itertools.count():
            if self._stopped.wait(0.1):
                return
            now = time.monotonic()
            limits = [self._outer] + ([self._phase] if self._phase else [])
            late = next((reason for deadline, reason in limits if now > deadline), "")
            if late:
                self.breach = ("overtime", late)
            elif self._too_much_cpu(whole_family=look % 10 == 0):
                self.breach = ("overtime", "past its cap of CPU seconds")
            elif self._memory is not None and look % 10 == 0 and family_memory_bytes() > self._memory:
                self.breach = ("out_of_memory", f"past its {self._memory >> 20} MiB of memory")
            elif look % 10 == 0 and len(descendants(os.getpid())) > MOST_PROCESSES:
                self.breach = ("out_of_memory", f"more than {MOST_PROCESSES} processes")
            if self.breach:
                kill_descendants()
                return

    def _too_much_cpu(self, whole_family: bool) -> bool:
        # Finding the whole family means reading all of /proc, which would itself take CPU from the trainer.
        (pid, own, family), left = self._cpu, self._cpu_left
        if left is None:
            return False
        return cpu_seconds(pid) - own > left or (whole_family and family_cpu_seconds() - family > left)
