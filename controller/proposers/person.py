"""A person's idea: the factors named on the command line, every combination of them, once."""

from __future__ import annotations

from collections.abc import Sequence

from controller.edits import fit, read_knobs, set_knobs
from controller.proposers.protocol import Context
from controller.records import Factor, Proposal, UserError


class Person:
    """Proposes one full factorial of the given factors, and after that nothing."""

    name = "person"
    usd_at_most = 0.0
    usd_spent = 0.0

    def __init__(self, factors: Sequence[Factor]) -> None:
        self._factors = tuple(factors)
        self._asked = False

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        """The one proposal, whatever the room: what a person asks for is run.

        Raises UserError where a factor is no knob of the file, is named twice, has a level its knob cannot hold, or
        where nothing would differ from the incumbent.
        """
        if self._asked:
            return []
        factors = tuple(_checked(factor, context.source) for factor in self._factors)
        knobs = [factor.knob for factor in factors]
        twice = next((knob for knob in knobs if knobs.count(knob) > 1), None)
        if twice is not None:
            raise UserError(f"{twice} is named twice: give all its levels at once, such as {twice}=1,2")
        present = read_knobs(context.source)
        if all(repr(level) == repr(present[factor.knob]) for factor in factors for level in factor.levels):
            raise UserError("nothing would change: name a knob with a level that the incumbent does not have")
        self._asked = True
        spelled = " × ".join(f"{factor.knob} ∈ {{{', '.join(map(repr, factor.levels))}}}" for factor in factors)
        question = "which combination is best?" if len(factors) > 1 else "which value is best?"
        return [Proposal(" × ".join(knobs), f"{spelled}: {question}", factors)]


def _checked(factor: Factor, source: str) -> Factor:
    """The factor with its levels as the file would hold them: for a knob that holds a float, 1 is 1.0."""
    for level in factor.levels:
        set_knobs(source, {factor.knob: level})  # knows what to suggest instead of a wrong name or value
    current = read_knobs(source)[factor.knob]
    levels = [fit(factor.knob, current, level) for level in factor.levels]
    return Factor(factor.knob, tuple({repr(level): level for level in levels}.values()))
