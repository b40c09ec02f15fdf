"""Whether a proposal may run, found out before it costs anything, with a reason that an agent can act upon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from sys import float_info
from typing import Any

from controller.designs import cells
from controller.edits import SourceError, fit, model_digest, patch, preflight, read_knobs, set_knobs
from controller.edits.transplant import transplanted
from controller.proposers.protocol import Context
from controller.records import Design, Factor, Objection, Proposal, Refusal, UserError, Value
from controller.text import clip, describe

NAME, SENTENCE = 80, 1200
MOST_CELLS = 512
"""Cells of one proposal, before they are even counted against the room."""
MOST_TOLD = 4
"""Cells of a proposal whose refusal is told."""
MOST_NESTED = 4
"""Lists in lists, in a level."""


class Objected(Exception):
    """Why a proposal may not run: the message is for whoever made it, `label` is what the refusal is filed under."""

    def __init__(self, reason: str, label: Objection = Objection.EDIT) -> None:
        super().__init__(reason)
        self.label = label


@dataclass(frozen=True, slots=True)
class Vetted:
    """A proposal that may run: the digests of its cells' models, and which of its cells will not run, and why."""

    proposal: Proposal
    models: tuple[str, ...]
    left_out: tuple[str, ...] = ()


class Intake:
    """Takes the proposals of one answer, one after another, as far as there is room for their cells.

    `tiers` are the accelerators of each tier.
    """

    def __init__(self, context: Context, room: int, tiers: Sequence[Sequence[str]] = ()) -> None:
        self.accepted: list[Proposal] = []
        self._context = context
        self._room = room
        self._tiers = tiers
        self._taken: dict[str, str] = {}

    @property
    def left(self) -> int:
        """Cells that there is still room for."""
        return max(self._room - len(self._taken), 0)

    def take(self, proposal: Proposal) -> Vetted:
        """Accept it, with what of it will run. Raises Objected as `vet` does, and where there is no room for it."""
        vetted = vet(proposal, self._context, self._taken, self._tiers)
        cells = len(vetted.models)
        # About as many as there is room for: a design has the size it has.
        if not self.left or len(self._taken) + cells > self._room + self._room // 4:
            raise Objected(f"it has {cells} cells, and there is room for about {self.left} more")
        self._taken |= dict.fromkeys(vetted.models, f"a cell of your proposal {proposal.name!r}")
        self.accepted.append(proposal)
        return vetted


def read(said: object, context: Context, edited: str | None = None) -> Proposal:
    """The proposal that an agent's JSON object says, its edit made and its levels as the file would hold them.

    `edited` is the file where the agent has edited it by itself; an edit in the object counts for nothing then. Raises
    Objected for an object that says nothing, or what cannot be done.
    """
    if not isinstance(said, Mapping):
        raise Objected("a proposal is an object with name, hypothesis, edit and factors")
    name, hypothesis = _text(said, "name", NAME), _text(said, "hypothesis", SENTENCE)
    if not name or not hypothesis:
        raise Objected("a proposal needs a name and a hypothesis")
    edited = _edited(said, context) if edited is None else edited
    factors = _factors(said.get("factors") or {}, context.source if edited is None else edited)
    if edited is None and not factors:
        raise Objected("it changes nothing: give an edit, or factors, or both", Objection.NO_OP)
    predicted, low, high = (_number(said, key) for key in ("predicted", "low", "high"))
    if low is not None and high is not None and low > high:
        low, high = high, low
    if predicted is not None and ((low is not None and predicted < low) or (high is not None and predicted > high)):
        ends = " and ".join(f"{name} {end}" for name, end in (("low", low), ("high", high)) if end is not None)
        raise Objected(f"the interval with {ends} does not hold the predicted change of {predicted}")
    return Proposal(
        name,
        hypothesis,
        factors,
        _design(_text(said, "design", NAME)),
        edited,
        predicted,
        low,
        high,
        _text(said, "falsified_by", SENTENCE),
        _repaired(_text(said, "repairs", NAME), context),
    )


def vet(
    proposal: Proposal,
    context: Context,
    taken: Mapping[str, str] | None = None,
    tiers: Sequence[Sequence[str]] = (),
    *,
    enough: bool = False,
) -> Vetted:
    """The proposal with what of it will run; with `enough`, at least one cell is looked for, and no more.

    `taken` are the models of other proposals that are not known to the study yet, and whose they are; `tiers` the
    accelerators of each tier. Raises Objected where nothing of it would run: what it asks for cannot be set, or every
    cell is refused by preflight, or was tried before.
    """
    incumbent = read_knobs(context.source)
    levels = [len(factor.levels) for factor in proposal.factors]
    if sum(levels) > MOST_CELLS or (proposal.design is Design.FULL and prod(levels) > MOST_CELLS):
        raise Objected(f"it has more than {MOST_CELLS} cells: use `screen`, `sweep`, or fewer levels")
    models: list[str] = []
    refused: list[tuple[Objection, str]] = []
    try:
        edited = context.source if proposal.edit is None else proposal.edit
        # As the wave will do it: with the incumbent's knobs, which a sweep returns to.
        for cell in cells(proposal.design, proposal.factors, incumbent):
            source = set_knobs(edited, cell)
            objection = _objection(source, models, context, taken or {}, tiers)
            if objection is None:
                models.append(model_digest(source))
            else:
                refused.append((objection[0], f"{describe(cell) or 'the edit'}: {objection[1]}"))
            if models and enough:
                break
    except SourceError as error:
        raise Objected(f"it does not parse: {error}", Objection.SYNTAX) from None
    except (UserError, ValueError) as error:
        raise Objected(str(error)) from None
    if not models:
        label, reason = next((one for one in refused if one[0] is not Objection.NO_OP), refused[0])
        others = f", and likewise {len(refused) - 1} other cells" if len(refused) > 1 else ""
        raise Objected(f"{reason}{others}", label)
    told = [reason for label, reason in refused if label is not Objection.NO_OP]
    return Vetted(proposal, tuple(models), tuple(told[:MOST_TOLD]))


