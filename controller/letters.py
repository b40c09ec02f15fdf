"""What other commands leave for the controller of a study: letters, a file each, which it takes up and removes.

Such commands record nothing themselves: the journal has one writer. A second one would open, and in case of damage set
aside, a file under a running controller; on a file system that several machines share SQLite could not keep the two
apart; and its events would make a controller that hangs look alive.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from controller.records import UserError

_number = count()
"""Of the letters of this process: two may be left at one moment."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What a file called `name` says."""

    name: str
    said: Mapping[str, Any]


def leave(folder: Path, tag: str, at: float, said: Mapping[str, Any]) -> None:
    """Leave a letter for study `tag` in `folder` at the Unix second `at`. The controller sees all of it or nothing."""
    name = f"{tag}.{at:017.6f}.{os.getpid()}.{next(_number):04d}.json"
    draft = folder / f".{name}"
    try:
        folder.mkdir(exist_ok=True)
        draft.write_text(json.dumps(said), encoding="utf-8")
        draft.rename(folder / name)
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror}); make it writable and run again") from None


def waiting(folder: Path, tag: str, most_bytes: int) -> Iterator[Letter]:
    """The letters that wait in `folder` for study `tag`, oldest first. Files that are none are left alone."""
    for path in sorted(folder.glob(f"{tag}.*.json")):
        try:
            with path.open("rb") as file:
                said = json.loads(file.read(most_bytes))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(said, dict):
            yield Letter(path.name, said)


def remove(folder: Path, name: str) -> None:
    """Remove a letter whose content is in the journal."""
    (folder / name).unlink(missing_ok=True)
