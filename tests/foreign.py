"""A workspace that knows nothing of this project: one small file that scores itself, committed to git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

TRAIN = '''\
"""A training of one line: the best RATE is 0.3, more WIDTH is better, and a seed has luck of its own."""
import os
import zlib

RATE = 0.5
WIDTH = 4
SHAPE = "flat"  # no influence
assert WIDTH > 0, "WIDTH must be positive"

seed = int(os.environ["SEED"])
luck = zlib.crc32(f"{seed} {RATE} {WIDTH} {SHAPE}".encode()) % 100 / 1e5
print("seed", seed)
print(f"val_bpb: {1 + (RATE - 0.3) ** 2 + 0.1 / WIDTH + seed % 7 / 1e3 + luck:.6f}")
print("peak_vram_mb: 512.0")
'''

PREPARE = '"""Data for train.py, of which there is none."""\n'
PROGRAM = "# Research\n\nMake the number smaller.\n"

# Nothing of the machine's own git configuration may change what a test sees.
PLAIN_GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
_PERSON = ("-c", "user.name=A Person", "-c", "user.email=person@example.org")


def git(root: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What git says in `root`, less the last newline."""
    done = subprocess.run(
        ["git", *_PERSON, *arguments],
        cwd=root,
        env={**os.environ, **PLAIN_GIT, **(env or {})},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", errors="surrogateescape").removesuffix("\n")


def workspace(root: Path, files: Mapping[str, str | bytes] | None = None) -> Path:
    """A git repository in `root` with upstream's flat layout, or with `files`, in its one commit on main."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "--quiet", "--initial-branch=main")
    flat = {"train.py": TRAIN, "prepare.py": PREPARE, "program.md": PROGRAM}
    commit(root, flat if files is None else files)
    return root


def commit(root: Path, files: Mapping[str, str | bytes], message: str = "By a person") -> str:
    """Write `files`, commit everything, and return the commit."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(root, "rev-parse", "HEAD")


def refs(root: Path) -> str:
    """Every ref with its commit, and what HEAD is."""
    return git(root, "for-each-ref") + git(root, "symbolic-ref", "HEAD")
