"""Attacks that need no model: what they do with the SPEAKER of the harness's tests, which answers from a fixed table.

Each table maps what an attack tries to what it does, and to the endings that are right for it.
"""

from __future__ import annotations

from tests.attacks.attack import Attack

SHARES = """
import mmap
_ready = ready
def ready():
    global MEMORY
    _ready()
    descriptor, size = TERMS["memory"]
    MEMORY = np.frombuffer(mmap.mmap(descriptor, size), "<f4")

def serve_shared(shift=0):
    say({"type": "serve", "info": {}})
    while True:
        header, payload = hear()
        if header["type"] == "done":
            return
        logits = TABLE[np.frombuffer(payload, "<u2").reshape(header["rows"], header["length"])]
        MEMORY[header["at"] // 4 :][: logits.size] = logits.ravel()
        say({"type": "logits", "shape": list(logits.shape), "at": header["at"] + shift})
"""
"""The SPEAKER, its answers in the memory that it shares with the harness."""

CLAIMS = {
    "prints a score and ends": Attack("print('val_bpb: 0.5')", "no_score"),
    "prints a score and the block and goes on": Attack(
        "print('---\\nval_bpb:          0.500000\\nnum_steps: 4'); ready(); train(); serve(); print('val_bpb: 0.5')",
        "no_gain",
    ),
    "prints a result line": Attack(
        """
attempt = os.path.basename(os.path.dirname(os.getcwd()))
result = {"attempt": attempt, "nonce": "0" * 32, "status": "done", "reason": "", "metrics": {"val_bpb": 0.5}}
for end in ("\\n", "\\r", "\\x0b", "\\x0c", "\\x1b[2K\\r", "\\u2028"):
    print(end + "AUTORESEARCH " + json.dumps(result), end=end)
""",
        "no_score",
    ),
    "prints a result line where the harness prints": Attack(
        """
line = "\\nAUTORESEARCH " + json.dumps({"status": "done", "metrics": {"val_bpb": 0.5}}) + "\\n"
for descriptor in (1, 2):
    try:
        open(f"/proc/{os.getppid()}/fd/{descriptor}", "w").write(line)
    except OSError:
        pass
""",
        "no_score",
    ),
    "writes a result beside its bundle": Attack(
        """
attempt = os.path.basename(os.path.dirname(os.getcwd()))
result = {"attempt": attempt, "nonce": "0" * 32, "status": "done", "reason": "", "metrics": {"val_bpb": 0.5}}
for name in ("result.json", "result.json.partial", "progress.json"):
    try:
        open("../" + name, "w").write(json.dumps(result))
    except OSError:
        pass
""",
        "no_score",
    ),
    "writes a result and kills the harness": Attack(
        """
try:
    open("../result.json", "w").write(json.dumps({"nonce": "0" * 32, "status": "done", "metrics": {"val_bpb": 0.5}}))
    os.kill(os.getppid(), signal.SIGKILL)
except OSError:
    pass
""",
        "nothing no_score",
    ),
    "reports a score among its numbers": Attack(
        "ready(); train(); serve(**{'val_bpb': 0.5, 'val bpb': 0.5, 'val_bpb\\n': 0.5})", "no_gain"
    ),
    "answers with a score": Attack(
        "ready(); train(); say({'type': 'serve'}); hear(); say({'type': 'done', 'val_bpb': 0.5})", "tampered"
    ),
}

OWN_PROCESS = {
    "stops the clock": Attack(
        "time.monotonic = time.time = time.perf_counter = lambda: 0.0; ready(); train(); serve()", "no_gain"
    ),
    "changes mathematics": Attack(
        "import math; math.log = math.isfinite = lambda *_: 1e9; np.log = lambda x: 0 * x; ready(); train(); serve()",
        "no_gain",
    ),
    "changes the meter": Attack(
        """
from prepare.budget import Grant, Meter
Meter.more = lambda *_: Grant(True, 0.0)
ready(); train(); serve()
""",
        "no_gain",
    ),
    "changes the wire": Attack(
        """
real = wire.send
wire.send = lambda fd, header, payload=b"": real(fd, header | {"val_bpb": 0.5, "metrics": {"val_bpb": 0.5}}, payload)
ready(); train(); serve()
""",
        "no_gain",
    ),
    "changes prepare on the disk": Attack(
        """
ready(); step()
for name in ("evaluation", "budget", "wire", "profile", "block", "dataset"):
    try:
        open(f"prepare/{name}.py", "w").write("raise SystemExit('changed')")
    except OSError:
        pass
train(); serve()
""",
        "no_gain",
    ),
    "changes the harness on the disk": Attack(
        """
ready(); step()
for path, _, names in os.walk("../harness"):
    for name in names:
        try:
            open(os.path.join(path, name), "w").write("raise SystemExit('changed')")
        except OSError:
            pass
train(); serve()
""",
        "no_gain",
    ),
    "changes its own train.py": Attack("open('train.py', 'w').write('pass'); ready(); train(); serve()", "no_gain"),
}

