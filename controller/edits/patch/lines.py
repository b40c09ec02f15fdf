"""A text's lines, and where some lines stand among others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from controller.edits.statements import NEWLINE

MOST_FOUND = 100
"""Places where lines are found, before one gives up counting."""


def split(text: str) -> list[str]:
    """The lines as Python counts them, with their ends; form feeds and the like end none."""
    starts = [0, *(newline.end() for newline in NEWLINE.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(starts) if end > start]


def key(line: str) -> str:
    """What a line is compared by."""
    return line.rstrip(" \t\f\r\n")


def found(keys: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where these lines stand: the index of the first of them, `MOST_FOUND` times at most."""
    if not keys or not wanted:
        return []
    text, piece = ("\n".join(["", *some, ""]) for some in (keys, wanted))
    places: list[int] = []
    at = line = 0
    while len(places) < MOST_FOUND and (next_at := text.find(piece, at)) >= 0:
        line += text.count("\n", at, next_at)
        places.append(line)
        at, line = next_at + 1, line + 1
    return places
