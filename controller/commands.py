"""What the commands do: find the workspace, open what is needed, call one function of the rooms behind, print."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.clock import Clock, RealClock, VirtualClock
from controller.infra import fleet_size, is_simulated, local_backend, open_backend
from controller.journal import DIRECTORY, Journal, reading, study_lock
from controller.journal.lock import is_locked
from controller.journal.store import FILE
from controller.records import Tier, UserError, Value

if TYPE_CHECKING:
    from rich.console import Console

    from controller.backends import Backend
    from controller.backends.simulated import Scenario
    from controller.proposers import Proposer
    from controller.search import Stop
    from controller.study import Study
    from controller.wave import Design
    from controller.workspace import Workspace

FIXED = ("prepare", "prepare.py")
"""What a workspace's train.py stands on, as far as research leaves it alone."""
ENDS = {"plateau": "a plateau", "target": "the target is reached", "budget": "the budget is spent"}
"""What a person is told of the end of a run, by why it ended."""
FREE = ("doe", "optuna")
"""Proposers that can be asked before a study begins, as asking them costs nothing."""
AGENTS = "agents"
"""Where in the controller's own folder the output of commands that propose is kept."""
FAREWELL_SECONDS = 10.0
"""How long the end of a command waits for notifications that are on their way."""


@dataclass(frozen=True)
class SearchOptions:
    """What the user asked `wave` or `run` for; `wave` has no caps, and asks for one wave."""

    clusters: int | None
    infra: str
    tag: str | None
    seed: int
    proposer: str
    factors: tuple[str, ...] = ()
    waves: int | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    usd: float | None = None
    llm_usd: float | None = None
    target: float | None = None
    plateau: int | None = None
    verbose: bool = False
    metrics: int | None = None


def run_wave(start: Path, options: SearchOptions, console: Console, as_json: bool) -> None:
    """One turn of the search, with everything a person wants to see of it."""
    from controller.search import CELLS

    with _opened(start, options, console, patient=True) as opened:
        room = max(CELLS, opened.clusters)
        ended, stop = _search(opened, options, console, room=room, waves=1, overlap=False)
        slots = min(opened.clusters, opened.backend.capacity)
        if not ended:
            opened.say(stop.sentence)
            return
        *before, asked = ended
        if not as_json:
            for wave in before:
                _tell_wave(opened.study, wave, slots, console)
        _tell_wave(opened.study, asked, slots, console, as_json)


def run_search(start: Path, options: SearchOptions, console: Console, as_json: bool) -> None:
    """Wave after wave until something says stop, and then what has come of it."""
    from controller.standing import study_json
    from controller.summary import summary_lines

    with _opened(start, options, console) as opened:
        journal, tag = opened.study.journal, opened.study.tag
        try:
            _search(opened, options, console, waves=options.waves, overlap=True)
        finally:
            ran = reading.totals(journal, tag)["experiments"] > 0
            page, why = _drawn(opened.study) if ran else (None, "none, as nothing has run")
            if not as_json and ran:
                lines = ["", *summary_lines(journal, tag, False), f"plot       {page or why}"]
                console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
        if as_json:
            state = study_json(journal, tag, False)
            click.echo(json.dumps({**state, "plot": str(page) if page else None}, indent=1))


@dataclass(frozen=True)
class _Opened:
    """All that a search needs, opened and checked; closed by the context it came from."""

    study: Study
    backend: Backend
    proposer: Proposer
    clock: Clock
    say: Callable[[str], None]
    clusters: int


