from __future__ import annotations

import pytest

from controller.edits.patch import apply
from tests.edits.patch.texts import FENCED, SMALL, block, refused

DOCUMENTED = FENCED.replace("```\nmain", "```bash\nmain")
MARKED = "'''\n" + block("A\n", "B\n") + "@@ -1 +1 @@\n'''\nA = 1\n"


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
        (f"```python\n{DOCUMENTED}```\n", DOCUMENTED),
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
        ("```python\nA = (\n```diff\n", "block that begins at line 1 of the edit is never closed", "edit"),
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
