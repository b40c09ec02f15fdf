"""Disks that are full or locked: real ones, mounted in a namespace of the test's own, which takes no root."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SHARED = """
import errno, json, os, sys
from pathlib import Path
from controller.clock import VirtualClock
from controller.journal import ClusterSeen, Journal, reading, study_lock
from controller.records import Cluster, UserError
disk = Path(sys.argv[1])
directory = disk / ".autoresearch"
clock = VirtualClock()

def fill_up():
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        for size in (4096, 1):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC

def record(number):
    journal.record("mar5", *(ClusterSeen(Cluster(f"c{number}-{part} {'x' * 500}", "H100"), 0.0) for part in range(20)))

def whole():
    (found,) = journal.db.execute("PRAGMA integrity_check").fetchone()
    assert found == "ok", found
    events = sum(1 for _ in journal.events())
    assert events == len(reading.clusters(journal, "mar5")), "half of a transaction is there"
    return events

"""

FULL = (
    SHARED
    + """
journal = Journal.open(directory, clock)
record(0)
fill_up()
said, recorded = "", 1
try:
    for number in range(1, 1000):
        record(number)
        recorded += 1
except UserError as error:
    said = str(error)
kept = whole()
try:
    Journal.open(directory / "other", clock)
    other = ""
except UserError as error:
    other = str(error)
with study_lock(directory, "mar5"):
    pass
(disk / "ballast").unlink()
record(1001)
print(json.dumps([said, other, recorded * 20 == kept, whole() == kept + 20]))
"""
)

LOCKED = (
    SHARED
    + """
journal = Journal.open(directory, clock)
record(0)
journal.close()
before = {path.name: path.read_bytes() for path in directory.iterdir()}
os.system(f"mount -o remount,ro {disk}") and sys.exit("no remount")
said = []
for attempt in (lambda: Journal.open(directory, clock), lambda: study_lock(directory, "mar5").__enter__()):
    try:
        attempt()
    except UserError as error:
        said.append(str(error))
journal = Journal.read(directory, clock)
after = {path.name: path.read_bytes() for path in directory.iterdir()}
print(json.dumps([said, len(reading.clusters(journal, "mar5")), before == after]))
"""
)


def on_a_disk_of_its_own(size: str, script: str, mount_point: Path) -> Any:
    mount_point.mkdir()
    command = f'mount -t tmpfs -o size={size} tmpfs {mount_point} && exec {sys.executable} -c "$0" {mount_point}'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", command, script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_full_disk_is_one_sentence_and_what_was_recorded_stays(tmp_path: Path) -> None:
    said, other, nothing_lost, goes_on = on_a_disk_of_its_own("2m", FULL, tmp_path / "disk")
    assert said == f"the disk of {tmp_path}/disk/.autoresearch is full; free some space and run again, nothing is lost"
    assert "is full" in other or "No space left" in other
    assert nothing_lost, "every record that was confirmed is there, and none that was not"
    assert goes_on, "once there is space the same journal is written on"


def test_a_disk_that_is_read_only_is_one_sentence_and_can_still_be_read(tmp_path: Path) -> None:
    said, clusters, unchanged = on_a_disk_of_its_own("2m", LOCKED, tmp_path / "disk")
    assert len(said) == 2 and all("can't be written" in sentence for sentence in said)
    assert clusters == 20
    assert unchanged
