"""The settings of a study: YAML front matter of program.md, every key optional, unknown keys refused by name."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticCustomError

from controller.harness.output import NAME
from controller.records import Tier, UserError

CHANGEABLE = frozenset({"budget", "fleet", "llm", "prices"})
"""The settings that may change while a study runs; the others are what makes its scores comparable."""

MOST_PROSE = 100_000
"""Characters of program.md that are recorded; proposers are shown fewer."""

MOST_SEEDS = 500
"""Seeds a tier may have: within a wave, screening and confirmation have this many seed numbers each."""


_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Gate:
    """A bound that a candidate's mean of `metric` must keep, whatever its score: `accuracy >= 0.96`."""

    metric: str
    operator: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric} {self.limit}"

    @property
    def limit(self) -> str:
        """`>= 0.96`."""
        return f"{self.operator} {repr(self.bound).removesuffix('.0')}"

    def passes(self, mean: float) -> bool:
        """Whether `mean` keeps the bound."""
        return _OPERATORS[self.operator](mean, self.bound)


def parse_gate(text: str) -> Gate:
    """The gate that `text` says, in the form in which a gate prints itself. Raises ValueError."""
    said = re.fullmatch(rf"\s*({NAME})\s*([<>]=?)\s*([-+]?[0-9.]{{1,40}}(?:[eE][-+]?[0-9]{{1,3}})?)\s*", text)
    bound = float(said[3]) if said else float("nan")
    if said is None or not isfinite(bound):
        raise ValueError(f"{text!r:.80} is no gate")
    return Gate(said[1], said[2], bound)


def _gate(value: Any) -> Gate:
    try:
        return value if isinstance(value, Gate) else parse_gate(value)
    except (TypeError, ValueError):
        example = "should be a metric, one of >= > <= <, and a number, such as `accuracy >= 0.96`"
        raise PydanticCustomError("gate", example) from None


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(NAME, value):
        allowed = "should be at most 64 letters, digits and _ . / @ -, from a letter to a letter or digit"
        raise PydanticCustomError("name", allowed)
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Metric(_Strict):
    """What is measured, and which way is better."""

    name: Annotated[str, PlainValidator(_name)] = "val_bpb"
    goal: Literal["minimize", "maximize"] = "minimize"


class Screening(_Strict):
    """The tier that asks many cheap questions: `seeds` runs of each cell."""

    accelerators: tuple[str, ...] = Field(default=("H100",), min_length=1)
    seeds: int = Field(default=1, ge=1, le=MOST_SEEDS)


class Confirmation(_Strict):
    """The tier that decides: the `promote` best cells, `seeds` fresh seeds each, beside as many controls."""

    accelerators: tuple[str, ...] = Field(default=("H200",), min_length=1)
    seeds: int = Field(default=3, ge=1, le=MOST_SEEDS)
    promote: PositiveInt = 3


class Tiers(_Strict):
    """Which accelerators serve which tier. Where none has a tier's, every cluster serves every tier."""

    screening: Screening = Screening()
    confirmation: Confirmation = Confirmation()

    @field_validator("screening", "confirmation", mode="before")
    @classmethod
    def _one_accelerator_needs_no_list(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("accelerators"), str):
            return {**value, "accelerators": [value["accelerators"]]}
        return value


class Budget(_Strict):
    """Caps of `autoresearch run`. A single wave is bounded by its size.

    `hours` is how long one run may take; the others bind the whole study, however often it is run.
    """

    hours: PositiveFloat | None = None
    gpu_hours: PositiveFloat | None = None
    usd: PositiveFloat | None = None
    llm_usd: PositiveFloat | None = None


class Llm(_Strict):
    """The language model that `--proposer claude` asks, how hard it thinks, and the most that one call may cost.

    `effort` is left to the proposer where it is not said. `prices` are dollars for a million tokens, to be given for a
    model whose prices are not known, or where those are out of date.
    """

    model: str = Field(default="claude-opus-5-5", min_length=1, max_length=200)
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    usd_per_call: PositiveFloat = 1.0
    prices: dict[Literal["input", "output", "cache_write", "cache_read"], PositiveFloat] = Field(default_factory=dict)

    @field_validator("prices")
    @classmethod
    def _both_ways_have_a_price(cls, value: dict[str, float]) -> dict[str, float]:
        if value and not value.keys() >= {"input", "output"}:
            raise PydanticCustomError("prices", "should give input and output, both")
        return value


