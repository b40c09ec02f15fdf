"""From an edit, in whatever form, to the file that it makes."""

from __future__ import annotations

import re

from controller.edits.patch.blocks import blocks, has_blocks
from controller.edits.patch.hunks import hunks, is_diff
from controller.edits.patch.lines import key, split
from controller.edits.patch.making import changed
from controller.edits.patch.telling import FORMS, PatchError
from controller.edits.patch.whole import is_a_file, whole
from controller.edits.source import MAX_SOURCE
from controller.edits.statements import NEWLINE

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def apply(source: str, edit: str) -> str:
    """`source` as `edit` makes it; see the package. All of it is done, or PatchError raised.

    Blocks and hunks are applied one after the other, each to what the former left, and the old lines of each must be
    there exactly once (those of a hunk: once at the place it states, or else near it, or else at all). SEARCH may be
    empty only where the file is. What comes out may still be no Python: that is for `check` to say.
    """
    for text, what in ((source, "the file"), (edit, "the edit")):
        if len(text) > MAX_SOURCE:
            raise PatchError(f"{what} has {len(text)} characters, more than {MAX_SOURCE}; make it shorter")
        if "\0" in text:
            raise PatchError(f"{what} holds a null byte, which no Python file may; leave it out")
        if _SURROGATE.search(text):
            raise PatchError(f"{what} holds half a character (a lone surrogate), which is no UTF-8; leave it out")
    lines = [line.rstrip("\r\n") for line in split(edit.removeprefix("\ufeff"))]
    if not any(map(key, lines)):
        raise PatchError(f"the edit is empty; send {FORMS}")
    end = NEWLINE.search(source)
    newline = end[0] if end else "\n"
    if is_a_file("\n".join(lines)):
        found = "".join(f"{line}{newline}" for line in lines)
    elif has_blocks(lines):
        found = changed(source, list(blocks(lines)), newline)
    elif is_diff(lines):
        found = changed(source, list(hunks(lines)), newline)
    else:
        found = "".join(f"{line}{newline}" for line in whole(lines))
    if not any(map(key, split(found))):
        raise PatchError("nothing would be left of the file; keep the code that trains the model")
    return found
