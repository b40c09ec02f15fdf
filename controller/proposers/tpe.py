"""Optuna's TPE as a proposer: free combinations of the file's knobs, near those that have scored best so far.

It has a model of the score where `doe` has designs: its cells change many knobs at once, by any amount, so that it
finds what lies between levels and in combinations, but no cell of its says which knob did it. It is of most use with
few knobs that matter, or after a few waves of `doe`, whose cells it learns from too.

Knobs. At most `KNOBS` of them, the most promising (`priority`): numbers on the scale that their kind asks for
(`scale`: learning rates in doublings, momenta in their distance from 1, counts as whole numbers, powers of two as
such), `REACH` steps around the incumbent and as far as anything has been tried; booleans; and of other knobs the values
that were tried, or that the file asserts (`assert SHAPE in ("flat", "steep")`).

Nothing is remembered between calls: each one is told all earlier cells, the controls as what the incumbent scored,
whatever failed or was pruned as worse than all that has a score, and what is being screened as running, which TPE takes
for bad until it is known (the constant liar) and so looks elsewhere. Cells on top of an edit that was not kept are left
out: theirs was another file, with a score, and perhaps with values, of its own. No model is proposed twice, nor one
that fails the file's assertions. The same study gets the same proposals.
"""

from __future__ import annotations

import ast
import random
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Literal

from controller.edits import fit
from controller.proposers.draft import Draft
from controller.proposers.priority import NOT_LEARNING, kind
from controller.proposers.protocol import Context
from controller.proposers.scale import DECAY, GROWTH, LARGE, RATIO, RATIO_STEP, ZERO_STEP
from controller.records import Design, Factor, Knobs, Proposal, UserError, Value

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

KNOBS = 12
"""Knobs that are searched: of the hundreds of cells that a night has, more dimensions would make nothing of."""
REACH = 1.5
"""Steps of a knob's scale, either way, that a first cell may lie from the incumbent. The ranges follow where that goes;
of 1, 1.5 and 2 this came nearest to the best of a bowl in eight waves of twelve cells."""
OBSERVATIONS = 500
"""Cells, the latest, that TPE is told of: what it takes to ask it grows with them."""
PATIENCE = 50
"""Cells in a row that were known already, or can't run, before there is taken to be nothing new."""
EXACT = 2**53
"""Whole numbers from here on are no floats, with which TPE reckons."""
CHOICES = 16


