"""Lines that are not in a file: where it is most like them, and the two beside each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from heapq import nlargest
from itertools import zip_longest
from operator import eq

from controller.edits.patch.telling import WIDTH, cut

ALIKE = 0.4
"""Share of words in common from which on lines are worth showing."""
MOST_SHOWN = 12
"""Lines that are."""

_WORDS = re.compile(r"\w+")
_ORDERED = 120  # words, of each of the few places that are likely, whose order is compared
_MATCHED = 40  # lines that are matched, of which the first that differ are shown


def closest(keys: Sequence[str], wanted: Sequence[str]) -> int | None:
    """Where the lines begin that have most words in common with `wanted`; None where none have many."""
    size = min(len(wanted), len(keys))
    words = [_WORDS.findall(line) for line in keys]
    shares = list(_shares(words, Counter(_words(wanted)), size))
    best = nlargest(5, range(len(shares)), shares.__getitem__)
    if not best or shares[best[0]] < ALIKE:
        return None
    mine = _words(wanted[:_ORDERED])[:_ORDERED]

    def likeness(start: int) -> float:
        """Both the words in their order and the whole lines in their places."""
        theirs = [word for some in words[start : start + min(size, _ORDERED)] for word in some][:_ORDERED]
        order = SequenceMatcher(None, mine, theirs, autojunk=False).ratio()
        return order + sum(a == b for a, b in zip(wanted, keys[start:], strict=False)) / size

    return max(best, key=likeness)


def beside(keys: Sequence[str], wanted: Sequence[str], start: int) -> list[str]:
    """The file's lines from `start` on beside those wanted, from shortly before the first that differs."""
    pairs = zip(wanted, keys[start:], strict=False)
    skipped = max(next((at for at, (mine, theirs) in enumerate(pairs) if mine != theirs), 0) - 2, 0)
    mine = wanted[skipped : skipped + _MATCHED]
    margin = 0 if skipped else min(start, 2)  # on both sides, for lines that are wanted too few
    begin = start + skipped - margin
    rows = _rows(mine, keys[begin : begin + margin + len(mine) + 2], begin + 1)
    first = max(next((at for at, row in enumerate(rows) if row[0] != " "), 0) - 2, 0)
    return ["Most like it (`-` lines are yours, `+` lines the file's):", *rows[first : first + MOST_SHOWN]]


def _shares(words: Sequence[Sequence[str]], need: Counter[str], size: int) -> Iterator[float]:
    """For each `size` lines with these words: the share of them, and of those needed, that is common to both."""
    have: Counter[str] = Counter()
    common, total = 0, need.total()
    for end, coming in enumerate(words, 1):
        leaving = words[end - size - 1] if end > size else ()
        for word in coming:
            have[word] += 1
            common += have[word] <= need[word]
        for word in leaving:
            common -= have[word] <= need[word]
            have[word] -= 1
        total += len(coming) - len(leaving)
        if end >= size:
            yield 2 * common / (total or 1)


def _rows(mine: Sequence[str], theirs: Sequence[str], number: int) -> list[str]:
    """Both, matched, as rows that begin with a space, `-` or `+`; `number` is that of the first of theirs."""
    rows: list[str] = []
    opcodes = SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes()
    for place, (kind, a, b, c, d) in enumerate(opcodes):
        if kind == "equal":
            rows += [_row(" ", number + at, theirs[at]) for at in range(c, d)]
            continue
        # At the ends there may be lines that nobody asked about.
        if kind == "insert" and place in (0, len(opcodes) - 1):
            continue
        if kind == "replace" and a == 0:
            c = max(range(c, d), key=lambda at: _in_common(mine[0], theirs[at]))
        if kind == "replace" and b == len(mine):
            d = max(range(c, d), key=lambda at: _in_common(mine[-1], theirs[at])) + 1
        for at, (one, other) in enumerate(zip_longest(mine[a:b], theirs[c:d]), number + c):
            shift = _shift(one or "", other or "")
            rows += [_row("-", None, one, shift)] if one is not None else []
            rows += [_row("+", at, other, shift)] if other is not None else []
    return rows


def _row(mark: str, number: int | None, line: str, shift: int = 0) -> str:
    return f"{mark}{number or '':>5} | {cut(line, shift)}"


def _shift(one: str, other: str) -> int:
    """From which character on two lines are shown, so that their first difference is."""
    same = [*map(eq, one[:2000], other), False].index(False)
    return same - 40 if same > WIDTH - 40 else 0


def _words(lines: Sequence[str]) -> list[str]:
    return [word for line in lines for word in _WORDS.findall(line)]


def _in_common(one: str, other: str) -> float:
    """How much two lines have in common: the share of their words."""
    mine, theirs = set(_WORDS.findall(one)), set(_WORDS.findall(other))
    return len(mine & theirs) / (len(mine | theirs) or 1)
