"""Opening, writing and replaying the journal's SQLite file, with every error said in one sentence."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.clock import Clock
from controller.journal import schema
from controller.journal.apply import apply
from controller.journal.events import Event, decode, encode
from controller.records import UserError

DIRECTORY = ".autoresearch"
FILE = "journal.db"


class Journal:
    """A journal open for writing (`Journal.open`) or reading (`Journal.read`)."""

    def __init__(self, db: sqlite3.Connection, path: Path, clock: Clock) -> None:
        self.db = db
        self.path = path
        self._clock = clock

    @classmethod
    def open(cls, directory: Path, clock: Clock) -> Journal:
        """The journal in `directory`, made where there is none. Raises UserError where it can't be written.

        A damaged file is set aside under another name, never overwritten, and the command ends with a sentence.
        """
        path = directory / FILE
        with _said(path):
            directory.mkdir(parents=True, exist_ok=True)
        try:
            with _said(path):
                return cls(_connect(path), path, clock)
        except DamagedJournal as error:
            aside = _set_aside(path)
            raise UserError(
                f"the journal was damaged ({error}) and is kept as {aside}; put a backup in its place as {path.name},"
                " or run the command again to begin a new journal"
            ) from None

    @classmethod
    def read(cls, directory: Path, clock: Clock) -> Journal | None:
        """The journal in `directory` for reading only; None where there is none yet."""
        path = directory / FILE
        if not path.exists():
            return None
        try:
            with _said(path):
                db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
                _check(db)
                return cls(db, path, clock)
        except DamagedJournal as error:
            raise UserError(
                f"{path} is damaged ({error}); put a backup in its place, or let `autoresearch wave` set it aside"
            ) from None

    def record(self, study: str, *events: Event) -> None:
        """Append `events` and update the tables, all in one transaction."""
        at = self._clock.now()
        with _said(self.path), self.db:
            self.db.execute("BEGIN IMMEDIATE")
            for event in events:
                self._append(study, at, event, encode(event))

    def events(self, study: str | None = None) -> Iterator[tuple[float, str, Event]]:
        """All events in order, as (Unix seconds, study, event)."""
        query = "SELECT at, study, body FROM events WHERE ? IS NULL OR study = ? ORDER BY seq"
        for at, of, body in self.db.execute(query, (study, study)):
            yield at, of, decode(body)

    def replay_into(self, other: Journal) -> None:
        """Give another, empty journal this one's events, and with them the same tables."""
        with other.db:
            other.db.execute("BEGIN IMMEDIATE")
            for at, study, event in self.events():
                other._append(study, at, event, encode(event))

    def close(self) -> None:
        self.db.close()

    def _append(self, study: str, at: float, event: Event, body: str) -> None:
        self.db.execute("INSERT INTO events (at, study, body) VALUES (?, ?, ?)", (at, study, body))
        apply(event, self.db, study, at)


class DamagedJournal(Exception):
    """The file is not, or no longer, a journal."""


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    # A power cut must not lose an intent that was recorded before its effect.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("BEGIN IMMEDIATE")
    with db:
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in schema.DDL.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {schema.VERSION}")
    _check(db)
    return db


def _check(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != schema.VERSION:
        raise UserError(f"the journal has format {version}, this autoresearch reads {schema.VERSION}: use its version")
    db.execute("SELECT count(*) FROM studies")


def _set_aside(path: Path) -> str:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    return str(aside)


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "full" in text:
            raise UserError(
                f"the disk of {path.parent} is full; free some space and run again, nothing is lost"
            ) from None
        if "readonly" in text or "unable to open" in text or "disk I/O" in text:
            raise UserError(f"{path.parent} can't be written ({text}); make it writable and run again") from None
        if "locked" in text:
            raise UserError(f"another process has been writing {path} for 30 seconds; try again") from None
        raise
    except sqlite3.DatabaseError as error:
        raise DamagedJournal(str(error)) from None
    except OSError as error:
        raise UserError(f"{path.parent} can't be written ({error.strerror}); make it writable and run again") from None
