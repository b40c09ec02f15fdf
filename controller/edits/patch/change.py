"""A change: some lines of the file, and what is to stand there instead."""

from __future__ import annotations

from dataclasses import dataclass

from controller.edits.patch.lines import key

MAX_CHANGES = 100
"""In an edit: one with more is better written as a whole file."""


@dataclass(frozen=True, slots=True)
class Change:
    """One block, or one hunk. A number among the `new` lines is that one of the old lines, kept.

    `name` says which it is, and `what` begins a sentence about its old lines. `stated` is the index of the line where
    it says it belongs, if it does.
    """

    name: str
    what: str
    old: tuple[str, ...]
    new: tuple[str | int, ...]
    stated: int | None = None

    @property
    def keys(self) -> list[str]:
        """What the old lines are compared by."""
        return [key(line) for line in self.old]
