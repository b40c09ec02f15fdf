"""The log of a running controller, in real files and on a real full disk."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from controller import logbook
from controller.clock import RealClock, VirtualClock
from controller.logbook import open_logbook
from controller.records import Attempt, Label

log = logging.getLogger("controller.test_logbook")


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Whatever a logbook changes of the process's logging it puts back."""

    def state() -> list[Any]:
        return [
            (logger.level, logger.propagate, logger.handlers[:])
            for logger in (logging.getLogger("controller"), logging.root)
        ]

    before = state()
    yield
    assert state() == before


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_is_an_object_with_the_fields_given(tmp_path: Path) -> None:
    console = io.StringIO()
    begun = datetime.now(UTC)
    with open_logbook(tmp_path / "new" / ".autoresearch", False, console) as path:
        log.info(
            "attempt ended", extra={"attempt": "a0012", "label": Label.CRASH, "seconds": 1.5, "gone": None, "ok": True}
        )
        logging.getLogger("controller.backends.local").warning(
            "slot gone", extra={"slots": [1, 2], "why": {"cpu": float("nan")}}
        )
        log.debug("not written")
        logging.getLogger("apprise").warning("not ours")
        logging.getLogger("controllers").warning("not ours")
    log.warning("not written, as it is closed")
    assert path == tmp_path / "new" / ".autoresearch" / "log" / "controller.jsonl"
    first, second = entries(path)
    at = datetime.fromisoformat(first.pop("at"))
    assert abs((at - begun).total_seconds()) < 60
    assert path.read_text()[:50].split('"')[3].endswith("Z")
    assert list(first.items()) == [
        ("level", "info"),
        ("logger", "test_logbook"),
        ("event", "attempt ended"),
        ("attempt", "a0012"),
        ("label", "crash"),
        ("seconds", 1.5),
        ("gone", None),
        ("ok", True),
    ]
    del second["at"]
    assert second == {
        "level": "warning",
        "logger": "backends.local",
        "event": "slot gone",
        "slots": [1, 2],
        "why": {"cpu": "nan"},
    }
    assert console.getvalue() == ""


def test_nothing_that_is_written_makes_a_line_of_its_own(tmp_path: Path) -> None:
    forged = 'x\n{"at": "now", "event": "forged"}\r\x1b[2J\u2028\ud800'
    console = io.StringIO()
    with open_logbook(tmp_path, True, console) as path:
        log.info("said %s", forged, extra={"reason": forged, "many": {forged: [forged]}})
        try:
            raise ValueError(forged)
        except ValueError:
            log.exception("failed")
    first, second = entries(path)
    assert first["reason"] == 'x {"at": "now", "event": "forged"} [2J'
    assert first["event"] == f"said {first['reason']}"
    assert first["many"] == {first["reason"]: [first["reason"]]}
    assert second["traceback"].startswith("Traceback (most recent call last)")
    assert "\x1b" not in path.read_text() + console.getvalue()
    plain = [line for line in console.getvalue().split("\n")[:-1] if not line.startswith("    ")]
    assert [line.split()[1] for line in plain] == ["info", "error"]


def test_long_texts_and_collections_are_cut(tmp_path: Path) -> None:
    deep: list[Any] = []
    deep.append(deep)

    def endless(depth: int) -> None:
        if depth:
            endless(depth - 1)
        raise ValueError("y" * 5_000 + "the end")

    with open_logbook(tmp_path, False, io.StringIO()) as path:
        log.info("long", extra={"text": "x" * 10_000, "many": range(3), "list": list(range(1_000)), "deep": deep})
        try:
            endless(50)
        except ValueError:
            log.exception("failed")
    first, second = entries(path)
    assert len(first["text"]) == logbook.TEXT_LENGTH
    assert len(first["list"]) == logbook.ITEMS
    assert first["deep"] == [[[["[list]"]]]]
    assert first["many"] == "[range]"
    assert len(second["traceback"]) == logbook.TRACEBACK_LENGTH and second["traceback"].endswith("the end")


@pytest.mark.parametrize("clock", [RealClock(), VirtualClock()])
def test_no_nonce_is_written(tmp_path: Path, clock: RealClock | VirtualClock) -> None:
    nonce = clock.token()
    attempt = Attempt("a0001", "e0001", "local-1", nonce)
    commit = "0123456789abcdef0123456789abcdef01234567"
    console = io.StringIO()
    with open_logbook(tmp_path, True, console) as path:
        log.info("submitted %s", attempt, extra={"attempt": attempt, "nonce": nonce, "bundle": nonce.encode()})
        log.info("sent", extra={"job": {"nonce": nonce, "commit": commit}})
        try:
            raise RuntimeError(f"job {nonce}")
        except RuntimeError:
            log.exception("failed")
    assert nonce not in path.read_text() + console.getvalue()
    first, second, _ = entries(path)
    assert (first["attempt"], first["bundle"]) == ("a0001", "[bytes]")
    assert second["job"] == {"commit": commit}


