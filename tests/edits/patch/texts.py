"""Files, and edits of them in every form."""

from __future__ import annotations

from difflib import SequenceMatcher, unified_diff
from pathlib import Path

import pytest

from controller.edits.patch import MAX_MESSAGE, PatchError, apply

TRAIN = (Path(__file__).parents[3] / "train" / "train.py").read_text()
SMALL = """\
import prepare

DEPTH = 8
RATE = 0.1  # of learning


def first(x):
    y = x + 1
    return y


def second(x):
    y = x + 2
    return y


trial = prepare.trial()
trial.ready(first, [])
while trial.more(tokens=DEPTH, loss=RATE):
    first(second(1))
trial.serve(first)
"""
FENCED = '"""How to call it:\n\n```\nmain()\n```\n"""\nA = 1\n'


def block(old: str, new: str, width: int = 7) -> str:
    return f"{'<' * width} SEARCH\n{old}{'=' * width}\n{new}{'>' * width} REPLACE\n"


def diff(before: str, after: str, context: int = 3) -> str:
    lines = (text.splitlines(keepends=True) for text in (before, after))
    return "".join(unified_diff(*lines, "a/train/train.py", "b/train/train.py", n=context))


def blocks_between(before: list[str], after: list[str]) -> str | None:
    """Blocks that make one of the other, each with as many lines around as make it one of a kind, where that can be."""
    now, edit, shift = list(before), "", 0
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        start, end = a + shift, b + shift
        low, high = start, end
        while True:
            keys = [line.rstrip(" \f") for line in now]
            places = [at for at in range(len(keys)) if keys[at : at + high - low] == keys[low:high]]
            if any(keys[low:high]) and len(places) == 1:
                break
            if (low, high) == (0, len(now)):
                return None
            low, high = max(low - 1, 0), min(high + 1, len(now))
        old, new = now[low:high], [*now[low:start], *after[c:d], *now[end:high]]
        edit += block(*("".join(f"{line}\n" for line in lines) for lines in (old, new)), 9)
        now[low:high] = new
        shift += (d - c) - (b - a)
    assert now == after
    return edit


def refused(source: str, edit: str) -> PatchError:
    with pytest.raises(PatchError) as caught:
        apply(source, edit)
    error = caught.value
    assert len(str(error)) <= MAX_MESSAGE
    assert str(error).startswith(error.sentence) and "\n" not in error.sentence
    assert error.exit_code == 2
    return error
