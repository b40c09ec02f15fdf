from __future__ import annotations

import pytest

from controller.edits.patch import apply
from controller.records import Objection
from tests.edits.patch.texts import SMALL, block, refused


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