@contextmanager
def _opened(start: Path, options: SearchOptions, console: Console, *, patient: bool = False) -> Iterator[_Opened]:
    """The study of the workspace around `start`, or, for a simulation, of a copy of it.

    Whoever is `patient` waits for what an agent has to say, as there is nothing to run meanwhile.
    """
    from controller.study import branch_name, choose_tag, open_study
    from controller.workspace import find, open_directory

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    workspace = find(start)
    simulated = is_simulated(options.infra)
    clusters = fleet_size(options.clusters, workspace.settings)
    options = replace(options, clusters=clusters)
    clock: Clock = RealClock()
    if simulated:
        from controller.simulation import copied

        scenario = _scenario(options.infra)
        workspace, clock = copied(workspace), VirtualClock(clock.now())
        say(f"simulating afresh, in a copy of the workspace: {workspace.root}")

    with ExitStack() as stack:

        def opened() -> Journal:
            journal = Journal.open(open_directory(workspace), clock, durable=not simulated)
            stack.callback(journal.close)
            return journal

        journal = opened() if (workspace.directory / FILE).exists() else None
        tag = choose_tag(workspace, journal, options.tag, clock)
        agents = workspace.directory / AGENTS
        if options.proposer == "claude" and not options.factors:
            proposer = _claude(options, workspace, lambda: study, clock, say, patient)
        else:
            proposer = _proposer(options, workspace, lambda: study.tip, agents, tag)
        if simulated:
            from controller.simulation import simulated_backend

            backend: Backend = simulated_backend(workspace, scenario, options.seed, clock)
        else:
            backend = open_backend(options.infra, workspace, clock)
        try:
            _refuse_mistakes(workspace, options, journal, tag, clock)
        except UserError as error:
            raise UserError(f"{error}{_elsewhere(workspace, journal, tag)}") from None
        journal = journal or opened()
        changed = [path for path in (workspace.edit, *FIXED) if workspace.repository.is_dirty(path)]
        if changed:
            used = "versions are" if len(changed) > 1 else "version is"
            has = "have" if len(changed) > 1 else "has"
            say(f"{' and '.join(changed)} {has} uncommitted changes, which are not used: the committed {used}")
            if branch_name(tag) == workspace.repository.current_branch():
                say("they are on the study's own branch, which a winner moves: `git switch -c NAME` keeps them apart")
        stack.enter_context(study_lock(workspace.directory, tag))
        study = open_study(workspace, journal, tag)
        say(f"study {tag} on branch {study.branch}, incumbent {study.incumbent.id} at {study.tip[:10]}")
        if elsewhere := _elsewhere(workspace, journal, tag):
            say(elsewhere.removeprefix("; "))
        yield _Opened(study, backend, proposer, clock, say, clusters)


def _search(
    opened: _Opened,
    options: SearchOptions,
    console: Console,
    *,
    waves: int | None,
    overlap: bool,
    room: int | None = None,
) -> tuple[list[str], Stop]:
    """Run the search under everything that watches it; the waves that ended, and why it stopped."""
    from controller.budget import Caps
    from controller.live import Display
    from controller.logbook import open_logbook
    from controller.notify import notifier
    from controller.search import Order, Outside, Search
    from controller.signals import heeded
    from controller.summary import summary_lines

    study, clock = opened.study, opened.clock
    journal, tag, settings = study.journal, study.tag, study.workspace.settings
    asked = Caps(options.hours, options.gpu_hours, options.usd, options.llm_usd)
    order = Order(
        asked=_asked(options),
        seed=options.seed,
        clusters=opened.clusters,
        room=room,
        waves=waves,
        target=options.target,
        plateau=options.plateau,
        overlap=overlap,
        caps=asked.over(settings) if overlap else asked,
    )
    told = notifier(os.environ)
    display = Display(console, journal, tag, clock, live=not options.verbose)
    tell = told.tell if told else lambda title, text: None
    search = Search(study, order, Outside(opened.backend, opened.proposer, display, opened.say, tell), clock)
    display.ledger = search.ledger

    async def main() -> Stop:
        with heeded(search, opened.say):
            return await search.run()

    with ExitStack() as stack:
        stack.enter_context(open_logbook(study.workspace.directory, options.verbose, sys.stderr))
        if told:
            stack.callback(told.close, FAREWELL_SECONDS)
        if options.metrics is not None:
            port = stack.enter_context(_served(study, options.metrics, clock))
            opened.say(f"metrics: http://127.0.0.1:{port}/metrics")
        stack.enter_context(display.shown())
        noun = "cluster" if opened.clusters == 1 else "clusters"
        opened.say(f"bringing up {opened.clusters} {opened.backend.name} {noun} and preparing their data")
        why = "error"
        try:
            stop = clock.run(main())
            why = stop.why
            return search.ended, stop
        finally:
            if overlap and reading.totals(journal, tag)["experiments"]:
                # Whoever reads it on a phone has seen nothing else.
                over = ENDS.get(why, "the run is over")
                tell(f"{tag}: {over}", "\n".join(summary_lines(journal, tag, False)))


@contextmanager
def _served(study: Study, port: int, clock: Clock) -> Iterator[int]:
    from controller.prometheus import serve
    from controller.standing import study_json

    def read() -> dict[str, Any]:
        reader = Journal.read(study.workspace.directory, clock)
        assert reader is not None
        try:
            return study_json(reader, study.tag, True)
        finally:
            reader.close()

    with serve(port, read) as real:
        yield real


def _drawn(study: Study) -> tuple[Path | None, str]:
    try:
        return draw(study.workspace.root, study.tag, None), ""
    except UserError as error:  # All is recorded, whether or not its picture can be drawn.
        return None, f"none, {error}"


