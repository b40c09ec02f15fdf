"""Text that others wrote, quoted for an agent: in a fence that nothing in it can end."""

from __future__ import annotations

import re

from controller.proposers.brief import harmless
from controller.text import printable

LINE = 400
"""Characters of a line of data; what is longer is cut."""


def data(text: str, most: int, *, end: bool = False) -> str:
    """`text` as data: cut to `most` characters (the last ones, with `end`), without what looks like a secret."""
    lines = [line if len(line) <= LINE else f"{line[: LINE - 1]}…" for line in _plain(text).split("\n")]
    return f"```data\n{_cut(harmless(chr(10).join(lines)), most, end=end)}\n```"


def verbatim(text: str, most: int, label: str = "python") -> str:
    """`text` to the letter, as far as it is printable and up to `most` characters: for code that is to be quoted."""
    text = _plain(text)
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{label}\n{_cut(text, most)}\n{fence}"


def _plain(text: str) -> str:
    return printable(text.replace("\r\n", "\n").replace("\r", "\n")).strip("\n")


def _cut(text: str, most: int, *, end: bool = False) -> str:
    """Whole lines of it."""
    if len(text) <= most:
        return text
    kept = text[-most:].partition("\n")[2] if end else text[:most].rpartition("\n")[0]
    # One line that is longer than all there is room for.
    kept = kept or (text[-most:] if end else text[:most])
    return f"… what came before is left out\n{kept}" if end else f"{kept}\n… and more, which is left out"
