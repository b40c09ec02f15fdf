"""The journal: the only place where a study's state is written.

`record` appends events and updates the tables they add up to in one transaction; replaying the events into an empty
database gives the same tables. One controller writes a study at a time; any number of readers read.
"""

from controller.journal import reading
from controller.journal.events import (
    AttemptEnded,
    AttemptPruned,
    AttemptStarted,
    AttemptSubmitted,
    ClusterGone,
    ClustersAsked,
    ClustersAwaited,
    ClusterSeen,
    ConfirmationPlanned,
    Event,
    ExperimentAbandoned,
    NoteAdded,
    NoteRetired,
    ProgramChanged,
    ProposalsRefused,
    ProposerAnswered,
    ProposerAsked,
    RunStarted,
    RunStopped,
    SettingsChanged,
    StudyStarted,
    WaveDecided,
    WaveDesigned,
    WaveEnded,
)
from controller.journal.lock import study_lock
from controller.journal.store import DIRECTORY, Journal

__all__ = [
    "DIRECTORY",
    "AttemptEnded",
    "AttemptPruned",
    "AttemptStarted",
    "AttemptSubmitted",
    "ClusterGone",
    "ClusterSeen",
    "ClustersAsked",
    "ClustersAwaited",
    "ConfirmationPlanned",
    "Event",
    "ExperimentAbandoned",
    "Journal",
    "NoteAdded",
    "NoteRetired",
    "ProgramChanged",
    "ProposalsRefused",
    "ProposerAnswered",
    "ProposerAsked",
    "RunStarted",
    "RunStopped",
    "SettingsChanged",
    "StudyStarted",
    "WaveDecided",
    "WaveDesigned",
    "WaveEnded",
    "reading",
    "study_lock",
]
