"""A wave on a disk that is full again and again: a real one, mounted in a namespace of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FILLED_UP_TO_LESS_AND_LESS = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.cli.conftest import process
from tests.foreign import workspace

disk = Path(sys.argv[1])
ballast = disk / "ballast"
root = workspace(disk / "workspace")
wave = ("wave", "--clusters", "2", "--tag", "mar5", "--factor", "RATE=0.3,0.2", "--factor", "WIDTH=8,16")
said = []
for free in range(0, 3000, 60):
    space = os.statvfs(disk)
    size = space.f_bavail * space.f_frsize - free * 1024
    ballast.write_bytes(bytes(max(size, 0)))
    done = process(*wave, cwd=root)
    said.append([done.code, done.err])
    ballast.unlink()
    rows = process("results", "--json", cwd=root)
    if rows.code == 0 and {row["status"] for row in json.loads(rows.out)} == {"done"} and done.code == 0:
        break
print(json.dumps([said, rows.out, process("status", cwd=root).out, process("wave", *wave[1:], cwd=root).err]))
"""


def test_a_wave_on_a_full_disk_ends_with_a_sentence_and_goes_on_once_there_is_space(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    checkout = Path(__file__).resolve().parents[2]
    command = f'mount -t tmpfs -o size=4m tmpfs {disk} && exec {sys.executable} -c "$0" {disk} {checkout}'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", command, FILLED_UP_TO_LESS_AND_LESS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, rows, status, again = json.loads(done.stdout)
    *full, (code, _) = said
    assert code == 0
    assert len(full) > 3
    for code, sentence in full:
        *before, last = sentence.splitlines()
        assert code == 2 and last.startswith("autoresearch: "), sentence
        assert "free some space and run again" in last
        # The log file may be what found it full first, which ends nothing.
        assert all(line.startswith("autoresearch: not all of the log") for line in before), sentence
    results = json.loads(rows)
    assert {row["status"] for row in results} == {"done"}
    assert len({row["experiment"] for row in results}) == len(results)
    assert "\nlast       keep" in status
    assert "tried before" in again, "the wave is over"
