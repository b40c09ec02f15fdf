"""Whole files."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from controller.edits.patch.fences import code_blocks
from controller.edits.patch.telling import BLOCK, FORMS, PatchError, around
from controller.edits.source import SourceError, parse
from controller.records import Objection

_PYTHON = frozenset({"python", "python3", "py"})


def is_a_file(text: str) -> bool:
    """Whether it is Python, and more than a word of prose that happens to be."""
    try:
        return any(not isinstance(node, ast.Expr) for node in parse(text).body)
    except SourceError:
        return False


def whole(lines: Sequence[str]) -> Sequence[str]:
    """The lines of the whole file that an edit holds between fences. Raises PatchError."""
    found = code_blocks(lines)
    closed = [block for block in found if block.end is not None]
    wanted = [block for block in closed if block.label in _PYTHON] or [block for block in closed if not block.label]
    if wanted:
        # Docstrings may have fences of their own, which would seem to end the block.
        last = found[-1]
        widest = lines[wanted[0].start + 1 : last.start if last.end is None else last.end]
        if (last.end is not None or not last.label) and is_a_file("\n".join(widest)):
            return widest
    if len(closed) < len(found):
        raise PatchError(
            f"the code block that begins at line {found[-1].start + 1} of the edit is never closed: the edit may have"
            " been cut off; send it whole, or only what changes as SEARCH/REPLACE blocks"
        )
    if len(wanted) > 1:
        raise PatchError(
            f"the edit has {len(wanted)} code blocks, and it cannot be told which is the file; send {FORMS}"
        )
    if not wanted:
        raise _nothing_known("\n".join(lines))
    return lines[wanted[0].start + 1 : wanted[0].end]


def _nothing_known(edit: str) -> PatchError:
    why, shown = "it has no statement", []
    try:
        parse(edit)
    except SourceError as error:
        why = str(error).partition(";")[0]
        shown = around(edit, error.line) if error.line else []
    return PatchError(
        f"the edit is no Python file ({why}), nor anything else that is known; send {FORMS}; a block is {BLOCK}",
        shown,
        Objection.SYNTAX,
    )
