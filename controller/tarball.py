"""A commit as a tar archive, made as `git archive` makes it, to the last byte, where nothing but its files matters."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from stat import S_ISDIR, S_ISLNK, S_ISREG, S_IXUSR

from controller.objects import Objects

RECORD = 512
BLOCK = 20 * RECORD
MAX_NAME = 100
"""Bytes in a name or a link's target that need no further header."""
MAX_AT = 0o77777777777
"""The last Unix second that a header can hold."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file, symbolic link (its content is the target), folder or submodule, by git's `mode` and `id`.

    The names of the last two end with a slash.
    """

    name: bytes
    mode: int
    id: str
    content: bytes


def members(objects: Objects, tree: str, above: bytes = b"") -> list[Member] | None:
    """All that `git archive` packs from this tree, in its order.

    None where the tree itself says how it wants to be packed, or a plain header can't describe what is in it.
    """
    found: list[Member] = []
    for entry in objects.entries(tree):
        if entry.name == b".gitattributes":
            return None
        is_file = S_ISREG(entry.mode) or S_ISLNK(entry.mode)
        name = above + entry.name + (b"" if is_file else b"/")
        content = objects.content(entry.id) if is_file else b""
        if content is None or len(name) > MAX_NAME or (S_ISLNK(entry.mode) and len(content) > MAX_NAME):
            return None
        member = Member(name, entry.mode, entry.id, content)
        if not S_ISDIR(entry.mode):
            found.append(member)
            continue
        below = members(objects, entry.id, name)
        if below is None:
            return None
        if below:  # git packs no empty folder
            found += [member, *below]
    return found


def tarball(commit: str, at: int, packed: Iterable[Member]) -> bytes:
    """The archive of a commit made at the Unix second `at`, which is at most MAX_AT."""
    parts = list(_parts(commit, at, packed))
    size = sum(map(len, parts))
    # At least two empty records end an archive, and whole blocks are written.
    return b"".join([*parts, bytes(-(-(size + 2 * RECORD) // BLOCK) * BLOCK - size)])


def _parts(commit: str, at: int, packed: Iterable[Member]) -> Iterator[bytes]:
    comment = f" comment={commit}\n".encode()
    comment = b"%d%s" % (len(comment) + 2, comment)
    yield _header(b"pax_global_header", b"g", 0o666, len(comment), at, b"")
    yield comment + bytes(-len(comment) % RECORD)
    for member in packed:
        if S_ISREG(member.mode):
            permissions = 0o775 if member.mode & S_IXUSR else 0o664
            yield _header(member.name, b"0", permissions, len(member.content), at, b"")
            yield member.content
            yield bytes(-len(member.content) % RECORD)
        elif S_ISLNK(member.mode):
            yield _header(member.name, b"2", 0o777, 0, at, member.content)
        else:
            yield _header(member.name, b"5", 0o775, 0, at, b"")


@lru_cache(maxsize=4096)
def _header(name: bytes, kind: bytes, permissions: int, size: int, at: int, target: bytes) -> bytes:
    def packed(checksum: bytes) -> bytes:
        return struct.pack(
            "100s8s8s8s12s12s8sc100s8s32s32s8s8s167x",
            name,
            b"%07o" % permissions,
            b"%07o" % 0,
            b"%07o" % 0,
            b"%011o" % size,
            b"%011o" % at,
            checksum,
            kind,
            target,
            b"ustar\x0000",
            b"root",
            b"root",
            b"%07o" % 0,
            b"%07o" % 0,
        )

    return packed(b"%07o" % sum(packed(b" " * 8)))
