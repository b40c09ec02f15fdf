"""The settings of a study: YAML front matter of program.md, every key optional, unknown keys refused by name."""

from __future__ import annotations

from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, field_validator

from controller.records import Tier, UserError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Metric(_Strict):
    """What is measured, and which way is better."""

    name: str = "val_bpb"
    goal: Literal["minimize", "maximize"] = "minimize"


class Screening(_Strict):
    """The tier that asks many cheap questions: `seeds` runs of each cell."""

    accelerators: tuple[str, ...] = ("H100",)
    seeds: PositiveInt = 1


class Confirmation(_Strict):
    """The tier that decides: the `promote` best cells, `seeds` fresh seeds each, beside as many controls."""

    accelerators: tuple[str, ...] = ("H200",)
    seeds: PositiveInt = 3
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
    """Caps of a whole study. A single wave is bounded by its size; these bind `autoresearch run`."""

    hours: PositiveFloat | None = None
    gpu_hours: PositiveFloat | None = None
    usd: PositiveFloat | None = None
    llm_usd: PositiveFloat | None = None


class Settings(_Strict):
    """Everything the front matter may say."""

    metric: Metric = Metric()
    edit: str | None = None
    tiers: Tiers = Tiers()
    budget: Budget = Budget()
    min_effect: float = Field(default=0.0005, ge=0)
    timeout_minutes: PositiveFloat = 10

    def seeds(self, tier: Tier) -> int:
        """Seeds an experiment of `tier` is run with."""
        return self.tiers.screening.seeds if tier is Tier.SCREENING else self.tiers.confirmation.seeds

    def accelerators(self, tier: Tier) -> tuple[str, ...]:
        """Accelerators that serve `tier`."""
        return (self.tiers.screening if tier is Tier.SCREENING else self.tiers.confirmation).accelerators

    def frozen(self) -> dict[str, Any]:
        """What a study must keep to its end: everything but the budget."""
        return self.model_dump(mode="json", exclude={"budget"})


def parse(program: str, file: str = "program.md") -> Settings:
    """The settings in the text of program.md; the defaults where it has no front matter.

    Raises UserError naming the line, or the key, that is wrong.
    """
    lines = program.splitlines()
    if not lines or lines[0].strip() != "---":
        return Settings()
    end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        raise UserError(f"{file}, line 1: the front matter is not closed; end it with a line of three dashes")
    try:
        found = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.MarkedYAMLError as error:
        # The mark counts from 0, and the front matter begins on the file's second line.
        line = (error.problem_mark.line if error.problem_mark else 0) + 2
        raise UserError(f"{file}, line {line}: {error.problem or 'not YAML'}; correct the front matter") from None
    if found is None:
        return Settings()
    if not isinstance(found, dict):
        raise UserError(f"{file}, line 2: the front matter must be keys with values, like `min_effect: 0.0005`")
    try:
        return Settings.model_validate(found)
    except ValidationError as error:
        raise UserError(_sentence(error, lines, file)) from None


def _sentence(error: ValidationError, lines: list[str], file: str) -> str:
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    line = _line_of(path, lines)
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        parent: Any = Settings
        for part in path[:-1]:
            parent = parent.model_fields[part].annotation
        return f"{file}, line {line}: unknown key {key}; known here: {', '.join(parent.model_fields)}"
    return f"{file}, line {line}: {key}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}"


def _line_of(path: list[str], lines: list[str]) -> int:
    at = 0
    for part in path:
        at = next((number for number in range(max(at, 1), len(lines)) if f"{part}:" in lines[number]), at)
    return at + 1
