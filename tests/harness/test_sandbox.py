"""What a trainer can see and do from within its sandbox, and what is said where there can be none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.harness.attempts import Attempts
from tests.harness.conftest import prepare
from tests.processes import alive_in, namespaces_allowed

pytestmark = pytest.mark.skipif(not namespaces_allowed(), reason="this system refuses namespaces")

ASKS = """
import ctypes, pathlib, socket

def tried(function):
    try:
        return str(function())
    except OSError as error:
        return type(error).__name__

CACHE = pathlib.Path(os.environ["AUTORESEARCH_CACHE"])
HERE = pathlib.Path.cwd()
"""
RUNS = "\nready(); train(); serve()\n"


def told(attempts: Attempts, questions: dict[str, str]) -> dict[str, str]:
    """What a trainer finds out: each expression, evaluated before `ready`."""
    lines = "".join(f"ANSWERS[{name!r}] = tried(lambda: {text})\n" for name, text in questions.items())
    ran = attempts.evaluated(f"{ASKS}ANSWERS = {{}}\n{lines}print('told', json.dumps(ANSWERS), flush=True){RUNS}")
    assert ran.ending == ("done", ""), ran.output
    assert ran.result["sandbox"] == "namespaces"
    (line,) = (line for line in ran.output.splitlines() if line.startswith("| told "))
    found: dict[str, str] = json.loads(line.removeprefix("| told "))
    return found


def test_validation_text_is_nowhere_and_nothing_but_its_own_folders_can_be_written(attempts: Attempts) -> None:
    answers = told(
        attempts,
        {
            "validation": "list(CACHE.rglob('val.bin'))",
            "corpus": "len((HERE / 'prepare/austen.txt.xz').read_bytes())",
            "training": "[path.stat().st_size for path in CACHE.rglob('train.bin')]",
            "tokenizer": "len(list(CACHE.rglob('token_bytes.npy')))",
            "checkout": f"os.listdir({str(Path(__file__).resolve().parents[2])!r} + '/controller')",
            "other attempts": "os.listdir(HERE.parent.parent)",
            "harness": "os.listdir(HERE.parent / 'harness')",
            "cache": "(CACHE / 'mine').write_text('x')",
            "system": "pathlib.Path('/usr/mine').write_text('x')",
            "temporary": "pathlib.Path('/tmp/mine').write_text('x')",
            "attempt": "(HERE.parent / 'result.json').write_text('x')",
            "bundle": "(HERE / 'mine').write_text('x')",
            "scratch": "pathlib.Path(os.environ['TMPDIR'], 'mine').write_text('x')",
        },
    )
    own = answers.pop("other attempts")
    assert own.count(",") == 0, f"it sees {own}"
    assert answers == {
        "validation": "[]",
        "corpus": "0",
        "training": "[0]",
        "tokenizer": "1",
        "checkout": "FileNotFoundError",
        "harness": "FileNotFoundError",
        "cache": "OSError",
        "system": "OSError",
        "temporary": "OSError",
        "attempt": "OSError",
        "bundle": "1",
        "scratch": "1",
    }


def test_the_training_text_is_there_from_ready_on(attempts: Attempts) -> None:
    ran = attempts.evaluated(
        f"{ASKS}ready()\nprint('big', [path.stat().st_size > 10**6 for path in CACHE.rglob('train.bin')])\n"
        "train(); serve()\n"
    )
    assert "| big [True]" in ran.output


def test_there_is_no_network_no_other_process_and_no_way_out(attempts: Attempts) -> None:
    answers = told(
        attempts,
        {
            "network": "socket.create_connection(('127.0.0.1', 9), timeout=1)",
            "processes": "sorted(int(name) for name in os.listdir('/proc') if name.isdigit())",
            "guardian": "open('/proc/1/environ').read()",
            "memory of the guardian": "open('/proc/1/mem').read()",
            "rights": "[line for line in open('/proc/self/status') if line.startswith('CapEff')]",
            "unmount": "ctypes.CDLL(None).umount2(os.fsencode(HERE / 'prepare/austen.txt.xz'), 2)",
        },
    )
    assert answers["network"] in ("OSError", "ConnectionRefusedError")
    assert answers["processes"] == "[1, 2]"
    assert answers["guardian"] == answers["memory of the guardian"] == "PermissionError"
    assert "0000000000000000" in answers["rights"]
    assert answers["unmount"] == "-1"


def test_nothing_of_the_machine_can_be_set_even_where_the_harness_is_root(attempts: Attempts) -> None:
    device = Path("/dev/full").stat().st_mtime_ns
    answers = told(
        attempts,
        {
            "core pattern": "open('/proc/sys/kernel/core_pattern', 'r+')",
            "memory": "open('/proc/sys/vm/overcommit_memory', 'r+')",
            "trigger": "open('/proc/sysrq-trigger', 'w')",
            "system": "open('/sys/kernel/mm/transparent_hugepage/enabled', 'r+')",
            "device": "os.chmod('/dev/null', 0o666)",
            "time of a device": "os.utime('/dev/full', ns=(5, 5))",
            "the device it reads from": "os.fchmod(0, 0o666)",
            "memory of nobody's": "os.memfd_create('mine')",
            "the device itself": "open('/dev/null', 'w').write('x')",
            "namespaces in namespaces": "ctypes.CDLL(None).unshare(0x10000000)",
        },
    )
    assert answers.pop("the device itself") == "1"
    assert answers.pop("namespaces in namespaces") == "-1"
    assert set(answers.values()) <= {"OSError", "PermissionError", "FileNotFoundError"}, answers
    assert Path("/dev/full").stat().st_mtime_ns == device


def test_nothing_is_carried_from_one_attempt_to_the_next(attempts: Attempts) -> None:
    """By files, by shared memory, by the kernel's keys."""
    places = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock", str(Path.home()), sys.prefix]
    source = f"""{ASKS}
import platform
ADD, CONTROL = {{"x86_64": (248, 250), "aarch64": (217, 219)}}[platform.machine()]
libc = ctypes.CDLL(None)
PLACES = [pathlib.Path(place, "autoresearch-carried") for place in [*{places!r}, CACHE, HERE, HERE.parent]]
print("found", [str(place) for place in PLACES if tried(place.exists) == "True"])
print("keys", libc.syscall(CONTROL, 10, -3, b"user", b"rows", 0) > 0)
for place in PLACES:
    tried(lambda: place.write_text("rows"))
print("kept", libc.syscall(ADD, b"user", b"rows", b"x" * 100, 100, -3) > 0)
{RUNS}"""
    first, second = attempts.evaluated(source), attempts.evaluated(source)
    for ran in (first, second):
        assert ran.ending == ("done", ""), ran.output
        assert "| found []" in ran.output and "| keys False" in ran.output, ran.output
    assert not [place for place in places if Path(place, "autoresearch-carried").exists()]