class Settings(_Strict):
    """Everything the front matter may say."""

    metric: Metric = Metric()
    gates: tuple[Annotated[Gate, PlainValidator(_gate), PlainSerializer(str)], ...] = ()
    edit: str | None = None
    tiers: Tiers = Tiers()
    budget: Budget = Budget()
    prices: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Dollars for an hour of each accelerator."""
    fleet: dict[str, PositiveInt] = Field(default_factory=dict)
    """How many clusters have which accelerator; empty: whichever experiment.yaml lets SkyPilot find."""
    llm: Llm = Llm()
    early_stopping: bool = True
    """Whether runs that are clearly worse than the incumbent at the same point are ended."""
    min_effect: float = Field(default=0.0005, ge=0)
    simplicity: float = Field(default=0.0, ge=0)
    """By how much the metric must be better for each line of code that is added; a line less is worth as much."""
    timeout_minutes: PositiveFloat = 10

    @field_validator("gates", mode="before")
    @classmethod
    def _one_gate_needs_no_list(cls, value: Any) -> Any:
        return value if isinstance(value, (list, tuple)) else [value]

    def seeds(self, tier: Tier) -> int:
        """Seeds an experiment of `tier` is run with."""
        return self.tiers.screening.seeds if tier is Tier.SCREENING else self.tiers.confirmation.seeds

    def accelerators(self, tier: Tier) -> tuple[str, ...]:
        """Accelerators that serve `tier`."""
        return (self.tiers.screening if tier is Tier.SCREENING else self.tiers.confirmation).accelerators

    def recorded(self) -> dict[str, Any]:
        """The settings as the journal keeps them."""
        return self.model_dump(mode="json")


def parse(program: str, file: str = "program.md") -> Settings:
    """The settings in the text of program.md; the defaults where it has no front matter.

    Raises UserError naming the line, or the key, that is wrong.
    """
    lines = _lines(program)
    if not lines or lines[0].strip() != "---":
        return Settings()
    end = _end(lines)
    if end is None:
        begun = next((line for line in lines[1:] if line.strip()), "")
        if not re.match(r"\s*[\w'\"]+\s*:(\s|$)", begun):
            return Settings()  # prose under a horizontal rule
        raise UserError(f"{file}, line 1: the front matter is not closed; end it with a line of three dashes")
    try:
        text = "\n".join(lines[1:end])
        found = _without_nothing(yaml.safe_load(text))
        if found is None:
            return Settings()
        if not isinstance(found, dict):
            raise UserError(f"{file}, line 2: the front matter must be keys with values, like `min_effect: 0.0005`")
        return Settings.model_validate(found)
    except yaml.MarkedYAMLError as error:
        # The mark counts from 0, and the front matter begins on the file's second line.
        line = (error.problem_mark.line if error.problem_mark else 0) + 2
        raise UserError(f"{file}, line {line}: {error.problem or 'not YAML'}; correct the front matter") from None
    except ValidationError as error:
        raise UserError(_sentence(error, text, file)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a control character, a month 13
        reason = str(error).partition("\n")[0]
        raise UserError(f"{file}: the front matter can't be read: {reason}; correct it") from None


def prose(program: str) -> str:
    """What the text of program.md tells proposers: what is below its front matter, and all of it where it has none."""
    lines = _lines(program)
    end = _end(lines)
    text = "\n".join(lines if end is None else lines[end + 1 :]).strip()[:MOST_PROSE]
    return text.encode(errors="replace").decode()  # of a commit it may hold bytes that are no text


def _lines(program: str) -> list[str]:
    return program.removeprefix("\ufeff").splitlines()


def _end(lines: list[str]) -> int | None:
    """Where the front matter's closing line is."""
    if not lines or lines[0].strip() != "---":
        return None
    return next((number for number, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)


def _without_nothing(found: Any) -> Any:
    """What YAML found, less the keys that have no value: `budget:` with nothing behind it says nothing."""
    if not isinstance(found, dict):
        return found
    return {key: _without_nothing(value) for key, value in found.items() if value is not None}


def _sentence(error: ValidationError, text: str, file: str) -> str:
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"] if part != "[key]"]
    line = _line_of(path, text)
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        parent: Any = Settings
        for part in path[:-1]:
            parent = parent.model_fields[part].annotation
        return f"{file}, line {line}: unknown key {key}; known here: {', '.join(parent.model_fields)}"
    return f"{file}, line {line}: {key}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r:.80}"


def _line_of(path: list[str], text: str) -> int:
    """The file's line on which the front matter `text` sets the key at `path`, or the nearest key around it."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line = 0
    for part in path:
        if isinstance(node, yaml.SequenceNode):
            node = node.value[int(part)]
            line = node.start_mark.line
            continue
        if not isinstance(node, yaml.MappingNode):
            break
        key, node = next(((key, value) for key, value in node.value if key.value == part), (None, None))
        if key is None:
            break
        line = key.start_mark.line
    return line + 2