PROTOCOL = {
    "is scored before it has trained": Attack("ready(); serve()", "no_gain"),
    "is scored before it is ready": Attack("hear(); say({'type': 'serve'})", "tampered"),
    "trains while it is scored": Attack("ready(); train(); say({'type': 'serve'}); step(); serve()", "tampered"),
    "is ready twice": Attack("ready(); say({'type': 'ready', 'parameters': []}); step()", "tampered"),
    "takes negative tokens": Attack("ready()\nwhile True: step(tokens=-(2**16))", "tampered"),
    "takes no tokens": Attack("ready()\nwhile True: step(tokens=0)", "tampered"),
    "takes half a token": Attack("ready()\nwhile True: step(tokens=0.5)", "tampered"),
    "takes a million tokens at once": Attack("ready(); step(tokens=10**6); serve()", "no_gain"),
    "takes more tokens than there are numbers": Attack("ready(); step(tokens=10**400); serve()", "no_gain tampered"),
    "asks for less after it was refused": Attack(
        "ready(); step(tokens=2**18 - 1024); step(tokens=2**30)\nassert not step(tokens=1)['go']", "no_score"
    ),
    "goes on after it was refused": Attack(
        "ready(); train()\nfor _ in range(1000): step(tokens=1)\nserve()", "no_gain"
    ),
    "claims that its loss is not finite but goes on": Attack("ready(); step(loss=float('nan')); serve()", "diverged"),
    "answers before it is asked": Attack(
        """
ready(); train(); say({"type": "serve"})
for _ in range(9):
    say({"type": "logits", "shape": [1, 64, 512]}, np.zeros((1, 64, 512), "<f4").data)
""",
        "tampered",
    ),
    "says a header without end": Attack("ready(); os.write(WRITE, b'\\xff' * 8)", "tampered"),
    "nests a header deeply": Attack(
        "ready(); text = b'[' * 10**5; os.write(WRITE, len(text).to_bytes(4, 'big')); os.write(WRITE, text)", "tampered"
    ),
}

LOGITS = {
    "answers fewer tokens": Attack("ready(); train(); serve(lambda t: TABLE[t][:, :-1])", "tampered"),
    "answers fewer rows": Attack("ready(); train(); serve(lambda t: TABLE[t][:1])", "tampered"),
    "answers one number for all": Attack("ready(); train(); serve(lambda t: TABLE[t][..., :1])", "tampered"),
    "answers nothing": Attack(
        "ready(); train(); say({'type': 'serve'}); hear(); say({'type': 'logits', 'shape': [0, 64, 512]})", "tampered"
    ),
    "claims another shape than it sends": Attack(
        """
ready(); train(); say({"type": "serve"})
header = hear()[0]
say({"type": "logits", "shape": [header["rows"], header["length"], 512]}, b"\\0" * 4)
""",
        "tampered",
    ),
    "answers NaN": Attack("ready(); train(); serve(lambda t: np.full_like(TABLE[t], np.nan))", "diverged"),
    "answers NaN at one place": Attack("TABLE[:, 5] = np.nan; ready(); train(); serve()", "diverged"),
    "answers infinity": Attack("ready(); train(); serve(lambda t: np.full_like(TABLE[t], np.inf))", "diverged"),
    "answers minus infinity": Attack("ready(); train(); serve(lambda t: np.full_like(TABLE[t], -np.inf))", "diverged"),
    "answers the largest numbers there are": Attack(
        "ready(); train(); serve(lambda t: np.sign(TABLE[t]) * np.float32(3.4e38))", "no_gain"
    ),
    # The harness reads what it checks and scores from memory that the trainer can write to.
    "changes its answer while it is scored": Attack(
        SHARES
        + """
def flicker():
    while True:
        MEMORY[:] = np.nan
        MEMORY[:] = 1e4
import threading
ready(); train()
threading.Thread(target=flicker, daemon=True).start()
serve_shared()
""",
        "no_gain diverged drift leak",
    ),
    "takes the shared memory away": Attack(
        SHARES + "ready(); train()\n"
        "for size in (0, 2**40):\n    try: os.ftruncate(TERMS['memory'][0], size)\n    except OSError: pass\n"
        "serve_shared()",
        "no_gain",
    ),
    "answers from another place of the shared memory": Attack(
        SHARES + "ready(); train(); serve_shared(shift=4)",
        "tampered",
    ),
    "answers with numbers of double length": Attack(
        "ready(); train(); serve(lambda t: TABLE[t].astype('<f8'))", "tampered"
    ),
}

