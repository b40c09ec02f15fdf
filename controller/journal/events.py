"""Everything that can happen to a study. The journal is the list of these; its tables are what they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from controller.records import (
    Attempt,
    Candidate,
    Cluster,
    Decision,
    Experiment,
    Label,
    Outcome,
    Proposal,
    Refusal,
    Wave,
)

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class StudyStarted:
    """A study began at `baseline`."""

    baseline: Candidate
    branch: str
    metric: str
    minimize: bool
    settings: Mapping[str, Any]
    kind: Literal["study_started"] = "study_started"


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """The user changed settings that may change while a study runs, such as its budget."""

    settings: Mapping[str, Any]
    kind: Literal["settings_changed"] = "settings_changed"


@dataclass(frozen=True, slots=True)
class WaveDesigned:
    """A wave with everything in it, in the order in which its experiments are to be run."""

    wave: Wave
    proposals: Mapping[str, Proposal]
    refusals: tuple[Refusal, ...]
    candidates: tuple[Candidate, ...]
    experiments: tuple[Experiment, ...]
    kind: Literal["wave_designed"] = "wave_designed"


@dataclass(frozen=True, slots=True)
class ConfirmationPlanned:
    """Screening is over; `experiments` (perhaps none) are to confirm what it promoted."""

    wave: str
    experiments: tuple[Experiment, ...]
    kind: Literal["confirmation_planned"] = "confirmation_planned"


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """A cluster came up, with the accelerator it was observed to have."""

    cluster: Cluster
    kind: Literal["cluster_seen"] = "cluster_seen"


@dataclass(frozen=True, slots=True)
class AttemptSubmitted:
    """An attempt is about to be submitted: recorded before the backend hears of it."""

    attempt: Attempt
    kind: Literal["attempt_submitted"] = "attempt_submitted"


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """An attempt was seen to run."""

    attempt: str
    kind: Literal["attempt_started"] = "attempt_started"


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt is over; so is its experiment, unless the infrastructure failed or the user stopped it."""

    attempt: str
    outcome: Outcome
    kind: Literal["attempt_ended"] = "attempt_ended"


@dataclass(frozen=True, slots=True)
class ExperimentAbandoned:
    """Too many attempts ended with the infrastructure's failures; the experiment is given up."""

    experiment: str
    label: Label
    reason: str
    kind: Literal["experiment_abandoned"] = "experiment_abandoned"


@dataclass(frozen=True, slots=True)
class WaveDecided:
    """The decisions of a wave. A kept one becomes a commit next: `WaveEnded` says that it has."""

    wave: str
    decisions: tuple[Decision, ...]
    kind: Literal["wave_decided"] = "wave_decided"


@dataclass(frozen=True, slots=True)
class WaveEnded:
    """A wave is over; where one of its candidates was kept, it is the incumbent now, as `commit` on the branch."""

    wave: str
    incumbent: str | None = None
    commit: str | None = None
    kind: Literal["wave_ended"] = "wave_ended"


Event = (
    StudyStarted
    | SettingsChanged
    | WaveDesigned
    | ConfirmationPlanned
    | ClusterSeen
    | AttemptSubmitted
    | AttemptStarted
    | AttemptEnded
    | ExperimentAbandoned
    | WaveDecided
    | WaveEnded
)


@cache
def _adapter() -> TypeAdapter[Event]:
    from pydantic import Field, TypeAdapter

    return TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def encode(event: Event) -> str:
    """The event as one line of JSON."""
    return _adapter().dump_json(event).decode()


def decode(text: str | bytes) -> Event:
    """The event that `encode` wrote."""
    return _adapter().validate_json(text)
