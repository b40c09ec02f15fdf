"""A wave while it is put together: it takes a proposal only if every cell of it is worth its time.

That is: it keeps the file's assertions, and is a model that was neither tried before nor is in this wave already. The
cell of a factorial that is the incumbent itself is not counted: the wave's controls are that cell.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.designs import cells
from controller.edits import broken_promise, model_digest, read_knobs
from controller.proposers.lessons import hopeless
from controller.proposers.protocol import Context
from controller.proposers.scale import moved
from controller.records import Design, Factor, Knobs, Proposal, Value

SMALLEST_STEP = 0.25
"""A knob is done when steps half this size would be next."""


class Draft:
    """The proposals so far, and the `room` that is left, in cells."""

    def __init__(self, context: Context, room: int) -> None:
        self.present = read_knobs(context.source)
        self.room = room
        self.proposals: list[Proposal] = []
        self._source = context.source
        self._incumbent = model_digest(context.source)
        self._mine = {self._incumbent}
        self._tried = context.models
        self._hopeless = hopeless(context.history)

    def takes(self, design: Design, factors: Sequence[Factor], room: int | None = None) -> bool:
        """True for a design with some cell to run, none that must not be, and not more than `room`, or is left."""
        found = cells(design, factors, self.present)
        limit = self.room if room is None else min(room, self.room)
        if len(found) - 1 > limit:  # at most one is the incumbent
            return False
        models = self._models(found)
        return models is not None and 0 < len(models) <= limit

    def add(self, proposal: Proposal) -> None:
        """Add a proposal that it `takes`."""
        models = self._models(cells(proposal.design, proposal.factors, self.present)) or []
        self.room -= len(models)
        self._mine.update(models)
        self.proposals.append(proposal)

    def reach(self, knob: str, step: float, *, untried: bool = False) -> Value:
        """The value a step away, or half or a quarter of a step where that is not allowed; None where none is.

        Allowed is what keeps the assertions, changes the model and has not always failed. `untried` asks for a
        model that has not been seen, too: this one knob moved, and all others as they are.
        """
        value = self.present[knob]
        assert isinstance(value, int | float)
        while abs(step) >= SMALLEST_STEP:
            level = moved(knob, value, step)
            if level is not None and self._allowed(knob, level, untried=untried):
                return level
            step /= 2
        return None

    def _allowed(self, knob: str, level: Value, *, untried: bool) -> bool:
        if (knob, repr(level)) in self._hopeless or broken_promise(self._source, {knob: level}) is not None:
            return False
        digest = model_digest(self._source, {knob: level})
        return not self._seen(digest) if untried else digest != self._incumbent

    def _models(self, found: Sequence[Knobs]) -> list[str] | None:
        models: list[str] = []
        for cell in found:
            if all(repr(level) == repr(self.present[knob]) for knob, level in cell.items()):
                continue
            if broken_promise(self._source, cell) is not None:
                return None
            digest = model_digest(self._source, cell)
            if self._seen(digest) or digest in models:
                return None
            models.append(digest)
        return models

    def _seen(self, digest: str) -> bool:
        return digest in self._mine or digest in self._tried
