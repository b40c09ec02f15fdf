from __future__ import annotations

from collections.abc import Callable
from difflib import SequenceMatcher, unified_diff
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from controller.edits import SourceError, model_digest
from controller.edits.patch import MAX_MESSAGE, PatchError, apply, check
from controller.records import Objection
from tests.rewrites.test_rewrites import NAMES, source_of

TRAIN = (Path(__file__).parents[2] / "train" / "train.py").read_text()
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


def block(old: str, new: str, width: int = 7) -> str:
    return f"{'<' * width} SEARCH\n{old}{'=' * width}\n{new}{'>' * width} REPLACE\n"


def refused(source: str, edit: str) -> PatchError:
    with pytest.raises(PatchError) as caught:
        apply(source, edit)
    error = caught.value
    assert len(str(error)) <= MAX_MESSAGE
    assert str(error).startswith(error.sentence) and "\n" not in error.sentence
    assert error.exit_code == 2
    return error


def objected(before: str, after: str, *, evaluated: bool = True) -> PatchError:
    with pytest.raises(PatchError) as caught:
        check(before, after, evaluated)
    assert len(str(caught.value)) <= MAX_MESSAGE
    return caught.value


# Blocks


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "I would go deeper.\n\ntrain/train.py\n```python\n{}```\n\n- one\n- two\n",
        "`train/train.py`:\n{}Done\n=======\n",
        "\ufeff{}",
        "<<<<<<<SEARCH>\nDEPTH = 8\n======\nDEPTH = 9\n>>>>>>>>> replace  \n",
    ],
)
def test_a_block_is_read_whatever_is_around_it(form: str) -> None:
    edit = form.format(block("DEPTH = 8\n", "DEPTH = 9\n"))
    assert apply(SMALL, edit) == SMALL.replace("DEPTH = 8", "DEPTH = 9")


def test_blocks_are_applied_one_to_what_the_other_left() -> None:
    edit = (
        block("DEPTH = 8\n", "DEPTH = 9\nWIDTH = 3\n") + "then\n" + block("WIDTH = 3\n", "") + block("DEPTH = 9\n", "")
    )
    assert apply(SMALL, edit) == SMALL.replace("DEPTH = 8\n", "")
    assert "earlier part of this edit" in str(refused(SMALL, block("DEPTH = 8\n", "DEPTH = 9\n") * 2))


def test_lines_are_inserted_by_repeating_one() -> None:
    assert apply(SMALL, block("DEPTH = 8\n", "DEPTH = 8\nWIDTH = 3\n")) == SMALL.replace("= 8\n", "= 8\nWIDTH = 3\n")


@pytest.mark.parametrize("old", ["", "\n", "   \n\n"])
def test_an_empty_search_is_for_empty_files_alone(old: str) -> None:
    error = refused(SMALL, block(old, "A = 1\n"))
    assert error.label is Objection.EDIT and "repeat it beside the new ones" in error.sentence
    for nothing in ("", "\n\n"):
        assert apply(nothing, block(old, "A = 1\n")) == "A = 1\n"


def test_what_looks_like_a_marker_is_text_where_the_markers_are_wider() -> None:
    source = '"""\nTitle\n=======\n<<<<<<< SEARCH\n"""\nA = 1\n'
    changed = source.replace("Title", "Other")
    assert apply(source, block("Title\n=======\n<<<<<<< SEARCH\n", "Other\n=======\n<<<<<<< SEARCH\n", 9)) == changed
    assert "another number of characters" in refused(source, block("Title\n=======\n", "Other\n=======\n")).sentence


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("<<<<<<< SEARCH\nDEPTH = 8\n=======\nDEPTH = 9\n", "may have been cut off"),
        ("<<<<<<< SEARCH\nDEPTH = 8\n=======\n" + block("a\n", "b\n"), "before the next block begins"),
        ("<<<<<<< SEARCH\nDEPTH = 8\n>>>>>>> REPLACE\n", "no line `=======`"),
        (
            block("DEPTH = 8\n", "DEPTH = 9\n") + ">>>>>>> REPLACE\n",
            "line 6 of the edit is a marker in the wrong place",
        ),
        (block("DEPTH = 8\n", "") + "  <<<<<<< SEARCH\n", "at the start of a line"),
        ("<<<<<<< ORIGINAL\nDEPTH = 8\n=======\nDEPTH = 9\n>>>>>>> UPDATED\n", "a block is `<<<<<<< SEARCH`"),
        (block("DEPTH = 8\n", "DEPTH = 8\n") * 101, "more than 100 blocks"),
    ],
)
def test_a_malformed_block_is_refused_with_its_form(edit: str, said: str) -> None:
    assert said in refused(SMALL, edit).sentence


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


