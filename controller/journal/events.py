"""Everything that can happen to a study. The journal is the list of these; its tables are what they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from controller.records import (
    Attempt,
    Author,
    Candidate,
    Cluster,
    Decision,
    Experiment,
    Knobs,
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
class ProgramChanged:
    """What program.md tells proposers, below its front matter; `changed` says how it differs from what it told before.

    A study begins with one, where there is such a text.
    """

    text: str
    changed: str = ""
    kind: Literal["program_changed"] = "program_changed"


@dataclass(frozen=True, slots=True)
class NoteAdded:
    """Proposers are shown a note from now on; `hint` is the file by which a person left it, if one did."""

    note: str
    text: str
    by: Author
    hint: str = ""
    kind: Literal["note_added"] = "note_added"


@dataclass(frozen=True, slots=True)
class NoteRetired:
    """They are shown it no longer, and why."""

    note: str
    reason: str
    kind: Literal["note_retired"] = "note_retired"


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
class ProposalsRefused:
    """A proposer was asked, and nothing of what it proposed may run: there is no wave to record this with."""

    refusals: tuple[Refusal, ...]
    kind: Literal["proposals_refused"] = "proposals_refused"


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A controller began to run the study, with what was asked of it: clusters, infra, caps and the like."""

    asked: Mapping[str, Any]
    kind: Literal["run_started"] = "run_started"


@dataclass(frozen=True, slots=True)
class RunStopped:
    """It came to an orderly end, and why. One that was killed left no such event."""

    why: str
    reason: str
    kind: Literal["run_stopped"] = "run_stopped"


@dataclass(frozen=True, slots=True)
class ConfirmationPlanned:
    """Screening is over; `experiments` (perhaps none) are to confirm what it promoted, beside the candidate `against`.

    Where the incumbent had changed since the wave was designed, `against` is the new one, and `candidates` are the
    promoted ones on top of it. `base` holds the value that each factor of the wave has in `against`.
    """

    wave: str
    against: str
    base: Knobs
    experiments: tuple[Experiment, ...]
    candidates: tuple[Candidate, ...] = ()
    kind: Literal["confirmation_planned"] = "confirmation_planned"


@dataclass(frozen=True, slots=True)
class ClustersAsked:
    """So many clusters more are about to be asked for, and may be billed before they are seen; 0: no longer."""

    clusters: int
    kind: Literal["clusters_asked"] = "clusters_asked"


@dataclass(frozen=True, slots=True)
class ClustersAwaited:
    """Clusters that were asked for are not there yet, and why, as far as that is known."""

    reason: str
    kind: Literal["clusters_awaited"] = "clusters_awaited"


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """A cluster is up, with the accelerator it was observed to have; billed from `since`, in Unix seconds."""

    cluster: Cluster
    since: float
    kind: Literal["cluster_seen"] = "cluster_seen"


@dataclass(frozen=True, slots=True)
class ClusterGone:
    """A cluster was released, replaced or lost; billed until `until`, in Unix seconds."""

    cluster: str
    until: float
    reason: str
    kind: Literal["cluster_gone"] = "cluster_gone"


@dataclass(frozen=True, slots=True)
class ProposerAsked:
    """A proposer is about to be asked, which may cost as much as `usd_at_most`."""

    call: int
    usd_at_most: float
    kind: Literal["proposer_asked"] = "proposer_asked"


@dataclass(frozen=True, slots=True)
class ProposerAnswered:
    """It answered, or failed; `usd` is what that did cost. Until this is known, it counts as the most it may cost.

    Less than nothing where an earlier answer, still on its way then, was held to cost more than it did. Of a language
    `model` the tokens that were billed: read anew, written, stored in its cache, and read from that.
    """

    call: int
    usd: float
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    stored_tokens: int = 0
    cached_tokens: int = 0
    kind: Literal["proposer_answered"] = "proposer_answered"


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
class AttemptPruned:
    """An attempt is hopeless and about to be ended early: recorded before the backend hears of it."""

    attempt: str
    reason: str
    kind: Literal["attempt_pruned"] = "attempt_pruned"


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
    | ProgramChanged
    | NoteAdded
    | NoteRetired
    | RunStarted
    | RunStopped
    | WaveDesigned
    | ProposalsRefused
    | ConfirmationPlanned
    | ClustersAsked
    | ClustersAwaited
    | ClusterSeen
    | ClusterGone
    | ProposerAsked
    | ProposerAnswered
    | AttemptSubmitted
    | AttemptStarted
    | AttemptPruned
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
