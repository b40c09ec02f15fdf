"""The project's own program.md: every rule in it has code that enforces it, and a test that shows so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from controller.proposers import Context
from controller.proposers.brief import brief
from controller.settings import parse, prose

ROOT = Path(__file__).parents[1]
PROGRAM = (ROOT / "program.md").read_text(encoding="utf-8")
RULES = re.findall(r"^\d+\. \*\*(.+?)\.\*\*", PROGRAM, re.MULTILINE)
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs/AGENTS.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and "::" in line
]


def test_every_rule_has_its_line_in_the_table_of_who_enforces_it() -> None:
    assert len(RULES) == 13 and [row[0] for row in TABLE] == RULES


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_every_test_that_the_table_names_is_there(row: list[str]) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row[2])
    assert named
    for path, name in named:
        tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, f"{path} has no {name}"


def test_agents_are_told_all_of_it_and_the_price_of_a_line() -> None:
    settings = parse(PROGRAM)
    assert settings.simplicity > 0
    told = brief(Context("", True, settings.min_effect, {}, (), 0, program=prose(PROGRAM), simplicity=0.00005))
    for rule in RULES:
        assert rule in told
    assert "has to make it 5e-05 better still" in told and prose(PROGRAM).splitlines()[-1] in told
