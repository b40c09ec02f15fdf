"""What an agent that drives us does: read the brief, hand in ideas, wait for what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from controller import hints
from controller.agents.answers import OVER, answer
from controller.archive import StudyArchive
from controller.clock import Clock
from controller.inbox import hand_in, waiting
from controller.journal import reading
from controller.notes import MOST_CHARACTERS
from controller.opening import open_to_read, study_is_running
from controller.proposers.brief import brief
from controller.proposers.quoting import data
from controller.records import Note, NothingRan, UserError
from controller.study import Study, branch_name
from controller.text import clip
from controller.wave import context_of
from controller.workspace import find

LOOKS_SECONDS = 1.0
GRACE_SECONDS = 10.0
"""How long a controller that takes up what was handed in may take to begin."""
MOST_HINTS = 6_000
"""Characters."""
MOST_LINES = 24
"""Cells of a submission that a person is shown."""
START = "`autoresearch run --proposer submissions --clusters N`"
"""What takes up submissions, and nothing else."""

IDEA = """
# How to answer

Hand ideas in with `autoresearch submit`, or the tool `submit`: an edit of `{edit}`, levels of knobs to cross on top of
it, or both, with a hypothesis and what you predict. Each is checked at once, and refused with the reason where it can't
run or was tried before. Those that wait together are screened together. `wait` tells what became of them.

```bash
git show {branch}:{edit} > /tmp/new.py    # the incumbent; edit that copy
autoresearch submit --tag {tag} --edit /tmp/new.py --factor SOME_KNOB=1,2 --hypothesis "…" --predicted -0.004 --json
autoresearch wait --tag {tag} --timeout 600 --json
```
"""


@contextmanager
def open_study(start: Path, tag: str | None) -> Iterator[Study]:
    """The study around `start`, to be read. Raises UserError where there is none."""
    journal, tag = open_to_read(start, tag)
    try:
        yield Study(tag, find(start), journal, branch_name(tag))
    finally:
        journal.close()


def brief_of(study: Study) -> str:
    """All that an agent should know before it has an idea, as Markdown of bounded size.

    Of what a person has written that is what stands there now: a controller takes it up with its next wave only.
    """
    context = replace(context_of(study), program=study.workspace.program)
    if context.lineage is not None:
        context = replace(context, lineage=replace(context.lineage, notes=(*context.lineage.notes, *hints_of(study))))
    return brief(context) + IDEA.format(edit=study.workspace.edit, branch=study.branch, tag=study.tag)


def hints_of(study: Study) -> list[Note]:
    """A person's hints that no controller has taken up yet."""
    found = hints.waiting(study.workspace.directory, study.tag)
    return [Note("new", clip(hint.text, MOST_CHARACTERS), "person") for hint in found if hint.text]


def notes_of(study: Study) -> str:
    """All notes, those that were retired and those that no controller has taken up yet too. Raises UserError: none."""
    new = "\n".join(f"new, by a person: {hint.text}" for hint in hints_of(study))
    try:
        known = [StudyArchive(lambda: study).notes()]
    except UserError:
        if not new:
            raise
        known = []
    return "\n".join([*known, *([data(new, MOST_HINTS)] if new else [])])


def submit(study: Study, idea: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Hand in an idea; what it is called, how many cells it has, which of them won't run, and what happens next.

    Raises UserError with the reason where it is refused.
    """
    name, vetted = hand_in(study, idea, clock)
    runs = study_is_running(study.journal, study.tag)
    when = "it is part of the next wave" if runs else f"nobody runs study {study.tag}: {START} takes it up"
    return {
        "submission": name,
        "study": study.tag,
        "cells": len(vetted.models),
        "left_out": list(vetted.left_out),
        "running": runs,
        "next": when,
    }


async def wait_for(
    study: Study,
    names: Sequence[str],
    seconds: float | None,
    clock: Clock,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """What became of the submissions called `names`; without names, of those that are open, or else were last.

    Waits for that as long as somebody runs the study, or for `seconds`; `say` is told of each step on the way. Raises
    UserError where nobody knows of such a submission, NothingRan where nobody runs the study and some have not ended.
    """
    journal, tag = study.journal, study.tag
    names = list(names) or _latest(study)
    began, last_seen = clock.monotonic(), clock.monotonic()
    told: dict[str, str] = {}
    while True:
        runs = study_is_running(journal, tag)
        # Read after that: what a controller has recorded before it went is not missed.
        found = [answer(journal, tag, name) for name in names]
        for one in found:
            if told.get(one["submission"]) != (line := _step(one)):
                told[one["submission"]] = line
                say(line)
        now = clock.monotonic()
        last_seen = now if runs else last_seen
        in_time = seconds is None or now - began < seconds
        if all(one["state"] in OVER for one in found) or (runs and not in_time):
            return found
        if not in_time or now - last_seen >= GRACE_SECONDS:
            raise NothingRan(f"nobody runs study {tag}, so that nothing more comes of this; {START} goes on with it")
        await clock.sleep(LOOKS_SECONDS if seconds is None else min(LOOKS_SECONDS, began + seconds - now))


def _latest(study: Study) -> list[str]:
    """The submissions of which something is still to come, or, where there are none, those of the latest wave."""
    journal, tag = study.journal, study.tag
    taken_up = reading.submissions(journal, tag)
    # A letter stays a while after it has been taken up.
    letters = [one for one in waiting(journal.path.parent, tag) if reading.submitted(journal, tag, one) == (None, [])]
    still_open = [name for name, _, ended in taken_up if not ended] + letters
    if not still_open and not taken_up:
        raise UserError(f"nothing was submitted to study {tag} yet; see `autoresearch submit --help`")
    return still_open or [name for name, wave, _ in taken_up if wave == taken_up[-1][1]]


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """What became of a submission, for a person: a line for each cell, and what was concluded."""
    cells = found.get("cells", ())
    lines = [f"  {cell['candidate']} {cell['what']}: {_came(cell)}" for cell in cells[:MOST_LINES]]
    lines += [f"  and {len(cells) - MOST_LINES} more, see --json"] if len(cells) > MOST_LINES else []
    if found.get("conclusion"):
        lines.append(f"{found['submission']} {found['wave']}: {found['conclusion']}")
    return lines


def _step(found: Mapping[str, Any]) -> str:
    """Where a submission is, in a line."""
    head = " ".join(filter(None, [found["submission"], found.get("wave")]))
    match found["state"]:
        case "waiting":
            return f"{head} waits for the next wave"
        case "refused":
            return f"{head} is refused: {found['reason']}"
        case "screening" | "confirming" as state:
            return f"{head} {state}, {found['left']} of the wave's experiments left"
        case state:
            return f"{head} {state}"


def _came(cell: Mapping[str, Any]) -> str:
    if cell["score"] is None:
        return f"{cell['status']}{': ' if cell['reason'] else ''}{cell['reason']}"
    parts = [f"{cell['score']:.6f}"]
    if cell["change"] is not None:
        parts.append(f"{cell['change']:+.6f} against the controls")
    if cell["confirmed"] is not None:
        interval = f" [{cell['low']:+.6f}, {cell['high']:+.6f}]" if cell["low"] is not None else ""
        parts.append(f"confirmed {cell['confirmed']:+.6f}{interval}, {cell['verdict']}")
    return ", ".join(parts)
