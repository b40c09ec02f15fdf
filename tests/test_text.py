"""What others wrote does nothing to a terminal, and stays readable."""

from __future__ import annotations

from controller.text import describe, one_line, printable

HOSTILE = "a\x1b[2J\x07b\r\x9b31m\u202ec\x00\n\td"


def test_a_line_has_nothing_that_a_terminal_obeys() -> None:
    assert one_line(HOSTILE) == "a [2J b 31m c d"
    assert one_line(" plain  text ") == "plain text"


def test_lines_and_tabs_stay_and_other_controls_are_written_out() -> None:
    assert printable(HOSTILE) == "a\\x1b[2J\\x07b\\r\\x9b31m\\u202ec\\x00\n\td"
    assert printable("naïve — 模型\n") == "naïve — 模型\n"


def test_knobs_are_named_with_their_values() -> None:
    assert describe({"DEPTH": 1, "RATE": 0.02, "SHAPE": "\x1b[1mwide"}) == "DEPTH=1, RATE=0.02, SHAPE= [1mwide"
    assert describe({}) == ""
