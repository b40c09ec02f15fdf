"""Begins and reopens a study: its tag, its branch, its frozen settings, its incumbent."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.clock import Clock
from controller.edits import SourceError, model_digest
from controller.journal import Journal, ProgramChanged, SettingsChanged, StudyStarted, reading
from controller.memory import Memory
from controller.promotion import Block
from controller.proposers.protocol import PastWave
from controller.records import Candidate, UserError
from controller.settings import CHANGEABLE, Settings
from controller.workspace import Workspace

BASELINE = "c0000"


@dataclass(frozen=True)
class Study:
    """An open study: what it is about, and where its state is written."""

    tag: str
    workspace: Workspace
    journal: Journal
    branch: str
    ended_blocks: dict[str, tuple[Block, ...]] = field(default_factory=dict, repr=False, compare=False)
    """The confirmations of waves that have ended, once they have been read: they change no more."""
    ended_waves: dict[str, PastWave] = field(default_factory=dict, repr=False, compare=False)
    """Likewise what those waves were, as proposers see them."""
    memory: Memory = field(default_factory=Memory, repr=False, compare=False)
    """What they add up to (`lineage`)."""

    @property
    def now(self) -> reading.Study:
        """The study as the journal has it at this moment."""
        found = reading.study(self.journal, self.tag)
        assert found is not None
        return found

    @property
    def incumbent(self) -> Candidate:
        """The best confirmed candidate; the baseline while there is none."""
        return reading.candidate(self.journal, self.tag, self.now.incumbent)

    @property
    def knows_head(self) -> bool:
        """Whether the editable file that is checked out is the baseline's or a winner's of this study."""
        baseline = reading.candidate(self.journal, self.tag, self.now.baseline).commit
        known = [baseline, *(commit for _, _, commit, _ in reading.kept(self.journal, self.tag)), self.tip]
        source = self.workspace.source
        return source(self.workspace.head) in map(source, known)

    @property
    def tip(self) -> str:
        """The commit the study branch is at: the incumbent's code, with the trailers of its confirmation."""
        return self.now.tip


def branch_name(tag: str) -> str:
    """The branch of the study called `tag`."""
    return f"autoresearch/{tag}"


def choose_tag(workspace: Workspace, journal: Journal | None, asked: str | None, clock: Clock) -> str:
    """The tag asked for, else the latest study's, else today's date as upstream writes it (nov21).

    Raises UserError where it can't be part of a ref name.
    """
    if asked is None:
        known = reading.tags(journal) if journal else []
        return known[-1] if known else time.strftime("%b%d", time.gmtime(clock.now())).lower()
    # A dot would make one study's attempts look like another's: an attempt is called TAG.EXPERIMENT.NUMBER.
    plain = re.fullmatch(r"\w[\w-]{0,63}", asked) and not asked.endswith("-tip")
    if not plain or not workspace.repository.valid_branch(branch_name(asked)):
        raise UserError(
            f"--tag {asked[:80]!r} can't be a study's; use up to 64 letters, digits, '-' and '_',"
            " not beginning with '-' nor ending in '-tip'"
        )
    return asked


def open_study(workspace: Workspace, journal: Journal, tag: str) -> Study:
    """The study called `tag`, begun at the commit that is checked out where it is new.

    Where its branch is there but its journal isn't (a clone), it goes on from the branch. Raises UserError where
    settings were changed that a study keeps to its end, or where the branch was moved by somebody else.
    """
    branch = branch_name(tag)
    found = reading.study(journal, tag)
    if found is None:
        return _begin(workspace, journal, tag, workspace.repository.branches(branch).get(branch))
    changed = frozen_changes(found, workspace.settings)
    if changed:
        raise UserError(
            f"study {tag} was begun with other settings ({', '.join(changed)});"
            " set them back in program.md, or begin a new study with --tag"
        )
    local = workspace.repository.resolve(f"refs/heads/{branch}")
    if local is None:
        workspace.repository.point(f"refs/heads/{branch}", found.tip)
    elif local != found.tip and not _pending_commit(journal, tag):
        raise UserError(
            f"branch {branch} was moved to {local[:10]} while the study is at {found.tip[:10]}; point it back,"
            " or begin a new study with --tag"
        )
    if found.settings != workspace.settings.recorded():
        journal.record(tag, SettingsChanged(workspace.settings.recorded()))
    return Study(tag, workspace, journal, branch)


def preview_study(workspace: Workspace, journal: Journal, tag: str) -> Study:
    """The study called `tag` in a journal that will be thrown away; git is left as it is."""
    if reading.study(journal, tag) is None:
        branch = branch_name(tag)
        _record_start(workspace, journal, tag, workspace.repository.branches(branch).get(branch) or workspace.head)
    return Study(tag, workspace, journal, branch_name(tag))


def _begin(workspace: Workspace, journal: Journal, tag: str, at: str | None) -> Study:
    commit = at or workspace.head
    _model(workspace, commit)
    # The branch first: a branch without its journal is simply begun from, a journal without its branch would be odd.
    workspace.repository.point(f"refs/heads/{branch_name(tag)}", commit)
    _record_start(workspace, journal, tag, commit)
    return Study(tag, workspace, journal, branch_name(tag))


def _record_start(workspace: Workspace, journal: Journal, tag: str, commit: str) -> None:
    settings = workspace.settings
    baseline = Candidate(BASELINE, commit, commit, {}, _model(workspace, commit))
    minimize = settings.metric.goal == "minimize"
    event = StudyStarted(baseline, branch_name(tag), settings.metric.name, minimize, settings.recorded())
    journal.record(tag, event, *([ProgramChanged(workspace.program)] if workspace.program else []))


def _model(workspace: Workspace, commit: str) -> str:
    """The digest of the model at `commit`. Raises UserError where the file isn't there, or no Python."""
    try:
        return model_digest(workspace.source(commit))
    except SourceError as error:
        raise UserError(f"{workspace.edit} in commit {commit[:10]}, {error}") from None


def _pending_commit(journal: Journal, tag: str) -> bool:
    """Whether a wave was cut off between its decision and the record of its commit."""
    return any(state == "decided" for _, state in reading.open_waves(journal, tag))


def frozen_changes(study: reading.Study, settings: Settings) -> list[str]:
    """In what `settings` differ from those that `study` must keep to its end, in words."""
    return _differences(_frozen(study.settings), _frozen(settings.recorded()))


def _frozen(settings: Mapping[str, object]) -> dict[str, object]:
    """What a study must keep to its end."""
    return {name: value for name, value in settings.items() if name not in CHANGEABLE}


def _differences(old: dict[str, object], new: dict[str, object], prefix: str = "") -> list[str]:
    names = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            names += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            names.append(f"{prefix}{key}: {before} before, {after} now")
    return names
