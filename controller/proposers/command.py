"""Any coding agent as a proposer: a shell command, run in a scratch checkout of the incumbent.

It is told by two variables in its environment: `AUTORESEARCH_BRIEF` is the path of what it should know (`brief`, and
how to answer), `AUTORESEARCH_PROPOSAL` the path at which it may leave ideas as JSON. What it makes of the editable file
is the edit. The rest of its environment is the user's own, since an agent needs its keys; nothing of that is in the
brief. The checkout is a repository by itself, in the system's temporary folder; the user's own is not touched.

What comes of it is refused with a sentence, and the command asked again with that sentence, up to `TRIES` times a call:
where it ends with another exit code than 0, is silent or at work for too long, changes other files, or proposes nothing
that can run and is new. The checkout of what was refused is left where it is.

A command that is at its end, or at its limit, is ended with everything it has started: its process group, and on Linux
whoever else has its `AUTORESEARCH_PROPOSAL`. One that outlived its controller is ended by the next.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import IO, Any, NoReturn, TypeAlias

from controller.edits.patch import PatchError, check
from controller.harness.processes import kill_marked
from controller.proposers import quoting
from controller.proposers.brief import brief
from controller.proposers.protocol import Context
from controller.proposers.vetting import Objected, read, refusal, vet
from controller.records import Objection, Proposal, Refusal, UserError
from controller.text import clip

log = logging.getLogger(__name__)

BRIEF, PROPOSAL = "AUTORESEARCH_BRIEF", "AUTORESEARCH_PROPOSAL"
TRIES = 3
"""Times that a command is run in one call, as long as nothing comes of it."""
MOST_LOG, TAIL = 4_000_000, 64_000
"""Bytes of a command's output that are kept, and how many of these are its end."""
MOST_JSON, MOST_EDIT = 1_000_000, 4_000_000
NAME, REASON, SHOWN = 80, 500, 4000
MOST_USD = 10_000
"""Dollars: a number that is larger is none."""
KEPT = 10
"""Checkouts of what was refused, the latest, that are kept."""
DRAIN_SECONDS = 1.0
"""How long is listened for what a command had still to say when it was ended."""
PREFIX = "autoresearch-agent-"
TALK = ".proposal"
"""Where in its checkout a command is told and answers: many agents may write nowhere else."""

ANSWER = """
# How to answer

Nobody will answer questions. The working directory is a checkout of the incumbent, a git repository by itself that is
thrown away when you are done: look around and try what you like in it. Training to the end is the clusters' business,
not yours. You have {total:g} minutes, and must print something every {silence:g}.

An idea is an edit of `{edit}`, knobs (its module-level constants) with levels to try, or both.

- An edit: change `{edit}` in place, and leave it changed. Only that file counts: changes of others are refused, and new
  files stay behind.
- What you expect of it, and levels: write one JSON object to the path in the environment variable {proposal}. Without
  it an edit is tried as it is.

```json
{{"name": "a few words", "hypothesis": "what makes the metric better, and why", "factors": {{"SOME_KNOB": [1, 2]}},
 "predicted": -0.004, "low": -0.009, "high": 0.001, "falsified_by": "what would show it wrong", "usd": 0.12}}
```

`name` and `hypothesis` are needed. Every combination of the levels is one cell (`design` may be `full`, `sweep`, one
knob at a time, or `screen`, two levels of many), on top of the edit if there is one; there is room for {room} cells in
all. `predicted` is the change of the metric, candidate minus control, and [`low`, `high`] an interval that should hold
it; they are compared with what is measured. `repairs` names the candidate whose crash the edit repairs, `usd` is what
the answer has cost you. A list of such objects is several ideas: the edit belongs to the one without factors, and the
others are tried without it.
"""


Files: TypeAlias = Mapping[str, tuple[str, str]]
"""The files of a checkout, the editable one left out: by path what each is, and the SHA-256 of what it holds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a command may run, and be silent."""

    total: float = 30 * 60.0
    silence: float = 10 * 60.0


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
        return self.tree / TALK / "brief.md"

    @property
    def proposal(self) -> Path:
        return self.tree / TALK / "proposal.json"


