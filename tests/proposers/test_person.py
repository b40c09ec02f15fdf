from __future__ import annotations

import pytest

from controller.proposers import Context, Person
from controller.records import Design, Factor, UserError

CONTEXT = Context("DEPTH = 2\nMATRIX_LR = 0.04\n", True, 0.0005, {}, (), 0)


async def test_a_person_asks_once_for_every_combination() -> None:
    person = Person([Factor("DEPTH", (1, 2)), Factor("MATRIX_LR", (0.02, 1))])
    (proposal,) = await person.propose(CONTEXT, 1)
    assert proposal.name == "DEPTH × MATRIX_LR"
    assert proposal.hypothesis == "DEPTH ∈ {1, 2} × MATRIX_LR ∈ {0.02, 1.0}: which combination is best?"
    assert proposal.factors == (Factor("DEPTH", (1, 2)), Factor("MATRIX_LR", (0.02, 1.0)))
    assert proposal.design is Design.FULL and proposal.edit is None
    assert await person.propose(CONTEXT, 100) == []


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        ([Factor("DEPHT", (1, 2))], "did you mean DEPTH"),
        ([Factor("DEPTH", (1, 2.5))], "DEPTH cannot be 2.5"),
        ([Factor("DEPTH", (2,))], "nothing would change"),
        ([Factor("MATRIX_LR", (0.04, 0.04))], "nothing would change"),
        ([Factor("DEPTH", (1,)), Factor("DEPTH", (2,))], "DEPTH is named twice"),
        ([], "nothing would change"),
    ],
)
async def test_a_factor_that_makes_no_sense_is_one_sentence(factors: list[Factor], says: str) -> None:
    with pytest.raises(UserError, match=says):
        await Person(factors).propose(CONTEXT, 12)
