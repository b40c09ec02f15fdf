"""What a simulated world is like: numbers read from files, every one of them checked, unknown keys refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from controller.records import UserError

BUILT_IN = Path(__file__).parent / "scenario.yaml"
VARIANTS = Path(__file__).parent / "variants"
MOST = 0.5
"""The largest share that faults are made, so that a simulated fleet still gets something done."""

_NAMED_FREELY = frozenset({"fleet", "prices", "offsets"})
"""Keys whose values are a table of accelerators: a file that has one gives the whole table."""

_T = TypeVar("_T")


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("the first number must not be above the second")
    return ends


Share = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], AfterValidator(_ascending)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Some(_Strict):
    """So many changes, with effects spread evenly between two ends, in sigmas."""

    count: int = Field(ge=0)
    begin: float = Field(alias="from")
    end: float = Field(alias="to")


class Interactions(_Strict):
    """What pairs of changes do beyond what each does: sd in sigmas."""

    share: Share
    sd: NonNegativeFloat


class Accelerators(_Strict):
    """What a change does otherwise on another accelerator: sd in sigmas, a larger one for a share of changes."""

    sd: NonNegativeFloat
    share: Share
    flip_sd: NonNegativeFloat


class Slow(_Strict):
    """Machines that are slower than others, by a factor, and what that adds to scores, in sigmas."""

    share: Share
    by: PositiveFloat
    effect: float


class TruthNumbers(_Strict):
    """How candidates differ; `sigma` is in the metric's unit, the rest in sigmas."""

    baseline: float
    sigma: PositiveFloat
    noise: NonNegativeFloat
    paired: Share
    offsets: dict[str, float]
    clusters: NonNegativeFloat
    slow: Slow
    drift: float
    proposals: PositiveInt
    good: Some
    slight: Some
    nothing: Share
    bad_sd: NonNegativeFloat
    interactions: Interactions
    accelerators: Accelerators
    crash: Share
    overtime: Share
    wander: NonNegativeFloat
    curve_noise: NonNegativeFloat

    @model_validator(mode="after")
    def _not_more_than_all(self) -> TruthNumbers:
        if self.better + self.nothing > 1:
            raise ValueError("good, slight and nothing together are more than all proposals")
        if self.crash + self.overtime > 1:
            raise ValueError("crash and overtime together are more than all changes")
        return self

    @property
    def better(self) -> float:
        """The share of changes that are better, however slightly."""
        return (self.good.count + self.slight.count) / self.proposals


class Seconds(_Strict):
    """How long things take."""

    training: PositiveFloat
    around: NonNegativeFloat
    found: NonNegativeFloat
    boot: Range
    submit: NonNegativeFloat
    queued: NonNegativeFloat
    fresh: Range
    cancel: NonNegativeFloat
    release: NonNegativeFloat
    idle: PositiveFloat


class AttemptFaults(_Strict):
    """Shares of attempts to which something happens that is no doing of their candidates."""

    vanishes: Share
    hangs: Share
    setup_fails: Share
    late: Share
    untold: Share
    told_twice: Share
    garbled: Share
    mismatch: Share
    log_cut: Share

    @model_validator(mode="after")
    def _not_more_than_all(self) -> AttemptFaults:
        if sum(share for _, share in self) > 1:
            raise ValueError("the shares together are more than all attempts")
        return self


class Outages(_Strict):
    """Times in which the backend answers nothing: how many in an hour, and how long they last."""

    an_hour: NonNegativeFloat
    seconds: Range


class ClockJumps(_Strict):
    """The controller's clock is set, forth or back: how often in an hour, and by how many seconds at most."""

    an_hour: NonNegativeFloat
    seconds: NonNegativeFloat


class Faults(_Strict):
    """What goes wrong, and how often."""

    attempts: AttemptFaults
    preemptions: NonNegativeFloat
    duds: Share
    never_up: Share
    outages: Outages
    clock_jumps: ClockJumps


class Scenario(_Strict):
    """A world."""

    truth: TruthNumbers
    fleet: dict[str, PositiveInt] = Field(min_length=1)
    prices: dict[str, PositiveFloat]
    seconds: Seconds
    faults: Faults

    def with_faults(self, times: float) -> Scenario:
        """The same world with faults so many times as frequent, shares up to `MOST`; 0 for none."""
        found = self.faults.model_dump()
        frequent: dict[str, Any] = {
            "attempts": {
                name: min(MOST / len(found["attempts"]), share * times) for name, share in self.faults.attempts
            },
            "preemptions": self.faults.preemptions * times,
            "duds": min(MOST, self.faults.duds * times),
            "never_up": min(MOST, self.faults.never_up * times),
            "outages": {"an_hour": self.faults.outages.an_hour * times},
            "clock_jumps": {"an_hour": self.faults.clock_jumps.an_hour * times},
        }
        return self.but({"faults": frequent})

    def with_truth(self, **changes: object) -> Scenario:
        """The same world with other numbers of `truth`."""
        return self.but({"truth": changes})

    def but(self, changes: dict[str, Any]) -> Scenario:
        """The same world with what a scenario file with these contents says. Raises ValidationError."""
        return Scenario.model_validate(_merged(self.model_dump(by_alias=True), changes))

    def fleet_of(self, clusters: int) -> dict[str, int]:
        """How many of so many clusters have each accelerator: in proportion, what is left over to the largest rests."""
        whole = sum(self.fleet.values())
        found = {name: clusters * part // whole for name, part in self.fleet.items()}
        rests = sorted(self.fleet, key=lambda name: -(clusters * self.fleet[name] % whole))
        for name in rests[: clusters - sum(found.values())]:
            found[name] += 1
        return found


def variants() -> list[str]:
    """The names of the scenarios that come along."""
    return sorted(path.stem for path in VARIANTS.glob("*.yaml"))


def load(path: Path | None = None) -> Scenario:
    """The built-in scenario, with what the file `path` says, or the variant of this name where there is no such file.

    Raises UserError where it can't be read, or names what is wrong in it.
    """
    own = _validated(BUILT_IN, _read(BUILT_IN))
    if path is None:
        return own
    if not path.exists() and str(path) in variants():
        path = VARIANTS / f"{path}.yaml"
    return _validated(path, _merged(own.model_dump(by_alias=True), _read(path)))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"the scenario {path} can't be read ({error.strerror}); name a file, or one of {', '.join(variants())}"
        ) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"the scenario {path}, line {line}: {error.problem or 'not YAML'}; correct it") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a control character, no UTF-8, a month 13
        raise UserError(f"the scenario {path} is not YAML: {str(error).partition(chr(10))[0]}; correct it") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UserError(f"the scenario {path} must be keys with values, such as `truth: {{noise: 3}}`; correct it")
    return found


def _merged(whole: _T, changes: Any, key: str = "") -> _T | Any:
    """`whole` with what `changes` says otherwise, table by table."""
    if not isinstance(whole, dict) or not isinstance(changes, dict) or key in _NAMED_FREELY:
        return changes
    return {**whole, **{name: _merged(whole.get(name), change, name) for name, change in changes.items()}}


def _validated(path: Path, found: dict[str, Any]) -> Scenario:
    try:
        return Scenario.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"] if part != "[key]") or "the whole"
        if first["type"] == "extra_forbidden":
            raise UserError(f"the scenario {path}: there is no key {key}; see {BUILT_IN} for those there are") from None
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(f"the scenario {path}: {key}: {reason[0].lower()}{reason[1:]}; correct it") from None
