from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.edits import SourceError, fit, read_knobs, set_knobs
from controller.records import UserError, Value

SCALARS = (
    st.booleans()
    | st.integers(-(2**100), 2**100)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
)
VALUES = st.recursive(SCALARS | st.none(), lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)
LINES = (
    "NAME = VALUE",
    "NAME: object = VALUE  # größer — 学習率",
    "é = 'ü'; NAME = VALUE; ß = 1",
    "NAME = (  # ✓\n    VALUE\n)",
    "NAME = \\\n  VALUE",
)
NEWLINES = ("\n", "\r\n", "\r")


@st.composite
def files(draw: st.DrawFn) -> tuple[str, dict[str, Value]]:
    """A file with a place for each knob's value, and the values."""
    values = {f"KNOB_{i}": value for i, value in enumerate(draw(st.lists(VALUES, min_size=1, max_size=5)))}
    lines = [draw(st.sampled_from(LINES)).replace("NAME", name).replace("VALUE", f"{{{name}}}") for name in values]
    text = "# ein Kommentar: ä\n" + "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n\nprint(KNOB_0)\n"]))
    return text.replace("\n", draw(st.sampled_from(NEWLINES))), values


def filled(file: str, values: dict[str, Value]) -> str:
    return file.format(**{name: repr(value) for name, value in values.items()})


def alike(value: Value) -> st.SearchStrategy[Value]:
    """Other values that a knob holding this one can hold."""
    match value:
        case bool():
            return st.booleans()
        case int():
            return st.integers(-(2**100), 2**100)
        case float():
            return st.floats(allow_nan=False, allow_infinity=False)
        case str():
            return st.text(max_size=9)
        case tuple():
            return st.tuples(*map(alike, value))
        case None:
            return VALUES


@given(files())
def test_knobs_are_read_as_they_were_written(made: tuple[str, dict[str, Value]]) -> None:
    file, values = made
    assert repr(read_knobs(filled(file, values))) == repr(values)


@given(files(), st.data())
def test_what_is_set_reads_back_and_nothing_else_changes(
    made: tuple[str, dict[str, Value]], data: st.DataObject
) -> None:
    file, values = made
    wanted = {name: data.draw(alike(value)) for name, value in values.items() if data.draw(st.booleans())}
    changed = set_knobs(filled(file, values), wanted)
    assert repr(read_knobs(changed)) == repr(values | wanted)
    assert changed == filled(file, values | wanted)


def test_only_the_value_s_own_characters_are_replaced() -> None:
    source = (
        "é = 'ü'; LR: float = 4e-2  # Lernrate ≥ 0\r\nBATCH = 2**19\r\nBETAS = (\r\n    0.8,\r\n    0.95,\r\n)  # β\r\n"
    )
    changed = set_knobs(source, {"LR": 1, "BETAS": (0.9, 0.95)})
    assert changed == "é = 'ü'; LR: float = 1.0  # Lernrate ≥ 0\r\nBATCH = 2**19\r\nBETAS = (0.9, 0.95)  # β\r\n"


def test_a_knob_that_has_the_value_already_keeps_its_spelling() -> None:
    assert set_knobs("BATCH = 2**19\n", {"BATCH": 524288}) == "BATCH = 2**19\n"


@pytest.mark.parametrize(
    "source",
    [
        "A = 1\nA = 2",
        "A = 1\nif True:\n    A = 2",
        "A = 1\ndef f():\n    global A\n    A = 2",
        "A = 1\nfor A in (): pass",
        "import a as A\nA = 1",
        "A = B = 1",
        "A, B = 1, 2",
        "A = [1]",
        "A = {'a': 1}",
        "A = f(1)",
        "A = 1j",
        "A = b'a'",
        "A = ...",
        "A = 1e999",
        "A = 9**9**9",
        "A = 2**100000",
        "A = 1 << 10**9",
        "A = 'a' * 10**9",
        "A = '%1000000000d' % 1",
        "A = (((((1,) * 1000,) * 1000,) * 1000,) * 1000)",
        "A = 0x" + "f" * 10_000,
        "A = 1 / 0",
        "A: int",
        "lower = 1",
        "_A = 1",
        "def f():\n    A = 1",
    ],
)
def test_what_is_no_knob(source: str) -> None:
    assert read_knobs(source) == {}


@pytest.mark.parametrize(
    "source",
    [
        "A = (",
        "A = 1\0",
        "A = " + "(" * 5000 + ")" * 5000,
        "A = " + "-" * 100_000 + "1",
        "A = a" + ".a" * 100_000,
        "A = 1" + "+1" * 100_000,
        "A = " + "9" * 10_000,
        "A = '\ud800'",
        "a" * 1_000_001,
        "if 1:\n" + "elif 1: pass\n" * 3000,
    ],
)
def test_a_hostile_file_is_one_clean_error(source: str) -> None:
    with pytest.raises(SourceError):
        read_knobs(source)


def test_a_syntax_error_names_its_line() -> None:
    with pytest.raises(SourceError, match="line 2: ") as caught:
        read_knobs("A = 1\nB = = 2\n")
    assert caught.value.line == 2


def test_a_dubious_escape_is_not_our_business() -> None:
    assert read_knobs(r"A = '\d'") == {"A": r"\d"}


@pytest.mark.parametrize(
    ("current", "value"),
    [
        (1, 1.0),
        (1, True),
        (1, "1"),
        (1, 2**2000),
        (1.0, True),
        (1.0, float("inf")),
        (1.0, float("nan")),
        (1.0, 10**400),
        (True, 1),
        ("a", 1),
        ("a", "b" * 100_000),
        ((1, 2.0), (1, 2.0, 3)),
        ((1, 2.0), (1.0, 2.0)),
        ((1, 2.0), 1),
        (1, None),
        ((1,), (None,)),
    ],
)
def test_a_value_of_another_kind_is_refused(current: Value, value: Value) -> None:
    with pytest.raises(UserError, match="KNOB cannot be ") as caught:
        fit("KNOB", current, value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("current", "value", "held"), [(1.0, 2, 2.0), ((1, 2.0), (3, 4), (3, 4.0)), (None, "a", "a")])
def test_a_value_of_the_kind_is_held(current: Value, value: Value, held: Value) -> None:
    assert repr(fit("KNOB", current, value)) == repr(held)


@pytest.mark.parametrize(
    ("name", "says"), [("MATRX_LR", "did you mean MATRIX_LR"), ("matrix_lr", "MATRIX_LR"), ("ZZZ", "choose one of")]
)
def test_an_unknown_knob_gets_the_closest_names(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        set_knobs("MATRIX_LR = 0.04\nDEPTH = 8\n", {name: 1})


def test_setting_never_runs_the_file() -> None:
    source = "import sys\nsys.exit('ran')\nA = 1\n"
    assert ast.unparse(ast.parse(set_knobs(source, {"A": 2}))).endswith("A = 2")
