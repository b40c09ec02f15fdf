"""What a command is about: the workspace around a folder, its journal, the study that is meant."""

from __future__ import annotations

from pathlib import Path

from controller.clock import RealClock
from controller.journal import DIRECTORY, Journal, reading
from controller.journal.lock import is_locked
from controller.records import UserError


def open_to_read(start: Path, tag: str | None) -> tuple[Journal, str]:
    """The journal around `start` and the study meant. Raises UserError where there is none."""
    root = root_with_journal(start)
    journal = Journal.read(root / DIRECTORY, RealClock())
    known = reading.tags(journal) if journal else []
    if journal is None or not known:
        raise UserError(
            f"{root} has no study yet; begin one with `autoresearch wave --clusters 2 --infra local`, or, for an agent"
            " that hands its ideas in, with `autoresearch run --clusters 2 --infra local --proposer submissions`"
        )
    if tag is not None and tag not in known:
        raise UserError(f"there is no study {tag}; there are {', '.join(known)}")
    return journal, tag or known[-1]


def root_with_journal(start: Path) -> Path:
    """The workspace around `start`. Looks for its journal first: asking git takes longer than the whole answer."""
    if start.is_dir():
        for folder in (start.resolve(), *start.resolve().parents):
            if (folder / DIRECTORY).is_dir():
                return folder
    from controller.repo import Repository

    return Repository.find(start).root


def root_of(start: Path) -> Path:
    """The workspace around `start`, whether or not it has a study yet."""
    root = root_with_journal(start)
    if not (root / DIRECTORY).is_dir():
        from controller.workspace import find

        return find(start).root
    return root


def study_is_running(journal: Journal, tag: str) -> bool:
    """Whether a live controller holds the study."""
    return is_locked(journal.path.parent, tag)
