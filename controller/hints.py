"""Hints on their way: what `autoresearch note` leaves for the controller of a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controller import letters

FOLDER = "hints"
MOST_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Hint:
    """A letter with a person's wish: a note to add (`text`), or one to retire (`retires`). `name` is the letter's."""

    name: str
    text: str = ""
    retires: str = ""


def leave(directory: Path, tag: str, at: float, *, text: str = "", retires: str = "") -> None:
    """Leave a hint for study `tag` at the Unix second `at`. Raises UserError where nothing can be written."""
    letters.leave(directory / FOLDER, tag, at, {"text": text, "retires": retires})


def waiting(directory: Path, tag: str) -> list[Hint]:
    """The hints that wait for study `tag`, oldest first."""
    return [
        Hint(letter.name, str(letter.said["text"]), str(letter.said["retires"]))
        for letter in letters.waiting(directory / FOLDER, tag, MOST_BYTES)
        if {"text", "retires"} <= letter.said.keys()
    ]


def remove(directory: Path, hint: Hint) -> None:
    """Remove the letter of a hint that is in the journal."""
    letters.remove(directory / FOLDER, hint.name)