def test_what_it_writes_is_bounded_and_vanishes(attempts: Attempts) -> None:
    ran = attempts.evaluated(
        f"""{ASKS}
def fill():
    with open("ballast", "wb") as file:
        for _ in range(3000):
            file.write(bytes(2**20))
print("filled", tried(fill)); os.unlink("ballast")
open("left", "w").write("x")
{RUNS}"""
    )
    assert ran.ending == ("done", "")
    assert "| filled OSError" in ran.output
    assert not list(ran.directory.rglob("left")) and not list(ran.directory.rglob("ballast"))


def test_more_memory_than_its_share_cannot_be_had(attempts: Attempts) -> None:
    ran = attempts.evaluated("kept = [np.zeros(2**27) for _ in range(10_000)]\n")
    assert ran.ending[0] == "out_of_memory", ran.ending


def test_everything_it_started_ends_with_it(attempts: Attempts, tmp_path: Path) -> None:
    ran = attempts.evaluated(
        "ready(); train()\nfor _ in range(30):\n    if os.fork() == 0:\n        os.setsid(); time.sleep(600)\nserve()\n"
    )
    assert ran.ending == ("done", "")
    assert alive_in(tmp_path) == {}


@pytest.mark.parametrize("number", [9, 11])
def test_a_trainer_that_is_killed_by_a_signal_is_labelled_as_ever(attempts: Attempts, number: int) -> None:
    label, reason = attempts.evaluated(f"ready(); os.kill(os.getpid(), {number})\n").ending
    assert label == {9: "out_of_memory", 11: "crash"}[number]
    assert number == 9 or "-11" in reason


def test_where_namespaces_are_refused_it_runs_without_and_the_result_says_so(
    attempts: Attempts, tmp_path: Path
) -> None:
    refusing = tmp_path / "python"
    refusing.write_text(
        "#!/bin/sh\nexec unshare --user --map-root-user sh -c"
        f' \'echo 0 > /proc/sys/user/max_user_namespaces && exec {sys.executable} "$@"\' sh "$@"\n'
    )
    refusing.chmod(0o755)
    attempts.python = str(refusing)
    ran = attempts.evaluated(RUNS)
    assert ran.ending == ("done", "")
    assert ran.result["sandbox"] == "none"
    assert "no sandbox of namespaces: " in ran.output.splitlines()[0]


