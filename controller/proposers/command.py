"""Any coding agent as a proposer: a shell command, run in a scratch checkout of the incumbent.

It is told by two variables in its environment: `AUTORESEARCH_BRIEF` is the path of what it should know (`brief`, and
how to answer), `AUTORESEARCH_PROPOSAL` the path at which it may leave ideas as JSON. What it makes of the editable file
is the edit. The rest of its environment is the user's own, since an agent needs its keys; nothing of that is in the
brief.

What comes of it is refused with a sentence, and the command asked again with that sentence, up to `TRIES` times a call:
where it ends with another exit code than 0, is silent or at work for too long, changes other files, or proposes nothing
that can run and is new. The checkout of what was refused is left where it is.

One that outlived its controller is ended by the next.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controller.harness.processes import kill_marked
from controller.proposers import checkout, quoting
from controller.proposers.agent_process import Limits, run
from controller.proposers.answer import BRIEF, HOW, PROPOSAL, ideas_in, said, usd, with_edit
from controller.proposers.brief import brief
from controller.proposers.protocol import Context
from controller.proposers.vetting import Intake, Objected, read, refusal
from controller.records import Objection, Proposal, Refusal
from controller.text import clip

log = logging.getLogger(__name__)

TRIES = 3
"""Times that a command is run in one call, as long as nothing comes of it."""
KEPT = 10
"""Checkouts of what was refused, the latest, that are kept."""
PREFIX = "autoresearch-agent-"

REASON, TOLD = 500, 4000
"""Characters of a reason that is recorded, and of those that the command is told."""


@dataclass(frozen=True, slots=True)
class _Scratch:
    """The folder of one run of a command, and the file that holds what it printed."""

    root: Path
    output: Path

    @property
    def tree(self) -> Path:
        return self.root / "checkout"

    @property
    def brief(self) -> Path:
        return self.tree / checkout.TALK / "brief.md"

    @property
    def proposal(self) -> Path:
        return self.tree / checkout.TALK / "proposal.json"


class Command:
    """Runs `command` for each call; see the top of this file.

    `fill` puts the incumbent's files into an empty folder. Output is kept in `directory`, in files that are called
    after the `study`; without a directory it lies beside the checkout. `tiers` are the accelerators of each tier.
    """

    usd_at_most = 0.0  # Nobody knows what it will cost; what it says it has cost counts.

    def __init__(
        self,
        command: str,
        fill: Callable[[Path], None],
        directory: Path | None = None,
        study: str = "agent",
        tiers: Sequence[Sequence[str]] = (),
        limits: Limits | None = None,
    ) -> None:
        self.name = f"command {_program(command)}"
        self.usd_spent = 0.0
        self._command = command
        self._fill = fill
        self._directory = directory
        self._study = study
        self._tiers = tiers
        self._limits = limits or Limits()
        self._refusals: list[Refusal] = []
        self._left: list[Path] = []

    def refusals(self) -> Sequence[Refusal]:
        """What was refused since this was asked the last time."""
        found, self._refusals = self._refusals, []
        return found

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        """What the command proposes, as far as there is room for it; nothing where nothing came of `TRIES` runs."""
        self._end_stray()
        told: list[str] = []
        for _ in range(TRIES):
            scratch = self._scratch()
            try:
                proposals, refused = await self._asked(scratch, context, room, told)
            except Objected as error:
                proposals, refused = [], [refusal(self.name, "", error)]
            except BaseException:
                shutil.rmtree(scratch.root, ignore_errors=True)
                raise
            self._put_away(scratch, refused)
            if proposals:
                return proposals
            told += [one.reason for one in refused]
        return []

    async def _asked(
        self, scratch: _Scratch, context: Context, room: int, told: Sequence[str]
    ) -> tuple[list[Proposal], list[Refusal]]:
        """Run the command once: its proposals, and what of its answer is refused. Raises Objected for all of it."""
        files = checkout.make(scratch.tree, self._fill, context)
        scratch.brief.write_text(self._told(context, room, told), encoding="utf-8", errors="replace")
        with self._marked(scratch):
            environment = {BRIEF: str(scratch.brief), PROPOSAL: str(scratch.proposal)}
            why = await run(self._command, scratch.tree, environment, PROPOSAL, scratch.output, self._limits)
        try:
            ideas = ideas_in(scratch.proposal)
        except Objected as error:
            raise error if why is None else Objected(why) from None
        self.usd_spent += sum(map(usd, ideas))
        if why is not None:
            raise Objected(why)
        edit = checkout.edited(scratch.tree, files, context)
        if edit is None and not ideas:
            raise Objected("it changed nothing and proposed nothing", Objection.NO_OP)
        return self._vetted(ideas, edit, context, room)

    def _vetted(
        self, ideas: Sequence[Any], edit: str | None, context: Context, room: int
    ) -> tuple[list[Proposal], list[Refusal]]:
        intake = Intake(context, room, self._tiers)
        refused: list[Refusal] = []
        for idea, edited in with_edit(ideas, edit, self.name):
            try:
                intake.take(read(idea, context, edited))
            except Objected as error:
                refused.append(refusal(said(idea, "name") or self.name, said(idea, "hypothesis"), error))
        return intake.accepted, refused

    def _put_away(self, scratch: _Scratch, refused: Sequence[Refusal]) -> None:
        """Note what was refused, and keep its checkout, one of the latest, for a person to look at."""
        for one in refused:
            noted = replace(one, reason=f"{clip(one.reason, REASON)}; see {scratch.output} and {scratch.tree}")
            self._refusals.append(noted)
            log.info("refused of a command", extra={"proposer": self.name, "reason": noted.reason})
        self._left.append(scratch.root)
        for root in self._left[:-KEPT] if refused else [self._left.pop()]:
            shutil.rmtree(root, ignore_errors=True)
        self._left = self._left[-KEPT:]

    def _told(self, context: Context, room: int, told: Sequence[str]) -> str:
        """The brief, how to answer, and why what it answered just now was refused."""
        total, silence = self._limits.total / 60, self._limits.silence / 60
        how = HOW.format(total=total, silence=silence, edit=context.edit, proposal=PROPOSAL, room=room)
        text = brief(context) + how
        if told:
            why = quoting.data("\n".join(told), TOLD)
            text += f"\n# What you answered just now, and why it was refused\n\n{why}\n"
        return text

    def _scratch(self) -> _Scratch:
        root = Path(tempfile.mkdtemp(prefix=PREFIX))
        if self._directory is None:
            return _Scratch(root, root / "output.log")
        self._directory.mkdir(parents=True, exist_ok=True)
        numbers = [path.stem.rpartition("-")[2] for path in self._directory.glob(f"{self._study}-*.log")]
        number = max((int(number) for number in numbers if number.isdecimal()), default=0) + 1
        return _Scratch(root, self._directory / f"{self._study}-{number:04d}.log")

    @contextmanager
    def _marked(self, scratch: _Scratch) -> Iterator[None]:
        """While it runs, where it runs is written down, so that whoever comes after us can end it."""
        if self._directory is None:
            yield
            return
        mark = self._directory / f"{self._study}.running"
        mark.write_text(str(scratch.root))
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    def _end_stray(self) -> None:
        """End what an earlier controller that was killed has left at work."""
        mark = None if self._directory is None else self._directory / f"{self._study}.running"
        if mark is not None and mark.exists():
            root = Path(mark.read_text())
            if root.name.startswith(PREFIX):
                kill_marked(f"{PROPOSAL}={_Scratch(root, root).proposal}")
                shutil.rmtree(root, ignore_errors=True)
            mark.unlink(missing_ok=True)


def _program(command: str) -> str:
    """What a command runs, for its name; not what stands before it (`KEY=secret agent`), nor its arguments."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that is not closed: bash will say so
        words = command.split()
    program = next((word for word in words if "=" not in word), "")
    return clip(Path(program.rstrip(";&|")).name, 40) or "of yours"
