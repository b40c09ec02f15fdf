"""Studies as the tables have them: what one is about, how much has happened in it, by whom it is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.journal.store import Journal


@dataclass(frozen=True, slots=True)
class Study:
    """A study as it stands: `baseline` and `incumbent` are candidate ids, `tip` the commit its branch should be at."""

    tag: str
    started: float
    branch: str
    metric: str
    minimize: bool
    settings: Mapping[str, Any]
    baseline: str
    incumbent: str
    tip: str


def tags(journal: Journal) -> list[str]:
    """The studies in the journal, the latest last."""
    return [tag for (tag,) in journal.db.execute("SELECT study FROM studies ORDER BY started, rowid")]


def study(journal: Journal, tag: str) -> Study | None:
    """The study called `tag`."""
    columns = "study, started, branch, metric, minimize, settings, baseline, incumbent, tip"
    row = journal.db.execute(f"SELECT {columns} FROM studies WHERE study = ?", (tag,)).fetchone()
    if row is None:
        return None
    tag, started, branch, metric, minimize, settings, baseline, incumbent, tip = row
    return Study(tag, started, branch, metric, bool(minimize), json.loads(settings), baseline, incumbent, tip)


def study_of(journal: Journal, tag: str) -> Study:
    """The study called `tag`. Raises KeyError."""
    found = study(journal, tag)
    if found is None:
        raise KeyError(tag)
    return found


def counts(journal: Journal, tag: str) -> dict[str, int]:
    """Experiments by status."""
    query = "SELECT status, count(*) FROM experiments WHERE study = ? GROUP BY status ORDER BY 2 DESC"
    return dict(journal.db.execute(query, (tag,)).fetchall())


def totals(journal: Journal, tag: str) -> dict[str, int]:
    """How many waves, proposals, candidates, experiments and attempts the study has had."""
    found = dict(journal.db.execute("SELECT what, total FROM tallies WHERE study = ?", (tag,)).fetchall())
    return {what: found.get(what, 0) for what in ("waves", "proposals", "candidates", "experiments", "attempts")}


@dataclass(frozen=True, slots=True)
class Run:
    """A controller's run of the study: what was asked of it, and how it ended, if it came to an orderly end."""

    number: int
    started: float
    asked: Mapping[str, Any]
    stopped: float | None
    why: str | None
    reason: str


def last_run(journal: Journal, tag: str) -> Run | None:
    """The latest run of the study."""
    query = "SELECT number, started, asked, stopped, why, reason FROM runs WHERE study = ? ORDER BY number DESC LIMIT 1"
    row = journal.db.execute(query, (tag,)).fetchone()
    return None if row is None else Run(row[0], row[1], json.loads(row[2]), *row[3:])


def llm_usd(journal: Journal, tag: str) -> float:
    """What proposers have cost; a call whose cost is not known counts as the most it may cost."""
    query = "SELECT coalesce(sum(coalesce(usd, usd_at_most)), 0.0) FROM calls WHERE study = ?"
    return float(journal.db.execute(query, (tag,)).fetchone()[0])


def calls(journal: Journal, tag: str) -> int:
    """How often a proposer was asked."""
    return int(journal.db.execute("SELECT count(*) FROM calls WHERE study = ?", (tag,)).fetchone()[0])


def last_at(journal: Journal, tag: str) -> float:
    """When the study's last event was recorded, in Unix seconds; 0 where there is none."""
    query = "SELECT at FROM events WHERE study = ? ORDER BY seq DESC LIMIT 1"
    row = journal.db.execute(query, (tag,)).fetchone()
    return float(row[0]) if row else 0.0


def any_self_reported(journal: Journal, tag: str) -> bool:
    """Whether any of the study's scores is the trainer's own word."""
    query = "SELECT EXISTS (SELECT 1 FROM experiments WHERE study = ? AND self_reported = 1)"
    return bool(journal.db.execute(query, (tag,)).fetchone()[0])


def any_unsandboxed(journal: Journal, tag: str) -> bool:
    """Whether any of the study's trainers ran without a sandbox."""
    query = "SELECT EXISTS (SELECT 1 FROM experiments WHERE study = ? AND unsandboxed = 1)"
    return bool(journal.db.execute(query, (tag,)).fetchone()[0])


def program(journal: Journal, tag: str) -> str:
    """What program.md tells proposers, as last recorded."""
    query = "SELECT text FROM programs WHERE study = ? ORDER BY number DESC LIMIT 1"
    row = journal.db.execute(query, (tag,)).fetchone()
    return str(row[0]) if row else ""


def program_changes(journal: Journal, tag: str) -> list[tuple[float, str]]:
    """(Unix seconds, what changed) of each time that program.md told proposers something new, oldest first."""
    query = "SELECT at, changed FROM programs WHERE study = ? AND number > 1 ORDER BY number"
    return [tuple(row) for row in journal.db.execute(query, (tag,))]