def _tell_wave(study: Study, wave: str, slots: int, console: Console, as_json: bool = False) -> None:
    from controller import report

    journal, tag = study.journal, study.tag
    page, why = _drawn(study)
    if as_json:
        told = {**report.wave_json(journal, tag, wave, slots), "plot": str(page) if page else None}
        click.echo(json.dumps(told, indent=1))
        return
    for table in report.wave_tables(journal, tag, wave, slots):
        console.print()
        console.print(table)
    kept = next((row for row in reading.kept(journal, tag) if row[0] == wave), None)
    lines = [
        f"\ndecision: {report.conclusion(journal, tag, wave)}",
        f"commit:   {kept[2]} on {study.branch}" if kept else f"commit:   none; {study.branch} stays as it is",
        f"plot:     {page or why}",
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def preview_wave(start: Path, options: SearchOptions, console: Console, as_json: bool) -> None:
    """What the wave would run. Leaves no trace: neither journal nor branch nor candidates."""
    from controller import designs
    from controller.study import choose_tag
    from controller.text import describe
    from controller.workspace import find

    clock = RealClock()
    workspace = find(start)
    options = replace(options, clusters=fleet_size(options.clusters, workspace.settings))
    journal = Journal.read(workspace.directory, clock)
    tag = choose_tag(workspace, journal, options.tag, clock)
    designed = _designed(workspace, options, journal, tag, clock)
    controls = designs.controls_for(len(designed.cells))
    if as_json:
        cells = [{"proposal": cell.proposal, "knobs": dict(cell.knobs)} for cell in designed.cells]
        refused = [asdict(refusal) for refusal in designed.refusals]
        click.echo(json.dumps({"study": tag, "cells": cells, "controls": controls, "refused": refused}, indent=1))
        return
    lines = [f"{len(designed.cells)} cells and {controls} controls would be screened:"]
    lines += [f"  {describe(cell.knobs) or 'an edit'}" for cell in designed.cells]
    lines += [f"  refused: {refusal.name}: {refusal.reason}" for refusal in designed.refusals]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _elsewhere(workspace: Workspace, journal: Journal | None, tag: str) -> str:
    """That the study does not go on from what is checked out, where that is so."""
    from controller.study import Study, branch_name

    if journal is None or reading.study(journal, tag) is None:
        return ""
    if Study(tag, workspace, journal, branch_name(tag)).knows_head:
        return ""
    return f"; {workspace.edit} as checked out is not of study {tag}: begin another with --tag to start from it"


def _refuse_mistakes(
    workspace: Workspace, options: SearchOptions, journal: Journal | None, tag: str, clock: Clock
) -> None:
    """Raise UserError for what can't run, before anything is written and any time is spent."""
    from controller.edits import parse_factor, set_knobs

    if journal is not None and reading.unfinished_wave(journal, tag) is not None:
        # The wave asked for comes after that one, perhaps from another incumbent: its cells can't be known yet.
        source = workspace.source(reading.study_of(journal, tag).tip)
        for factor in map(parse_factor, options.factors):
            for level in factor.levels:
                set_knobs(source, {factor.knob: level})
    elif options.factors or journal is None or reading.study(journal, tag) is None:
        if options.factors or options.proposer in FREE:
            _designed(workspace, options, journal, tag, clock)
        else:
            with _previewed(workspace, journal, tag, clock):
                pass


def _designed(workspace: Workspace, options: SearchOptions, journal: Journal | None, tag: str, clock: Clock) -> Design:
    """What the wave would run. Writes nothing, neither into `journal` nor into git."""
    import asyncio

    from controller.search import CELLS
    from controller.wave import Request, design

    with _previewed(workspace, journal, tag, clock) as study:
        clusters = fleet_size(options.clusters, workspace.settings)
        request = Request(_asked(options), options.seed, clusters, max(CELLS, clusters))
        return asyncio.run(design(study, _proposer(options, workspace, lambda: study.tip), request))


@contextmanager
def _previewed(workspace: Workspace, journal: Journal | None, tag: str, clock: Clock) -> Iterator[Study]:
    """The study as it is, or as it would begin: in a journal that is thrown away. Raises UserError where it can't."""
    import tempfile

    from controller.study import preview_study

    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        if journal is None or reading.study(journal, tag) is None:
            journal = Journal.open(Path(scratch), clock)
            stack.callback(journal.close)
        yield preview_study(workspace, journal, tag)


def open_to_read(start: Path, tag: str | None) -> tuple[Journal, str]:
    """The journal around `start` and the study meant. Raises UserError where there is none."""
    root = _root_with_journal(start)
    journal = Journal.read(root / DIRECTORY, RealClock())
    known = reading.tags(journal) if journal else []
    if journal is None or not known:
        raise UserError(f"{root} has no study yet; begin one with `autoresearch wave --clusters 2 --infra local`")
    if tag is not None and tag not in known:
        raise UserError(f"there is no study {tag}; there are {', '.join(known)}")
    return journal, tag or known[-1]


def _root_with_journal(start: Path) -> Path:
    """The workspace around `start`. Looks for its journal first: asking git takes longer than the whole answer."""
    if start.is_dir():
        for folder in (start.resolve(), *start.resolve().parents):
            if (folder / DIRECTORY).is_dir():
                return folder
    from controller.repo import Repository

    return Repository.find(start).root


def _root_of(start: Path) -> Path:
    """The workspace around `start`, whether or not it has a study yet."""
    root = _root_with_journal(start)
    if not (root / DIRECTORY).is_dir():
        from controller.workspace import find

        return find(start).root
    return root


def study_is_running(journal: Journal, tag: str) -> bool:
    """Whether a live controller holds the study."""
    return is_locked(journal.path.parent, tag)


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

    found = clusters_up(_root_of(start) / DIRECTORY, RealClock())
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

    root = _root_of(start)
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


def draw(start: Path, tag: str | None, output: Path | None) -> Path:
    """Write the study's page; returns where."""
    from dashboards import write_page

    journal, tag = open_to_read(start, tag)
    path = (output or journal.path.parent / f"{tag}.html").resolve()
    write_page(journal, tag, path)
    return path


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


def _proposer(
    options: SearchOptions,
    workspace: Workspace,
    tip: Callable[[], str],
    directory: Path | None = None,
    tag: str = "",
) -> Proposer:
    """Who proposes. A command works on the incumbent at `tip`; what it prints is kept in `directory`, if given."""
    from controller.edits import parse_factor
    from controller.proposers import Doe, Person

    if options.factors:
        return Person([parse_factor(text) for text in options.factors])
    if options.proposer == "doe":
        return Doe()
    if options.proposer == "optuna":
        from controller.proposers.tpe import Optuna

        return Optuna()
    if options.proposer == "claude":
        raise UserError("claude is paid for every answer, so that there is no dry run with it; try `--proposer doe`")
    if not _is_command(options.proposer):
        raise UserError(
            f"there is no proposer {options.proposer}; there are {' and '.join(FREE)}, or give a command that runs an"
            " agent, or ask claude, or name the levels with --factor"
        )
    if is_simulated(options.infra):
        raise UserError(f"a command takes real time, of which a simulation has none; use {' or '.join(FREE)} there")
    from controller.proposers.command import Command

    tiers = [workspace.settings.accelerators(tier) for tier in Tier]
    return Command(_from_here(options.proposer), _checkout(workspace, tip), directory, tag or "agent", tiers)


def _claude(
    options: SearchOptions,
    workspace: Workspace,
    study: Callable[[], Study],
    clock: Clock,
    say: Callable[[str], None],
    patient: bool,
) -> Proposer:
    """Claude, and designs of experiments whenever it does not answer. Raises UserError where it can't be asked."""
    from controller.archive import StudyArchive
    from controller.proposers import Doe
    from controller.proposers.claude import SECONDS, Claude, check
    from controller.proposers.relay import PATIENCE_SECONDS, Relay

    if is_simulated(options.infra):
        raise UserError(f"claude takes real time, of which a simulation has none; use {' or '.join(FREE)} there")
    settings = workspace.settings
    check(settings.llm)
    tiers = [settings.accelerators(tier) for tier in Tier]
    claude = Claude(StudyArchive(study), settings.llm, tiers)
    return Relay(claude, Doe(), clock, say, SECONDS if patient else PATIENCE_SECONDS)


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


def _asked(options: SearchOptions) -> dict[str, Value]:
    """What makes two requests the same one."""
    return {
        "proposer": "person" if options.factors else options.proposer,
        "factors": tuple(options.factors),
        "seed": options.seed,
    }


def _scenario(infra: str) -> Scenario:
    from controller.backends.simulated import load

    file = infra.partition(":")[2]
    return load(Path(file) if file else None)


def _candidate_of(journal: Journal, tag: str, name: str) -> str:
    for result in reading.results_of(journal, tag, name=name):
        return result.experiment.candidate
    try:
        return reading.candidate(journal, tag, name).id
    except KeyError:
        raise UserError(f"study {tag} has no experiment or candidate {name}") from None
