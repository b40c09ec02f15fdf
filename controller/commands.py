"""What the other commands do: open what is needed, call one function of the rooms behind, print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.clock import RealClock
from controller.infra import local_backend
from controller.journal import DIRECTORY, Journal, reading
from controller.journal.lock import is_locked
from controller.opening import open_to_read, root_of, study_is_running
from controller.records import NothingRan, UserError, Value

if TYPE_CHECKING:
    from rich.console import Console


def stop_search(start: Path, tag: str | None, now: bool) -> str:
    """Ask the controller that runs the study to stop; returns what will come of it."""
    from controller.journal.lock import holder
    from controller.signals import STOP, STOP_NOW

    journal, tag = open_to_read(start, tag)
    process = holder(journal.path.parent, tag)
    if process is None:
        raise UserError(f"study {tag} is not being run, so there is nothing to stop; see `autoresearch status`")
    try:
        os.kill(process, STOP_NOW if now else STOP)
    except (ProcessLookupError, PermissionError):
        raise UserError(
            f"process {process} of study {tag} can't be signalled from here; stop it where it runs"
        ) from None
    if now:
        return f"process {process} ends what runs of study {tag}, and itself"
    return f"process {process} begins nothing more of study {tag}, and ends when what runs has; `--now` is quicker"


def leave_note(start: Path, tag: str | None, text: str | None, retire: str | None) -> list[str]:
    """Leave a person's hint for the controller, or one note to be retired; without either, list the notes."""
    from controller import hints
    from controller.notes import MOST_CHARACTERS
    from controller.text import clip, one_line

    journal, tag = open_to_read(start, tag)
    directory = journal.path.parent
    notes = reading.notes(journal, tag)
    if text is None and retire is None:
        lines = [f"{note.id}  {note.by:<7} {note.text}" for note in notes]
        for hint in hints.waiting(directory, tag):
            what = f"retires {hint.retires}" if hint.retires else hint.text
            lines.append(f"{'waits':<5}  {'person':<7} {clip(what, MOST_CHARACTERS)}")
        return lines or [f"study {tag} has no open notes"]
    if text is not None and retire is not None:
        raise UserError("give the text of a note, or --retire one, not both")
    if retire is not None and all(note.id != retire for note in notes):
        raise UserError(f"study {tag} has no open note {retire[:80]}; `autoresearch note` lists those there are")
    line = one_line(text or "")
    if retire is None and not line:
        raise UserError('a note needs a text, such as autoresearch note "try deeper models"')
    if len(line) > MOST_CHARACTERS:
        raise UserError(
            f"a note has {MOST_CHARACTERS} characters at most, this one {len(line)}; shorten it, or write it into"
            " program.md"
        )
    hints.leave(directory, tag, RealClock().now(), text=line, retires=retire or "")
    when = "before the next wave is proposed" if is_locked(directory, tag) else "when the study is run again"
    return [f"{f'{retire} is retired' if retire else 'taken up'} {when}"]


def submit_idea(start: Path, tag: str | None, idea: Mapping[str, Any], factors: Sequence[str]) -> dict[str, Any]:
    """Hand in an idea, to which `factors` are added as a person types them; what it is called and how it goes on."""
    from controller.agents import submit
    from controller.agents.driving import open_study
    from controller.edits import parse_factor

    levels: dict[str, list[Value]] = {}
    for factor in map(parse_factor, factors):
        levels.setdefault(factor.knob, []).extend(factor.levels)
    with open_study(start, tag) as study:
        return submit(study, {**idea, "factors": levels}, RealClock())


def wait_for_submissions(
    start: Path, tag: str | None, names: Sequence[str], seconds: float | None, as_json: bool, say: Callable[[str], None]
) -> bool:
    """Wait for what becomes of submissions and tell it; whether all have come to an end."""
    from controller.agents import wait_for
    from controller.agents.answers import OVER
    from controller.agents.driving import lines_of, open_study

    clock = RealClock()
    with open_study(start, tag) as study:
        told: Callable[[str], None] = (lambda line: None) if as_json else say
        found = clock.run(wait_for(study, names, seconds, clock, told))
    say(json.dumps(found, indent=1) if as_json else "\n".join(line for one in found for line in lines_of(one)))
    if all(one["state"] == "refused" for one in found):
        raise NothingRan("nothing of this was run")
    return all(one["state"] in OVER for one in found)


def withdraw_submission(start: Path, tag: str | None, name: str) -> str:
    """Take back a submission that waits; what came of that."""
    from controller.inbox import withdraw

    journal, tag = open_to_read(start, tag)
    withdraw(journal.path.parent, tag, name)
    return f"{name} is withdrawn"


def agent_brief(start: Path, tag: str | None) -> str:
    """What an agent should know of the study."""
    from controller.agents import brief_of
    from controller.agents.driving import open_study

    with open_study(start, tag) as study:
        return brief_of(study)


def agent_skill() -> str:
    """The skill file for agents."""
    return (Path(__file__).parent / "agents" / "SKILL.md").read_text(encoding="utf-8")


def serve_agents(start: Path, tag: str | None) -> None:
    """Serve agents over MCP on standard input and output."""
    from controller.agents.server import serve
    from controller.repo import Repository

    Repository.find(start)
    serve(start, tag, RealClock())


def text_of(path: Path, most: int = 4_000_000) -> str:
    """The text of a file, of standard input where it is called `-`. Raises UserError where it is none, or too long."""
    try:
        data = sys.stdin.buffer.read(most + 1) if str(path) == "-" else path.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); give a file, or - for a pipe") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; give the edit as text") from None
    if len(data) > most:
        raise UserError(f"{path} has more than {most} bytes; an edit is shorter")
    if not text.strip():
        raise UserError(f"{path} is empty; leave --edit and --patch out to vary knobs alone")
    return text