class Command:
    """Runs `command` for each call; see the top of this file.

    `checkout` puts the incumbent's files into an empty folder. Output is kept in `directory`, in files that are called
    after the `study`; without a directory it lies beside the checkout. `tiers` are the accelerators of each tier.
    """

    usd_at_most = 0.0  # Nobody knows what it will cost; what it says it has cost counts.

    def __init__(
        self,
        command: str,
        checkout: Callable[[Path], None],
        directory: Path | None = None,
        study: str = "agent",
        tiers: Sequence[Sequence[str]] = (),
        limits: Limits | None = None,
    ) -> None:
        self.name = f"command {_program(command)}"
        self.usd_spent = 0.0
        self._command = command
        self._checkout = checkout
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
        files = self._lay_out(scratch, context, room, told)
        why = await self._run(scratch)
        try:
            ideas = _answer(scratch.proposal)
        except Objected:
            if why is None:
                raise
            ideas = None
        self.usd_spent += sum(map(_usd, ideas or ()))
        if why is not None:
            raise Objected(why)
        edit = _edit(scratch.tree, files, context)
        if edit is None and not ideas:
            raise Objected("it changed nothing and proposed nothing", Objection.NO_OP)
        ideas = ideas or []
        return self._vetted(ideas if edit is None else _with_edit(ideas, edit, self.name), edit, context, room)

    def _vetted(
        self, ideas: Sequence[Any], edit: str | None, context: Context, room: int
    ) -> tuple[list[Proposal], list[Refusal]]:
        proposals: list[Proposal] = []
        refused: list[Refusal] = []
        taken: dict[str, str] = {}
        for idea in ideas:
            try:
                vetted = vet(_proposal(idea, edit, context), context, taken, self._tiers)
                if len(vetted.models) > room - len(taken) + room // 4:
                    left = max(room - len(taken), 0)
                    raise Objected(f"it has {len(vetted.models)} cells, and there is room for {left}")
            except Objected as error:
                refused.append(refusal(_text(idea, "name") or self.name, _text(idea, "hypothesis"), error))
            else:
                taken |= dict.fromkeys(vetted.models, "another of this answer")
                proposals.append(vetted.proposal)
        return proposals, refused

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

    def _lay_out(self, scratch: _Scratch, context: Context, room: int, told: Sequence[str]) -> Files:
        """Make the checkout and the brief; what each other file of the checkout is."""
        from controller.repo import initialise

        scratch.tree.mkdir()
        self._checkout(scratch.tree)
        # The incumbent may have changed since the context was made: what is edited is what the edit is compared with.
        file = scratch.tree / context.edit
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(_bytes(context.source))
        initialise(scratch.tree).exclude(f"/{TALK}/")
        text = brief(context) + ANSWER.format(
            total=self._limits.total / 60,
            silence=self._limits.silence / 60,
            edit=context.edit,
            proposal=PROPOSAL,
            room=room,
        )
        if told:
            text += (
                f"\n# What you answered just now, and why it was refused\n\n{quoting.data(chr(10).join(told), SHOWN)}\n"
            )
        scratch.brief.parent.mkdir(exist_ok=True)
        scratch.brief.write_text(text, encoding="utf-8", errors="replace")
        files = {path: scratch.tree / path for path in _files(scratch.tree) if not _is_ours(path, context)}
        return {path: (_shape(file), _digest(file)) for path, file in files.items()}

    async def _run(self, scratch: _Scratch) -> str | None:
        """Run the command to its end; why nothing of what it did counts, None where it does."""
        environment = {BRIEF: str(scratch.brief), PROPOSAL: str(scratch.proposal)}
        with self._marked(scratch), _kept(scratch.output) as keep:
            async with _at_work(self._command, scratch.tree, environment, keep) as (process, reader):
                why = await _followed(process, reader, keep, self._limits)
        if why is None and process.returncode:
            code = process.returncode
            why = f"it ended with exit code {code}" if code > 0 else f"it was killed by signal {-code}"
        return why

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


# ---------------------------------------------------------------------------------------------------------------------
# A command at work


