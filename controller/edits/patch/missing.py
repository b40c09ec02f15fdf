"""Why the old lines of a change are not in the file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from controller.edits.patch.change import Change
from controller.edits.patch.likeness import beside, closest
from controller.edits.patch.lines import found, key
from controller.edits.patch.telling import PatchError

_NUMBERED = re.compile(r"[-+>]?\s*\d+\s*[|→]")


def missing(change: Change, keys: Sequence[str], first: Sequence[str]) -> PatchError:
    """Why they are not among `keys`, as well as can be said, and what is most like them.

    `first` is the file before any change of the edit.
    """
    wanted = change.keys
    new = [wanted[line] if isinstance(line, int) else key(line) for line in change.new]
    advice = "copy the lines to be changed from the file exactly, indentation included"
    start: int | None = None
    if any(wanted) and all(_NUMBERED.match(line) for line in wanted if line):
        advice = "leave out the line numbers"
    elif any(line.startswith("```") for line in wanted):
        advice = "leave out the ``` lines, and " + advice
    elif found(first, wanted):
        advice = "an earlier part of this edit changed these lines: make one of the two, or quote what it leaves"
    elif there := found(*([line.lstrip() for line in some] for some in (keys, wanted))):
        start = there[0]
        at = next(at for at, line in enumerate(wanted) if line != keys[start + at])
        advice = (
            f"but for indentation it is: line {start + at + 1} begins with {_margin(keys[start + at])}, yours with"
            f" {_margin(wanted[at])}; copy it exactly"
        )
    elif any(new) and (there := found(keys, new)):
        start = there[0]
        advice = f"the new lines are there already, at line {start + 1}: leave this part out, or {advice}"
    if start is None:
        start = closest(keys, wanted)
    shown = ["Nothing in the file is like it."] if start is None else beside(keys, wanted, start)
    return PatchError(f"{change.name}: {change.what} not in the file; {advice}", shown)


def _margin(line: str) -> str:
    """The white space at its beginning, in words."""
    margin = line[: len(line) - len(line.lstrip())]
    kind = {" ": "space", "\t": "tab"}.get(margin[:1])
    if not margin:
        return "no white space"
    if kind is None or margin != margin[0] * len(margin):
        return repr(margin[:40])
    return f"{len(margin)} {kind}{'s' if len(margin) > 1 else ''}"
