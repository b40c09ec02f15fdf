from __future__ import annotations

import pytest

from controller.edits import SourceError, model_digest
from controller.edits.patch import MAX_MESSAGE, PatchError, check
from controller.records import Objection
from tests.edits.patch.texts import SMALL


def objected(before: str, after: str, *, evaluated: bool = True) -> PatchError:
    with pytest.raises(PatchError) as caught:
        check(before, after, evaluated)
    assert len(str(caught.value)) <= MAX_MESSAGE
    return caught.value


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
    assert objected("DEPTH = 8\n", f"{line}\nDEPTH = 9\n").label is Objection.EDIT


def test_an_incumbent_that_does_not_parse_is_not_the_edit_s_fault() -> None:
    with pytest.raises(SourceError):
        check("A = (", SMALL, evaluated=True)
