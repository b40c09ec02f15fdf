"""Waves: where each stands, what was decided of it, what was kept."""

from __future__ import annotations

import json

from controller.journal.reading._candidates import knobs
from controller.journal.store import Journal
from controller.records import (
    Decision,
    Verdict,
    Wave,
)


def open_waves(journal: Journal, tag: str) -> list[tuple[Wave, str]]:
    """The waves that have not ended, oldest first, each with its state (screening, confirming, decided)."""
    query = "SELECT wave, state FROM waves WHERE study = ? AND state != 'ended' ORDER BY number"
    return [(wave(journal, tag, name), state) for name, state in journal.db.execute(query, (tag,)).fetchall()]


def unfinished_wave(journal: Journal, tag: str) -> tuple[Wave, str] | None:
    """The oldest wave that has not ended, with its state."""
    return next(iter(open_waves(journal, tag)), None)


def wave(journal: Journal, tag: str, name: str) -> Wave:
    """One wave by id. Raises KeyError."""
    columns = "wave, number, seed, incumbent, proposer, request, base"
    query = f"SELECT {columns} FROM waves WHERE study = ? AND wave = ?"
    row = journal.db.execute(query, (tag, name)).fetchone()
    if row is None:
        raise KeyError(name)
    name, number, seed, incumbent, proposer, request, base = row
    return Wave(name, number, seed, incumbent, proposer, knobs(request), knobs(base))


def wave_state(journal: Journal, tag: str, name: str) -> str:
    """Where a wave stands: screening, confirming, decided or ended."""
    row = journal.db.execute("SELECT state FROM waves WHERE study = ? AND wave = ?", (tag, name)).fetchone()
    return str(row[0])


def against(journal: Journal, tag: str, name: str) -> str:
    """The candidate beside which a wave's confirmation runs: its incumbent, or the one that has taken its place."""
    row = journal.db.execute("SELECT against FROM waves WHERE study = ? AND wave = ?", (tag, name)).fetchone()
    return str(row[0])


def waves(journal: Journal, tag: str, *, ended: bool = False, after: int = 0) -> list[str]:
    """The study's waves: all in the order of their numbers, or those that have ended in the order in which they did.

    Only those whose number is larger than `after`.
    """
    query = "SELECT wave FROM waves WHERE study = ? AND number > ?"
    query += " AND state = 'ended' ORDER BY ended, number" if ended else " ORDER BY number"
    return [name for (name,) in journal.db.execute(query, (tag, after))]


def decisions(journal: Journal, tag: str, *, wave: str | None = None, candidate: str | None = None) -> list[Decision]:
    """Decisions, oldest first: all, those of a wave, or those about a candidate."""
    query = "SELECT body FROM decisions WHERE study = ?"
    arguments = [tag]
    for column, value in (("wave", wave), ("candidate", candidate)):
        if value is not None:
            query += f" AND {column} = ?"
            arguments.append(value)
    found = []
    for (body,) in journal.db.execute(f"{query} ORDER BY at, wave, candidate", arguments):
        fields = json.loads(body)
        fields["verdict"] = Verdict(fields["verdict"])
        for name in ("seeds", "scores", "control_scores"):
            fields[name] = tuple(fields[name])
        found.append(Decision(**fields))
    return found


def decided_at(journal: Journal, tag: str, wave: str) -> float:
    """When `wave` was decided, in Unix seconds."""
    query = "SELECT max(at) FROM decisions WHERE study = ? AND wave = ?"
    return float(journal.db.execute(query, (tag, wave)).fetchone()[0])


def kept(journal: Journal, tag: str) -> list[tuple[str, str, str, float]]:
    """(wave, candidate, commit on the branch, Unix seconds) of every kept winner, oldest first."""
    query = "SELECT wave, kept, commit_id, ended FROM waves WHERE study = ? AND kept IS NOT NULL ORDER BY ended, number"
    return [tuple(row) for row in journal.db.execute(query, (tag,))]