def usable(proposals: Sequence[Proposal], context: Context) -> tuple[list[Proposal], list[Refusal]]:
    """Those of which at least one cell would run, and why the others would not."""
    kept: list[Proposal] = []
    refusals: list[Refusal] = []
    for proposal in proposals:
        try:
            vet(proposal, context, enough=True)
            kept.append(proposal)
        except Objected as error:
            refusals.append(refusal(proposal.name, proposal.hypothesis, error))
    return kept, refusals


def moved(proposal: Proposal, before: str, context: Context) -> Proposal:
    """A proposal that was made for the file `before`, for the incumbent's as it is now. Raises Objected.

    Its edit is made anew, if none of the lines it changes has changed since.
    """
    if proposal.edit is None or before == context.source:
        return proposal
    edited = transplanted(before, proposal.edit, context.source)
    if edited is None:
        raise Objected("the incumbent has changed since it was proposed, and in the same lines; propose it anew")
    try:
        patch.check(context.source, edited, context.evaluated)
    except patch.PatchError as error:
        raise Objected(f"the incumbent has changed since it was proposed: {error.sentence}", error.label) from None
    return replace(proposal, edit=edited)


def refusal(name: str, hypothesis: str, error: Objected) -> Refusal:
    """What is recorded of a proposal that may not run."""
    return Refusal(clip(name, NAME), clip(hypothesis, SENTENCE), clip(str(error), SENTENCE), error.label)


def _objection(
    source: str, models: Sequence[str], context: Context, taken: Mapping[str, str], tiers: Sequence[Sequence[str]]
) -> tuple[Objection, str] | None:
    found = preflight.refusal(source, context.source, context.models, tiers)
    if found is not None:
        return found
    digest = model_digest(source)
    if digest in models:
        return Objection.DUPLICATE, "it is the same model as another cell of this proposal"
    if digest in taken:
        return Objection.DUPLICATE, f"it is the same model as {taken[digest]}"
    return None


def _edited(said: Mapping[Any, Any], context: Context) -> str | None:
    edit = said.get("edit") or ""
    if not isinstance(edit, str):
        raise Objected(f"the edit must be a text: {patch.FORMS}; or empty, to only set knobs")
    if not edit.strip():
        return None
    try:
        edited = patch.apply(context.source, edit)
        patch.check(context.source, edited, context.evaluated)
    except patch.PatchError as error:
        raise Objected(str(error), error.label) from None
    return edited


def _factors(said: object, source: str) -> tuple[Factor, ...]:
    if not isinstance(said, Mapping):
        raise Objected('factors are an object of knobs with their levels, such as {"DEPTH": [4, 6]}')
    knobs = read_knobs(source)
    found = []
    for knob, levels in said.items():
        if not isinstance(levels, list) or not levels:
            raise Objected(f"{clip(str(knob), NAME)}: its levels are a list, such as [1, 2]")
        values = [_value(level) for level in levels]
        try:
            set_knobs(source, {knob: values[0]})  # knows what to suggest instead of a wrong name
            fitted = [fit(knob, knobs[knob], value) for value in values]
        except UserError as error:
            raise Objected(str(error)) from None
        found.append(Factor(knob, tuple({repr(value): value for value in fitted}.values())))
    return tuple(found)


def _value(said: Any, depth: int = 0) -> Value:
    if isinstance(said, list) and depth < MOST_NESTED:
        return tuple(_value(part, depth + 1) for part in said)
    if said is None or isinstance(said, bool | int | float | str):
        return said
    raise Objected(
        "a level is a number, a string, true, false, or a list of these, which becomes a tuple; lists in lists are"
        f" {MOST_NESTED} deep at most"
    )


def _design(said: str) -> Design:
    try:
        return Design(said or Design.FULL)
    except ValueError:
        raise Objected(f"there is no design {said}: there are {', '.join(Design)}") from None


def _repaired(name: str, context: Context) -> str:
    """The crashed candidate that is to be repaired: one whose crash waits for it, and that is no repair itself."""
    if not name:
        return ""
    waiting = [one.candidate for one in context.lineage.crashes if not one.tries] if context.lineage else []
    if name not in waiting:
        known = f"those of {', '.join(waiting)} do" if waiting else "none does at present"
        raise Objected(f"{name} is no crash that waits to be repaired: {known}; each is repaired once")
    return name


def _text(said: Mapping[Any, Any], key: str, most: int) -> str:
    found = said.get(key) or ""
    if not isinstance(found, str):
        raise Objected(f"{key} must be a text")
    return clip(found, most)


def _number(said: Mapping[Any, Any], key: str) -> float | None:
    found = said.get(key)
    if found is None:
        return None
    # Not isfinite, of which a whole number may be too large to be asked.
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) <= float_info.max:
        raise Objected(f"{key} must be a finite number: a change of the metric")
    return float(found)
