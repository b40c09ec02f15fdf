from __future__ import annotations

import pytest

from controller.edits.patch import apply
from tests.edits.patch.texts import SMALL, diff, refused

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


def test_a_code_block_that_is_not_closed_before_the_next_holds_that_one_too() -> None:
    one, other = (
        f"```diff\n{edit}" for edit in ("@@\n-DEPTH = 8\n+DEPTH = 9\n", "@@\n-    y = x + 2\n+    y = x + 3\n")
    )
    assert apply(SMALL, f"{one}{other}```\n") == apply(SMALL, f"{one}```\nand\n{other}```\n") == DEEPER


def test_only_what_stands_in_code_blocks_counts_where_a_hunk_does() -> None:
    edit = "@@ -3 +3 @@ is where it is:\n```diff\n@@ -3 +3 @@\n-DEPTH = 8\n+DEPTH = 9\n```\n+ and no more\n"
    assert apply(SMALL, edit) == SMALL.replace("DEPTH = 8", "DEPTH = 9")
