"""What an agent's JSON object says, and as much of it as there is room for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.edits import model_digest
from controller.proposers import Context
from controller.proposers.vetting import Intake, Objected, read
from controller.records import Design, Factor, Objection, Proposal

SOURCE = "RATE = 0.5\nWIDTH = 4\nBETAS = (0.9, (1, 2))\nNAME = None\nscore = RATE * WIDTH\n"
CONTEXT = Context(SOURCE, True, 0.0005, {model_digest(SOURCE): "c0000"}, (), 0, edit="train.py", evaluated=False)
IDEA = {"name": "a", "hypothesis": "b", "factors": {"RATE": [1]}}
HUGE = 10**5000  # Python refuses to print it


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def objected(**said: Any) -> Objected:
    with pytest.raises(Objected) as caught:
        read({**IDEA, **said}, CONTEXT)
    return caught.value


def rates(name: str, *levels: float) -> Proposal:
    return read({"name": name, "hypothesis": "b", "factors": {"RATE": list(levels)}}, CONTEXT)


def test_lists_become_tuples_and_each_level_counts_once() -> None:
    factors = {"BETAS": [[0.8, [3, 4]], [1, [3, 4]]], "RATE": [1, 1.0, 2]}
    proposal = read({**IDEA, "factors": factors, "design": "screen"}, CONTEXT)
    assert proposal.factors == (Factor("BETAS", ((0.8, (3, 4)), (1.0, (3, 4)))), Factor("RATE", (1.0, 2.0)))
    assert proposal.design is Design.SCREEN and proposal.edit is None


def test_what_is_no_number_that_a_float_holds_is_refused() -> None:
    for number in (10**309, HUGE, -HUGE, float("inf"), float("nan"), True, "1", [1], nested(100_000)):
        for key in ("predicted", "low", "high"):
            assert str(objected(**{key: number})) == f"{key} must be a finite number: a change of the metric"


def test_an_interval_holds_what_is_predicted_whichever_end_is_named_first() -> None:
    proposal = read({**IDEA, "predicted": -0.1, "low": 0, "high": -0.2}, CONTEXT)
    assert (proposal.low, proposal.high) == (-0.2, 0.0)
    for ends in ({"low": 0.0, "high": -0.2}, {"low": -0.2}, {"high": -0.4}):
        assert "does not hold the predicted change of -0.3" in str(objected(predicted=-0.3, **ends))


def test_what_no_knob_holds_is_refused_however_large_or_deep() -> None:
    for level in (nested(900), nested(100_000), {}, [{}]):
        assert "a level is a number" in str(objected(factors={"NAME": [level]}))
    for level, shown in (
        (HUGE, "a number of 16610 bits"),
        (float("nan"), "nan"),
        ([HUGE], "a value so large"),
        ([0] * 100_000, "(0, 0, 0"),
    ):
        assert f"NAME cannot be {shown}" in str(objected(factors={"NAME": [level]}))


def test_what_must_be_a_text_is_no_other_thing() -> None:
    for value in (7, HUGE, [1], nested(100_000), {"a": 1}):
        for key in ("name", "hypothesis", "falsified_by", "repairs", "design", "edit"):
            assert f"{key} must be a text" in str(objected(**{key: value}))


def test_a_design_that_there_is_not_is_named() -> None:
    assert str(objected(design="half")) == "there is no design half: there are full, sweep, screen"


def test_a_file_that_was_edited_already_is_taken_to_the_letter() -> None:
    edited = SOURCE.replace("WIDTH = 4", "WIDTH = 8\r\nDEPTH = 2").removesuffix("\n")
    proposal = read({**IDEA, "factors": {"DEPTH": [3]}, "edit": "nothing that counts"}, CONTEXT, edited)
    assert proposal.edit == edited and proposal.factors == (Factor("DEPTH", (3,)),)


KEYS = ["name", "hypothesis", "edit", "factors", "design", "predicted", "low", "high", "repairs", "RATE", "BETAS", "x"]
SCALARS = (
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from([10**400, 1, "RATE = 1\n", "full"])
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
)


@given(ANYTHING, st.dictionaries(st.sampled_from(KEYS), ANYTHING), ANYTHING)
def test_whatever_is_said_is_a_proposal_or_refused(alone: Any, said: dict[str, Any], level: Any) -> None:
    for idea in (alone, said, {**IDEA, **said}, {**IDEA, "factors": {"RATE": [level], "BETAS": [[1, level]]}}):
        try:
            read(idea, CONTEXT)
        except Objected as error:
            assert str(error)


def test_proposals_are_taken_as_far_as_there_is_room_for_their_cells() -> None:
    intake = Intake(CONTEXT, 4)
    taken = [rates("a", 1, 2, 3), rates("b", 4, 5)]
    with pytest.raises(Objected, match="it has 6 cells, and there is room for about 4 more"):
        intake.take(rates("all", 1, 2, 3, 4, 5, 6))
    assert intake.left == 4
    for proposal, left in zip(taken, (1, 0), strict=True):
        assert len(intake.take(proposal).models) == len(proposal.factors[0].levels)
        assert intake.left == left
    with pytest.raises(Objected, match="it has 1 cells, and there is room for about 0 more"):
        intake.take(rates("c", 6))
    assert intake.accepted == taken


def test_one_model_is_taken_once_and_said_to_be_whose() -> None:
    intake = Intake(CONTEXT, 12)
    intake.take(rates("a", 1, 2))
    assert intake.take(rates("b", 2, 3)).left_out == ("RATE=2.0: it is the same model as a cell of your proposal 'a'",)
    with pytest.raises(Objected, match="a cell of your proposal 'b'") as caught:
        intake.take(rates("c", 3))
    assert caught.value.label is Objection.DUPLICATE
    assert [one.name for one in intake.accepted] == ["a", "b"] and intake.left == 9
