from __future__ import annotations

from difflib import unified_diff

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from controller.edits.patch import MAX_MESSAGE, PatchError, apply, check
from tests.edits.patch.texts import FENCED, SMALL, TRAIN, block, blocks_between, diff, refused
from tests.rewrites.test_rewrites import NAMES, source_of

LINES = st.lists(
    st.sampled_from(
        [
            "A = 1",
            "A = 1  ",
            "B = 2",
            "    C = 3",
            "",
            "  ",
            "def f():",
            "=======",
            "<<<<<<< SEARCH",
            "S = '\u2028'",
            "\f",
        ]
    ),
    max_size=12,
).filter(lambda lines: any(line.strip(" \f") for line in lines))


@given(LINES, LINES)
def test_blocks_made_from_the_difference_of_two_files_make_one_of_the_other(
    before: list[str], after: list[str]
) -> None:
    assume(before != after)
    source, target = ("".join(f"{line}\n" for line in lines) for lines in (before, after))
    edit = blocks_between(before, after)
    assume(edit is not None)
    assert edit is not None and apply(source, edit) == target


@given(LINES, LINES, st.integers(1, 4))
def test_a_diff_of_two_files_makes_one_of_the_other(before: list[str], after: list[str], context: int) -> None:
    assume(before != after)
    source, target = ("".join(f"{line}\n" for line in lines) for lines in (before, after))
    lines = unified_diff(source.split("\n")[:-1], target.split("\n")[:-1], "x", "x", n=context, lineterm="")
    edit = "\n".join([*lines, ""])
    assert apply(source, edit) == target


ODD = st.sampled_from(
    [
        *(
            "<<<<<<< SEARCH",
            "=======",
            ">>>>>>> REPLACE",
            "<<<<< SEARCH",
            "===== ",
            ">>>>>> REPLACE",
            " <<<<<<< SEARCH",
        ),
        *("```python", "```", "````", "@@", "@@ -1,2 +1,2 @@", "@@ -0,0 +1 @@", "@@@ -1 @@@", "--- a/x", "+++ b/x"),
        *(
            "-- ",
            "-DEPTH = 8",
            "+DEPTH = 9",
            " ",
            "",
            "DEPTH = 8",
            "    y = x + 1",
            "    return y",
            "y = x + 2",
            "\\ No",
        ),
        *("\f", "\r", "'''", "(((", "\u2028", "\x1b[2J", "A = 1", "é\u202e", "   3 | DEPTH = 8", "\udc80", "\0"),
    ]
)


@given(st.lists(ODD, max_size=25), st.sampled_from(["", "\n", SMALL, "A = 1", FENCED]))
def test_any_edit_is_made_or_refused_in_a_message_that_can_be_sent(lines: list[str], source: str) -> None:
    try:
        found = apply(source, "\n".join(lines))
        check(source, found, evaluated=True)
    except PatchError as error:
        assert len(str(error)) <= MAX_MESSAGE
        assert str(error).encode() and "\x1b" not in str(error)


@pytest.mark.parametrize(
    "edit",
    [
        "x" * 10_000_000,
        "<<<<<<< SEARCH\n" * 60_000,
        "<<<<<<< SEARCH\n<<<<<< SEARCH\n" * 30_000,
        "<<<<<<< SEARCH\n" + "=======\n" * 100_000 + ">>>>>>> REPLACE\n",
        block("a\n", "b\n") * 20_000,
        block("a a a a a b\n" * 20_000, "b\n"),
        block("a " * 200_000 + "b\n", "b\n"),
        ">>>>>>> REPLACE\n" * 60_000,
        "```python\n" * 90_000,
        "```python\nx\n```\n" * 20_000,
        "@@ -1 +1 @@\n" * 80_000,
        "@@ -1 +1 @@\n" + "-a a\n" * 150_000,
        "(" * 900_000,
        "x = " + "-" * 500_000 + "1",
        "DEPTH = 8\0",
        block("DEPTH = 8\n", "\ud800\n"),
    ],
    ids=range(16),
)
@pytest.mark.parametrize("source", [SMALL, "a a a a a a\n" * 20_000], ids=["small", "large"])
def test_hostile_edits_are_refused(source: str, edit: str) -> None:
    refused(source, edit)


def test_a_file_that_no_edit_can_be_made_of_is_refused() -> None:
    for source in ("A = 1\0\n", "A = '\udc80'\n", "A = 1\n" * 200_000):
        assert "the file" in refused(source, block("A = 1\n", "A = 2\n")).sentence


@pytest.mark.parametrize("name", NAMES)
def test_an_honest_rewrite_can_be_written_in_every_form_and_passes(name: str) -> None:
    target = source_of(name)
    blocks = blocks_between(TRAIN.split("\n")[:-1], target.split("\n")[:-1])
    assert blocks is not None
    forms = [target, f"```python\n{target}```\n", diff(TRAIN, target), blocks]
    for edit in forms:
        assert apply(TRAIN, edit) == target
    check(TRAIN, target, evaluated=True)
    check(target, TRAIN, evaluated=True)
