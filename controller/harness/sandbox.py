"""Starts the trainer where it can do no harm: `python sandbox.py PLAN`, run by the harness, standard library alone.

With namespaces (Linux, user namespaces allowed) the trainer sees a root of its own, made of what it needs to run and
nothing else: system libraries, its Python, its code, the training data. All of that is read-only but its own folders,
which lie in memory, are bounded and vanish with it. It has no network, sees no process but its own, and all of them end
with it. Where namespaces are refused, as in many containers, it becomes another user if we are root: one who can write
to its own folders only, and neither read validation text nor signal or look into any process but its own.

Says one line on the descriptor `told`: "ok", or why it could not be done; then, at the end, "signal N" where the
trainer was killed. Reads from `asked`: "open" has the withheld files appear, and is answered "opened".
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import select
import shutil
import signal
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

NEW_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
"""CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS."""

READ_ONLY, NO_SUID, NO_DEV, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
DETACH = 2
ATTRIBUTES_RECURSIVELY = 0x8000
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MOUNT_SETATTR = 442
KEYCTL, JOIN_SESSION_KEYRING = {"x86_64": 250, "aarch64": 219}, 1

CALLS = {
    "x86_64": (0xC000003E, 13, (319, 29)),
    "aarch64": (0xC00000B7, 134, (279, 194)),
}
"""The architecture as auditing knows it; rt_sigaction; memfd_create and shmget."""

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/sys")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
CONFIGURATION = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "passwd", "group", "nsswitch.conf", "hosts", "localtime"),
    *("alternatives", "ssl", "nvidia", "OpenCL", "vulkan", "os-release", "mime.types", "host.conf"),
)
SHARED_MEMORY_BYTES = 2**30
PROCESSES = 4096
FILE_BYTES = 8 * 2**30

USER = 1000
"""Who the trainer is in its own namespaces."""


class Refused(OSError):
    """The system does not allow this kind of sandbox."""


def main(plan: Mapping[str, Any]) -> NoReturn:
    """Set up what `plan` says and become, or watch over, the trainer."""
    with contextlib.suppress(OSError):  # Should memory run out, let it be the trainer that goes.
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        if plan["kind"] == "namespaces":
            _in_namespaces(plan)
        if plan["kind"] == "user":
            _as_another_user(plan)
    except OSError as error:
        _say(plan, f"{error.strerror or error}")
        os._exit(1)
    _say(plan, "ok")
    _limit(plan, counted=plan["kind"] == "user")
    _become(plan)


def _as_another_user(plan: Mapping[str, Any]) -> None:
    """Give the trainer's folders to a user that nobody else is, hide what is hidden, and become that user."""
    user, own = plan["user"], [Path(path) for path in plan["writable"]]
    if os.geteuid() != 0:
        raise Refused("only root can become another user")
    for path in map(Path, plan["hidden"]):
        if any(path.is_relative_to(one) for one in own):
            path.unlink(missing_ok=True)  # the attempt's own copy
        elif path.exists() and not _in_sight(path, plan) and path.stat().st_uid == os.geteuid():
            path.chmod(0o700 if path.is_dir() else 0o400)
    for folder in own:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    _see_to_it(plan["command"][0], [*plan["readable"], *plan["withheld"], *plan["writable"]])
    for path in map(Path, plan["hidden"]):
        if os.access(path, os.R_OK) and not _in_sight(path, plan):
            raise Refused(f"{path} can't be hidden from others")


def _in_sight(path: Path, plan: Mapping[str, Any]) -> bool:
    """Whether it lies within what everybody may read; only another root could hide it there."""
    return any(path.is_relative_to(one) for one in plan["readable"])


