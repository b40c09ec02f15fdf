"""SEARCH/REPLACE blocks."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

from controller.edits.patch.change import MAX_CHANGES, Change
from controller.edits.patch.lines import key
from controller.edits.patch.telling import BLOCK, PatchError, cut

_HEAD = re.compile(r"(<{5,9}) ?SEARCH[>:]?", re.IGNORECASE)
_DIVIDER = re.compile(r"(={5,9})")
_TAIL = re.compile(r"(>{5,9}) ?REPLACE", re.IGNORECASE)
_LIKE_A_MARKER = re.compile(r"\s*(<{5,}|>{5,})")


def has_blocks(lines: Sequence[str]) -> bool:
    """Whether a block begins somewhere."""
    return any(_HEAD.fullmatch(key(line)) for line in lines)


def blocks(lines: Sequence[str]) -> Iterator[Change]:
    """The blocks of an edit. Raises PatchError."""
    keys = [key(line) for line in lines]
    at = number = 0
    while at < len(keys):
        head = _HEAD.fullmatch(keys[at])
        if head is None:
            if _LIKE_A_MARKER.match(keys[at]):
                raise PatchError(
                    f"line {at + 1} of the edit is a marker in the wrong place or form; write a block as {BLOCK}",
                    [cut(lines[at])],
                )
            at += 1
            continue
        number += 1
        if number > MAX_CHANGES:
            raise PatchError(f"the edit has more than {MAX_CHANGES} blocks; send the whole file instead")
        name = f"block {number} (line {at + 1} of the edit)"
        divider, end = _marks(keys, at, len(head[1]), name)
        old, new = lines[at + 1 : divider], lines[divider + 1 : end]
        if not any(map(key, old)):
            old = []
        yield Change(name, "its SEARCH text is", tuple(old), _aligned(old, new))
        at = end + 1


def _marks(keys: Sequence[str], head: int, width: int, name: str) -> tuple[int, int]:
    """Where the halves of the block that begins at `head` divide, and where it ends."""
    inside = range(head + 1, len(keys))
    heads = (at for at in inside if (other := _HEAD.fullmatch(keys[at])) and len(other[1]) == width)
    limit = next(heads, len(keys))

    def of(pattern: re.Pattern[str], before: int) -> list[int]:
        """The marker lines of that form: those as wide as the head, if any."""
        found = [(at, mark) for at in range(head + 1, before) if (mark := pattern.fullmatch(keys[at]))]
        return [at for at, mark in found if len(mark[1]) == width] or [at for at, _ in found]

    ends = of(_TAIL, limit)
    if not ends:
        before = "the next block begins" if limit < len(keys) else "the edit ends: it may have been cut off"
        raise PatchError(f"{name} has no line `>>>>>>> REPLACE` before {before}; write a block as {BLOCK}")
    dividers = of(_DIVIDER, ends[0])
    if not dividers:
        raise PatchError(f"{name} has no line `=======`; write a block as {BLOCK}")
    if len(dividers) > 1:
        raise PatchError(
            f"{name} has {len(dividers)} lines of `=`, and it cannot be told which divides old from new; write all"
            " three of its markers with another number of characters, from 5 to 9"
        )
    return dividers[0], ends[0]


def _aligned(old: Sequence[str], new: Sequence[str]) -> tuple[str | int, ...]:
    """The new lines, with those that are among the old ones as these, one for one."""
    places: defaultdict[str, deque[int]] = defaultdict(deque)
    for at, line in enumerate(old):
        places[line].append(at)
    return tuple(places[line].popleft() if places.get(line) else line for line in new)
