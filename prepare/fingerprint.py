"""Says which code an experiment ran: one hash for the file under research, one for everything that must not change."""

from __future__ import annotations

import hashlib
from pathlib import Path

FIXED_SUFFIXES = (".py", ".xz")


def file_hashes(root: Path, edit: str = "train/train.py") -> dict[str, str]:
    """SHA-256 of `root / edit` ("train") and of prepare/'s code and vendored corpus ("fixed").

    The fixed files are hashed in order of their path, path and content both, so that a renamed, added or missing file
    changes the hash as well. Raises FileNotFoundError if `edit` is missing.
    """
    fixed = hashlib.sha256()
    files = sorted(path for path in (root / "prepare").rglob("*") if path.suffix in FIXED_SUFFIXES)
    for path in files:
        fixed.update(f"{path.relative_to(root).as_posix()}\0{file_hash(path)}\n".encode())
    return {"train": file_hash(root / edit), "fixed": fixed.hexdigest()}


def file_hash(path: Path) -> str:
    """SHA-256 of one file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
