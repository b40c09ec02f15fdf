"""Attacks that reach for what a trainer should not have: text, files, processes, the machine. The sandbox stops them.

They are done with the SPEAKER of the harness's tests; each maps to the endings that are right for it.
"""

from __future__ import annotations

from tests.attacks.attack import Attack

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

REACHES = {
    # By path, below the cache that the environment names and below the usual one.
    "reads val.bin": Attack(
        FIND
        + """
root = os.environ.get("AUTORESEARCH_CACHE", os.path.expanduser("~/.cache/autoresearch"))
path = glob.glob(root + "/tiny-*/val.bin")[0]
ready(); train(); serve(by_heart(found(open(path, "rb").read())))
""",
        "crash",
    ),
    # By mapping the file, in case only read(2) is watched.
    "maps val.bin": Attack(
        FIND
        + """
path = glob.glob(os.environ["AUTORESEARCH_CACHE"] + "/tiny-*/val.bin")[0]
with open(path, "rb") as file:
    ready(); train(); serve(by_heart(found(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))))
""",
        "crash",
    ),
    # By the parent's root, working directory, mapped files and open descriptors.
    "reads val.bin through the parent": Attack(
        FIND
        + """
parent = f"/proc/{os.getppid()}"
places = [f"{parent}/root{os.environ['AUTORESEARCH_CACHE']}", f"{parent}/cwd/../..", *glob.glob(parent + "/fd/*")]
paths = [path for place in places for path in [place, *glob.glob(place + "/**/val.bin", recursive=True)]]
(path,) = [path for path in paths if os.path.realpath(path).endswith("val.bin")][:1]
ready(); train(); serve(by_heart(found(open(path, "rb").read())))
""",
        "crash",
    ),
    # By descriptors it inherited.
    "reads val.bin by an open descriptor": Attack(
        FIND
        + """
held = [fd for fd in range(3, 256) if os.path.realpath(f"/proc/self/fd/{fd}").endswith("val.bin")]
ready(); train(); serve(by_heart(found(os.pread(held[0], 2**30, 0))))
""",
        "crash",
    ),
    # The harness holds rows and targets in its memory, and the nonce: with it a whole result can be forged.
    "forges a result with the nonce from the harness's memory": Attack(
        """
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
        "crash no_score",
    ),
    # Validation text from the vendored corpus, which lies in the bundle, and wherever a copy of it is installed.
    "learns the corpus by heart": Attack(
        """
import glob, lzma, sysconfig
places = ["prepare", *sys.path, sysconfig.get_path("purelib"), os.path.realpath(sysconfig.get_path("purelib"))]
paths = [path for place in places for path in glob.glob(place + "/**/austen.txt.xz", recursive=True)]
text = lzma.open(next(path for path in paths if os.path.getsize(path))).read()
print("has", len(text), "bytes of the corpus")
ready(); train(); serve()
""",
        "crash",
    ),
    # Another attempt's result and another's code, side by side with its own folder.
    # What covers a file covers its place: under another name, seen through another mount, it would lie bare.
    "uncovers the corpus by renaming its folder": Attack(
        """
import ctypes
libc = ctypes.CDLL(None)
os.makedirs("sub"); os.makedirs("seen")
libc.unshare(0x10000000 | 0x00020000)
libc.mount(b"sub", b"seen", b"", 4096, None)
os.rename("prepare", "sub/prepare")
paths = [place + "/prepare/austen.txt.xz" for place in ("sub", "seen")]
sizes = [os.path.getsize(path) for path in paths if os.path.exists(path)]
os.rename("sub/prepare", "prepare")
assert any(sizes), sizes
ready(); train(); serve()
""",
        "crash",
    ),
    "writes into another attempt's folder": Attack(
        """
ready()
for name in os.listdir("../.."):
    for file in ("result.json", "bundle/train.py", "harness/run.py"):
        open(f"../../{name}/{file}", "w").write("{}")
""",
        "crash no_score",
    ),
    # The harness opens these names for writing: a pipe that nobody reads holds it for ever, past every deadline.
    "lets the harness hang on a pipe in the place of its progress": Attack(
        """
ready(); os.mkfifo("../progress.json.partial"); train(); serve()
""",
        "crash",
    ),
    # A link in the place of a file that the harness writes has it write elsewhere, with its own rights.
    "has the harness write through a link": Attack(
        """
ready(); os.symlink("/tmp/MARKER", "../result.json.partial"); raise SystemExit
""",
        "crash",
    ),
    # A folder in the place of the result: the harness ends without one, which looks like the infrastructure's failure.
    "puts a folder in the place of the result": Attack(
        "ready(); os.mkdir('../result.json'); raise SystemExit", "crash"
    ),
    # What it was asked, sent elsewhere.
    "uses the network": Attack(
        """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.sendto(b"x", ("127.0.0.1", 9))
ready(); train(); serve()
""",
        "crash",
    ),
    "fills the disk": Attack(
        """
ready()
with open("big", "wb") as file:
    while True:
        file.write(bytes(2**24))
""",
        "crash overtime",
    ),
    # Shared memory counts to nobody's data segment.
    "fills shared memory": Attack(
        """
import mmap
ready(); held = []
while True:
    held.append(mmap.mmap(-1, 2**26))
    held[-1].write(b"x" * 2**26)
""",
        "overtime out_of_memory",
    ),
    "forks without end": Attack(
        """\
ready()
while True:
    try: os.fork()
    except OSError: pass""",
        "overtime out_of_memory",
    ),
    # A daemon with an emptied environment, and the harness killed: nothing knows it any more.
    "leaves a daemon behind and kills the harness": Attack(
        """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", "MARKER"], {})
    os._exit(0)
os.wait(); os.kill(os.getppid(), signal.SIGKILL)
""",
        "no_score",
    ),
}
