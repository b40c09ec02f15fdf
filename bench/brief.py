"""How large what an agent is told of a study is, and how long it takes to put together, as the study grows.

Made-up studies (`synthetic`), with predictions, edits that crash, refusals, notes and hints added to them. Tokens are
an estimate, four characters each: no tokenizer is asked. `first` is what a controller that was just started takes to
read the whole study once, `next` what one more wave takes to be taken in, `text` to write the brief itself; `same` is
how much of the brief, from its beginning, is as it was a wave before, and so comes from a prompt cache.

    python bench/brief.py            a table
    python bench/brief.py --json     one JSON object
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nights import make_workspace
from rich.console import Console
from rich.table import Table
from synthetic import IDEAS, fill

from controller.clock import VirtualClock
from controller.edits import read_knobs
from controller.history import history
from controller.journal import AttemptEnded, Event, Journal, NoteAdded, WaveDesigned, WaveEnded
from controller.lineage import lineage
from controller.proposers import Context
from controller.proposers.brief import CHARACTERS, brief
from controller.records import Objection, Refusal
from controller.settings import prose
from controller.study import Study

SIZES = (10, 100, 1_000, 10_000)
WAVE = 16
"""Experiments that a wave screens."""
TOKEN = 4
"""Characters."""
TAG = "brief"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Row:
    """Times are in milliseconds."""

    experiments: int
    waves: int
    characters: int
    tokens: int
    first_ms: float
    next_ms: float
    text_ms: float
    same: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what an agent is told of a study.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--show", type=int, metavar="EXPERIMENTS", help="print the brief after so many instead")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as scratch:
        if asked.show:
            print(measured(Path(scratch), asked.show)[1])
            return
        rows = [measured(Path(scratch, str(size)), size)[0] for size in SIZES]
    if asked.json:
        print(json.dumps({"budget_characters": CHARACTERS, "rows": [asdict(row) for row in rows]}))
    else:
        Console(width=120).print(table(rows))


def measured(root: Path, experiments: int) -> tuple[Row, str]:
    """A study of so many experiments, measured before and after its last wave."""
    workspace = make_workspace(root / "workspace")
    directory = root / "plain"
    fill(directory, experiments, TAG, WAVE)
    plain = Journal.read(directory, VirtualClock())
    assert plain is not None
    events = [event for _, _, event in plain.events()]
    plain.close()
    journal = Journal.open(root / "journal", VirtualClock(), durable=False)
    study = Study(TAG, workspace, journal, f"autoresearch/{TAG}")
    source = "".join(f"{knob} = {levels[0]}\n" for knob, _, levels in IDEAS)
    last = max(place for place, event in enumerate(events) if isinstance(event, WaveDesigned))
    journal.record(TAG, *dressed(events[:last]), *notes())
    began = time.perf_counter()
    before = brief(context(study, source))
    first = time.perf_counter() - began
    journal.record(TAG, *dressed(events[last:]))
    began = time.perf_counter()
    asked = context(study, source)
    following = time.perf_counter() - began
    began = time.perf_counter()
    text = brief(asked)
    writing = time.perf_counter() - began
    waves = sum(isinstance(event, WaveEnded) for event in events)
    same = next((at for at, (old, new) in enumerate(zip(before, text, strict=False)) if old != new), len(before))
    times = [round(1000 * seconds, 2) for seconds in (first, following, writing)]
    journal.close()
    return Row(experiments, waves, len(text), len(text) // TOKEN, *times, same=round(same / len(text), 3)), text


def context(study: Study, source: str) -> Context:
    """What a proposer is given, without what is not part of a brief."""
    program = prose((ROOT / "program.md").read_text())
    past = history(study)
    known = lineage(study, read_knobs(source))
    gates = ("peak_vram_mb < 80000",)
    return Context(
        source, True, 0.0005, {}, past, 0, lineage=known, program=program, gates=gates, edit="train/train.py"
    )


def dressed(events: list[Event]) -> Iterator[Event]:
    """The events of a made-up study with more of what agents do."""
    for event in events:
        if isinstance(event, WaveDesigned):
            number = event.wave.number
            edit = "x = 1\n" if number % 3 == 0 else None
            proposals = {
                name: replace(one, predicted=-0.002, low=-0.004, high=0.0, falsified_by="no gain at all", edit=edit)
                for name, one in event.proposals.items()
            }
            reason = f"it is the same model as c{number:04d}, which was tried before"
            refusal = Refusal(f"again {number}", "the same once more", reason, Objection.DUPLICATE)
            yield replace(event, proposals=proposals, refusals=(refusal,))
        elif isinstance(event, AttemptEnded) and event.outcome.label is not None:
            reason = f"exit code 1: RuntimeError: shapes {event.attempt} and (8, 2048, 768) do not match " + "x" * 200
            yield replace(event, outcome=replace(event.outcome, reason=reason))
        else:
            yield event


def notes() -> Iterator[Event]:
    """As many notes as agents may have open, and some hints."""
    for number in range(1, 27):
        by = "agent" if number <= 20 else "person"
        said = (
            f"lesson {number}: beyond a depth of {number} the budget ends before the loss does, whatever the rate is. "
        )
        yield NoteAdded(f"n{number:04d}", said * 2, "agent" if by == "agent" else "person")


def table(rows: list[Row]) -> Table:
    found = Table(title=f"What an agent is told of a study, at most {CHARACTERS:,} characters", title_justify="left")
    for column in ("experiments", "waves", "characters", "tokens (estimate)", "first ms", "next ms", "text ms", "same"):
        found.add_column(column, justify="right")
    for row in rows:
        found.add_row(
            f"{row.experiments:,}",
            f"{row.waves:,}",
            f"{row.characters:,}",
            f"{row.tokens:,}",
            *(f"{value:.1f}" for value in (row.first_ms, row.next_ms, row.text_ms)),
            f"{row.same:.0%}",
        )
    return found


if __name__ == "__main__":
    main()
