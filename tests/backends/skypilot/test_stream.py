"""A job's log as SkyPilot gives it: what in it is the harness's, whatever a trainer prints, however often it breaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.backends.skypilot.stream import LINE_CHARACTERS, LOG_CHARACTERS, Line, Listener, parse
from tests.backends.skypilot.double import BEGUN, CYAN, GREEN, RESET, WAITING

RESULT = 'AUTORESEARCH {"status": "done"}'
FINISH = f"{RESET}{GREEN}✓ Job finished (status: SUCCEEDED).{RESET}{RESET}\n"


def line(text: str, who: str = "study.e0001.1, pid=12") -> str:
    return f"{CYAN}({who}){RESET} {text}\n"


@pytest.fixture
def heard() -> list[Line]:
    return []


@pytest.fixture
def listener(tmp_path: Path, heard: list[Line]) -> Listener:
    return Listener(tmp_path / "log.txt", heard.append)


def texts(heard: list[Line]) -> list[str]:
    return [one.text for one in heard]


@pytest.mark.parametrize(
    "who",
    [
        "study.e0001.1, pid=12",
        "task, pid=12",
        "head, rank=0, pid=12",
        "worker2, rank=0, pid=12, ip=10.0.0.3",
        "setup.e0001.1, pid=12",
        "setup, pid=12",
        "setup-2.e0001.1, pid=12",
    ],
)
def test_a_line_of_the_job_is_told_by_its_prefix(who: str) -> None:
    assert parse(f"{CYAN}({who}){RESET} | loss: 1 (best, pid=3)") == Line("| loss: 1 (best, pid=3)")
    assert parse(f"({who}) {RESULT}").result == {"status": "done"}  # type: ignore[union-attr]


@pytest.mark.parametrize("who", ["setup pid=7", "setup pid=7, ip=10.0.0.2"])
def test_a_line_of_the_set_up_is_none_of_the_jobs(who: str) -> None:
    assert parse(f"{CYAN}({who}){RESET} {RESULT}") == Line(RESULT, setup=True)


@pytest.mark.parametrize(
    "raw",
    [
        WAITING,
        BEGUN,
        FINISH,
        "",
        "INFO: Waiting 1s for the logs to be written...",
        RESULT,
        f"(worker1, rank=1, pid=13, ip=10.0.0.2) {RESULT}",
        f"(worker1, rank=10, pid=13, ip=10.0.0.2) {RESULT}",
        f"(study.e0001.1) {RESULT}",
        f" (study.e0001.1, pid=1) {RESULT}",
        "(" * 100_000,
        "(a, pid=" * 100_000,
    ],
)
def test_no_line_of_skypilots_and_of_other_machines_is_the_jobs(raw: str) -> None:
    assert parse(raw) is None


def test_colours_are_left_out() -> None:
    assert parse(f"{CYAN}(a.b.1, pid=1){RESET} \x1b[1;31mred\x1b[0m") == Line("red")


def test_nobody_can_begin_a_line_of_the_first_machines_within_another() -> None:
    assert parse(f"(worker1, rank=1, pid=1) 10 %\r(head, rank=0, pid=1) {RESULT}") is None
    assert parse(f"(a.b.1, pid=1) | 10 %\r{RESULT}").result is None  # type: ignore[union-attr]


def test_a_progress_bar_is_lines_of_its_own(listener: Listener, heard: list[Line]) -> None:
    take = listener.reader()
    for raw in ("(a.b.1, pid=1) 10 %\r", "(a.b.1, pid=1) 20 %\r", f"(a.b.1, pid=1) {RESULT}\n"):
        take(raw)
    assert texts(heard) == ["10 %", "20 %", RESULT]


@pytest.mark.parametrize(
    "text",
    [
        f"| {RESULT}",
        f" {RESULT}",
        "AUTORESEARCH",
        "AUTORESEARCH {",
        "AUTORESEARCH []",
        'AUTORESEARCH "done"',
        "AUTORESEARCH " + "[" * 100_000,
        'AUTORESEARCHER {"status": "done"}',
        'AUTORESEARCH_PROGRESS {"progress": 0.5}',
        "AUTORESEARCH_TWICE",
    ],
)
def test_what_is_no_result_is_none(text: str) -> None:
    assert Line(text).result is None


def test_progress_is_read_from_its_own_lines_only() -> None:
    assert Line('AUTORESEARCH_PROGRESS {"progress": 0.5}').progress == {"progress": 0.5}
    assert Line('| AUTORESEARCH_PROGRESS {"progress": 0.5}').progress is None
    assert Line(RESULT).progress is None


def test_the_log_holds_the_jobs_own_lines(listener: Listener, heard: list[Line], tmp_path: Path) -> None:
    take = listener.reader()
    for raw in (WAITING, BEGUN, line("| first"), line('AUTORESEARCH_PROGRESS {"progress": 0.5}'), line(RESULT), FINISH):
        take(raw)
    assert (tmp_path / "log.txt").read_text() == f"| first\n{RESULT}\n"
    assert [one.progress for one in heard] == [None, {"progress": 0.5}, None]


def test_lines_that_are_sent_again_are_heard_once(listener: Listener, heard: list[Line], tmp_path: Path) -> None:
    lines = [line(f"| {number}") for number in range(5)]
    take = listener.reader()
    for raw in (WAITING, *lines[:3]):
        take(raw)
    take = listener.reader()
    for raw in (WAITING, *lines):
        take(raw)
    assert texts(heard) == [f"| {number}" for number in range(5)]
    assert (tmp_path / "log.txt").read_text().splitlines() == texts(heard)


def test_what_skypilot_says_once_only_makes_no_line_of_the_job_be_lost(listener: Listener, heard: list[Line]) -> None:
    waits = ["INFO: Waiting 1s for the logs to be written...\n"] * 3
    take = listener.reader()
    for raw in (*waits, WAITING, line("| first")):
        take(raw)
    take = listener.reader()
    for raw in (WAITING, line("| first"), line(RESULT), FINISH):
        take(raw)
    assert texts(heard) == ["| first", RESULT]


def test_half_a_line_is_heard_when_it_is_whole(listener: Listener, heard: list[Line]) -> None:
    take = listener.reader()
    take(line("| first"))
    take(line(RESULT)[:-10])
    take = listener.reader()
    for raw in (line("| first"), line(RESULT)):
        take(raw)
    assert texts(heard) == ["| first", RESULT]


def test_who_has_read_before_is_not_listened_to(listener: Listener, heard: list[Line]) -> None:
    before = listener.reader()
    listener.reader()
    with pytest.raises(EOFError):
        before(line("| late"))
    now = listener.reader()
    listener.close()
    with pytest.raises(EOFError):
        now(line("| too late"))
    assert heard == []


def test_a_log_is_whole_once_skypilot_says_so(listener: Listener) -> None:
    take = listener.reader()
    for raw in (WAITING, BEGUN, line("✓ Job finished (status: SUCCEEDED)."), line("Job finished (status: FAILED).")):
        take(raw)
    take("(worker1, rank=1, pid=1) Job finished (status: FAILED).\n")
    assert not listener.whole
    take(FINISH)
    assert listener.whole


def test_a_line_of_ten_megabytes_harms_nobody(listener: Listener, heard: list[Line], tmp_path: Path) -> None:
    take = listener.reader()
    take(line("| " + "x" * 10_000_000 + f"(study.e0001.1, pid=12) {RESULT}"))
    take("y" * 10_000_000 + f"(study.e0001.1, pid=12) {RESULT}\n")
    take(line(RESULT))
    assert [one.result for one in heard] == [None, {"status": "done"}]
    assert (tmp_path / "log.txt").stat().st_size <= LINE_CHARACTERS + len(RESULT) + 2


def test_a_log_does_not_grow_without_end_and_its_result_is_heard(
    listener: Listener, heard: list[Line], tmp_path: Path
) -> None:
    take = listener.reader()
    for _ in range(LOG_CHARACTERS // 200_000 + 10):
        take(line("| " + "x" * 200_000))
    take(line(RESULT))
    assert LOG_CHARACTERS <= (tmp_path / "log.txt").stat().st_size <= LOG_CHARACTERS + LINE_CHARACTERS
    assert heard[-1].result == {"status": "done"}


def test_a_result_of_many_packages_is_whole(listener: Listener, heard: list[Line]) -> None:
    packages = {f"package-{number:03d}-{'x' * 60}": "1.2.3" for number in range(512)}
    listener.reader()(line(f"AUTORESEARCH {json.dumps({'packages': packages})}"))
    assert heard[0].result == {"packages": packages}
