"""A scratch checkout of the incumbent, for a command to work in, and what it has made of it.

It is a repository by itself, in the system's temporary folder; the user's own is not touched.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path, PurePosixPath
from stat import S_ISLNK, S_ISREG
from typing import TypeAlias

from controller.edits.patch import PatchError, check
from controller.edits.source import parse
from controller.proposers.protocol import Context
from controller.proposers.vetting import Objected
from controller.records import Objection

TALK = ".proposal"
"""Where in its checkout a command is told and answers: many agents may write nowhere else."""
MOST_EDIT = 4_000_000
"""Bytes of the editable file."""

Files: TypeAlias = Mapping[str, tuple[str, str]]
"""The files of a checkout that a command must leave alone: by path what each is, and the SHA-256 of what it holds."""


def make(tree: Path, fill: Callable[[Path], None], context: Context) -> Files:
    """Make the new folder `tree` a checkout, of files that `fill` puts there, and the incumbent's of the context."""
    from controller.repo import initialise

    tree.mkdir()
    fill(tree)
    # The incumbent may have changed since the context was made: what is edited is what the edit is compared with.
    file = tree / context.edit
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.write_bytes(_bytes(context.source))
    initialise(tree).exclude(f"/{TALK}/")
    (tree / TALK).mkdir(exist_ok=True)
    others = [path for path in _files(tree) if path != context.edit and not path.startswith(f"{TALK}/")]
    return {path: (_shape(tree / path), _digest(tree / path)) for path in others}


def edited(tree: Path, files: Files, context: Context) -> str | None:
    """The editable file as the command left it; None where it did not touch it. Raises Objected.

    `files` are the others as they were made.
    """
    changed = [
        path
        for path, (shape, digest) in files.items()
        if _shape(tree / path) != shape or _digest(tree / path) != digest
    ]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise Objected(f"it changed {', '.join(changed[:3])}{more}; only {context.edit} may be changed")
    text = _text(tree / context.edit, context)
    if text is None:
        return None
    try:
        check(context.source, text, context.evaluated)
    except PatchError as error:
        raise Objected(str(error), error.label) from None
    imported = _imported(text)
    for new in _files(tree):
        if new not in files and new != context.edit and _module(new) in imported:
            raise Objected(
                f"{context.edit} names {new}, a new file, which stays behind; put everything in {context.edit}"
            )
    return text


def _text(path: Path, context: Context) -> str | None:
    if not path.is_file() or path.is_symlink():
        raise Objected(f"{context.edit} is no file any more; change what is in it, and leave it in its place")
    if path.stat().st_size > MOST_EDIT:
        raise Objected(f"{context.edit} has become {path.stat().st_size} bytes, more than {MOST_EDIT}; make it shorter")
    data = path.read_bytes()
    if data == _bytes(context.source):
        return None
    if not data.strip():
        raise Objected(f"nothing is left of {context.edit}; keep the code that trains the model")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Objected(f"{context.edit} is not UTF-8 text: {error.reason}", Objection.SYNTAX) from None


def _files(tree: Path) -> Iterator[str]:
    """Every file and link in `tree`, its own .git left out, by its path in there."""
    for folder, folders, files in os.walk(tree):
        here = Path(folder)
        if here == tree and ".git" in folders:
            folders.remove(".git")
        links = [name for name in folders if (here / name).is_symlink()]
        yield from ((here / name).relative_to(tree).as_posix() for name in (*files, *links))


def _shape(path: Path) -> str:
    """What is there, as far as that shows without reading it."""
    try:
        found = path.lstat()
        if S_ISLNK(found.st_mode):
            return f"a link to {path.readlink()}"
        return f"a file of {found.st_size} bytes" if S_ISREG(found.st_mode) else "neither file nor link"
    except OSError:
        return "nothing"


def _digest(path: Path) -> str:
    with suppress(OSError):
        if not path.is_symlink() and path.is_file():
            return sha256(path.read_bytes()).hexdigest()
    return ""


def _imported(source: str) -> set[str]:
    """Every part of every name that is imported somewhere in it."""
    found: set[str] = set()
    for node in (node for statement in parse(source).body for node in ast.walk(statement)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found.update(part for name in names for part in name.split("."))
    return found


def _module(path: str) -> str | None:
    """What an import calls it; None for what is no module."""
    place = PurePosixPath(path)
    if place.suffix != ".py" or any(part.startswith(".") for part in place.parts):
        return None
    return place.parent.name if place.stem == "__init__" else place.stem


def _bytes(source: str) -> bytes:
    return source.encode("utf-8", errors="surrogateescape")