@dataclass(frozen=True, slots=True)
class Axis:
    """A knob as TPE sees it: a coordinate between `low` and `high`, or one of the `choices`, by its place."""

    knob: str
    present: Value
    scale: Literal["linear", "log", "from one", "doublings", "choice"]
    low: float
    high: float
    choices: tuple[Value, ...] = ()

    def coordinate(self, value: Value) -> float | int | None:
        """Where `value` lies; None where this axis has no such place."""
        if self.scale == "choice":
            spelled = [repr(choice) for choice in self.choices]
            return spelled.index(repr(value)) if repr(value) in spelled else None
        if isinstance(value, bool) or not isinstance(value, type(self.present)) or not isinstance(value, int | float):
            return None
        if self.scale == "doublings":
            return int(value).bit_length() - 1 if value > 0 and int(value).bit_count() == 1 else None
        if isinstance(value, int) and abs(value) >= EXACT:
            return None
        found = 1 - value if self.scale == "from one" else value * self._sign
        return found if self.scale == "linear" or found > 0 else None

    def value(self, coordinate: float) -> Value:
        """What the knob is set to there: floats with three significant digits, as a person would write them."""
        if self.scale == "choice":
            return self.choices[int(coordinate)]
        if self.scale == "doublings":
            return 1 << int(coordinate)
        if isinstance(self.present, int):
            return int(coordinate)
        near = float(f"{coordinate:.3g}")
        return round(1 - near, 12) if self.scale == "from one" else near * self._sign

    def around(self, coordinates: Sequence[float | int]) -> Axis:
        """The same axis, as long as to hold `coordinates` too."""
        return replace(self, low=min(self.low, *coordinates), high=max(self.high, *coordinates))

    def distribution(self) -> BaseDistribution:
        """The same to Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.scale == "choice":
            return CategoricalDistribution(range(len(self.choices)))
        if isinstance(self.present, int):
            return IntDistribution(int(self.low), int(self.high), log=self.scale == "log")
        return FloatDistribution(self.low, self.high, log=self.scale != "linear")

    @property
    def _sign(self) -> int:
        return -1 if isinstance(self.present, float) and self.present < 0 else 1


@dataclass(frozen=True, slots=True)
class _Cell:
    """One that was run, or is running: where it lies on each axis, and its score, None where it has none."""

    at: Mapping[str, float | int]
    score: float | None = None
    running: bool = False


class Optuna:
    """Asks TPE for one cell after another; see the top of this file."""

    name = "optuna"
    usd_at_most = 0.0
    usd_spent = 0.0

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        """`room` proposals of one cell each, or fewer where nothing new is found; none where there is no knob."""
        draft = Draft(context, room)
        found = axes(context, draft.present)
        if not found:
            return []
        cells = [*_told(context, draft.present, found)]
        found = [axis.around([cell.at[axis.knob] for cell in cells]) if cells else axis for axis in found]
        scored = sum(cell.score is not None for cell in cells)
        with _quiet():
            study = _study(context, found, cells)
        distributions = {axis.knob: axis.distribution() for axis in found}
        misses = 0
        while draft.room > 0 and misses < PATIENCE:
            with _quiet():
                params = study.ask(distributions).params
            levels = {axis.knob: axis.value(params[axis.knob]) for axis in found}
            factors = tuple(
                Factor(knob, (level,)) for knob, level in levels.items() if repr(level) != repr(draft.present[knob])
            )
            misses += 1
            if factors and draft.takes(Design.FULL, factors):
                draft.add(_proposal(factors, draft.present, scored))
                misses = 0
            await _Turn()  # Large waves take seconds, in which the clusters are to be looked after.
        return draft.proposals


class _Turn:
    """Lets everything else that waits for its turn have it."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def axes(context: Context, present: Knobs) -> list[Axis]:
    """The knobs that are searched, most promising first."""
    tried = _tried(context)
    found = []
    for knob, value in sorted(present.items(), key=lambda item: kind(item[0])):
        if NOT_LEARNING.search(knob):
            continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            axis = _numeric(knob, value)
        else:
            axis = _choice(knob, value, [*tried.get(knob, ()), *_asserted(context.source, knob)])
        if axis is not None and axis.low < axis.high:
            found.append(axis)
    return found[:KNOBS]