@pytest.fixture
def as_in_a_pod(prepare_files: Mapping[str, bytes]) -> Iterator[Attempts]:
    """Attempts of a root who may not make namespaces, as in most containers, in folders that every user can reach.

    What refuses them there is a /proc that is masked in part, so that none may be mounted anew.
    """
    system = Path("/usr/bin/python3")
    if os.geteuid() != 0 or not system.exists():
        pytest.skip("becoming another user takes root, and a Python that other users can reach")
    reachable = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        reachable.chmod(0o755)
        subprocess.run([system, "-m", "venv", "--without-pip", reachable / "venv"], check=True)
        (packages,) = (reachable / "venv/lib").glob("python*/site-packages")
        numpy = Path(np.__file__).parent
        for folder in (numpy, numpy.parent / "numpy.libs"):
            if folder.exists():
                shutil.copytree(folder, packages / folder.name)
        masked = reachable / "python"
        masked.write_text(
            "#!/bin/sh\nexec unshare --mount sh -c"
            f' \'mount --bind /dev/null /proc/version && exec {reachable}/venv/bin/python "$@"\' sh "$@"\n'
        )
        masked.chmod(0o755)
        works = subprocess.run([masked, "-c", "import numpy"], capture_output=True)
        if works.returncode != 0:
            pytest.skip(f"the system's Python can't use this numpy: {works.stderr.decode()[-200:]}")
        attempts = Attempts(reachable, reachable / "cache", prepare_files)
        attempts.python = str(masked)
        prepare(reachable / "prepared", reachable / "cache", prepare_files)
        yield attempts
    finally:
        shutil.rmtree(reachable)


def test_a_root_without_namespaces_has_the_trainer_be_another_user(as_in_a_pod: Attempts) -> None:
    ran = as_in_a_pod.evaluated(
        f"""{ASKS}
MARK = "MARK-" + str(os.getuid())
answers = {{
    "user": os.getuid() != 0 and os.getgroups() == [],
    "validation": tried(lambda: list(CACHE.rglob("val.bin"))[0].read_bytes()),
    "corpus": tried(lambda: (HERE / "prepare/austen.txt.xz").read_bytes()),
    "training": tried(lambda: list(CACHE.rglob("train.bin"))[0].stat().st_size > 0),
    "attempt": tried(lambda: (HERE.parent / "result.json").write_text("x")),
    "harness": tried(lambda: (HERE.parent / "harness/run.py").write_text("x")),
    "bundle": tried(lambda: (HERE / "mine").write_text("x")),
    "elsewhere": tried(lambda: pathlib.Path("/tmp", MARK).write_text("x")),
    "memory": tried(lambda: open(f"/proc/{{os.getppid()}}/mem", "rb")),
    "descriptors": tried(lambda: os.listdir(f"/proc/{{os.getppid()}}/fd")),
    "environment": tried(lambda: open(f"/proc/{{os.getppid()}}/environ").read()),
    "signal": tried(lambda: os.kill(os.getppid(), signal.SIGSTOP)),
    "back": tried(lambda: os.setuid(0)),
}}
print("told", json.dumps(answers), MARK)
ready(); train(); serve()
"""
    )
    assert ran.ending == ("done", ""), ran.output
    assert ran.result["sandbox"] == "user"
    assert ran.output.startswith("no sandbox of namespaces: ")
    (line,) = (line for line in ran.output.splitlines() if line.startswith("| told "))
    answers, mark = line.removeprefix("| told ").rsplit(" ", 1)
    assert json.loads(answers) == {
        "user": True,
        "validation": "PermissionError",
        "corpus": "FileNotFoundError",
        "training": "True",
        "attempt": "PermissionError",
        "harness": "PermissionError",
        "bundle": "1",
        "elsewhere": "1",
        "memory": "PermissionError",
        "descriptors": "PermissionError",
        "environment": "PermissionError",
        "signal": "PermissionError",
        "back": "PermissionError",
    }
    assert not Path("/tmp", mark).exists()


def test_a_root_whose_files_no_other_user_can_reach_runs_it_unsandboxed(as_in_a_pod: Attempts) -> None:
    (as_in_a_pod.directory).chmod(0o700)
    ran = as_in_a_pod.evaluated(RUNS)
    assert ran.ending == ("done", "")
    assert ran.result["sandbox"] == "none"
    assert "no sandbox of user: " in ran.output