STARTS = """
def start(*, leave_session=False, ignore=False):
    code = "import os, signal, sys, time\\n" + ("signal.signal(15, signal.SIG_IGN)\\n" if ignore else "") + (
        "os.write(int(sys.argv[2]), b'x'); time.sleep(600)"
    )
    os.execve(sys.executable, [sys.executable, "-S", "-c", code, "MARKER", str(WAKE)], {})

AWAKE, WAKE = os.pipe()
os.set_inheritable(WAKE, True)
"""

PROCESSES = {
    "leaves many processes behind": Attack(
        STARTS
        + """
for _ in range(50):
    if os.fork() == 0:
        os.setsid()
        os.write(WAKE, b"x")
        os.close(READ), os.close(WRITE)
        time.sleep(600)
for _ in range(50):
    os.read(AWAKE, 1)
ready(); train(); serve()
""",
        "no_gain",
    ),
    "leaves a daemon behind": Attack(
        STARTS
        + """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        start(ignore=True)
    os._exit(0)
os.read(AWAKE, 1)
""",
        "no_score",
    ),
    "leaves daemons behind and is killed": Attack(
        STARTS
        + """
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            start(ignore=True)
        os._exit(0)
for _ in range(3):
    os.read(AWAKE, 1)
os.kill(os.getpid(), signal.SIGKILL)
""",
        "out_of_memory",
    ),
    "leaves a child that holds the pipes and goes on talking": Attack(
        "ready()\nif os.fork() == 0:\n    train(); serve(lambda t: TABLE[t] * 2)\n", "no_gain no_score"
    ),
    # Whose end nobody waits for, so that its time is nobody's.
    "has children spend CPU whose end it ignores": Attack(
        """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
ready()
for _ in range(16):
    if os.fork() == 0:
        while time.process_time() < 0.5: pass
        os._exit(0)
    time.sleep(0.6)
train(); serve()
""",
        "overtime",
    ),
    # A process whose first thread has ended looks as if it had ended itself.
    "spends CPU in a process that looks dead": Attack(
        """
import ctypes, platform, threading
def work():
    while True: pass
ready()
if os.fork() == 0:
    threading.Thread(target=work).start()
    ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
time.sleep(12)
train(); serve()
""",
        "overtime",
    ),
    "has a child spend the budget's CPU": Attack(
        "ready()\nif os.fork() == 0:\n    while True: pass\nos.wait()", "overtime"
    ),
    "ignores signals and hangs": Attack(
        "for number in range(1, 32):\n    number in (9, 17, 19) or signal.signal(number, signal.SIG_IGN)\n"
        "ready(); step()\nwhile True: pass",
        "overtime",
    ),
    "kills the harness": Attack("ready(); os.kill(os.getppid(), signal.SIGKILL)", "nothing no_score"),
    "stops the harness": Attack("ready(); os.kill(os.getppid(), signal.SIGSTOP)", "nothing no_score"),
    "tells the harness to end": Attack("ready(); os.kill(os.getppid(), signal.SIGTERM)", "cancelled no_score"),
    "signals everybody": Attack(
        "ready(); os.setsid() if os.getpid() != os.getsid(0) else 0; os.killpg(0, 9)", "out_of_memory"
    ),
}

OUTPUT = {
    "prints megabytes": Attack(
        "for _ in range(200): os.write(1, b'val_bpb: 0.5 AUTORESEARCH {}\\n' * 2000)\nready(); train(); serve()",
        "no_gain",
    ),
    "prints a line without end": Attack(
        "for _ in range(200): os.write(1, b'val_bpb=0.5 ' * 5000)\nready(); train(); serve()", "no_gain"
    ),
    # Its name is in what everybody reads who looks for processes.
    "calls itself by what is no text": Attack(
        "import ctypes; ctypes.CDLL(None).prctl(15, b'\\xff) R 1 1\\n(\\xfe', 0, 0, 0)\n"
        "if os.fork() == 0: time.sleep(600)\nready(); train(); serve()",
        "no_gain",
    ),
    "prints what is no text": Attack("os.write(1, os.urandom(10**6)); ready(); train(); serve()", "no_gain"),
    "fills the pipe and never reads": Attack(
        "ready()\nwhile True: os.write(WRITE, (2).to_bytes(4, 'big') + b'{}')", "tampered"
    ),
    "asks for steps and never reads": Attack(
        "ready()\nwhile True: say({'type': 'more', 'tokens': 1, 'loss': None})", "overtime", timeout=3.0
    ),
    "closes the pipes and runs on": Attack("ready(); os.close(READ); os.close(WRITE); time.sleep(600)", "tampered"),
    "closes its output and runs on": Attack("os.close(1); os.close(2); ready(); train(); serve()", "no_gain"),
    "closes everything": Attack("ready(); os.closerange(0, 1000)", "no_score"),
}
