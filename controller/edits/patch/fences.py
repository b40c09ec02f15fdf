"""Code blocks: what stands between ``` fences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

_FENCE = re.compile(r"(`{3,})\s*([\w+.-]*)[^`]*")


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """Where its first fence stands, of how many back quotes and with which label, and its last: None without one."""

    start: int
    width: int
    label: str
    end: int | None = None


def code_blocks(lines: Sequence[str]) -> list[CodeBlock]:
    """The code blocks in these lines; only the last may lack its end."""
    found: list[CodeBlock] = []
    for at, line in enumerate(lines):
        fence = _FENCE.fullmatch(line)
        if fence is None:
            continue
        if not found or found[-1].end is not None:
            found.append(CodeBlock(at, len(fence[1]), fence[2].lower()))
        elif not fence[2] and len(fence[1]) >= found[-1].width:
            found[-1] = replace(found[-1], end=at)
    return found