# Whole files

MARKED = "'''\n" + block("A\n", "B\n") + "@@ -1 +1 @@\n'''\nA = 1\n"
FENCED = '"""How to call it:\n\n```\nmain()\n```\n"""\nA = 1\n'


@pytest.mark.parametrize(
    ("edit", "whole"),
    [
        (SMALL, SMALL),
        (SMALL.removesuffix("\n").replace("\n", "\r\n"), SMALL),
        (MARKED, MARKED),
        (f"Here it is:\n\n```python\n{SMALL}```\nIt is good.\n", SMALL),
        (f"```\n{SMALL}```", SMALL),
        (f"```bash\npip install\n```\n```py\n{SMALL}```\n```\noutput\n```\n", SMALL),
        (FENCED, FENCED),
        (f"```python\n{FENCED}```\n", FENCED),
        (f"````python\n{FENCED}````\n", FENCED),
    ],
)
def test_a_whole_file_is_taken_bare_or_from_its_code_block(edit: str, whole: str) -> None:
    assert apply("A = 2\n", edit) == whole
    assert apply("A = 2\r\n", edit) == whole.replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("edit", "said", "label"),
    [
        ("", "the edit is empty", "edit"),
        (" \n\t\r\n", "the edit is empty", "edit"),
        ("```python\nA = 1\n", "never closed", "edit"),
        ("```python\nA = 1\n```\nor\n```python\nA = 2\n```\n", "2 code blocks", "edit"),
        ("```python\n\n```\n", "nothing would be left", "edit"),
        ("I would raise the rate.\n", "line 1: invalid syntax", "syntax"),
        ("Done\n", "it has no statement", "syntax"),
        ("A = 1\nB = (\n", "line 2: '(' was never closed", "syntax"),
    ],
)
def test_what_is_no_file_is_refused(edit: str, said: str, label: str) -> None:
    error = refused(SMALL, edit)
    assert said in error.sentence and error.label == label


# Diffs


def diff(before: str, after: str, context: int = 3) -> str:
    lines = (text.splitlines(keepends=True) for text in (before, after))
    return "".join(unified_diff(*lines, "a/train/train.py", "b/train/train.py", n=context))


DEEPER = SMALL.replace("DEPTH = 8", "DEPTH = 9").replace("x + 2", "x + 3")


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "diff --git a/train/train.py b/train/train.py\nindex 12ab..34cd 100644\n{}",
        "From 12ab Mon Sep 17\nSubject: deeper\n\n---\n train.py | 4 ++--\n\ndiff --git a/x b/x\n{}-- \n2.39.2\n\n",
        "I would go deeper.\n```diff\n{}```\n- That is all.\n+ Indeed.\n",
        "{}\n\nThat is all.\n",
    ],
)
@pytest.mark.parametrize("context", [1, 3, 30])
def test_a_diff_is_read_whatever_is_around_it(form: str, context: int) -> None:
    assert apply(SMALL, form.format(diff(SMALL, DEEPER, context))) == DEEPER


def test_hunks_are_found_by_their_lines() -> None:
    moved = "# one\n# two\n" + SMALL
    assert apply(moved, diff(SMALL, DEEPER)) == "# one\n# two\n" + DEEPER
    wrong = diff(SMALL, DEEPER).replace("@@ -1,6 +1,6 @@", "@@ -99,1 +7,70 @@")
    assert wrong != diff(SMALL, DEEPER)
    assert apply(SMALL, wrong) == DEEPER
    bare = "@@\n-DEPTH = 8\n+DEPTH = 9\n RATE = 0.1  # of learning\n@@ def second(x):\n-    y = x + 2\n+    y = x + 3\n"
    assert apply(SMALL, bare) == apply(SMALL, f"So:\n```diff\n{bare}```\n") == DEEPER
    squeezed = "\n".join(line.rstrip() for line in diff(SMALL, DEEPER).splitlines())
    assert apply(SMALL, squeezed) == DEEPER


