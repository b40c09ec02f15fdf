"""Design of experiments: proposals from nothing but the file's numbers and the scores so far, without a language model.

Screen. The first wave asks which knobs matter. Two thirds of it are a two-level screening design over the most
promising knobs (`priority`), one step below and one above the incumbent, whose controls are the design's centre
points. Such cells change every knob at once, so near a good incumbent hardly one of them beats it. The other third is
therefore a sweep: one knob of each of the most promising kinds, alone, up and down. These cells are the likelier
winners, and as they use the same levels, each effect is estimated from both parts.

Follow. A knob with a resolved effect moves on in the good direction, from where the incumbent now is. The steepest few
are combined in a full factorial of {as it is, one step further}: each single move, and all their combinations,
compete. If there are more, one further cell moves all of them at once: the path of steepest descent (Box & Wilson,
J. Royal Statistical Society B 13, 1951). What room is left screens knobs that were never varied.

Zoom in. A step that made the score worse, or that was tried alone already and is not the incumbent, is halved, down to
a quarter: the best value lies between. Knobs without a resolved effect come back last, with half the step.

Only what ran on the incumbent's file counts: what others vary on top of an edit says nothing here until it is kept.

No model is proposed twice, nor one that fails the file's assertions. When every knob is done, so is this proposer. It
draws no lots: the same study gets the same proposals, whatever the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.proposers.draft import SMALLEST_STEP, Draft
from controller.proposers.lessons import Lesson, learn
from controller.proposers.priority import kind, ranked
from controller.proposers.protocol import Context
from controller.records import Design, Factor, Proposal


class Doe:
    """Screens, follows what improves, zooms in; see the top of this file."""

    name = "doe"
    usd_at_most = 0.0
    usd_spent = 0.0

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        """Proposals of `room` cells at most, best first; none once everything has been tried."""
        draft = Draft(context, room)
        asked = {factor.knob for design in context.pending if design.of_incumbent for factor in design.factors}
        # What is being screened now will be known soon: meanwhile the others, if there are any.
        knobs = [knob for knob in ranked(draft.present) if knob not in asked] or ranked(draft.present)
        known = learn(context.history, draft.present, minimize=context.minimize, min_effect=context.min_effect)
        lessons = {knob: known[knob] for knob in knobs if knob in known}
        steps = {knob: 1.0 for knob in knobs if knob not in lessons}
        steps |= {knob: lesson.step for knob, lesson in lessons.items() if not lesson.direction}
        unresolved = {knob: step for knob, step in steps.items() if step >= SMALLEST_STEP}

        _follow(draft, lessons, room - room // 3 if unresolved else room, minimize=context.minimize)
        _screen(draft, unresolved, draft.room if lessons else room - room // 3)
        _sweep(draft, unresolved)
        return draft.proposals


def _follow(draft: Draft, lessons: Mapping[str, Lesson], room: int, *, minimize: bool) -> None:
    """The steepest knobs one step downhill in all combinations, and one cell for all that go downhill together."""
    downhill = sorted((knob for knob in lessons if lessons[knob].direction), key=lambda knob: -lessons[knob].gain)
    onward = [factor for factor in (_onward(draft, knob, lessons[knob]) for knob in downhill) if factor is not None]

    def predicted(factors: Sequence[Factor]) -> float | None:
        gain = sum(lessons[factor.knob].gain for factor in factors)
        return float(f"{-gain if minimize else gain:.2g}") or None

    steepest: list[Factor] = []
    for factor in onward:
        if draft.takes(Design.FULL, [*steepest, factor], room):
            steepest.append(factor)
    if steepest:
        idea = f"going on where the score improved helps again: {_arrows(steepest)}"
        draft.add(Proposal(_named("follow", steepest), idea, tuple(steepest), predicted=predicted(steepest)))

    path = [Factor(factor.knob, factor.levels[1:]) for factor in onward]
    if len(path) > len(steepest) and draft.takes(Design.FULL, path):
        idea = f"everything that improved the score goes on together: {_arrows(onward)}"
        draft.add(Proposal(_named("descend", path), idea, tuple(path), predicted=predicted(path)))


def _screen(draft: Draft, steps: Mapping[str, float], room: int) -> None:
    """As many knobs as a two-level design of at most `room` cells can tell apart."""
    chosen: list[Factor] = []
    for knob, step in steps.items():
        present = draft.present[knob]
        low, high = draft.reach(knob, -step), draft.reach(knob, step)
        for pair in ((low, high), (present, high), (low, present)):
            trial = [*chosen, Factor(knob, pair)]
            if None not in pair and draft.takes(Design.SCREEN, trial, room):
                chosen = trial
                break
    if chosen:
        idea = f"some of these matter more than the noise: {_ranges(chosen)}"
        draft.add(Proposal(_named("screen", chosen), idea, tuple(chosen), Design.SCREEN))


def _sweep(draft: Draft, steps: Mapping[str, float]) -> None:
    """One knob at a time up and down, the first of each kind before the second of any, until the room is used up."""
    among_its_kind = {
        knob: [kind(other) for other in steps][:place].count(kind(knob)) for place, knob in enumerate(steps)
    }
    chosen: list[Factor] = []
    for knob in sorted(steps, key=lambda knob: among_its_kind[knob]):
        ends = (draft.reach(knob, -steps[knob], untried=True), draft.reach(knob, steps[knob], untried=True))
        levels = tuple(level for level in ends if level is not None)[: draft.room]
        trial = [*chosen, Factor(knob, levels)]
        if levels and draft.takes(Design.SWEEP, trial):
            chosen = trial
    if chosen:
        idea = f"one of these alone improves the score: {_ranges(chosen)}"
        draft.add(Proposal(_named("sweep", chosen), idea, tuple(chosen), Design.SWEEP))


def _onward(draft: Draft, knob: str, lesson: Lesson) -> Factor | None:
    """As it is, and a step downhill; uphill where the knob cannot go further down."""
    ways = (lesson.direction * lesson.step, -lesson.direction * lesson.step)
    level = next((level for level in (draft.reach(knob, way, untried=True) for way in ways) if level is not None), None)
    return None if level is None else Factor(knob, (draft.present[knob], level))


def _named(what: str, factors: Sequence[Factor]) -> str:
    return f"{what} {', '.join(factor.knob for factor in factors)}"


def _arrows(factors: Sequence[Factor]) -> str:
    return ", ".join(f"{factor.knob} {' → '.join(map(repr, factor.levels))}" for factor in factors)


def _ranges(factors: Sequence[Factor]) -> str:
    return ", ".join(f"{factor.knob} ∈ {{{', '.join(map(repr, factor.levels))}}}" for factor in factors)
