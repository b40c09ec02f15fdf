"""The project's words as values: frozen, comparable, and free of behaviour that touches the world.

Every other module speaks in these. This one imports nothing of ours, so that imports run one way.

Outcomes                                       Exceptions
    measured                                       AutoresearchError       exit code
    failed                                         ├── CheckFailed         1   a check said no
    ├── the candidate's: a result, never retried   ├── UserError           2   the user's mistake, one sentence
    │   ├── crash          non-zero exit           ├── NothingRan          3   no experiment could be run
    │   ├── diverged       loss not finite         └── Interrupted         130 stopped by the user, all results kept
    │   ├── overtime       past a time or CPU cap
    │   ├── out_of_memory
    │   ├── no_score       ended without a score
    │   ├── tampered       not the code it was given, or a broken protocol
    │   ├── leak           its answers depend on tokens that come later
    │   ├── drift          the same row was answered otherwise later
    │   ├── implausible    a score that no honest model can have
    │   └── pruned         ended early: clearly worse than the incumbent at the same point
    ├── the infrastructure's: retried elsewhere
    │   ├── lost           it vanished without a result
    │   ├── preempted      its cluster was taken for somebody else's work
    │   ├── setup_failed   it never came to run
    │   └── mismatch       code or data on the cluster are not those asked for
    └── nobody's
        └── cancelled      the controller ended it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

from typing_extensions import TypeAliasType

Value = TypeAliasType("Value", "bool | int | float | str | tuple[Value, ...] | None")
"""What a knob may hold: any Python literal made of numbers, strings and tuples."""

Knobs: TypeAlias = Mapping[str, Value]

Author: TypeAlias = Literal["person", "agent"]
"""Who writes a note."""


class Tier(StrEnum):
    """`screening` asks many cheap questions, `confirmation` few decisive ones."""

    SCREENING = "screening"
    CONFIRMATION = "confirmation"


class Role(StrEnum):
    """Why an experiment is in its wave."""

    CELL = "cell"
    CONTROL = "control"
    CALIBRATION = "calibration"
    CONFIRMATION = "confirmation"


class Label(StrEnum):
    """How a failed attempt failed; the tree at the top of this file says whose failure it is."""

    CRASH = "crash"
    DIVERGED = "diverged"
    OVERTIME = "overtime"
    OUT_OF_MEMORY = "out_of_memory"
    NO_SCORE = "no_score"
    TAMPERED = "tampered"
    LEAK = "leak"
    DRIFT = "drift"
    IMPLAUSIBLE = "implausible"
    PRUNED = "pruned"
    LOST = "lost"
    PREEMPTED = "preempted"
    SETUP_FAILED = "setup_failed"
    MISMATCH = "mismatch"
    CANCELLED = "cancelled"

    @property
    def infrastructure(self) -> bool:
        """True where the attempt says nothing about its candidate and is made again elsewhere."""
        return self in {Label.LOST, Label.PREEMPTED, Label.SETUP_FAILED, Label.MISMATCH}


CANDIDATE_FAILURES = frozenset(label for label in Label if not label.infrastructure and label is not Label.CANCELLED)
"""The labels that are results: they say something about the candidate."""


class Objection(StrEnum):
    """Why a proposal, or a cell of it, was refused before it cost any cluster time."""

    EDIT = "edit"
    """What it sets is not there to be set, or not so."""
    SYNTAX = "syntax"
    ASSERTION = "assertion"
    NO_OP = "no_op"
    DUPLICATE = "duplicate"
    MEMORY = "memory"


class Design(StrEnum):
    """How the levels of a proposal's factors are combined into cells."""

    FULL = "full"
    SWEEP = "sweep"
    SCREEN = "screen"


class Verdict(StrEnum):
    """What a wave concludes about a candidate."""

    KEEP = "keep"
    DISCARD = "discard"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Factor:
    """A knob and the levels it takes in a wave."""

    knob: str
    levels: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Wave:
    """Experiments designed together.

    `request` is what was asked for (proposer, factors, …), by which a resumed command recognises its own wave; `base`
    holds every factor's value in the incumbent, which the controls run with.
    """

    id: str
    number: int
    seed: int
    incumbent: str
    proposer: str
    request: Mapping[str, Value]
    base: Knobs


