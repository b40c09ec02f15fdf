"""Whether a proposal may run, found out before it costs anything, with a reason that an agent can act upon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from math import isfinite, prod
from typing import Any

from controller.designs import cells
from controller.edits import SourceError, fit, model_digest, patch, preflight, read_knobs, set_knobs
from controller.proposers.protocol import Context
from controller.records import Design, Factor, Objection, Proposal, Refusal, UserError, Value
from controller.text import clip, describe

NAME, SENTENCE = 80, 1200
MOST_CELLS = 512
"""Cells of one proposal, before they are even counted against the room."""
MOST_TOLD = 4
"""Cells of a proposal whose refusal is told."""


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


def read(said: object, context: Context) -> Proposal:
    """The proposal that an agent's JSON object says, its edit made and its levels as the file would hold them.

    Raises Objected for one that says nothing, or what cannot be done.
    """
    if not isinstance(said, Mapping):
        raise Objected("a proposal is an object with name, hypothesis, edit and factors")
    name, hypothesis = _text(said, "name", NAME), _text(said, "hypothesis", SENTENCE)
    if not name or not hypothesis:
        raise Objected("a proposal needs a name and a hypothesis")
    edit = said.get("edit") or ""
    if not isinstance(edit, str):
        raise Objected(f"the edit must be a text: {patch.FORMS}; or empty, to only set knobs")
    edited = _edited(edit, context) if edit.strip() else context.source
    factors = _factors(said.get("factors") or {}, edited)
    if not edit.strip() and not factors:
        raise Objected("it changes nothing: give an edit, or factors, or both", Objection.NO_OP)
    predicted, low, high = (_number(said, key) for key in ("predicted", "low", "high"))
    if low is not None and high is not None and low > high:
        low, high = high, low
    if predicted is not None and not (low if low is not None else predicted) <= predicted <= (
        high if high is not None else predicted
    ):
        raise Objected(f"the interval from {low} to {high} does not hold the predicted change of {predicted}")
    return Proposal(
        name,
        hypothesis,
        factors,
        _design(said.get("design") or Design.FULL.value),
        edited if edit.strip() else None,
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

    Its edit is made anew, as a diff whose lines must still be there.
    """
    if proposal.edit is None or before == context.source:
        return proposal
    old, new = (text.removesuffix("\n").split("\n") for text in (before, proposal.edit))
    lines = unified_diff(old, new, "before", "after", lineterm="")
    try:
        edited = patch.apply(context.source, "\n".join(lines))
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


def _edited(edit: str, context: Context) -> str:
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


def _value(said: Any) -> Value:
    if isinstance(said, list):
        return tuple(_value(part) for part in said)
    if said is None or isinstance(said, bool | int | float | str):
        return said
    raise Objected("a level is a number, a string, true, false, or a list of these, which becomes a tuple")


def _design(said: object) -> Design:
    try:
        return Design(str(said))
    except ValueError:
        raise Objected(f"there is no design {clip(str(said), NAME)}: there are {', '.join(Design)}") from None


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
    if isinstance(found, bool) or not isinstance(found, int | float) or not isfinite(found):
        raise Objected(f"{key} must be a finite number: a change of the metric")
    return float(found)
