"""Changes made in the file, one after the other, each where its old lines stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controller.edits.patch.change import Change
from controller.edits.patch.lines import MOST_FOUND, found, key, split
from controller.edits.patch.missing import missing
from controller.edits.patch.telling import PatchError

NEAR = 50
"""Lines from where a hunk says it belongs: who is alone there is meant."""
MOST_PLACES = 12
"""That are named of those where old lines stand."""


def changed(source: str, changes: Iterable[Change], newline: str) -> str:
    """The file with all changes made. A last line without an end keeps to that. Raises PatchError."""
    lines = split(source)
    ended = not lines or lines[-1].endswith(("\r", "\n"))
    if not ended:
        lines[-1] += newline
    keys = [key(line) for line in lines]
    first, shift = list(keys), 0
    for change in changes:
        if not change.old and any(keys):
            raise PatchError(
                f"{change.name} does not say where it belongs, as it has no old lines; to insert, quote a line of the"
                " file and repeat it beside the new ones; to replace everything, send the whole file"
            )
        at, length = (_place(keys, change, shift, first), len(change.old)) if change.old else (0, len(lines))
        old = lines[at : at + length]
        lines[at : at + length] = [old[line] if isinstance(line, int) else f"{line}{newline}" for line in change.new]
        keys[at : at + length] = [key(line) for line in lines[at : at + len(change.new)]]
        shift += len(change.new) - length
    text = "".join(lines)
    return text if ended else text.removesuffix(newline)


def _place(keys: Sequence[str], change: Change, shift: int, first: Sequence[str]) -> int:
    """The index of the line where the change's old lines begin. `first` is the file before any change."""
    wanted = change.keys
    if change.stated is not None:
        at = max(change.stated + shift, 0)
        if keys[at : at + len(wanted)] == wanted:
            return at
        start = max(at - NEAR, 0)
        near = found(keys[start : at + NEAR + len(wanted)], wanted)
        if len(near) == 1:
            return start + near[0]
    places = found(keys, wanted)
    if not places:
        raise missing(change, keys, first)
    if len(places) > 1:
        times = f"{len(places)} times" if len(places) < MOST_FOUND else f"{MOST_FOUND} times or more"
        named = ", ".join(str(at + 1) for at in places[:MOST_PLACES]) + (", …" if len(places) > MOST_PLACES else "")
        raise PatchError(f"{change.name}: {change.what} in the file {times}, at lines {named}; add lines around it")
    return places[0]
