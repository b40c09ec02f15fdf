"""Hints on their way: what `autoresearch note` leaves for the controller of a study, a file each.

Not recorded by the command itself: the journal has one writer. A second one would open, and in case of damage set
aside, a file under a running controller; on a file system that several machines share SQLite could not keep the two
apart; and its events would make a controller that hangs look alive.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from controller.records import UserError

FOLDER = "hints"
MOST_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Hint:
    """A file with a person's wish: a note to add (`text`), or one to retire (`retires`). `name` is the file's."""

    name: str
    text: str = ""
    retires: str = ""


def leave(directory: Path, tag: str, at: float, *, text: str = "", retires: str = "") -> None:
    """Leave a hint for study `tag` at the Unix second `at`. The controller sees all of it or nothing."""
    folder = directory / FOLDER
    name = f"{tag}.{at:017.6f}.{os.getpid()}.json"
    draft = folder / f".{name}"
    try:
        folder.mkdir(exist_ok=True)
        draft.write_text(json.dumps({"text": text, "retires": retires}), encoding="utf-8")
        draft.rename(folder / name)
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror}); make it writable and run again") from None


def waiting(directory: Path, tag: str) -> list[Hint]:
    """The hints that wait for study `tag`, oldest first. Files that are no hints are left alone."""
    found = []
    for path in sorted((directory / FOLDER).glob(f"{tag}.*.json")):
        try:
            said = json.loads(path.read_bytes()[:MOST_BYTES])
            found.append(Hint(path.name, str(said["text"]), str(said["retires"])))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def remove(directory: Path, hint: Hint) -> None:
    """Remove the file of a hint that is in the journal."""
    (directory / FOLDER / hint.name).unlink(missing_ok=True)
