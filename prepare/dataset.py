"""The prepared data on disk: made once, in one piece, and found again by what determines it.

<cache>/<profile>-<key>/train.bin  val.bin     tokens, flat little-endian uint16
                        token_bytes.npy        int32 [vocab_size]
                        tokenizer.tiktoken
                        manifest.json          sha256 of each of these
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from prepare import corpus, tokenizer
from prepare.fingerprint import file_hash
from prepare.profile import CURRENT, Profile

FORMAT = 1
"""To be raised when the same profile would give other files."""

DATA_FILES = ("train.bin", "val.bin")
TOKENIZER_FILES = ("tokenizer.tiktoken", "token_bytes.npy")

TOKENIZER_CHARACTERS = 10**9
"""Merges are learnt from at most so much of the training text: rustbpe counts its words in memory."""

PORTION = 2048
"""Documents encoded at a time."""


def cache_root() -> Path:
    """`$AUTORESEARCH_CACHE`, else ~/.cache/autoresearch."""
    chosen = os.environ.get("AUTORESEARCH_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "autoresearch"


def location(profile: Profile = CURRENT) -> Path:
    """Where the profile's data is or will be. The name changes with everything that determines the content."""
    recipe = [FORMAT, corpus.identity(profile), profile.vocab_size, tokenizer.PATTERN, tokenizer.SPECIALS]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
    return cache_root() / f"{profile.name}-{key}"


def ensure(profile: Profile = CURRENT) -> Path:
    """The directory of the profile's data, made now if it does not exist yet.

    Concurrent callers wait for the first. A directory that is there is complete, and is neither locked nor written to,
    so a read-only cache will do. Raises what `corpus.documents` raises.
    """
    directory = location(profile)
    if directory.exists():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _lock(directory.with_name(directory.name + ".lock")):
        if not directory.exists():
            partial = directory.with_name(directory.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)  # left by a process that died; nobody else holds the lock
            partial.mkdir()
            _make(profile, partial)
            partial.rename(directory)
    return directory


def manifest(profile: Profile = CURRENT) -> dict[str, Any]:
    """What was recorded when the data was made: profile, token counts, and each file's sha256."""
    content: dict[str, Any] = json.loads((ensure(profile) / "manifest.json").read_text())
    return content


def hashes(profile: Profile = CURRENT) -> dict[str, str]:
    """One hash for the tokens and one for the tokenizer, as recorded: {"data": …, "tokenizer": …}."""
    recorded = manifest(profile)["sha256"]
    return {"data": _joint(recorded, DATA_FILES), "tokenizer": _joint(recorded, TOKENIZER_FILES)}


def verify(profile: Profile = CURRENT) -> None:
    """Hash the files again. Raises corpus.ChangedData if one is not what was recorded when the data was made."""
    directory = ensure(profile)
    for name, recorded in manifest(profile)["sha256"].items():
        if file_hash(directory / name) != recorded:
            raise corpus.ChangedData(f"{directory / name} has changed: delete {directory} and prepare it again")


def _make(profile: Profile, directory: Path) -> None:
    train, val = corpus.documents(profile, cache_root())
    encoding = tokenizer.train(
        _limited(train(), TOKENIZER_CHARACTERS), profile.vocab_size, directory / TOKENIZER_FILES[0]
    )
    np.save(directory / TOKENIZER_FILES[1], tokenizer.token_bytes(encoding))
    counts = {}
    for name, texts in zip(DATA_FILES, (train(), val()), strict=True):
        with (directory / name).open("wb") as file:
            while portion := list(itertools.islice(texts, PORTION)):
                tokenizer.encode(encoding, portion).astype("<u2", copy=False).tofile(file)
        counts[name] = (directory / name).stat().st_size // 2
    names = [*DATA_FILES, *TOKENIZER_FILES]
    record = {
        "profile": profile.name,
        "corpus": corpus.identity(profile),
        "tokens": counts,
        "sha256": {name: file_hash(directory / name) for name in names},
    }
    (directory / "manifest.json").write_text(json.dumps(record, indent=1) + "\n")
    for path in directory.iterdir():
        path.chmod(0o444)


def _joint(recorded: dict[str, str], names: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{name}\0{recorded[name]}\n" for name in names).encode()).hexdigest()


def _limited(texts: Iterator[str], characters: int) -> Iterator[str]:
    for text in texts:
        yield text
        characters -= len(text)
        if characters <= 0:
            return


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that the kernel releases with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