@dataclass(frozen=True, slots=True)
class Proposal:
    """A hypothesis with what is to be varied to test it.

    `edit` is the whole new text of the editable file, or None for the incumbent's. `predicted` is the change of the
    metric its proposer expects, `low` and `high` the interval in which it should lie, `falsified_by` what would show
    the hypothesis wrong. `repairs` is the candidate whose crash it repairs, `submission` what it was handed in as from
    outside, if it was.
    """

    name: str
    hypothesis: str
    factors: tuple[Factor, ...]
    design: Design = Design.FULL
    edit: str | None = None
    predicted: float | None = None
    low: float | None = None
    high: float | None = None
    falsified_by: str = ""
    repairs: str = ""
    submission: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A proposal, or a cell of one, that never became experiments: its label, and why in a sentence."""

    name: str
    hypothesis: str
    reason: str
    label: Objection
    submission: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A line that proposers are shown until it is retired: a person's hint, or a lesson that an agent has drawn.

    `retired` is why it was; None while it is open.
    """

    id: str
    text: str
    by: Author
    retired: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One version of the editable file: a commit whose parent is the incumbent it was proposed against.

    `knobs` are the knobs in which it differs from that incumbent, with its own values; `model` is the digest of what
    the file resolves to, by which two spellings of one model are recognised. `origin` is the candidate that this one
    is on top of a newer incumbent, if any.
    """

    id: str
    commit: str
    parent: str
    knobs: Knobs
    model: str
    proposal: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One candidate, one seed, one tier, one replicate number."""

    id: str
    wave: str
    candidate: str
    role: Role
    tier: Tier
    seed: int
    replicate: int = 1


@dataclass(frozen=True, slots=True)
class Cluster:
    """A SkyPilot cluster or a slot on this machine; `accelerator` is what it was observed to have.

    `billed_seconds` is for how long it has been billed when it is told of: a duration, as clocks of two machines may
    differ. None where nobody knows better than whoever sees it first.
    """

    name: str
    accelerator: str
    billed_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submission of an experiment. The nonce is known to controller and harness only."""

    id: str
    experiment: str
    cluster: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt ended with: `metrics` (label None) or a failure label, and one line that says why.

    `hashes` name what was run (train.py, fixed files, data, tokenizer) and `budget` what it could spend; `timings` are
    seconds by phase. `self_reported` is true where the score was read from the trainer's own output, `unsandboxed`
    where the trainer could reach what a trainer should not. `curve` holds the trainer's own loss, smoothed, at some
    fractions of its budget (`pruning.LOOKS`), as far as it was heard of.
    """

    label: Label | None
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    accelerator: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    budget: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    self_reported: bool = False
    unsandboxed: bool = False
    curve: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What a wave concluded about one candidate, with its evidence.

    `change` is candidate minus control in the metric's unit, `low` and `high` its confidence interval, adjusted for the
    number of candidates confirmed together.
    """

    wave: str
    candidate: str
    verdict: Verdict
    change: float | None
    low: float | None
    high: float | None
    sentence: str
    seeds: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    control_scores: tuple[float, ...] = ()
    accelerator: str = ""


class AutoresearchError(Exception):
    """Base of every error that ends a command with a sentence instead of a traceback."""

    exit_code = 2


class CheckFailed(AutoresearchError):
    """A check the user asked for said no."""

    exit_code = 1


class UserError(AutoresearchError):
    """The user's mistake; the message says in one sentence what to do."""

    exit_code = 2


class NothingRan(AutoresearchError):
    """No experiment could be run."""

    exit_code = 3


class NothingNew(NothingRan):
    """Nothing of what was proposed may run; `refusals` say why."""

    def __init__(self, message: str, refusals: Sequence[Refusal] = ()) -> None:
        super().__init__(message)
        self.refusals = tuple(refusals)


class Interrupted(AutoresearchError):
    """The user stopped the command; everything finished so far is kept."""

    exit_code = 130
