"""Attempts: which there were, how each ended, how long each took."""

from __future__ import annotations

import json
from typing import Any

from controller.journal.store import Journal
from controller.records import (
    Attempt,
    Label,
)


def attempts(journal: Journal, tag: str, *, experiment: str | None = None, open_only: bool = False) -> list[Attempt]:
    """Attempts in the order they were submitted."""
    query = "SELECT attempt, experiment, cluster, nonce FROM attempts WHERE study = ?"
    arguments = [tag]
    if experiment is not None:
        query += " AND experiment = ?"
        arguments.append(experiment)
    if open_only:
        query += " AND ended IS NULL"
    return [Attempt(*row) for row in journal.db.execute(f"{query} ORDER BY submitted, attempt", arguments)]


def infrastructure_failures(journal: Journal, tag: str, experiment: str) -> int:
    """How many attempts at `experiment` the infrastructure has failed."""
    query = "SELECT label FROM attempts WHERE study = ? AND experiment = ? AND label IS NOT NULL"
    return sum(Label(label).infrastructure for (label,) in journal.db.execute(query, (tag, experiment)))


def infrastructure(journal: Journal, tag: str) -> tuple[int, int]:
    """How many attempts the infrastructure has failed, and how many clusters were lost or replaced."""
    labels = [label.value for label in Label if label.infrastructure]
    query = f"SELECT count(*) FROM attempts WHERE study = ? AND label IN ({', '.join('?' * len(labels))})"
    (attempts,) = journal.db.execute(query, (tag, *labels)).fetchone()
    query = "SELECT count(*) FROM leases WHERE study = ? AND until IS NOT NULL AND NOT (reason IN ('released', 'idle')"
    query += " OR reason LIKE 'it went while %' OR reason LIKE 'it shut itself down%')"
    (clusters,) = journal.db.execute(query, (tag,)).fetchone()
    return attempts, clusters


def last_failure(journal: Journal, tag: str) -> str | None:
    """The experiment that failed last, by its own fault."""
    query = "SELECT finished, experiment FROM experiments WHERE study = ? AND status = ? ORDER BY finished DESC LIMIT 1"
    labels = [label for label in Label if not label.infrastructure and label not in (Label.CANCELLED, Label.PRUNED)]
    found = [row for label in labels for row in journal.db.execute(query, (tag, label.value))]
    return max(found)[1] if found else None


def attempt_spans(journal: Journal, tag: str, wave: str) -> list[tuple[str, float, float, float]]:
    """(tier, started, ended, seconds of training) of each attempt that ran in `wave`; times in Unix seconds."""
    query = (
        "SELECT e.tier, a.started, a.ended, coalesce(json_extract(a.timings, '$.training'), 0) FROM attempts a"
        " JOIN experiments e ON e.study = a.study AND e.experiment = a.experiment"
        " WHERE a.study = ? AND e.wave = ? AND a.started IS NOT NULL AND a.ended IS NOT NULL"
    )
    return [tuple(row) for row in journal.db.execute(query, (tag, wave))]


def pruned(journal: Journal, tag: str, attempt: str) -> str | None:
    """Why an attempt was to be ended early; None where it was not."""
    row = journal.db.execute("SELECT pruned FROM attempts WHERE study = ? AND attempt = ?", (tag, attempt)).fetchone()
    return row[0] if row else None


def ending(journal: Journal, tag: str, attempt: str) -> dict[str, Any]:
    """How an attempt ended: label (None for a measurement, or while it runs), reason, timings."""
    query = "SELECT label, reason, timings FROM attempts WHERE study = ? AND attempt = ?"
    label, reason, timings = journal.db.execute(query, (tag, attempt)).fetchone()
    return {"label": label, "reason": reason, "timings": json.loads(timings)}