def _in_namespaces(plan: Mapping[str, Any]) -> None:
    """Returns in the trainer-to-be; its two guardians never return."""
    user, group = os.geteuid(), os.getegid()
    _call("unshare", NEW_NAMESPACES)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{USER} {user} 1"), ("gid_map", f"{USER} {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    root = Path(plan["root"])
    _furnish(root, plan)
    init = os.fork()  # process 1 of the new process namespace: with it everything in there ends
    if init:
        _end_with(init, plan)
    _die_with_parent()
    # Where we are root outside, the kernel would take the trainer for root in what /proc sets for the whole machine.
    _mount("proc", root / "proc", "proc", NO_SUID | NO_DEV)
    with contextlib.suppress(OSError):  # From within further namespaces it could mount what is not for it.
        (root / "proc/sys/user/max_user_namespaces").write_text("0")
    _set_attributes(root / "proc", READ_ONLY)
    _enter(root)
    blank = os.open("/dev/null", os.O_RDONLY)  # The one that was handed down is the machine's own.
    os.dup2(blank, 0)
    os.close(blank)
    _see_to_it(plan["command"][0], plan["readable"])
    trainer = os.fork()
    if trainer:
        _say(plan, "ok")
        _watch_over(trainer, plan)
    _die_with_parent()
    _limit(plan, counted=True)
    _become(plan)


def _furnish(root: Path, plan: Mapping[str, Any]) -> None:
    """Everything the trainer may see, mounted below `root`."""
    _mount("none", Path("/"), "", RECURSIVE | PRIVATE)
    _mount("tmpfs", root, "tmpfs", NO_SUID | NO_DEV, f"size=16m,mode=755,uid={USER},gid={USER}")
    for name in ("proc", "dev/shm", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    # Read-only, as files: what is written to them goes to the device all the same.
    for name in DEVICES:
        _show(root, Path("/dev") / name, read_only=True)
    for device in Path("/dev").glob("nvidia*"):
        _show(root, device, read_only=True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (root / "dev" / name).symlink_to(f"/proc/self/fd/{number}")
    (root / "dev/fd").symlink_to("/proc/self/fd")
    seen = [*map(Path, SYSTEM), *(Path("/etc") / name for name in CONFIGURATION), *map(Path, plan["readable"])]
    for path in seen:
        _show(root, path, read_only=True)
    for path in map(Path, plan["withheld"]):
        _show(root, path, read_only=True)
        _cover(root, path)
    for path, size in plan["writable"].items():
        _give(root, Path(path), size, plan["hidden"])
    for path in map(Path, plan["hidden"]):
        _cover(root, path)
    _mount("tmpfs", root / "dev/shm", "tmpfs", NO_SUID | NO_DEV, f"size={SHARED_MEMORY_BYTES},mode=777")


def _show(root: Path, path: Path, *, read_only: bool = False) -> None:
    """What lies at `path` shall lie there below `root` too; nothing, where there is nothing."""
    place = root / path.relative_to("/")
    if place.exists() or place.is_symlink() or not path.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and path.parent == Path("/"):  # /bin -> usr/bin
        place.symlink_to(path.readlink())
        return
    if path.is_dir():
        place.mkdir()
    else:
        place.touch()
    _mount(str(path), place, "", BIND | RECURSIVE)
    if read_only:
        _set_attributes(place, READ_ONLY | NO_SUID)


def _cover(root: Path, path: Path) -> None:
    """What lies at `path` shall be empty."""
    place = root / path.relative_to("/")
    if place.is_dir():
        _mount("tmpfs", place, "tmpfs", NO_SUID | NO_DEV | READ_ONLY, "size=4k,mode=755")
    elif place.exists():
        _mount("/dev/null", place, "", BIND)


def _give(root: Path, path: Path, size: int, hidden: Sequence[str]) -> None:
    """A copy of the folder at `path` that the trainer may write to, of at most `size` bytes, in memory.

    What is hidden in it is left empty, not only covered: a folder that can be renamed leaves its covers behind.
    """
    place = root / path.relative_to("/")
    place.mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", place, "tmpfs", NO_SUID | NO_DEV, f"size={size},mode=755,uid={USER},gid={USER}")
    shutil.copytree(
        path,
        place,
        dirs_exist_ok=True,
        symlinks=True,
        ignore=lambda at, names: {n for n in names if f"{at}/{n}" in hidden},
    )
    for name in hidden:
        if Path(name).is_relative_to(path) and Path(name).is_file():
            (root / Path(name).relative_to("/")).touch()


def _enter(root: Path) -> None:
    """Make `root` the root, and let go of the old one."""
    old = root / "tmp"  # any folder in it will do
    number = PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise Refused(f"no sandbox is known for {platform.machine()}")
    _call("syscall", number, os.fsencode(root), os.fsencode(old))
    os.chdir("/")
    _call("umount2", b"/tmp", DETACH)
    _set_attributes(Path("/"), READ_ONLY, recursively=False)


def _see_to_it(command: str, libraries: Sequence[str]) -> None:
    """Raises Refused where the program, or what it needs, can't be seen from in here: that is no candidate's fault."""
    if not os.access(command, os.X_OK):
        raise Refused(f"{command} can't be run")
    for library in libraries:
        if not os.access(library, os.R_OK):
            raise Refused(f"{library} can't be read")


def _watch_over(trainer: int, plan: Mapping[str, Any]) -> NoReturn:
    """Process 1: adopts orphans, opens what was withheld when asked, and ends when the trainer does."""
    for descriptor in plan["passed"]:
        os.close(descriptor)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    asked = [plan["asked"]]
    while True:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == trainer:
                    if os.WIFSIGNALED(ended[1]):
                        _say(plan, f"signal {os.WTERMSIG(ended[1])}")
                    os._exit(os.waitstatus_to_exitcode(ended[1]) % 256)
        readable, _, _ = select.select([*asked, awake], [], [], 1.0)
        with contextlib.suppress(BlockingIOError):
            os.read(awake, 4096)
        if asked and asked[0] in readable:
            if os.read(asked[0], 4096):
                for path in plan["withheld"]:
                    _call("umount2", os.fsencode(path), DETACH)
                _say(plan, "opened")
            else:
                asked.clear()


def _end_with(init: int, plan: Mapping[str, Any]) -> NoReturn:
    """The outer guardian, whom the harness knows: ends as process 1 does."""
    _die_with_parent()
    for descriptor in (plan["told"], plan["asked"], *plan["passed"]):
        os.close(descriptor)
    _, status = os.waitpid(init, 0)
    os._exit(os.waitstatus_to_exitcode(status) % 256)


def _become(plan: Mapping[str, Any]) -> NoReturn:
    for descriptor in (plan["told"], plan["asked"]):
        os.close(descriptor)
    os.chdir(plan["directory"])
    with contextlib.suppress(OSError):  # Where there are keyrings: one that no other attempt has.
        _call("syscall", KEYCTL.get(platform.machine(), -1), JOIN_SESSION_KEYRING, None)
    if sys.platform == "linux":
        _call("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        with contextlib.suppress(OSError):  # Where the kernel has no filters the watchdog sees less.
            _filter_calls(plan["memory"] is not None)
        _die_with_parent()
    command = plan["command"]
    os.execv(command[0], command)


def _filter_calls(memory_is_counted: bool) -> None:
    """Have the kernel keep what is used in sight: BPF over struct seccomp_data, see seccomp(2).

    Setting what becomes of ended children seems to succeed and does nothing, as the CPU seconds of one whose parent
    ignores its end are counted nowhere. Where memory is counted, there is none that belongs to no process.
    """
    known = CALLS.get(platform.machine())
    if known is None:
        return
    architecture, action, unseen = known
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    allowed, killed, failed = 0x7FFF0000, 0x80000000, 0x00050000
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, killed), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, 0x40000000), (answer, 0, 0, failed | errno.ENOSYS)]  # a second set of calls on x86
    for number in unseen if memory_is_counted else ():
        program += [(equal, 0, 1, number), (answer, 0, 0, failed | errno.ENOSYS)]
    program += [(equal, 0, 3, action), (load, 0, 0, 16), (equal, 0, 1, signal.SIGCHLD), (answer, 0, 0, failed)]
    program += [(answer, 0, 0, allowed)]
    text = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(text, len(text))
    header = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(buffer)))
    _call("prctl", 22, 2, header, 0, 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _limit(plan: Mapping[str, Any], *, counted: bool) -> None:
    """Bounds that the kernel keeps. `counted`: whether the processes of this user are the trainer's alone."""
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: FILE_BYTES}
    if counted:
        limits[resource.RLIMIT_NPROC] = PROCESSES
    if plan["memory"] is not None:
        limits[resource.RLIMIT_DATA] = plan["memory"]
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _die_with_parent() -> None:
    _call("prctl", 1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def _say(plan: Mapping[str, Any], line: str) -> None:
    os.write(plan["told"], f"{line}\n".encode())


def _mount(source: str, target: Path, kind: str, flags: int, data: str = "") -> None:
    _call("mount", source.encode(), os.fsencode(target), kind.encode(), flags, data.encode() or None)


def _set_attributes(path: Path, attributes: int, *, recursively: bool = True) -> None:
    """mount_setattr(2), for a mount and, unless told otherwise, all below it."""
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = ATTRIBUTES_RECURSIVELY if recursively else 0
    _call("syscall", MOUNT_SETATTR, -100, os.fsencode(path), flags, ctypes.byref(wanted), ctypes.sizeof(wanted))


def _call(name: str, *arguments: Any) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        raise Refused(errno.ENOSYS, f"{name} is not there")
    converted = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    if function(*converted) < 0:
        code = ctypes.get_errno()
        raise Refused(code, f"{name}: {os.strerror(code)}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
