"""Text that others wrote, made harmless to show: what a terminal would obey is taken out of it."""

from __future__ import annotations

from controller.records import Knobs


def describe(knobs: Knobs) -> str:
    """`DEPTH=1, MATRIX_LR=0.02`."""
    return one_line(", ".join(f"{name}={value}" for name, value in knobs.items()))


def one_line(text: str) -> str:
    """`text` on one line, each run of white space and of control characters in it one space."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def clip(text: str, most: int) -> str:
    """`one_line` of `text`, of `most` characters at most: what is longer ends in an ellipsis."""
    line = one_line(text[: 10 * most])
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def printable(text: str) -> str:
    """`text` with its lines and tabs, each other control character in it written out: an escape is `\\x1b`."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1] for character in text
    )