def test_the_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logbook, "FILE_BYTES", 1_000)
    with open_logbook(tmp_path, False, io.StringIO()) as path:
        for number in range(100):
            log.info("counted", extra={"number": number})
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["controller.jsonl", *(f"controller.jsonl.{n}" for n in range(1, 5))]
    assert all(file.stat().st_size <= 1_000 for file in files)
    numbers = [entry["number"] for file in (*files[:0:-1], files[0]) for entry in entries(file)]
    assert numbers == list(range(numbers[0], 100))


def test_a_second_logbook_goes_on_after_a_line_that_was_cut_off(tmp_path: Path) -> None:
    with open_logbook(tmp_path, False, io.StringIO()) as path:
        log.info("first")
    with path.open("a") as file:
        file.write('{"at": "cut o')
    with open_logbook(tmp_path, False, io.StringIO()):
        log.info("second")
        log.info("third")
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    assert [json.loads(line)["event"] for line in (lines[0], *lines[2:])] == ["first", "second", "third"]


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    def write(name: str) -> None:
        for number in range(50):
            log.info("counted", extra={"who": name, "number": number})

    with open_logbook(tmp_path, False, io.StringIO()) as path:
        threads = [Thread(target=write, args=(str(name),)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({(entry["who"], entry["number"]) for entry in entries(path)}) == 400


def test_verbose_says_the_same_in_plain_lines(tmp_path: Path) -> None:
    console = io.StringIO()
    with open_logbook(tmp_path, True, console) as path:
        log.info("attempt ended", extra={"attempt": "a0012", "reason": "no score", "seconds": 1.5})
        try:
            raise ValueError("bad")
        except ValueError:
            log.exception("failed")
    first, _ = entries(path)
    lines = console.getvalue().splitlines()
    assert lines[0] == (
        f'{first["at"][11:19]} info    test_logbook: attempt ended attempt=a0012 reason="no score" seconds=1.5'
    )
    assert lines[1].endswith("error   test_logbook: failed")
    assert lines[2] == "    Traceback (most recent call last):"
    assert lines[-1] == "    ValueError: bad"


def test_a_log_that_can_not_be_written_is_said_once_and_hurts_nobody(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text("a file, where a folder should be")
    console = io.StringIO()
    with open_logbook(tmp_path, False, console) as path:
        log.info("first")
        log.info("second")
    (sentence,) = console.getvalue().splitlines()
    assert sentence.startswith(f"autoresearch: not all of the log {path} can be written (File exists)")
    assert "".join(capfd.readouterr()) == ""


def test_a_record_that_can_not_be_written_hurts_nobody(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    console = io.StringIO()
    with open_logbook(tmp_path, True, console) as path:
        log.info("%d", "not a number")
        log.info("broken", extra={"error": Broken()})
        log.info("whole")
    assert [entry["event"] for entry in entries(path)] == ["whole"]
    sentence, plain = console.getvalue().splitlines()
    assert "(TypeError)" in sentence and plain.endswith("whole")
    assert "".join(capfd.readouterr()) == ""


def test_a_terminal_that_has_gone_hurts_nobody(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    console = io.StringIO()
    console.close()
    (tmp_path / "log").write_text("a file, where a folder should be")
    with open_logbook(tmp_path, True, console):
        log.info("first")
    assert "".join(capfd.readouterr()) == ""


FULL = """
import io, json, logging, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from controller.logbook import open_logbook

disk = Path(sys.argv[1])
log = logging.getLogger("controller.full")
console = io.StringIO()
with open_logbook(disk, False, console) as path:
    log.info("counted", extra={"number": 0})
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    for number in range(1, 1000):
        log.info("counted", extra={"number": number, "text": "x" * 100})
    ballast.unlink()
    log.info("counted", extra={"number": 1000})
print(json.dumps([console.getvalue(), path.read_text()]))
"""


def test_a_full_disk_is_said_once_and_the_log_goes_on_once_there_is_space(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    checkout = Path(__file__).resolve().parents[1]
    command = f'mount -t tmpfs -o size=64k tmpfs {disk} && exec {sys.executable} -c "$0" {disk} {checkout}'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", command, FULL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, text = json.loads(done.stdout)
    assert said.count("\n") == 1 and "(No space left on device)" in said
    lines = text.splitlines()
    assert json.loads(lines[0])["number"] == 0 and json.loads(lines[-1])["number"] == 1000
    torn = [line for line in lines if not line.endswith("}")]
    assert len(torn) <= 1, "the line that the disk had no more space for"
