"""Proposals: what was varied and why, what was handed in, what was refused."""

from __future__ import annotations

import json
from dataclasses import dataclass

from controller.journal.reading._candidates import as_tuples
from controller.journal.store import Journal
from controller.records import (
    Design,
    Factor,
    Objection,
    Refusal,
)


def factors(journal: Journal, tag: str, wave: str) -> dict[str, tuple[Factor, ...]]:
    """The factors of each proposal of `wave`, by proposal id."""
    query = "SELECT proposal, factors FROM proposals WHERE study = ? AND wave = ? ORDER BY proposal"
    return {proposal: _factors(text) for proposal, text in journal.db.execute(query, (tag, wave))}


def edited(journal: Journal, tag: str, wave: str) -> frozenset[str]:
    """The proposals of `wave` that edit the file, by id."""
    query = "SELECT proposal FROM proposals WHERE study = ? AND wave = ? AND edited = 1"
    return frozenset(row[0] for row in journal.db.execute(query, (tag, wave)))


def _factors(text: str) -> tuple[Factor, ...]:
    return tuple(Factor(knob, tuple(map(as_tuples, levels))) for knob, levels in json.loads(text).items())


@dataclass(frozen=True, slots=True)
class Proposed:
    """A proposal as the tables have it; of an edit they know that there was one, its text is its candidates'."""

    id: str
    wave: str
    name: str
    hypothesis: str
    factors: tuple[Factor, ...]
    design: Design
    edited: bool
    predicted: float | None
    low: float | None
    high: float | None
    falsified_by: str
    repairs: str


def proposals(journal: Journal, tag: str, wave: str) -> dict[str, Proposed]:
    """The proposals of `wave`, by id."""
    query = (
        "SELECT proposal, wave, name, hypothesis, factors, design, edited, predicted, low, high, falsified_by, repairs"
        " FROM proposals WHERE study = ? AND wave = ? ORDER BY proposal"
    )
    found = {}
    for name, of, said, hypothesis, levels, design, edited, *rest in journal.db.execute(query, (tag, wave)):
        found[name] = Proposed(name, of, said, hypothesis, _factors(levels), Design(design), bool(edited), *rest)
    return found


def proposed(journal: Journal, tag: str, name: str) -> Proposed | None:
    """One proposal by id."""
    query = "SELECT wave FROM proposals WHERE study = ? AND proposal = ?"
    row = journal.db.execute(query, (tag, name)).fetchone()
    return proposals(journal, tag, row[0])[name] if row else None


_REFUSALS = "SELECT name, hypothesis, reason, label, submission FROM refusals WHERE study = ?"


def refusals(journal: Journal, tag: str, wave: str) -> list[Refusal]:
    """Proposals of a wave, and cells of them, that never became experiments, and why."""
    query = f"{_REFUSALS} AND wave = ? ORDER BY rowid"
    return [_refusal(*row) for row in journal.db.execute(query, (tag, wave))]


def latest_refusals(journal: Journal, tag: str, most: int) -> list[Refusal]:
    """The latest proposals and cells that were refused, those of calls that gave no wave too, oldest first."""
    query = f"{_REFUSALS} ORDER BY rowid DESC LIMIT ?"
    return [_refusal(*row) for row in journal.db.execute(query, (tag, most))][::-1]


def refusals_by_label(journal: Journal, tag: str) -> dict[str, int]:
    """How many were refused for each label."""
    query = "SELECT label, count(*) FROM refusals WHERE study = ? GROUP BY label ORDER BY label"
    return dict(journal.db.execute(query, (tag,)).fetchall())


def submitted(journal: Journal, tag: str, submission: str) -> tuple[Proposed | None, list[Refusal]]:
    """What became of a submission: the proposal, where it was taken up, and what of it was refused."""
    row = journal.db.execute(
        "SELECT proposal FROM proposals WHERE study = ? AND submission = ? AND submission != ''", (tag, submission)
    ).fetchone()
    query = f"{_REFUSALS} AND submission = ? AND submission != '' ORDER BY rowid"
    refused = [_refusal(*one) for one in journal.db.execute(query, (tag, submission))]
    return (proposed(journal, tag, row[0]) if row else None), refused


def submissions(journal: Journal, tag: str) -> list[tuple[str, str, bool]]:
    """(submission, wave, whether that has ended) of all that were taken up, oldest first."""
    query = (
        "SELECT submission, wave, state = 'ended' FROM proposals JOIN waves USING (study, wave)"
        " WHERE study = ? AND submission != '' ORDER BY number, proposal"
    )
    return [(name, wave, bool(ended)) for name, wave, ended in journal.db.execute(query, (tag,))]


def _refusal(name: str, hypothesis: str, reason: str, label: str, submission: str) -> Refusal:
    return Refusal(name, hypothesis, reason, Objection(label), submission)


def hypotheses(journal: Journal, tag: str, *, wave: str | None = None) -> dict[str, tuple[str, str]]:
    """Name and hypothesis of each proposal, by proposal id."""
    query = "SELECT proposal, name, hypothesis FROM proposals WHERE study = ? AND (? IS NULL OR wave = ?)"
    return {row[0]: (row[1], row[2]) for row in journal.db.execute(query, (tag, wave, wave))}
