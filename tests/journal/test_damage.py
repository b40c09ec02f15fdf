from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.clock import VirtualClock
from controller.journal import ClusterSeen, Journal, reading
from controller.journal.schema import VERSION
from controller.records import Cluster, UserError

TAG = "mar5"


def garbage(whole: bytes) -> bytes:
    return b"this is no database\n" * 500


def half(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def torn_page(whole: bytes) -> bytes:
    """The header is whole; the pages of a table in the middle are not."""
    return whole[:4096] + bytes(reversed(whole[4096 : 4096 * 12])) + whole[4096 * 12 :]


@pytest.mark.parametrize("damage", [garbage, half, torn_page])
def test_a_damaged_journal_is_set_aside_whole_and_the_next_command_begins_anew(
    full: Journal, directory: Path, damage: Callable[[bytes], bytes]
) -> None:
    full.close()
    path = directory / "journal.db"
    path.write_bytes(damaged := damage(path.read_bytes()))

    with pytest.raises(UserError, match=r"journal\.db is damaged \(.+\); put a backup in its place"):
        Journal.read(directory, VirtualClock())
    assert path.read_bytes() == damaged, "reading changes nothing"

    with pytest.raises(UserError, match=r"the journal was damaged \(.+\) and is kept as .+journal\.db\.damaged-1"):
        Journal.open(directory, VirtualClock())
    assert (directory / "journal.db.damaged-1").read_bytes() == damaged
    assert not path.exists()

    anew = Journal.open(directory, VirtualClock())
    assert reading.tags(anew) == []
    anew.close()


def test_a_second_damaged_journal_is_kept_beside_the_first(directory: Path) -> None:
    directory.mkdir()
    for number in (1, 2):
        (directory / "journal.db").write_bytes(b"broken for the %d. time" % number * 100)
        with pytest.raises(UserError, match=f"damaged-{number}"):
            Journal.open(directory, VirtualClock())
    assert (directory / "journal.db.damaged-1").read_bytes() == b"broken for the 1. time" * 100
    assert (directory / "journal.db.damaged-2").read_bytes() == b"broken for the 2. time" * 100


KILLED = """
import os, sys
from pathlib import Path
from controller.clock import VirtualClock
from controller.journal import ClusterSeen, Journal
from controller.records import Cluster
journal = Journal.open(Path(sys.argv[1]), VirtualClock())
journal.record("mar5", ClusterSeen(Cluster("last", "H100"), 0.0))
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_controller_recorded_last_is_there(full: Journal, directory: Path) -> None:
    full.close()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(directory)], check=False)
    assert killed.returncode == -9 and (directory / "journal.db-wal").stat().st_size > 0
    reader = Journal.read(directory, VirtualClock())
    assert reader is not None
    assert ("last", "H100") in reading.clusters(reader, TAG)
    reader.close()


def test_a_damaged_journal_keeps_what_a_killed_controller_left_beside_it(full: Journal, directory: Path) -> None:
    full.close()
    subprocess.run([sys.executable, "-c", KILLED, str(directory)], check=False)
    path, beside = directory / "journal.db", directory / "journal.db-wal"
    path.write_bytes(damaged := garbage(b""))
    log = beside.read_bytes()
    with pytest.raises(UserError, match="is kept as"):
        Journal.open(directory, VirtualClock())
    assert (directory / "journal.db.damaged-1").read_bytes() == damaged
    assert (directory / "journal.db.damaged-1-wal").read_bytes() == log


def test_another_program_s_database_of_that_name_is_left_whole(directory: Path) -> None:
    directory.mkdir()
    other = sqlite3.connect(directory / "journal.db")
    other.execute("CREATE TABLE diary (entry TEXT)")
    other.commit()
    other.close()
    before = (directory / "journal.db").read_bytes()
    with pytest.raises(UserError, match="another program's database"):
        Journal.open(directory, VirtualClock())
    assert (directory / "journal.db.damaged-1").read_bytes() == before


def test_a_journal_of_a_newer_version_is_neither_read_nor_touched(full: Journal, directory: Path) -> None:
    full.db.execute(f"PRAGMA user_version = {VERSION + 1}")
    full.close()
    before = (directory / "journal.db").read_bytes()
    for attempt in (Journal.open, Journal.read):
        with pytest.raises(UserError, match=f"the journal has format {VERSION + 1}, this autoresearch reads {VERSION}"):
            attempt(directory, VirtualClock())
    assert (directory / "journal.db").read_bytes() == before


def test_damage_that_appears_while_the_journal_is_open_is_one_sentence(full: Journal, directory: Path) -> None:
    full.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    full.db.execute("PRAGMA cache_size = 0")
    path = directory / "journal.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    full.db.execute("PRAGMA shrink_memory")
    with pytest.raises(UserError, match="was damaged while it was open"):
        full.record(TAG, ClusterSeen(Cluster("h100-9", "H100"), 0.0))


def test_a_folder_in_the_journal_s_place_is_one_sentence(directory: Path) -> None:
    (directory / "journal.db").mkdir(parents=True)
    with pytest.raises(UserError, match="can't be written"):
        Journal.open(directory, VirtualClock())


def test_a_file_in_the_folder_s_place_is_one_sentence(directory: Path) -> None:
    directory.write_text("not a folder")
    with pytest.raises(UserError, match="can't be written"):
        Journal.open(directory, VirtualClock())
    assert directory.read_text() == "not a folder"