def test_numbers_choose_between_several_places() -> None:
    source = "A = 1\nB = 2\n" * 3
    assert apply(source, "@@ -3 +3 @@\n-A = 1\n+A = 9\n") == "A = 1\nB = 2\nA = 9\nB = 2\nA = 1\nB = 2\n"
    assert "3 times, at lines 1, 3, 5" in refused(source, "@@ -4 +4 @@\n-A = 1\n+A = 9\n").sentence
    far = "A = 1\n" + "B = 2\n" * 200 + "A = 1\n"
    assert apply(far, "@@ -190 +190 @@\n-A = 1\n+A = 9\n") == "A = 1\n" + "B = 2\n" * 200 + "A = 9\n"


def test_the_end_of_a_file_is_told_from_a_line() -> None:
    edit = "--- a\n+++ b\n@@ -1,2 +1,2 @@\n A = 1\n-B = 2\n\\ No newline at end of file\n+B = 3\n"
    assert apply("A = 1\nB = 2", edit) == "A = 1\nB = 3"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n--- a/y.py\n+++ b/y.py\n@@ -1 +1 @@\n-a\n+b\n", "only one file"),
        ("--- a/x.py\n+++ b/x.py\n", "no hunk"),
        ("@@ -3,0 +4 @@\n+WIDTH = 1\n", "no old lines"),
        ("@@ -3,2 +3,2 @@\n-DEPTH = 8\nRATE = 0.1\n", "line 3 begins with neither"),
        ("@@ -3 +3 @@\n-DEPTH = 8\n+DEPTH = 9\n\nso\n+WIDTH = 1\n", "line 6 of the diff stands outside a hunk"),
        ("@@ -3 +3 @@\n-DEPTH = 7\n+DEPTH = 9\n", "its old lines are not in the file"),
        ("@@ -3 +3 @@\n-DEPTH = 8\n+DEPTH = 8\n" * 101, "more than 100 hunks"),
    ],
)
def test_a_malformed_diff_is_refused(edit: str, said: str) -> None:
    assert said in refused(SMALL, edit).sentence


# Any edit

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


# What comes out


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


def test_what_does_not_parse_is_shown() -> None:
    error = objected(SMALL, SMALL.replace("x + 2", "x + + )"))
    assert error.label is Objection.SYNTAX
    assert str(error).splitlines() == [
        "it does not parse: line 13: unmatched ')'; change the file so that Python can parse it",
        "The edited file there:",
        "    11 | ",
        "    12 | def second(x):",
        ">   13 |     y = x + + )",
        "    14 |     return y",
        "    15 | ",
    ]


@pytest.mark.parametrize(
    "after",
    ["(" * 10_000, "x = " + "-" * 100_000 + "1", "A = 1\0", "A = '\ud800'", "#" * 1_100_000, "if A:\n", "\x0c)"],
)
def test_what_python_cannot_parse_is_refused(after: str) -> None:
    assert objected(SMALL, after).label is Objection.SYNTAX


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # of learning", ""),
        ("DEPTH = 8\nRATE = 0.1", "RATE = 0.1\nDEPTH = 8"),
        ("DEPTH = 8", "DEPTH = 0x8"),
        ("RATE = 0.1", "RATE = 1e-1"),
        ("x + 2", "((x) + 0b10)"),
        ("    y = x + 2\n", '    """Adds."""\n    y = (\n        x + 2\n    )\n'),
        ("import prepare", '"""A file."""\nimport prepare;'),
    ],
)
def test_an_edit_that_changes_nothing_is_refused(old: str, new: str) -> None:
    assert SMALL.count(old) == 1
    after = SMALL.replace(old, new)
    error = objected(SMALL, after)
    assert error.label is Objection.NO_OP and "only comments, docstrings or layout" in error.sentence
    assert "the edit changes nothing" in objected(SMALL, SMALL).sentence
    assert model_digest(after) == model_digest(SMALL)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("f('a')", 'f("""a""")', True),
        ("f('a' 'b')", "f('ab')", True),
        ("f(1_000, 1e3)", "f(1000, 1000.)", True),
        ("f(1)", "f(1.0)", False),
        ("f(1)", "f(True)", False),
        ("f(0.0)", "f(-0.0)", False),
        ("f(a, (b))", "f(a, b,)", True),
        ("f(a, (b,))", "f(a, b)", False),
        ("def g(x): return x", "def g(y): return y", False),
        ("f(b'a')", "f('a')", False),
        ("a = 1; b = 2", "a = 1\nb = 2", True),
        ("if a:\n    b()", "if a: b()", True),
        ("f(a + b + c)", "f(a + (b + c))", False),
        ("class C:\n    'docs'\n    x = 1", "class C:\n    x = 1", True),
    ],
)
def test_a_model_s_digest_ignores_spelling_and_nothing_else(one: str, other: str, same: bool) -> None:
    assert (model_digest(one) == model_digest(other)) is same


