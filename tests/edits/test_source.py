from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.edits import SourceError, knobs, model_digest, read_knobs, set_knobs, source
from controller.edits.resolve import _digest_as_is, _taken_apart_as_is
from controller.edits.source import parse

TRAIN = (Path(__file__).parents[2] / "train" / "train.py").read_text()
LINES = st.sampled_from(
    [
        "A = 1\n",
        "B = 2  # two\n",
        "é = 'ü'; C = (\n    3,\n)\n",
        "D = 4; E = 5\n",
        "F = 6; \\\n",
        "G = 7 \\\n",
        "H = 8",
        "I = 9\r\n",
        "J = 10\rK = 11\n",
        "\x0cL = 12\n",
        "+ 1\n",
        "(1)\n",
        "\\\n",
        "\n",
        "    \n",
        "\r",
        "# a remark \\\n",
        "    # another\n",
        "    M = 13\n",
        "if A:\n",
        "else:\n",
        "elif B:\n    pass\n",
        "try:\n    N = 14\n",
        "except A:\n    pass\n",
        "@cached\n",
        "@(\ncached)\n",
        "def f():\n    global A\n    A = 2\n",
        "class O:\n    P = 15\n",
        "match A:\n    case 1:\n        Q = 16\n",
        "    case 2: pass\n",
        "match (A)\n",
        '"""\n',
        "S = '''\nT = 17\n'''\n",
        "from x import *\n",
        "import A\n",
        ")\n",
        "\0\n",
        "\ufeff",
        "\ud800\n",
    ]
)


def facts(text: str) -> object:
    """All that is known of a file, and the places of its constants; the line where it stops being one."""
    parse.cache_clear()
    try:
        module = parse(text)
    except SourceError as error:
        return str(error)
    dump = ast.dump(ast.Module(list(module.body), []))
    constants = []
    for found in module.constants:
        value = found.value
        assert value.end_lineno is not None
        place = value.lineno + found.shift, value.col_offset, value.end_lineno + found.shift, value.end_col_offset
        constants.append((found.name, *place))
    assert "".join(piece.text for piece in module.pieces) == text
    return dump, module.bound, constants


def facts_of_a_first_file(text: str) -> object:
    source._recent.clear()
    return facts(text)


@given(st.lists(LINES, max_size=8), st.data())
@settings(max_examples=400)
def test_a_file_is_parsed_as_if_no_other_had_been_before(lines: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(lines)))
    last = data.draw(st.integers(first, len(lines)))
    changed = [*lines[:first], *data.draw(st.lists(LINES, max_size=3)), *lines[last:]]
    one, other = "".join(lines), "".join(changed)
    expected = facts_of_a_first_file(other)
    facts_of_a_first_file(one)
    assert facts(other) == expected
    try:
        tree = ast.parse(other)
    except (SyntaxError, ValueError):
        assert isinstance(expected, str)
    else:
        assert isinstance(expected, tuple) and expected[0] == ast.dump(tree)


def test_of_a_file_like_the_last_one_only_what_differs_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = facts_of_a_first_file(changed := set_knobs(TRAIN, {"DEPTH": 4, "MATRIX_LR": 0.5}))
    facts_of_a_first_file(TRAIN)
    parsed: list[str] = []
    whole = ast.parse
    monkeypatch.setattr(ast, "parse", lambda text: parsed.append(text) or whole(text))
    assert facts(changed) == expected
    (text,) = parsed
    assert "DEPTH = 4" in text and "MATRIX_LR = 0.5" in text and len(text) < len(TRAIN) / 4


@pytest.mark.parametrize("knob", ["DEPTH", "ASPECT_RATIO", "ADAM_BETAS", "WINDOW_PATTERN", "MATRIX_LR"])
def test_knobs_can_be_set_in_a_file_that_was_parsed_in_part(knob: str) -> None:
    value = read_knobs(TRAIN)[knob]
    first, second = {int: (3, 5), float: (0.125, 0.5), str: ("L", "S"), tuple: ((0.5, 0.25), (0.0, 0.0))}[type(value)]
    longer = TRAIN.replace("\nimport", "\n# more\n# lines\nimport", 1)
    changed = set_knobs(longer, {knob: first})
    assert read_knobs(changed) == read_knobs(TRAIN) | {knob: first}
    assert set_knobs(changed, {knob: second}) == set_knobs(longer, {knob: second})


def forget() -> None:
    for remembers in (parse, knobs._knobs, _taken_apart_as_is, _digest_as_is):
        remembers.cache_clear()
    source._recent.clear()


def test_the_digest_of_a_model_does_not_depend_on_what_was_parsed_before() -> None:
    text = 'A = 1  # one\nB = A * 2\n"""Docs."""\ndef f(x=B):\n    """More."""\n    return [x, "A", 0x10, -1.5, ...]\n'
    forget()
    expected = model_digest(text)
    for before in (TRAIN, text.replace("= 1", "= 3"), text + "f()\n", text.replace("def f", "# a remark\n\n\ndef f")):
        forget()
        model_digest(before)
        assert model_digest(text) == expected
