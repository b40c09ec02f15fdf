"""The harness's side of the sandbox: starts the trainer in the best one the system allows, and knows which it is."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import site
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .processes import children, die_with_parent

LAUNCHER = Path(__file__).with_name("sandbox.py")
ANSWER_SECONDS = 30.0
WRITABLE_BYTES = 2**30

USERS = range(60706, 61184)
"""Ids of users that neither distributions nor systemd give to anybody (systemd.io/UIDS-GIDS)."""
SHARED = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock")
"""Where every user may write."""


@dataclass(frozen=True)
class View:
    """What a trainer in namespaces sees beside the system and its Python; the rest of the file system is not there.

    readable: files and folders, read-only. withheld: files that are empty until `hand_over`. hidden: what is empty to
    the end. writable: folders with their contents, copied into memory.
    """

    readable: Sequence[str] = ()
    withheld: Sequence[str] = ()
    hidden: Sequence[str] = ()
    writable: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """What the launcher is told; see sandbox.py."""

    command: Sequence[str]
    directory: str
    root: str
    memory: int | None
    passed: Sequence[int]
    readable: Sequence[str] = ()
    withheld: Sequence[str] = ()
    hidden: Sequence[str] = ()
    writable: Mapping[str, int] = field(default_factory=dict)


class Contained:
    """A trainer at work. `kind` is "namespaces", "user" or "none"."""

    def __init__(self, plan: Plan, kinds: Sequence[str], environment: Mapping[str, str]) -> None:
        self.refusals: list[str] = []
        self.started = False
        self._signal = ""
        self._user, self._claim = _claim_user()
        for self.kind in kinds:
            self.started = self._start(plan, environment)
            if self.started:
                break
            self.child.wait()
            assert self.child.stdout is not None
            self.child.stdout.close()
        self.pid = self.child.pid
        if self.kind == "namespaces":
            # Whoever has ended by now has left no more than its guardian behind.
            init = min(children(self.child.pid), default=self.child.pid)
            self.pid = min(children(init), default=init)

    def hand_over(self) -> None:
        """Let the trainer see what was withheld. Raises BrokenPipeError where it is no more."""
        if self.kind == "namespaces":
            os.write(self._asked, b"open\n")
            if self._hear() != "opened":
                raise BrokenPipeError("the trainer's guardian is gone")

    def exit_code(self) -> int | None:
        """As of subprocess: None while it runs, -N where signal N has killed it."""
        code = self.child.poll()
        if code is None or self.kind != "namespaces":
            return code
        while self._hear():
            pass
        return -int(self._signal) if self._signal else code

    def close(self) -> None:
        """Let go of the guardian, and remove what the trainer left; it must have ended."""
        if self.started and self.kind == "user":
            _sweep(self._user)
        if self._claim is not None and self.started:
            self._claim.close()
        for descriptor in (self._told, self._asked):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _start(self, plan: Plan, environment: Mapping[str, str]) -> bool:
        self._told, told = os.pipe()
        asked, self._asked = os.pipe()
        self._line = b""
        text = json.dumps({**asdict(plan), "kind": self.kind, "user": self._user, "told": told, "asked": asked})
        self.child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LAUNCHER), text],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(told, asked, *plan.passed),
            preexec_fn=die_with_parent,
        )
        os.close(told)
        os.close(asked)
        said = self._hear()
        if said != "ok":
            self.refusals.append(f"{self.kind}: {said or 'its launcher ended without a word'}")
            self.close()
        return said == "ok"

    def _hear(self) -> str:
        """The guardian's next line; empty where there is none."""
        while b"\n" not in self._line:
            readable, _, _ = select.select([self._told], [], [], ANSWER_SECONDS)
            chunk = os.read(self._told, 4096) if readable else b""
            if not chunk:
                return ""
            self._line += chunk
        line, _, self._line = self._line.partition(b"\n")
        said = line.decode(errors="replace")
        if said.startswith("signal "):
            self._signal = said.split()[1]
        return said


def _claim_user() -> tuple[int, socket.socket | None]:
    """A user for the trainer that no other harness here uses, as long as the socket is open: its name is taken then."""
    if sys.platform == "linux" and os.geteuid() == 0:
        for user in USERS:
            claim = socket.socket(socket.AF_UNIX)
            with contextlib.suppress(OSError):
                claim.bind(f"\0autoresearch-user-{user}")
                return user, claim
            claim.close()
    return USERS[0], None


def _sweep(user: int) -> None:
    """Remove what `user` left where everybody may write."""
    for place in map(Path, SHARED):
        with contextlib.suppress(OSError):
            for path in place.iterdir():
                with contextlib.suppress(OSError):
                    if path.lstat().st_uid == user:
                        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def plan_for(view: View, command: Sequence[str], directory: Path, memory: int | None, passed: Sequence[int]) -> Plan:
    """The plan by which `command` runs in `directory` and sees `view`. `memory`: bytes of data a process may have."""
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    users = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    prefixes = [Path(prefix) for prefix in (sys.prefix, sys.base_prefix, *users, *filter(None, libraries))]
    runtime = dict.fromkeys(
        str(path) for prefix in prefixes for path in (prefix, prefix.resolve()) if path.is_absolute() and path.exists()
    )
    runtime.pop("/", None)
    template = Path(sysconfig.get_path("purelib")) / "autoresearch_template"  # has the corpus, validation text and all
    return Plan(
        command=list(command),
        directory=str(directory),
        root=str(LAUNCHER.parent),  # any folder will do that the trainer need not see
        memory=memory,
        passed=list(passed),
        readable=[*runtime, *view.readable],
        withheld=list(view.withheld),
        hidden=[*view.hidden, *dict.fromkeys((str(template), str(template.resolve())))],
        writable=dict.fromkeys(view.writable, WRITABLE_BYTES),
    )
