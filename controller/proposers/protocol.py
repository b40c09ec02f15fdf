"""What a proposer is asked and what it answers: the one protocol of everything that has ideas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from controller.proposers.prices import Tokens
from controller.records import Factor, Knobs, Note, Proposal, Refusal


@dataclass(frozen=True, slots=True)
class Observation:
    """One cell of an earlier wave: all its factors' values, and its score.

    The score is None where it failed or has not run yet, and where it was `pruned`: ended early, as it was clearly
    worse than the wave's controls at the same point.
    """

    knobs: Knobs
    score: float | None
    pruned: bool = False


@dataclass(frozen=True, slots=True)
class PastDesign:
    """What became of one proposal: its factors as proposed, and its cells, less those that were lost or called off.

    Effects are estimated from one design and the wave's controls: another design of the wave varies other knobs, and
    taken together the two could not be told apart. The cells of one that was `edited` ran another file than the
    controls, which are left out: its effects are those of its knobs on top of the edit. `kept` says whether one of its
    cells was.
    """

    factors: tuple[Factor, ...]
    cells: tuple[Observation, ...]
    edited: bool = False
    kept: bool = False

    @property
    def of_incumbent(self) -> bool:
        """Whether its cells tell of the incumbent's file: it had no edit, or the edit was kept with one of them."""
        return self.kept or not self.edited


