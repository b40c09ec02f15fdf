"""Clusters: which were up, and for how long each is billed."""

from __future__ import annotations

from dataclasses import dataclass

from controller.journal.store import Journal


@dataclass(frozen=True, slots=True)
class Lease:
    """A time a cluster was up: billed from `since` until `until` (None: it still is), in Unix seconds."""

    cluster: str
    accelerator: str
    since: float
    until: float | None
    reason: str


def leases(journal: Journal, tag: str, *, open_only: bool = False) -> list[Lease]:
    """The times that clusters were up, oldest first."""
    query = "SELECT cluster, accelerator, since, until, reason FROM leases WHERE study = ?"
    query += " AND until IS NULL" if open_only else ""
    return [Lease(*row) for row in journal.db.execute(f"{query} ORDER BY number", (tag,))]


def arriving(journal: Journal, tag: str) -> int:
    """How many clusters were asked for and have not been seen yet."""
    row = journal.db.execute("SELECT arriving FROM studies WHERE study = ?", (tag,)).fetchone()
    return int(row[0]) if row else 0


def awaited(journal: Journal, tag: str) -> str:
    """Why clusters that were asked for are not there yet; "" where nothing is known, or none is waited for."""
    row = journal.db.execute("SELECT awaited FROM studies WHERE study = ?", (tag,)).fetchone()
    return str(row[0]) if row else ""


def clusters(journal: Journal, tag: str) -> list[tuple[str, str]]:
    """(cluster, accelerator) of every cluster seen."""
    query = "SELECT cluster, accelerator FROM leases WHERE study = ? GROUP BY cluster HAVING number = max(number)"
    return [tuple(row) for row in journal.db.execute(f"{query} ORDER BY cluster", (tag,))]
