"""Notes: what proposers are shown until it is retired."""

from __future__ import annotations

from controller.journal.store import Journal
from controller.records import (
    Note,
)


def notes(journal: Journal, tag: str, *, open_only: bool = True) -> list[Note]:
    """The study's notes, oldest first."""
    query = "SELECT note, text, author, retired FROM notes WHERE study = ?"
    query += " AND retired IS NULL" if open_only else ""
    return [Note(*row) for row in journal.db.execute(f"{query} ORDER BY number", (tag,))]


def next_note(journal: Journal, tag: str) -> str:
    """The id that the study's next note will have."""
    query = "SELECT coalesce(max(number), 0) + 1 FROM notes WHERE study = ?"
    return f"n{journal.db.execute(query, (tag,)).fetchone()[0]:04d}"


def note_of_hint(journal: Journal, tag: str, hint: str) -> str | None:
    """The note that a person's hint, the file of this name, has become."""
    query = "SELECT note FROM notes WHERE study = ? AND hint = ? AND hint != ''"
    row = journal.db.execute(query, (tag, hint)).fetchone()
    return str(row[0]) if row else None
