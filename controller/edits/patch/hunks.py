"""Unified diffs, as models write them: with numbers that are wrong or missing, and context that has lost its space."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from controller.edits.patch.change import MAX_CHANGES, Change
from controller.edits.patch.fences import code_blocks
from controller.edits.patch.lines import key
from controller.edits.patch.telling import PatchError, cut

_LABELS = frozenset({"diff", "udiff", "patch"})
_HEADER = re.compile(r"@@(?!@)(?: -(\d{1,9})(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@)?")
_NEXT_FILE = re.compile(r"diff --git |Index: |index [0-9a-f]+\.\.|```")


def is_diff(lines: Sequence[str]) -> bool:
    """Whether there is a hunk's header with its numbers, a file's header, or a bare `@@` at the top."""
    return (
        _HEADER.match(next(filter(key, lines))) is not None
        or any(block.label in _LABELS for block in code_blocks(lines))
        or any((header := _HEADER.match(line)) and header[1] for line in lines)
        or any(one.startswith("--- ") and two.startswith("+++ ") for one, two in pairwise(lines))
    )


def hunks(lines: Sequence[str]) -> Iterator[Change]:
    """The hunks of a diff of one file, which are between fences if any is. Raises PatchError."""
    lines = _fenced(lines)
    file: str | None = None
    at = number = 0
    while at < len(lines):
        line = lines[at]
        if header := _HEADER.match(line):
            number += 1
            if number > MAX_CHANGES:
                raise PatchError(f"the diff has more than {MAX_CHANGES} hunks; send the whole file instead")
            hunk, at = _hunk(lines, at, header, f"hunk {number} (line {at + 1} of the diff)")
            yield hunk
            continue
        if line.startswith("+++ "):
            name = line[4:].partition("\t")[0].strip().removeprefix("b/")[:100]
            if file not in (None, name):
                raise PatchError(f"the diff changes {file} and {name}; only one file may be changed")
            file = name
        elif number and line.startswith(("+", "-")) and not line.startswith("--- ") and line.rstrip() != "--":
            raise PatchError(f"line {at + 1} of the diff stands outside a hunk; send it within one", [cut(line)])
        at += 1
    if not number:
        raise PatchError("the diff has no hunk: nothing follows a line `@@ -1,3 +1,4 @@`; send the lines that change")


def _fenced(lines: Sequence[str]) -> Sequence[str]:
    """The lines with those that are outside of code blocks empty, unless no hunk is inside."""
    kept = [""] * len(lines)
    for block in code_blocks(lines):
        kept[block.start : block.end] = lines[block.start : block.end]
    return kept if any(map(_HEADER.match, kept)) else lines


def _hunk(lines: Sequence[str], start: int, header: re.Match[str], name: str) -> tuple[Change, int]:
    """The hunk whose header is at `start`, and where the text goes on behind it."""
    stated = None if header[1] is None else int(header[1]) - 1
    counts = None if header[1] is None else (int(header[2] or 1), int(header[3] or 1))
    old: list[str] = []
    new: list[str | int] = []
    blank = 0  # lines that are quite empty: context if more of the hunk follows, or else space behind it
    at = start + 1
    while at < len(lines) and not _HEADER.match(lines[at]) and not _begins_a_file(lines, at):
        line = lines[at]
        at += 1
        if not line:
            blank += 1
            continue
        complete = counts in ((len(old), len(new)), (len(old) + blank, len(new) + blank))
        if complete and (line[0] not in " +-\\" or line.rstrip() == "--"):
            break  # a mail's signature, or prose
        if line[0] not in " +-\\":  # \ No newline at end of file
            raise PatchError(
                f"{name}: line {at} begins with neither a space, `-` nor `+`; begin each line of a hunk with one",
                [cut(line)],
            )
        for one in [*" " * blank, line]:
            if one[0] == " ":
                new.append(len(old))
            if one[0] in " -":
                old.append(one[1:])
            if one[0] == "+":
                new.append(one[1:])
        blank = 0
    return Change(name, "its old lines are", tuple(old), tuple(new), stated), at


def _begins_a_file(lines: Sequence[str], at: int) -> bool:
    if lines[at].startswith("--- ") and at + 2 < len(lines):
        return lines[at + 1].startswith("+++ ") and _HEADER.match(lines[at + 2]) is not None
    return _NEXT_FILE.match(lines[at]) is not None
