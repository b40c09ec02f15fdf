from __future__ import annotations

import pytest

from tests.edits.patch.texts import SMALL, TRAIN, block, refused


def test_old_lines_that_are_not_there_are_shown_with_what_is_most_like_them() -> None:
    old = "    loss, step = None, 0\n    trial.ready(model, optimizer)\n    inputs, targets = next(data)\n"
    at = TRAIN[: TRAIN.index("    loss, step = None, 0")].count("\n") + 1
    assert str(refused(TRAIN, "Now:\n" + block(old, "    pass\n"))).splitlines() == [
        "block 1 (line 2 of the edit): its SEARCH text is not in the file; copy the lines to be changed from the file"
        " exactly, indentation included",
        "Most like it (`-` lines are yours, `+` lines the file's):",
        f"{at:>6} |     loss, step = None, 0",
        "-      |     trial.ready(model, optimizer)",
        f"+{at + 1:>5} |     trial.ready(model, optimizers)",
        f"{at + 2:>6} |     inputs, targets = next(data)",
    ]


def test_a_line_that_was_left_out_is_shown() -> None:
    old = "def second(x):\n    return y\n"
    assert str(refused(SMALL, block(old, ""))).splitlines()[2:] == [
        "    12 | def second(x):",
        "+   13 |     y = x + 2",
        "    14 |     return y",
    ]


def test_of_long_texts_the_first_difference_is_shown() -> None:
    lines = TRAIN.splitlines(keepends=True)
    lines[200] = "# no such line\n"
    message = str(refused(TRAIN, block("".join(lines[100:]), "")))
    assert "-      | # no such line" in message and "+  201 | " in message and "   200 | " in message
    assert len(message.splitlines()) <= 14
    long = "A = [" + "1, " * 100 + "]\n"
    assert "1, 1, 2]" in str(refused(long, block(long.replace(" ]", " 2]"), "")))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("y = x + 2\nreturn y\n", "", "line 13 begins with 4 spaces, yours with no white space"),
        ("\ty = x + 2\n", "", "yours with 1 tab"),
        ("   3 | DEPTH = 8\n   4 | RATE = 0.1\n", "", "leave out the line numbers"),
        ("```python\nDEPTH = 8\n```\n", "", "leave out the ``` lines"),
        ("DEPTH = 7\n", "DEPTH = 8\n", "the new lines are there already, at line 3"),
        ("nothing of the kind\n", "", "Nothing in the file is like it."),
        ("DEPTH\u00a0= 8\n", "", "-      | DEPTH\\xa0= 8"),
    ],
)
def test_what_is_wrong_with_old_lines_is_said(old: str, new: str, said: str) -> None:
    assert said in str(refused(SMALL, block(old, new)))
