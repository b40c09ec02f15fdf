"""What a trainer may see, and that nothing it starts outlives its attempt."""

from __future__ import annotations

import os
import signal

import pytest

from controller.harness.environment import passed_on
from tests.harness.attempts import Attempts
from tests.processes import alive_in, alive_with, wait_for_the_end_of

STARTS_MANY = """
import os, signal, subprocess, sys, time
WAIT = '''
import os, signal, sys, time
signal.signal(15, signal.SIG_IGN)
os.write(int(sys.argv[2]), b"x")
time.sleep(600)
'''
read, write = os.pipe()
os.set_inheritable(write, True)
command = [sys.executable, "-c", WAIT, "MARKER", str(write)]
subprocess.Popen(command, pass_fds=[write])
subprocess.Popen(command, pass_fds=[write], start_new_session=True, stdout=subprocess.DEVNULL)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        os.execv(sys.executable, command)
    os._exit(0)
left = 3
while left:
    left -= len(os.read(read, left))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("all are up", flush=True)
"""

ENDINGS = {
    "ends": "print('val_bpb: 1.25')",
    "crashes": "raise ValueError",
    "is killed": "os.kill(os.getpid(), 9)",
    "hangs": "time.sleep(600)",
    "is cancelled": "time.sleep(600)",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_nothing_a_trainer_started_outlives_it_when_it(attempts: Attempts, how: str) -> None:
    marker = os.urandom(8).hex()
    source = (STARTS_MANY.replace("MARKER", marker) + ENDINGS[how]).encode()
    laid = attempts.lay_out({"train.py": source}, evaluated=False, timeout=4.0 if how == "hangs" else 60.0)
    seen = {}

    def look_and_end(process: object) -> None:
        seen.update(alive_with(marker))
        if how == "is cancelled":
            process.terminate()

    ran = attempts.finish_after(laid, "| all are up", look_and_end)
    assert how not in ("hangs", "is cancelled") or len(seen) == 3
    assert alive_with(marker) == {}
    assert alive_in(ran.directory) == {}
    expected = {"ends": "done", "crashes": "crash", "is killed": "out_of_memory", "hangs": "overtime"}
    assert ran.ending[0] == expected.get(how, "cancelled")


def test_the_trainer_ends_with_a_harness_that_is_killed(attempts: Attempts) -> None:
    laid = attempts.lay_out({"train.py": b"import time; print('here', flush=True); time.sleep(600)"}, evaluated=False)
    with attempts.started(laid) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"| here\n"
        trainers = alive_in(laid[0])
        assert len(trainers) == 2
        process.send_signal(signal.SIGKILL)
        wait_for_the_end_of(*trainers)
    assert not (laid[0] / "result.json").exists()


def test_a_trainer_sees_how_to_run_and_no_secret(attempts: Attempts) -> None:
    attempts.environment |= {
        "ANTHROPIC_API_KEY": "sk-secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "CUDA_CACHE_PATH": "/x",
    }
    ran = attempts.foreign("import os; print(dict(os.environ)); print('val_bpb: 1.25')")
    printed = ran.output.splitlines()[0]
    assert "secret" not in printed
    assert "'CUDA_CACHE_PATH': '/x'" in printed
    assert "'SEED': '11'" in printed
    assert f"'TMPDIR': '{ran.directory}/tmp'" in printed


@pytest.mark.parametrize(
    "name", ["ANTHROPIC_API_KEY", "NVIDIA_API_KEY", "CUDA_TOKEN", "HF_TOKEN", "AWS_PROFILE", "PATHS"]
)
def test_a_key_is_not_passed_on(name: str) -> None:
    assert not passed_on(name)


@pytest.mark.parametrize("name", ["PATH", "HOME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "LC_ALL"])
def test_what_a_trainer_needs_is_passed_on(name: str) -> None:
    assert passed_on(name)


def test_the_job_with_its_nonce_is_out_of_the_trainers_reach(attempts: Attempts) -> None:
    source = """
import os
parent = os.getppid()
for path in (f"/proc/{parent}/cmdline", f"/proc/{parent}/environ", "/proc/self/environ"):
    print(path, open(path, "rb").read())
print([open(name).read() for name in os.listdir("..") if os.path.isfile("../" + name)], os.read(0, 1000))
print("val_bpb: 1.25")
"""
    ran = attempts.foreign(source)
    assert ran.ending == ("done", "")
    assert ran.result["nonce"] not in "\n".join(ran.output.splitlines()[:-1])


def test_a_trainer_cannot_leave_a_module_for_the_harness_to_import(attempts: Attempts) -> None:
    source = """
for name in ("traceback", "linecache", "statistics", "random", "decimal", "encodings/idna"):
    for place in ("..", "."):
        try:
            os.makedirs(os.path.dirname(f"{place}/{name}.py"), exist_ok=True)
            open(f"{place}/{name}.py", "w").write("raise SystemExit('imported')")
        except OSError:
            pass
ready(); train(); serve()
"""
    ran = attempts.evaluated(source)
    assert ran.ending == ("done", "")
    assert "imported" not in ran.output
