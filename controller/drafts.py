"""Commits that are yet to be made, as `git fast-import` reads them: one process makes any number of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

IDENTITY = "autoresearch"
EMAIL = "autoresearch@localhost"

_WORKING_REF = "refs/autoresearch-drafts"
"""Fast-import wants a branch for each commit. It is reset at the end, so that no such ref is ever written."""

_NONCHARACTERS = re.compile(
    "[\ufdd0-\ufdef" + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)) + "]"
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A commit to be made: new texts of files by their path, its message, and the full ref to point at it, if any."""

    edits: Mapping[str, str]
    message: str
    ref: str | None = None


def message_bytes(message: str) -> bytes:
    """`message` as `git commit-tree -F` keeps it; git allows no null bytes."""
    text = message.replace("\0", "").encode("utf-8", errors="replace").decode()
    # Git takes code points that are no characters for Latin-1.
    return _NONCHARACTERS.sub(lambda found: found[0].encode().decode("latin-1"), text).encode()


def instructions(parent: str, drafts: Sequence[Draft], modes: Mapping[str, int], at: float) -> Iterator[bytes]:
    """What fast-import is told, to answer with one commit id a line, in the order of `drafts`.

    `parent` is a commit's full id, `modes` has the mode of every file that is edited.
    """
    yield b"feature done\n"
    person = f"{IDENTITY} <{EMAIL}> {int(at)} +0000"
    for mark, draft in enumerate(drafts, 1):
        yield f"commit {_WORKING_REF}\nmark :{mark}\nauthor {person}\ncommitter {person}\n".encode()
        yield _data(message_bytes(draft.message))
        yield f"from {parent}\n".encode()
        for path, text in draft.edits.items():
            yield b'M %06o inline "%s"\n' % (modes[path], _quoted(path))
            yield _data(text.encode("utf-8", errors="surrogateescape"))
        yield b"get-mark :%d\n" % mark
    yield f"reset {_WORKING_REF}\n\ndone\n".encode()


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _quoted(path: str) -> bytes:
    escapes = {b"\\": rb"\\", b'"': rb"\"", b"\n": rb"\n"}
    return re.sub(rb'[\\"\n]', lambda found: escapes[found[0]], path.encode("utf-8", errors="surrogateescape"))
