"""Opening, writing and replaying the journal's SQLite file, with every error said in one sentence."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from controller.clock import Clock
from controller.journal import schema
from controller.journal.apply import apply
from controller.journal.events import Event, decode, encode
from controller.records import UserError

DIRECTORY = ".autoresearch"
FILE = "journal.db"
WAL_PAGES = 128
"""Pages of 4 KiB that are written beside the journal before they are taken into it."""


class Journal:
    """A journal open for writing (`Journal.open`) or reading (`Journal.read`)."""

    def __init__(self, db: sqlite3.Connection, path: Path, clock: Clock) -> None:
        self.db = db
        self.path = path
        self._clock = clock

    @classmethod
    def open(cls, directory: Path, clock: Clock, *, durable: bool = True) -> Journal:
        """The journal in `directory`, made where there is none. Raises UserError where it can't be written.

        What is recorded outlasts a power cut, unless it need not be `durable`, as that of a simulated night. A damaged
        file is set aside under another name, never overwritten, and the command ends with a sentence.
        """
        path = directory / FILE
        with _said(path):
            directory.mkdir(parents=True, exist_ok=True)
        try:
            with _said(path):
                return cls(_connect(path, durable), path, clock)
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
                return cls(_connect_to_read(path), path, clock)
        except NoJournal:
            return None
        except DamagedJournal as error:
            raise UserError(
                f"{path} is damaged ({error}); put a backup in its place, or let `autoresearch wave` set it aside"
            ) from None

    def record(self, study: str, *events: Event) -> None:
        """Append `events` and update the tables, all in one transaction."""
        at = self._clock.now()
        try:
            with _said(self.path), self.db:
                self.db.execute("BEGIN IMMEDIATE")
                for event in events:
                    self._append(study, at, event, encode(event))
        except DamagedJournal as error:
            raise UserError(
                f"{self.path} was damaged while it was open ({error}); run again to have it set aside"
            ) from None

    def now(self) -> float:
        """The time that an event recorded now would have, in Unix seconds."""
        return self._clock.now()

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
        """Close it. A writer leaves the whole journal in its one file, even beside readers that are idle."""
        with suppress(sqlite3.Error):  # A reader may not, a full disk can't, and nothing depends on it.
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.db.close()

    def _append(self, study: str, at: float, event: Event, body: str) -> None:
        self.db.execute("INSERT INTO events (at, study, body) VALUES (?, ?, ?)", (at, study, body))
        apply(event, self.db, study, at)


class DamagedJournal(Exception):
    """The file is not, or no longer, a journal."""


class NoJournal(Exception):
    """The file is there, but nothing has been written into it yet."""


def _connect(path: Path, durable: bool) -> sqlite3.Connection:
    if path.exists():
        # Read only, because a damaged file must stay as it is, and a writer tidies up even when it closes.
        with suppress(NoJournal):
            _connect_to_read(path).close()
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # SQLite's own is 4 MB, which a disk that is nearly full may not have; what an earlier one left goes now.
        db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        with suppress(sqlite3.OperationalError):
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        # A power cut must not lose an intent that was recorded before its effect.
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        db.execute("BEGIN IMMEDIATE")
        with db:
            if _is_empty(db):
                for statement in schema.DDL.split(";"):
                    db.execute(statement)
                db.execute("ANALYZE")  # makes the table, though there is nothing to find out yet
                known = [(table, *row) for table, rows in schema.STATISTICS.items() for row in rows.items()]
                db.executemany("INSERT INTO sqlite_stat1 VALUES (?, ?, ?)", known)
                db.execute("ANALYZE sqlite_schema")  # has it read
                db.execute(f"PRAGMA user_version = {schema.VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def _connect_to_read(path: Path) -> sqlite3.Connection:
    address = f"{path.resolve().as_uri()}?mode=ro"
    if not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists():
        # Nobody is writing, and SQLite could not make the files by which readers and writers know of each other.
        address += "&immutable=1"
    db = sqlite3.connect(address, uri=True, timeout=30)
    try:
        if _is_empty(db):
            raise NoJournal
        _check(db)
    except BaseException:
        db.close()
        raise
    return db


def _is_empty(db: sqlite3.Connection) -> bool:
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return bool(tables == 0)


def _check(db: sqlite3.Connection) -> None:
    """Raises DamagedJournal or UserError where this isn't a whole journal of our format. 1.4 ms a megabyte."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > schema.VERSION:
        raise UserError(f"the journal has format {version}, this autoresearch reads {schema.VERSION}: use its version")
    if 0 < version < schema.VERSION:
        raise UserError(
            f"the journal has format {version}, this autoresearch writes {schema.VERSION}: use the version that wrote"
            " it, or move .autoresearch/journal.db elsewhere to begin anew (the winners are in git)"
        )
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if version != schema.VERSION or not tables.issuperset({"events", *schema.TABLES}):
        raise DamagedJournal("it is another program's database, or a part of a journal")
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise DamagedJournal(" ".join(str(found).split()))


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
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.DatabaseError as error:
        raise DamagedJournal(str(error)) from None
    except OSError as error:
        raise UserError(f"{path.parent} can't be written ({error.strerror}); make it writable and run again") from None
