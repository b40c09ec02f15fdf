"""How much code a file is: by its tokens, however it is laid out."""

from __future__ import annotations

import pytest

from controller.edits import SourceError
from controller.edits.size import code_lines

SOURCE = "DEPTH = 4\nfor layer in range(DEPTH):\n    x = f(x, layer)\n"


@pytest.mark.parametrize(
    "same",
    [
        SOURCE.replace("4\n", "8  # deeper\n\n\n"),
        f'"""What it is."""\n{SOURCE}',
        SOURCE.replace("    x = f(x, layer)", "    # why\n    x = f(\n        x,\n        layer\n    )"),
        SOURCE.replace(":\n    x", ":x").replace(":x", ": x"),
        SOURCE.replace("DEPTH = 4\n", 'DEPTH = 4\n"""Layers."""\n'),
    ],
)
def test_layout_comments_and_docstrings_count_for_nothing(same: str) -> None:
    assert code_lines(same) == code_lines(SOURCE) == pytest.approx(1.9)


def test_code_on_one_line_is_no_shorter() -> None:
    assert code_lines("a = 1; b = 2; c = 3") > code_lines("a = 1\nb = 2\nc = 3")


def test_a_string_that_is_used_counts() -> None:
    assert code_lines('f("words")') == pytest.approx(0.4)


def test_what_is_no_python_says_so() -> None:
    with pytest.raises(SourceError, match="change the file"):
        code_lines("f((")
