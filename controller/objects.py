"""Git's objects, read through one `git cat-file --batch` that stays: what is asked for twice is answered from memory.

Objects never change, so what is known of an id stays true. The process sees objects that are made after it started.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from stat import S_ISDIR
from typing import Generic, TypeVar

from controller.records import UserError

CACHED_BYTES = 64 * 2**20
CACHED_DIGESTS = 16_384
CACHED_COMMITS = 4096

_HEADER = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) (blob|tree|commit|tag) ([0-9]+)\n")
_TREE = re.compile(rb"tree ([0-9a-f]+)\n")
_MADE = re.compile(rb"tree [0-9a-f]+\n(?:parent [0-9a-f]+\n)*author [^\n]*\ncommitter [^\n]*> ([0-9]+) [+-][0-9]{4}\n")
_FULL_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_Known = TypeVar("_Known")


@dataclass(frozen=True, slots=True)
class Object:
    """One object of git's; `kind` is blob, tree, commit or tag."""

    id: str
    kind: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """Which tree a commit holds, and when it was made, in Unix seconds; None where that is not said in git's way."""

    id: str
    tree: str
    at: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a tree: a file, a symbolic link, a folder or a submodule, by `mode`; `name` as git has it."""

    mode: int
    name: bytes
    id: str


class Recent(Generic[_Known]):
    """What was used last, as far as there is room; each thing takes the room it is said to."""

    def __init__(self, room: int) -> None:
        self._room = self._free = room
        self._kept: OrderedDict[str, tuple[_Known, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> _Known | None:
        """What is kept under `key`; None where nothing is."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def keep(self, key: str, known: _Known, takes: int = 1) -> None:
        """Keep it, and drop what was not used for longest. What takes more than all the room is not kept."""
        with self._lock:
            if key in self._kept or takes > self._room:
                return
            self._kept[key] = known, takes
            self._free -= takes
            while self._free < 0:
                self._free += self._kept.popitem(last=False)[1][1]


class Objects:
    """The objects of the repository around `directory`. Safe between threads, and in a process forked off."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[[subprocess.Popen[bytes], int], Objects] | None = None
        self._contents = Recent[bytes](CACHED_BYTES)
        self._digests = Recent[str](CACHED_DIGESTS)
        self._commits = Recent[Commit](CACHED_COMMITS)

    def commit(self, name: str) -> Commit | None:
        """The commit that `name` (branch, tag, hash) means now; None where it means none."""
        known = self._commits.get(name)
        if known is not None:
            return known
        found = self.find(f"{name}^{{commit}}")
        if found is None:
            return None
        tree, made = _TREE.match(found.content), _MADE.match(found.content)
        if tree is None:
            raise UserError(f"commit {found.id[:10]} is damaged; `git fsck` says what else")
        commit = Commit(found.id, tree[1].decode(), int(made[1]) if made else None)
        if _FULL_ID.fullmatch(name):
            self._commits.keep(name, commit)
        return commit

    def content(self, id: str) -> bytes | None:
        """The content of the object with this id; None where there is none."""
        known = self._contents.get(id)
        if known is not None:
            return known
        found = self.find(id)
        if found is None:
            return None
        self._contents.keep(id, found.content, len(found.content) + 1)
        return found.content

    def digest(self, id: str, content: bytes) -> str:
        """The SHA-256 in hex of this content, which is that of the object with this id."""
        digest = self._digests.get(id)
        if digest is None:
            digest = sha256(content).hexdigest()
            self._digests.keep(id, digest)
        return digest

    def entries(self, tree: str) -> list[Entry]:
        """What stands in the tree with this id, in git's order. Raises UserError where it can't be read."""
        content = self.content(tree)
        if content is None:
            raise UserError(f"git has lost the folder {tree[:10]} of a commit; `git fsck` says what else")
        return list(_entries(content, len(tree) // 2))

    def entry(self, tree: str, path: str) -> Entry | None:
        """What stands at `path` below the tree with this id; None where nothing does."""
        found: Entry | None = None
        for part in os.fsencode(path).split(b"/"):
            if found is not None:
                if not S_ISDIR(found.mode):
                    return None
                tree = found.id
            found = next((entry for entry in self.entries(tree) if entry.name == part), None)
            if found is None:
                return None
        return found

    def find(self, name: str) -> Object | None:
        """The object that `name`, as git understands it, means now; None where it means none.

        Raises UserError where git gives no answer.
        """
        asked = os.fsencode(name)
        if b"\n" in asked or b"\0" in asked:
            return None
        if self._owner != os.getpid():  # forked: the process answers our parent, and its lock may never be released
            self._lock = threading.Lock()
        with self._lock:
            for _ in range(2):  # a process that somebody has ended is begun anew
                try:
                    return self._ask(asked)
                except (BrokenPipeError, EOFError):
                    self.close()
                except BaseException:  # what is left of this answer must not be taken for the next one
                    self.close()
                    raise
        raise UserError(f"git gives no answer when asked for {name}; `git fsck` may say why")

    def close(self) -> None:
        """End the process; the next question begins another."""
        if self._end is not None:
            self._end()
        self._process = self._end = None

    def _ask(self, name: bytes) -> Object | None:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(name + b"\n")
        process.stdin.flush()
        said = process.stdout.readline()
        header = _HEADER.fullmatch(said)
        if header is None:
            if not said.endswith(b"\n"):
                raise EOFError
            return None  # "missing" or "ambiguous"
        size = int(header[3])
        content = process.stdout.read(size + 1)
        if len(content) != size + 1:
            raise EOFError
        return Object(header[1].decode(), header[2].decode(), content[:-1])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():
            self.close()
            self._owner = os.getpid()
        if self._process is None:
            self._process = subprocess.Popen(
                ["git", "cat-file", "--batch"],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C on a terminal is for us; where we die, the end of its input ends it
            )
            self._end = weakref.finalize(self, _end, self._process, self._owner)
        return self._process


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner:
        process.kill()  # it only reads
        process.wait()
    else:
        process.returncode = 0  # not ours to wait for
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):
            pipe.close()


def _entries(content: bytes, width: int) -> Iterator[Entry]:
    at = 0
    while at < len(content):
        space = content.index(b" ", at)
        null = content.index(b"\0", space)
        end = null + 1 + width
        yield Entry(int(content[at:space], 8), content[space + 1 : null], content[null + 1 : end].hex())
        at = end
