"""A workspace: the git repository with the files the user owns, found and checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from controller.journal import DIRECTORY
from controller.records import UserError
from controller.repo import Repository
from controller.settings import Settings, parse, prose

PROGRAM = "program.md"
TRIAL_PROTOCOL = "prepare/protocol.py"
"""A workspace that has this file is scored by our harness; any other reports its own score."""


@dataclass(frozen=True)
class Workspace:
    """`head` is the commit that is checked out; `edit` the path of the editable file in it.

    `program` is what program.md told proposers when it was read.
    """

    repository: Repository
    settings: Settings
    head: str
    edit: str
    program: str = ""

    @property
    def root(self) -> Path:
        """The folder of the repository."""
        return self.repository.root

    @property
    def directory(self) -> Path:
        """Where the controller keeps its own files; ignored by git."""
        return self.root / DIRECTORY

    def source(self, commit: str) -> str:
        """The editable file at `commit`. Raises UserError where it isn't there."""
        text = self.repository.read(commit, self.edit)
        if text is None:
            raise UserError(f"{self.edit} is not in commit {commit[:10]}; commit it, or name another under `edit:`")
        return text

    def evaluated(self, commit: str) -> bool:
        """Whether `commit` has our trial protocol, so that the harness scores it rather than it itself."""
        return self.repository.read(commit, TRIAL_PROTOCOL) is not None


def find(start: Path) -> Workspace:
    """The workspace around `start`. Raises UserError with what to do where it isn't one."""
    repository = Repository.find(start)
    head = repository.resolve("HEAD")
    if head is None:
        raise UserError(f"{repository.root} has no commit yet; commit train.py and what it needs first")
    return at_commit(repository, head, program=repository.root / PROGRAM)


def at_commit(repository: Repository, commit: str, program: Path | None = None) -> Workspace:
    """The workspace as of `commit`, with settings from `program` where that file exists, else from the commit."""
    text = read_program(repository, commit, program)
    settings = parse(text)
    choices = [str(PurePosixPath(settings.edit))] if settings.edit else ["train/train.py", "train.py"]
    edit = next((path for path in choices if repository.read_bytes(commit, path) is not None), None)
    if edit is None:
        raise UserError(
            f"{' or '.join(choices)} is not committed in {repository.root}; commit it,"
            " or run `autoresearch init DIR` to make a workspace"
        )
    return Workspace(repository, settings, commit, edit, prose(text))


def read_program(repository: Repository, commit: str, program: Path | None) -> str:
    """The text of the file `program` where it exists, else of program.md in `commit`; "" where there is none."""
    if program is None or not program.is_file():
        return repository.read(commit, PROGRAM) or ""
    try:
        return program.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{PROGRAM} is not UTF-8 text; save it as UTF-8") from None


def open_directory(workspace: Workspace) -> Path:
    """The controller's own folder in the workspace, hidden from git."""
    workspace.repository.exclude(f"/{DIRECTORY}/")
    return workspace.directory