@asynccontextmanager
async def _at_work(
    command: str, directory: Path, environment: Mapping[str, str], keep: Callable[[bytes], None]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """The command as a process, and what it prints; when this is left, everything that it has started is ended."""
    ours, theirs = os.pipe()
    reader = asyncio.StreamReader()
    # A pipe of our own: asyncio's would have us wait for whoever still holds it when the command has ended.
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", 0)
    )
    process = None
    try:
        with os.fdopen(theirs, "wb", 0) as output:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", command),
                cwd=directory,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        yield process, reader
    except FileNotFoundError:
        raise UserError("bash is not installed, or not on the PATH; a command is run by it") from None
    finally:
        # Its group, and whoever left that: also where it was called off before we knew of it.
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        kill_marked(f"{PROPOSAL}={environment[PROPOSAL]}")
        if process is not None:
            await process.wait()
        await _drained(reader, keep)
        transport.close()


async def _followed(
    process: asyncio.subprocess.Process, reader: asyncio.StreamReader, keep: Callable[[bytes], None], limits: Limits
) -> str | None:
    """Wait for its end, or for one of its limits: which of them it was."""
    ending = asyncio.ensure_future(process.wait())
    reading: asyncio.Future[bytes] | None = asyncio.ensure_future(reader.read(TAIL))
    try:
        async with asyncio.timeout(limits.total):
            while True:
                waited = {one for one in (ending, reading) if one is not None}
                done, _ = await asyncio.wait(waited, timeout=limits.silence, return_when=asyncio.FIRST_COMPLETED)
                if reading in done:
                    heard = reading.result()
                    keep(heard)
                    reading = asyncio.ensure_future(reader.read(TAIL)) if heard else None
                if ending in done:
                    return None
                if not done:
                    return f"it printed nothing for {_spelled(limits.silence)}"
    except TimeoutError:
        return f"it took longer than {_spelled(limits.total)}"
    finally:
        for one in (ending, reading):
            if one is not None:
                one.cancel()
        await asyncio.wait({one for one in (ending, reading) if one is not None})


