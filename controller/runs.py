"""What `wave` and `run` do around a search: open and check what it needs, run it, tell of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.clock import Clock, RealClock, VirtualClock
from controller.infra import fleet_size, is_simulated, open_backend
from controller.journal import Journal, reading, study_lock
from controller.journal.store import FILE
from controller.opening import open_to_read
from controller.proposing import FREE, Wish, preview_proposer, run_proposer
from controller.records import UserError, Value

if TYPE_CHECKING:
    from rich.console import Console

    from controller.backends import Backend
    from controller.backends.simulated import Scenario
    from controller.proposers import Proposer
    from controller.proposers.submissions import Submissions
    from controller.search import Stop
    from controller.study import Study
    from controller.wave import Design
    from controller.workspace import Workspace

FIXED = ("prepare", "prepare.py")
"""What a workspace's train.py stands on, as far as research leaves it alone."""
ENDS = {"plateau": "a plateau", "target": "the target is reached", "budget": "the budget is spent"}
"""What a person is told of the end of a run, by why it ended."""
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
    handed_in: Submissions | None
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
        proposer, handed_in = run_proposer(_wish(options), workspace, lambda: study, tag, clock, say, patient)
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
        yield _Opened(study, backend, proposer, handed_in, clock, say, clusters)


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
    outside = Outside(opened.backend, opened.proposer, display, opened.say, tell, opened.handed_in)
    search = Search(study, order, outside, clock)
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
    many = f"{len(designed.cells)} cell{'s' * (len(designed.cells) != 1)}"
    lines = [f"{many} and {controls} controls would be screened:"]
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
        return asyncio.run(design(study, preview_proposer(_wish(options), workspace, lambda: study), request))


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


def draw(start: Path, tag: str | None, output: Path | None) -> Path:
    """Write the study's page; returns where."""
    from dashboards import write_page

    journal, tag = open_to_read(start, tag)
    path = (output or journal.path.parent / f"{tag}.html").resolve()
    write_page(journal, tag, path)
    return path


def _asked(options: SearchOptions) -> dict[str, Value]:
    """What makes two requests the same one."""
    return {
        "proposer": "person" if options.factors else options.proposer,
        "factors": tuple(options.factors),
        "seed": options.seed,
    }


def _wish(options: SearchOptions) -> Wish:
    return Wish(options.proposer, options.factors, is_simulated(options.infra))


def _scenario(infra: str) -> Scenario:
    from controller.backends.simulated import load

    file = infra.partition(":")[2]
    return load(Path(file) if file else None)
