"""What a rewrite of train.py is made with: replacing pieces of it, each of which must stand in it exactly once."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from controller.edits import set_knobs
from prepare.profile import TINY

ROOT = Path(__file__).resolve().parents[2]
READY = "trial.ready(model, optimizers)"


def tiny_train() -> str:
    """train.py with the tiny profile's knobs, which touches the training data only once it is ready."""
    source = set_knobs((ROOT / "train/train.py").read_text(encoding="utf-8"), TINY.knobs)
    if source.index("next(data)") > source.index(READY):
        return source
    return replaced(
        source,
        {
            "inputs, targets = next(data)\n": """
                sample = torch.zeros(DEVICE_BATCH_SIZE, SEQUENCE_LENGTH + 1, dtype=torch.int64, device=trial.device)
                inputs, targets = sample[:, :-1], sample[:, 1:]

            """,
            READY: f"""
                {READY}
                inputs, targets = next(data)
            """,
        },
    )


def replaced(source: str, pieces: Mapping[str, str]) -> str:
    """`source` with every old text replaced by its new one; a new text of several lines is indented as the old one is.

    Such a text begins and ends on lines of their own, which do not count.
    """
    for old, new in pieces.items():
        assert source.count(old) == 1, f"{old!r} is there {source.count(old)} times"
        before, after = source.split(old)
        line = before.rpartition("\n")[2]
        margin = line[: len(line) - len(line.lstrip())]
        source = before + textwrap.indent(_plain(new), margin).removeprefix(margin) + after
    return source


def redefined(source: str, **definitions: str) -> str:
    """`source` with other texts, or none, for its functions and classes; a method is named `Class__method`."""
    for name, new in definitions.items():
        lines, (first, end, column) = source.splitlines(keepends=True), _place(source, name)
        source = "".join([*lines[:first], textwrap.indent(_plain(new), " " * column), "\n", *lines[end:]])
    return re.sub(r"\n{4,}", "\n\n\n", source)


def with_definition(source: str, before: str, new: str) -> str:
    """`source` with a new function or class before that of the name `before`."""
    lines, (first, _, _) = source.splitlines(keepends=True), _place(source, before)
    return "".join([*lines[:first], f"{_plain(new)}\n\n\n", *lines[first:]])


def with_knobs(source: str, knobs: str) -> str:
    """`source` with further lines at the top of its block of knobs."""
    title = "# Knobs: one a line, literals only.\n"
    return replaced(source, {title: f"{title}\n{_plain(knobs)}\n"})


def _plain(text: str) -> str:
    return textwrap.dedent(text[1:]).removesuffix("\n") if text.startswith("\n") else text


def _place(source: str, name: str) -> tuple[int, int, int]:
    """Where a definition lies: its first line, the line after its last, and its column."""
    body = ast.parse(source).body
    for part in name.split("__"):
        (found,) = (node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part)
        body = found.body
    assert found.end_lineno is not None
    return min(node.lineno for node in (found, *found.decorator_list)) - 1, found.end_lineno, found.col_offset