def watch_search(start: Path, tag: str | None, console: Console) -> None:
    """Show how the study goes on, for as long as somebody runs it."""
    import asyncio

    from controller.watch import follow

    journal, tag = open_to_read(start, tag)
    asyncio.run(follow(journal, tag, console, RealClock(), lambda: study_is_running(journal, tag)))


def run_check(
    start: Path, clusters: int | None, contexts: Sequence[str], as_json: bool, say: Callable[[str], None]
) -> bool:
    """Say what so many clusters would get of Kubernetes now; returns whether it is all that was asked for."""
    from controller.check import asked_in, check
    from controller.infra import enabled_infras
    from controller.repo import Repository

    try:
        root: Path | None = Repository.find(start).root
    except UserError:
        if not start.exists():
            raise
        root = None
    found = check(asked_in(root, clusters), contexts, enabled_infras)
    say(json.dumps(found.as_json(), indent=1) if as_json else "\n".join(found.lines()))
    return found.enough


def list_clusters(start: Path, console: Console, as_json: bool) -> None:
    """Print what SkyPilot has up of this workspace, and of others like it."""
    from controller.inventory import clusters_table, clusters_up

    found = clusters_up(root_of(start) / DIRECTORY, RealClock())
    if as_json:
        click.echo(json.dumps([one.as_json() for one in found], indent=1))
    elif not found:
        click.echo("no clusters are up")
    else:
        console.print(clusters_table(found))


def take_clusters_down(start: Path, tag: str | None, every: bool, say: Callable[[str], None]) -> None:
    """Take down the clusters of a study, or of all, that no controller is using."""
    from controller.backends.skypilot.claims import is_of
    from controller.inventory import clusters_up, take_down

    root = root_of(start)
    journal = Journal.read(root / DIRECTORY, RealClock())
    known = reading.tags(journal) if journal else []
    if tag is not None and tag not in known:
        raise UserError(f"there is no study {tag}; there are {', '.join(known) or 'none'}")
    studies = known if every else [tag or known[-1]] if known else []
    for study in studies:
        if is_locked(root / DIRECTORY, study):
            raise UserError(f"study {study} is being run, and needs its clusters; `autoresearch stop` ends that first")
    ours = [one.cluster for one in clusters_up(root / DIRECTORY, RealClock()) if one.ours]
    names = [name for name in ours if every or any(is_of(name, study) for study in studies)]
    if not names:
        others = len(ours)
        say(f"nothing to take down{f'; {others} of other studies are up, see --all' if others else ''}")
        return
    take_down(root / DIRECTORY, names, RealClock(), say)


def candidate_diff(start: Path, tag: str | None, name: str) -> str:
    """What the candidate called `name`, or the experiment's, changed."""
    from controller.repo import Repository

    journal, tag = open_to_read(start, tag)
    candidate = reading.candidate(journal, tag, _candidate_of(journal, tag, name))
    if candidate.commit == candidate.parent:
        raise UserError(f"{name} is the baseline of study {tag}; it changed nothing")
    return Repository.find(start).diff(candidate.parent, candidate.commit)


def experiment_log(start: Path, tag: str | None, name: str, tail: int | None) -> str:
    """The log of the experiment's last attempt."""
    import asyncio

    journal, tag = open_to_read(start, tag)
    attempts = reading.attempts(journal, tag, experiment=name)
    if not attempts:
        known = reading.results_of(journal, tag, name=name)
        raise UserError(f"{name} has not run yet" if known else f"study {tag} has no experiment {name}")
    root = journal.path.parent
    return asyncio.run(local_backend(root.parent, root, RealClock()).log(attempts[-1].id, tail))


def run_reproduce(start: Path, name: str | None, infra: str, console: Console, as_json: bool) -> bool:
    """Run a kept commit again and say what came of it; returns whether it was reproduced."""
    import tempfile

    from controller.infra import open_to_reproduce
    from controller.repo import Repository
    from controller.reproduce import find_claim, reproduce
    from controller.workspace import at_commit

    clock = RealClock()
    repository = Repository.find(start)
    commit, claim = find_claim(repository, name)

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    what = f"{claim.candidate} of study {claim.study}"
    say(f"reproducing {commit[:10]} ({what}) with {len(claim.seeds)} seeds, {claim.budget} each")
    with tempfile.TemporaryDirectory(prefix="autoresearch-") as scratch:
        backend = open_to_reproduce(infra, at_commit(repository, commit), claim.accelerator, Path(scratch), clock)
        found = clock.run(reproduce(repository, commit, claim, backend, clock, say))
    if as_json:
        click.echo(
            json.dumps(
                {
                    "commit": commit,
                    "reproduced": found.reproduced,
                    "exact": found.exact,
                    "recorded": claim.value,
                    "found": found.value,
                    "low": claim.low,
                    "high": claim.high,
                    "differs": found.differs,
                },
                indent=1,
            )
        )
        return found.reproduced
    for difference in found.differs:
        say(f"not the same: {difference}")
    how = "reproduced to the last digit" if found.exact else "reproduced" if found.reproduced else "not reproduced"
    say(
        f"{how}: {claim.metric} {found.value:.6f}, recorded {claim.value:.6f},"
        f" interval {claim.low:.6f} to {claim.high:.6f}"
    )
    return found.reproduced


def _candidate_of(journal: Journal, tag: str, name: str) -> str:
    for result in reading.results_of(journal, tag, name=name):
        return result.experiment.candidate
    try:
        return reading.candidate(journal, tag, name).id
    except KeyError:
        raise UserError(f"study {tag} has no experiment or candidate {name}") from None
