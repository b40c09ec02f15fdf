from __future__ import annotations

from collections.abc import Callable

import pytest

from controller.edits.patch import apply
from tests.edits.patch.texts import SMALL, block, refused


@pytest.mark.parametrize(
    "spelled", [lambda text: text.replace("\n", "\r\n"), lambda text: text.replace("\n", "  \t\n")]
)
def test_line_ends_and_white_space_at_them_do_not_matter_in_file_or_edit(spelled: Callable[[str], str]) -> None:
    edit = block("DEPTH = 8\nRATE = 0.1  # of learning\n", "DEPTH = 9\nRATE = 0.1  # of learning\n")
    expected = SMALL.replace("DEPTH = 8", "DEPTH = 9")
    assert apply(SMALL, spelled(edit)).replace("  \t\n", "\n") == expected
    assert apply(spelled(SMALL), edit).replace("  \t", "").replace("\r", "") == expected


def test_lines_that_stay_are_left_as_the_file_has_them() -> None:
    source = 'A = 1\r\nS = """  \r\n two  \r\n"""\r\nB = 1'
    edit = block('S = """\n two\n"""\nB = 1\n', 'S = """\n two\n"""\nB = 2\nC = 3\n')
    assert apply(source, edit) == 'A = 1\r\nS = """  \r\n two  \r\n"""\r\nB = 2\r\nC = 3'


def test_a_file_without_a_last_line_end_stays_without() -> None:
    assert apply("A = 1\nB = 2", block("B = 2\n", "B = 3\n")) == "A = 1\nB = 3"
    assert apply("A = 1\nB = 2", block("B = 2\n", "")) == "A = 1"


def test_other_characters_than_line_ends_end_no_line() -> None:
    source = "\fA = 1\nS = '\u2028\x1c\x85'\nB = 2\n"
    assert apply(source, block("S = '\u2028\x1c\x85'\n", "S = ''\n")) == "\fA = 1\nS = ''\nB = 2\n"
    assert "at lines 1, 3" in refused("\fA = 1\nB = '\v'\n\fA = 1\n", block("\fA = 1\n", "")).sentence


def test_old_lines_must_be_there_once() -> None:
    error = refused(SMALL, block("    return y\n", "    return 2 * y\n"))
    assert "2 times, at lines 9, 14; add lines around it" in error.sentence
    assert "block 1 (line 1 of the edit)" in error.sentence
    assert apply(SMALL, block("    y = x + 2\n    return y\n", "    return x\n")).count("return y") == 1
    assert "100 times or more, at lines 1, 2," in refused("A = 1\n" * 500, block("A = 1\n", "")).sentence
    assert "2 times, at lines 1, 2;" in refused("A = 1\n" * 3, block("A = 1\nA = 1\n", "")).sentence


def test_numbers_choose_between_several_places() -> None:
    source = "A = 1\nB = 2\n" * 3
    assert apply(source, "@@ -3 +3 @@\n-A = 1\n+A = 9\n") == "A = 1\nB = 2\nA = 9\nB = 2\nA = 1\nB = 2\n"
    assert "3 times, at lines 1, 3, 5" in refused(source, "@@ -4 +4 @@\n-A = 1\n+A = 9\n").sentence
    far = "A = 1\n" + "B = 2\n" * 200 + "A = 1\n"
    assert apply(far, "@@ -190 +190 @@\n-A = 1\n+A = 9\n") == "A = 1\n" + "B = 2\n" * 200 + "A = 9\n"


def test_the_end_of_a_file_is_told_from_a_line() -> None:
    edit = "--- a\n+++ b\n@@ -1,2 +1,2 @@\n A = 1\n-B = 2\n\\ No newline at end of file\n+B = 3\n"
    assert apply("A = 1\nB = 2", edit) == "A = 1\nB = 3"