@dataclass(frozen=True, slots=True)
class PastWave:
    """An earlier wave. `base` is what the controls ran with, for every factor; `kept` whether a cell was kept.

    The scores of `controls` and cells are as on one accelerator; `minimize` says whether lower ones are better.
    `refusals` are what was proposed for it and never ran.
    """

    id: str
    base: Knobs
    designs: tuple[PastDesign, ...]
    controls: tuple[float, ...]
    kept: bool
    refusals: tuple[Refusal, ...] = ()
    minimize: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """A keep, one of those that led to the incumbent.

    `what` are its knobs, "edit", or both. `change` is that from the incumbent before it, with its interval, `score` its
    mean when that was confirmed.
    """

    wave: str
    candidate: str
    name: str
    what: str
    change: float | None
    low: float | None
    high: float | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate and what became of it.

    `name` is its proposal's. `change` is how its screening differs from the controls beside it, `sigmas` the same in
    units of one run's noise, `confirmed` how its confirmation differs from the candidate `against`. `end` is a verdict,
    a failure's label, `gate` where a gate refused it, `screened` where others were better, or `open`; `reason` says
    more, in one line.
    """

    candidate: str
    wave: str
    against: str
    name: str
    what: str
    change: float | None
    sigmas: float | None
    confirmed: float | None
    end: str
    reason: str

    @property
    def measured(self) -> float | None:
        """The best that is known of its change."""
        return self.change if self.confirmed is None else self.confirmed


@dataclass(frozen=True, slots=True)
class RecentWave:
    """One of the latest waves whose screening is over; `tried` are some of its cells, the best first.

    `cells` of them there were, `scored` have a score, `better` one that is better than the controls'. `against` is the
    incumbent it was designed with; `kept` a new one, if it gave one. It has `ended`, or is still being confirmed.
    """

    wave: str
    proposer: str
    against: str
    cells: int
    scored: int
    better: int
    tried: tuple[Tried, ...]
    kept: str | None
    ended: bool


@dataclass(frozen=True, slots=True)
class Effect:
    """What changing some knobs did to the metric, averaged over what else varied: `what` says from which to which.

    `at` are the values that the incumbent of `wave` had for them. It is `resolved` where the interval excludes 0 and
    the change is at least `min_effect`.
    """

    at: Knobs
    what: str
    wave: str
    change: float
    low: float | None
    high: float | None
    resolved: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A way to fail: how many candidates did so in screening, and the latest of them with different reasons."""

    label: str
    count: int
    latest: tuple[Tried, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was predicted of a proposal, and what its best cell came to, in confirmation if it got there.

    `right` says whether the sign was, `held` whether the interval held it; None where there was no interval.
    """

    wave: str
    name: str
    predicted: float
    low: float | None
    high: float | None
    measured: float
    confirmed: bool
    right: bool
    held: bool | None


@dataclass(frozen=True, slots=True)
class Record:
    """A proposer's predictions against outcomes: how many, how many had the right sign, and whose interval held.

    `unscored` counts the proposals whose prediction met no score.
    """

    proposer: str
    predictions: int = 0
    right: int = 0
    intervals: int = 0
    held: int = 0
    unscored: int = 0
    latest: tuple[Prediction, ...] = ()


@dataclass(frozen=True, slots=True)
class Crash:
    """An edit that failed before it said anything of its idea, and that nobody has tried to repair since.

    `repairs` is the candidate that it was itself to repair, `tries` how many before it were, one after another.
    """

    candidate: str
    name: str
    label: str
    reason: str
    diff: str
    repairs: str = ""
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a study has come to, in a size that does not grow with it. Texts in it are by others: they are data.

    `noise` is the standard deviation of one run, `score` the incumbent's mean when it was confirmed, or its controls'.
    `steps` are the latest keeps, `earlier` were before them, and all together have `gained` this change. `counts` are
    screened cells by how they ended. `near` are those that were better than one of the latest incumbents and not kept;
    `effects` were resolved for knobs at their present values, `open` were looked for there and not resolved, and
    `untested` knobs were not varied around them. `refused` are the latest that never ran, `refusals` count all, by
    label.
    """

    metric: str
    minimize: bool
    noise: float | None
    incumbent: str
    score: float | None
    waves: int
    experiments: int
    steps: tuple[Step, ...] = ()
    earlier: int = 0
    gained: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)
    near: tuple[Tried, ...] = ()
    recent: tuple[RecentWave, ...] = ()
    effects: tuple[Effect, ...] = ()
    open: tuple[Effect, ...] = ()
    untested: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    refused: tuple[Refusal, ...] = ()
    refusals: Mapping[str, int] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    crashes: tuple[Crash, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a proposer may know of the study.

    `source` is the incumbent's editable file; `models` maps the digest of each model already tried to the candidate
    that was it, or is being tried; `pending` are the designs that are being screened meanwhile; `seed` makes a proposer
    that draws lots repeat itself. `program` is what a person tells proposers in program.md, `gates` are the bounds that
    a candidate must keep, `edit` is the path of the editable file; what it scores is `evaluated` by our harness, or
    else its own word. Each line of code that a candidate adds must earn `simplicity`.
    """

    source: str
    minimize: bool
    min_effect: float
    models: Mapping[str, str]
    history: tuple[PastWave, ...]
    seed: int
    pending: tuple[PastDesign, ...] = ()
    lineage: Lineage | None = None
    program: str = ""
    gates: tuple[str, ...] = ()
    edit: str = ""
    evaluated: bool = True
    simplicity: float = 0.0


@dataclass(frozen=True, slots=True)
class Jotting:
    """A lesson that an agent wants noted (`text`), the id of a note that it `retires` and why, or both."""

    text: str = ""
    retires: str = ""
    reason: str = ""


class Proposer(Protocol):
    """A source of hypotheses. Must not touch git, journal or clusters.

    `usd_at_most` is the most that one call of `propose` can cost in dollars, `usd_spent` what all of them have cost.
    """

    name: str
    usd_at_most: float
    usd_spent: float

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        """Proposals worth about `room` cells, best first; none where it has no idea left."""


@runtime_checkable
class Notetaker(Protocol):
    """A proposer that also writes notes, of which the next one is shown those that are open."""

    def jottings(self) -> Sequence[Jotting]:
        """What it wants noted since it was asked this the last time; it is asked after each call of `propose`."""


@runtime_checkable
class Choosy(Protocol):
    """A proposer that refuses some of its own ideas, such as an agent's edit that does not parse."""

    def refusals(self) -> Sequence[Refusal]:
        """What it refused since it was asked this the last time; it is asked after each call of `propose`."""


@runtime_checkable
class Frugal(Protocol):
    """A proposer that can do without money."""

    def afford(self, payable: Callable[[float], bool]) -> None:
        """Make `usd_at_most` something that is `payable`, if need be 0; it is told before it is asked."""


@runtime_checkable
class Hasty(Protocol):
    """A proposer that can answer sooner, if need be."""

    def hurry(self) -> None:
        """Clusters run out of work: answer as soon as may be. May be told again and again."""


@runtime_checkable
class Metered(Protocol):
    """A proposer that asks a language model."""

    def metered(self) -> tuple[str, Tokens]:
        """The model, and what it was billed for since this was asked the last time."""
