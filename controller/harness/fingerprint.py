"""Which code was run: one hash for the file under research, one for everything that must not change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path


def fingerprint(files: Iterable[tuple[str, bytes]], edit: str) -> dict[str, str]:
    """SHA-256 of the file under research ("train") and of all that must not change ("fixed": prepare/, prepare.py).

    `files` are paths and contents; path and content both enter, so a renamed, added or missing file shows.
    """
    hashes = {"train": ""}
    fixed = []
    for path, content in files:
        digest = hashlib.sha256(content).hexdigest()
        if path == edit:
            hashes["train"] = digest
        elif is_fixed(path):
            fixed.append(f"{path}\0{digest}\n")
    return hashes | {"fixed": hashlib.sha256("".join(sorted(fixed)).encode()).hexdigest()}


def is_fixed(path: str) -> bool:
    """Whether `path`, relative to the workspace, must be the same for every candidate."""
    return (path.startswith("prepare/") or path == "prepare.py") and "__pycache__" not in path


def files_below(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every regular file below `root`, by its relative path."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(root).as_posix(), path.read_bytes()