def test_an_edit_may_make_a_knob_of_a_number() -> None:
    """The model is the same until the knob is varied."""
    before = SMALL.replace("RATE = 0.1", "RATE = 2.0 * 8.0")
    check(before, before.replace("RATE = 2.0", "FACTOR = 2.0\nRATE = FACTOR"), evaluated=True)


@pytest.mark.parametrize("call", ["trial.serve(first)", "trial.ready(first, [])"])
def test_a_part_of_the_protocol_that_is_lost_is_named(call: str) -> None:
    without = SMALL.replace(call, f"print({call!r})  # {call}")
    error = objected(SMALL, without)
    assert error.label is Objection.EDIT
    assert f"`{call.partition('(')[0]}(" in error.sentence and "`trial.more" not in error.sentence
    check(SMALL, without, evaluated=False)
    check(without, without.replace("x + 2", "x + 3"), evaluated=True)


def test_a_file_that_never_opens_a_trial_is_refused() -> None:
    error = objected(SMALL, "DEPTH = 9\n")
    assert all(f"{word}(" in error.sentence for word in ("prepare.trial", "trial.ready", "trial.more", "trial.serve"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("trial = prepare.trial()", "from prepare import trial as begin\n\ntrial = begin()"),
        ("trial = prepare.trial()", "from prepare.protocol import Trial\n\ntrial = Trial.open()"),
        ("import prepare\n", "import prepare, prepare.loader\nimport prepare.loader as loader\n"),
        ("while trial.more(tokens", "more = trial.more\nwhile more(tokens"),
        ("def first(x):", "def first(x):\n    prepare = x\n    prepared = x"),
        ("def first(x):", "class Data:\n    def prepare(self):\n        self.prepare = 1\n\n\ndef first(x):"),
    ],
)
def test_the_protocol_may_be_followed_in_other_words(old: str, new: str) -> None:
    check(SMALL, SMALL.replace(old, new).replace("x + 2", "x + 3"), evaluated=True)


@pytest.mark.parametrize(
    "line",
    [
        "prepare.evaluation.cross_entropy = max",
        "prepare.trial = max",
        "del prepare.trial",
        "import torch as prepare",
        "import prepare.loader as prepare",
        "from fake import prepare",
        "from fake import other as prepare",
        "prepare = max",
        "for prepare in range(3): pass",
        "def prepare(): pass",
        "class prepare: pass",
        "def f():\n    sys.modules['prepare.evaluation'] = max",
    ],
)
def test_nothing_may_take_the_place_of_the_evaluator(line: str) -> None:
    after = SMALL.replace("DEPTH = 8", f"{line}\nDEPTH = 8")
    error = objected(SMALL, after)
    assert error.label is Objection.EDIT and "the evaluator's and stays as it is" in error.sentence
    check(SMALL, after, evaluated=False)
    check(after, after.replace("x + 2", "x + 3"), evaluated=True)


def test_an_incumbent_that_does_not_parse_is_not_the_edit_s_fault() -> None:
    with pytest.raises(SourceError):
        check("A = (", SMALL, evaluated=True)
