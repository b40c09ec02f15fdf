"""From what `--proposer` says to a proposer."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from controller.clock import Clock
from controller.records import Tier, UserError

if TYPE_CHECKING:
    from controller.proposers import Proposer
    from controller.proposers.submissions import Submissions
    from controller.study import Study
    from controller.workspace import Workspace

FREE = ("doe", "optuna")
"""Proposers that can be asked before a study begins, as asking them costs nothing."""
AGENTS = "agents"
"""Where in the controller's own folder the output of commands that propose is kept."""


@dataclass(frozen=True)
class Wish:
    """Who is to propose: `asked` as `--proposer` says it, or a person, by `factors`. Time may be `simulated`."""

    asked: str
    factors: tuple[str, ...] = ()
    simulated: bool = False


def free_proposer(wish: Wish) -> Proposer | None:
    """A person's factors, or a proposer of those that cost nothing; None for another."""
    from controller.edits import parse_factor
    from controller.proposers import Doe, Person

    if wish.factors:
        return Person([parse_factor(text) for text in wish.factors])
    if wish.asked == "doe":
        return Doe()
    if wish.asked == "optuna":
        from controller.proposers.tpe import Optuna

        return Optuna()
    return None


def preview_proposer(wish: Wish, workspace: Workspace, study: Callable[[], Study]) -> Proposer:
    """Whoever can be asked what would be. Raises UserError for the others."""
    if wish.asked in ("claude", "submissions") and not wish.factors:
        why = "is paid for every answer" if wish.asked == "claude" else "are what was handed in, and checked by then"
        raise UserError(f"{wish.asked} {why}, so that there is no dry run with it; try `--proposer doe`")
    return free_proposer(wish) or _command(wish, workspace, study)


def run_proposer(
    wish: Wish,
    workspace: Workspace,
    study: Callable[[], Study],
    tag: str,
    clock: Clock,
    say: Callable[[str], None],
    patient: bool,
) -> tuple[Proposer, Submissions | None]:
    """Who proposes in a study that need not be open yet, and what is handed in from outside meanwhile.

    Agents that think are given as much time as they take where somebody is `patient`; else designs of experiments
    stand in for them. Raises UserError where the one asked for is not there.
    """
    from controller.inbox import Inbox
    from controller.proposers.submissions import Submissions

    alone = wish.factors or wish.simulated
    handed_in = None if alone else Submissions(Inbox(study), clock, _tiers(workspace))
    if wish.asked == Submissions.name and not wish.factors:
        _refuse_simulation(wish)
        assert handed_in is not None
        return handed_in, handed_in
    return free_proposer(wish) or _thinker(wish, workspace, study, tag, clock, say, patient), handed_in


def _thinker(
    wish: Wish,
    workspace: Workspace,
    study: Callable[[], Study],
    tag: str,
    clock: Clock,
    say: Callable[[str], None],
    patient: bool,
) -> Proposer:
    """An agent, and designs of experiments whenever it does not answer."""
    from controller.proposers import Doe
    from controller.proposers.relay import Relay

    if wish.asked != "claude":
        command = _command(wish, workspace, study, tag)
        return command if patient else Relay(command, Doe(), clock, say)
    from controller.archive import StudyArchive
    from controller.proposers.claude import SECONDS, Claude, check

    _refuse_simulation(wish)
    settings = workspace.settings
    check(settings.llm)
    claude = Claude(StudyArchive(study), settings.llm, _tiers(workspace))
    return Relay(claude, Doe(), clock, say, patience=SECONDS) if patient else Relay(claude, Doe(), clock, say)


def _command(wish: Wish, workspace: Workspace, study: Callable[[], Study], tag: str = "") -> Proposer:
    """A command that works on the incumbent; with a `tag` what it prints is kept."""
    from controller.proposers.command import Command

    if not _is_command(wish.asked):
        raise UserError(
            f"there is no proposer {wish.asked}; there are {', '.join(FREE)} and submissions, or give a command that"
            " runs an agent, or ask claude, or name the levels with --factor"
        )
    _refuse_simulation(wish)
    program = wish.asked.split()[0]
    if os.sep in program and Path(program).is_file() and not os.access(program, os.X_OK):
        raise UserError(f"{program} can't be run; make it executable with `chmod +x {program}`")
    checkout = _checkout(workspace, lambda: study().tip)
    directory = workspace.directory / AGENTS if tag else None
    return Command(_from_here(wish.asked), checkout, directory, tag or "agent", _tiers(workspace))


def _refuse_simulation(wish: Wish) -> None:
    if wish.simulated:
        who = {"claude": "claude", "submissions": "whoever hands ideas in"}.get(wish.asked, "a command")
        raise UserError(f"{who} takes real time, of which a simulation has none; use {' or '.join(FREE)} there")


def _tiers(workspace: Workspace) -> list[tuple[str, ...]]:
    return [workspace.settings.accelerators(tier) for tier in Tier]


def _is_command(text: str) -> bool:
    """Whether it is for a shell rather than one of our own names."""
    return bool(text.strip()) and (" " in text.strip() or os.sep in text or shutil.which(text) is not None)


def _from_here(command: str) -> str:
    """The command, to be run elsewhere: a relative path at its beginning (`./agent.sh`) is one from here."""
    program, space, rest = command.strip().partition(" ")
    if os.sep in program and Path(program).exists():
        return f"{shlex.quote(str(Path(program).absolute()))}{space}{rest}"
    return command


def _checkout(workspace: Workspace, tip: Callable[[], str]) -> Callable[[Path], None]:
    """A function that puts the files of the commit that `tip` is by then into a folder."""

    def made(directory: Path) -> None:
        import io
        import tarfile

        with tarfile.open(fileobj=io.BytesIO(workspace.repository.export(tip()).archive)) as tar:
            tar.extractall(directory, filter="data")

    return made