async def _drained(reader: asyncio.StreamReader, keep: Callable[[bytes], None]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while heard := await reader.read(TAIL):
                keep(heard)


@contextmanager
def _kept(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A function that writes to `path` what it is given: the first of it and the last, if it is too much."""
    with path.open("wb") as file:
        output = _Output(file)
        try:
            yield output.add
        finally:
            output.close()


@dataclass
class _Output:
    file: IO[bytes]
    size: int = 0
    end: bytes = b""
    left_out: int = 0

    def add(self, data: bytes) -> None:
        head, rest = data[: max(MOST_LOG - TAIL - self.size, 0)], data[max(MOST_LOG - TAIL - self.size, 0) :]
        self.file.write(head)
        self.file.flush()
        self.size += len(data)
        end = self.end + rest
        self.left_out += max(len(end) - TAIL, 0)
        self.end = end[-TAIL:]

    def close(self) -> None:
        if self.left_out:
            self.file.write(b"\n[%d bytes are left out here]\n" % self.left_out)
        self.file.write(self.end)


def _spelled(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} s"


def _program(command: str) -> str:
    """What a command runs, for its name; not what stands before it (`KEY=secret agent`), nor its arguments."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that is not closed: bash will say so
        words = command.split()
    program = next((word for word in words if "=" not in word), "")
    return clip(Path(program.rstrip(";&|")).name, 40) or "of yours"


# ---------------------------------------------------------------------------------------------------------------------
# What has become of the checkout


def _files(tree: Path) -> Iterator[str]:
    """Every file and link in `tree`, its own .git left out, by its path in there."""
    for folder, folders, files in os.walk(tree):
        here = Path(folder)
        if here == tree and ".git" in folders:
            folders.remove(".git")
        links = [name for name in folders if (here / name).is_symlink()]
        yield from ((here / name).relative_to(tree).as_posix() for name in (*files, *links))


def _is_ours(path: str, context: Context) -> bool:
    """Whether it is for the command to change."""
    return path == context.edit or path.startswith(f"{TALK}/")


def _shape(path: Path) -> str:
    """What is there, as far as that shows without reading it."""
    try:
        found = path.lstat()
        if S_ISLNK(found.st_mode):
            return f"a link to {path.readlink()}"
        return f"a file of {found.st_size} bytes" if S_ISREG(found.st_mode) else "neither file nor link"
    except OSError:
        return "nothing"


def _digest(path: Path) -> str:
    with suppress(OSError):
        if not path.is_symlink() and path.is_file():
            return sha256(path.read_bytes()).hexdigest()
    return ""


def _edit(tree: Path, files: Files, context: Context) -> str | None:
    """The editable file as the command left it; None where it did not touch it. Raises Objected."""
    changed = [
        path
        for path, (shape, digest) in files.items()
        if _shape(tree / path) != shape or _digest(tree / path) != digest
    ]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise Objected(f"it changed {', '.join(changed[:3])}{more}; only {context.edit} may be changed")
    path = tree / context.edit
    if not path.is_file() or path.is_symlink():
        raise Objected(f"{context.edit} is no file any more; change what is in it, and leave it in its place")
    if path.stat().st_size > MOST_EDIT:
        raise Objected(f"{context.edit} has become {path.stat().st_size} bytes, more than {MOST_EDIT}; make it shorter")
    data = path.read_bytes()
    if data == _bytes(context.source):
        return None
    try:
        text = data.decode("utf-8")
        if not text.strip():
            raise Objected(f"nothing is left of {context.edit}; keep the code that trains the model")
        check(context.source, text, context.evaluated)
    except UnicodeDecodeError as error:
        raise Objected(f"{context.edit} is not UTF-8 text: {error.reason}", Objection.SYNTAX) from None
    except PatchError as error:
        raise Objected(str(error), error.label) from None
    for new in _files(tree):
        if new not in files and new != context.edit and _is_named(new, text):
            raise Objected(
                f"{context.edit} names {new}, a new file, which stays behind; put everything in {context.edit}"
            )
    return text


def _is_named(path: str, text: str) -> bool:
    """Whether `path` is a module that `text` speaks of."""
    parts = Path(path).with_suffix("").parts
    name = parts[-2] if parts[-1] == "__init__" and len(parts) > 1 else parts[-1]
    hidden = any(part.startswith(".") for part in parts)
    spoken_of = re.search(rf"^\s*(from|import)\b.*\b{re.escape(name)}\b", text, re.MULTILINE)
    return path.endswith(".py") and not hidden and spoken_of is not None


def _bytes(source: str) -> bytes:
    return source.encode("utf-8", errors="surrogateescape")


# ---------------------------------------------------------------------------------------------------------------------
# What it answered


def _answer(path: Path) -> list[Any] | None:
    """The ideas that it left as JSON, None where it left none. Raises Objected for what is no JSON, or too much."""
    try:
        found = path.lstat()
    except OSError:
        return None
    if not S_ISREG(found.st_mode) or found.st_size > MOST_JSON:
        raise Objected(f"the file at {PROPOSAL} is not one of {MOST_JSON} bytes at most; write a JSON object there")
    try:
        data = path.read_bytes()
        answer = json.loads(data, parse_constant=_no_number) if data.strip() else None
    except (ValueError, RecursionError, OSError) as error:
        raise Objected(f"the file at {PROPOSAL} is no JSON: {clip(str(error), NAME)}") from None
    return answer if answer is None or isinstance(answer, list) else [answer]


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")


def _text(idea: Any, key: str) -> str:
    found = idea.get(key) if isinstance(idea, dict) else None
    return found if isinstance(found, str) else ""


def _usd(idea: Any) -> float:
    """What it says that an idea has cost."""
    found = idea.get("usd") if isinstance(idea, dict) else None
    is_sum = isinstance(found, int | float) and not isinstance(found, bool) and 0 <= found < MOST_USD
    return float(found) if is_sum and found is not None else 0.0


def _with_edit(ideas: list[Any], edit: str, who: str) -> list[Any]:
    """The ideas, of which the edit belongs to the only one, or to the first that has nothing else to try."""
    for at, idea in enumerate(ideas):
        if isinstance(idea, dict) and (len(ideas) == 1 or not (idea.get("factors") or idea.get("edit"))):
            return [*ideas[:at], {**idea, "edit": edit}, *ideas[at + 1 :]]
    own = {"name": f"an edit by {who}", "hypothesis": f"what {who} changed makes the metric better", "edit": edit}
    return [own, *ideas]


def _proposal(idea: Any, edit: str | None, context: Context) -> Proposal:
    """The proposal that an idea is. Raises Objected."""
    try:
        proposal = read(idea, context)
    except (OverflowError, RecursionError):
        raise Objected("a number in it is too large, or a list nested too deeply") from None
    # To the letter, where it is the file that was edited: its last line may have no end.
    return replace(proposal, edit=edit) if edit is not None and idea.get("edit") is edit else proposal