def _numeric(knob: str, value: int | float) -> Axis | None:
    """The axis of a number, `REACH` steps (as in `scale`) around its value; None for one that is rather a word."""
    if isinstance(value, int):
        if value < 0:
            return None
        if value >= LARGE and value.bit_count() == 1:
            exponent = value.bit_length() - 1
            return Axis(knob, value, "doublings", max(exponent - int(REACH), 0), exponent + int(REACH))
        if value >= EXACT:
            return None
        if value >= LARGE:
            return Axis(knob, value, "log", max(round(value / GROWTH**REACH), 1), round(value * GROWTH**REACH))
        reach = round(REACH * max(value // 4, 1))
        return Axis(knob, value, "linear", max(value - reach, min(value, 1)), value + reach)
    if value == 0:
        return Axis(knob, value, "linear", 0.0, REACH * ZERO_STEP)
    if DECAY.search(knob) and 0.5 <= value < 1:
        return Axis(knob, value, "from one", (1 - value) / 2**REACH, min((1 - value) * 2**REACH, 0.5))
    if RATIO.search(knob) and ZERO_STEP <= value <= 1:
        half = REACH * RATIO_STEP
        return Axis(knob, value, "linear", max(value - half, 0.0), min(value + half, 1.0))
    low, high = abs(value) / 2**REACH, abs(value) * 2**REACH
    return Axis(knob, value, "log", low, high) if low > 0 and isfinite(high) else None


def _choice(knob: str, value: Value, others: Sequence[Value]) -> Axis | None:
    """The axis of what is no number: both booleans, or the values that are known of it."""
    known = {repr(value): value}
    for other in (False, True) if isinstance(value, bool) else others:
        try:
            fitted = fit(knob, value, other)
        except UserError:
            continue
        known.setdefault(repr(fitted), fitted)
    choices = tuple(known[spelled] for spelled in sorted([*known][:CHOICES]))
    return Axis(knob, value, "choice", 0, len(choices) - 1, choices)


def _tried(context: Context) -> dict[str, list[Value]]:
    """The values that each knob has had in a wave."""
    found: dict[str, list[Value]] = {}
    designs = [*(design for wave in context.history for design in wave.designs), *context.pending]
    for factor in (factor for design in designs if design.of_incumbent for factor in design.factors):
        found.setdefault(factor.knob, []).extend(factor.levels)
    return found


def _asserted(source: str, knob: str) -> list[Value]:
    """The values that the file says a knob may have: `assert KNOB in (…)`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the file's own, such as an invalid escape
        body = ast.parse(source).body
    for statement in body:
        match statement:
            case ast.Assert(test=ast.Compare(left=ast.Name(id=name), ops=[ast.In()], comparators=[values])):
                if name == knob and isinstance(values, ast.Tuple | ast.List | ast.Set):
                    constants = [one.value for one in values.elts if isinstance(one, ast.Constant)]
                    return [one for one in constants if isinstance(one, int | float | str)]
    return []


def _told(context: Context, present: Knobs, found: Sequence[Axis]) -> Iterator[_Cell]:
    """What has been seen, oldest first, and then what is running."""
    finished: list[_Cell] = []
    base = dict(present)
    for wave in reversed(context.history):
        # A knob that was no factor then had the value that the next wave with it began from, or has it still.
        base |= {knob: value for knob, value in wave.base.items() if knob in present}
        seen = [(cell.knobs, cell.score) for design in wave.designs if design.of_incumbent for cell in design.cells]
        seen += [({}, sum(wave.controls) / len(wave.controls))] if wave.controls else []
        finished += [_Cell(at, score) for knobs, score in seen if (at := _place(knobs, base, found)) is not None]
    for cell in reversed(finished[:OBSERVATIONS]):
        yield replace(cell, score=cell.score if cell.score is not None and isfinite(cell.score) else None)
    for design in context.pending:
        for one in design.cells if design.of_incumbent else ():
            if (at := _place(one.knobs, present, found)) is not None:
                yield _Cell(at, running=True)


def _place(knobs: Knobs, base: Knobs, found: Sequence[Axis]) -> dict[str, float | int] | None:
    """Where a cell lies; None where it differs from its base in what is no axis, or lies where an axis does not go."""
    searched = {axis.knob for axis in found}
    if any(knob not in searched and repr(value) != repr(base.get(knob)) for knob, value in knobs.items()):
        return None
    at = {axis.knob: axis.coordinate(knobs.get(axis.knob, base[axis.knob])) for axis in found}
    known = {knob: place for knob, place in at.items() if place is not None}
    return known if len(known) == len(at) else None


def _study(context: Context, found: Sequence[Axis], cells: Sequence[_Cell]) -> Study:
    """An Optuna study that has seen `cells`."""
    import optuna

    # Two calls of one study must not begin with the same draws, of which all but the first would be known already.
    lots = random.Random(f"{context.seed}:{len(context.history)}:{sum(cell.running for cell in cells)}")
    sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=lots.getrandbits(32))
    study = optuna.create_study(sampler=sampler, direction="minimize" if context.minimize else "maximize")
    distributions = {axis.knob: axis.distribution() for axis in found}
    states = optuna.trial.TrialState
    for cell in cells:
        # TPE takes what was pruned for worse than what has a score; of what has failed it would learn nothing.
        state = states.RUNNING if cell.running else states.PRUNED if cell.score is None else states.COMPLETE
        told = optuna.trial.create_trial(
            state=state, value=cell.score, params=dict(cell.at), distributions=distributions
        )
        study.add_trial(told)
    return study


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says nothing: neither lines of its own on standard error nor that a feature may change some day."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        yield


def _proposal(factors: Sequence[Factor], present: Knobs, scored: int) -> Proposal:
    moves = ", ".join(f"{factor.knob} {present[factor.knob]!r} → {factor.levels[0]!r}" for factor in factors)
    why = f"near what scored best of {scored} so far" if scored else "drawn at random, as nothing is known yet"
    return Proposal("tpe", f"{why}: {moves}", tuple(factors))
