"""A job's log as it comes from SkyPilot: its lines without what SkyPilot adds, and what the harness says in them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.harness.files import MARK, PROGRESS_MARK

LINE_CHARACTERS = 2**18
LOG_CHARACTERS = 8 * 2**20
"""How much of a log is kept: the harness bounds what it writes, a set-up does not."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_WHO = re.compile(r"\((?P<who>[^()]{0,120}?), (?:rank=(?P<rank>[0-9]+), )?pid=[0-9]+(?:, ip=[0-9.]+)?\) ?")
_SETUP = re.compile(r"\(setup pid=[0-9]+(?:, ip=[0-9.]+)?\) ?")
_FINISHED = re.compile(r"\W{0,4}Job finished \(status: ")


@dataclass(frozen=True, slots=True)
class Line:
    """A line that the job wrote; `setup` where the task's set-up did."""

    text: str
    setup: bool = False

    @property
    def progress(self) -> Mapping[str, Any] | None:
        """What the harness says of how far it is."""
        return _object(self.text, PROGRESS_MARK)

    @property
    def result(self) -> Mapping[str, Any] | None:
        """The harness's result."""
        return _object(self.text, MARK)


def parse(raw: str) -> Line | None:
    """A line of SkyPilot's stream; None where it is SkyPilot's own, or another machine's than the first."""
    text = _COLOUR.sub("", raw)
    if setup := _SETUP.match(text):
        return Line(text[setup.end() :], setup=True)
    who = _WHO.match(text)
    if who is None or int(who["rank"] or 0) != 0:
        return None
    return Line(text[who.end() :])


def is_last(raw: str) -> bool:
    """Whether a line is SkyPilot's own that the log ends with."""
    return _FINISHED.match(_COLOUR.sub("", raw[:LINE_CHARACTERS])) is not None


class Listener:
    """Takes the log of one job, keeps it in `path`, and hands on each of its lines once, though the log be sent again.

    Read on one thread at a time; `hear` is called there.
    """

    def __init__(self, path: Path, hear: Callable[[Line], None]) -> None:
        self._path = path
        self._hear = hear
        self.whole = False
        """Whether the log was read to its end: it is whole where SkyPilot itself says so."""
        self._seen = 0
        self._kept = 0
        self._reading = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def reader(self) -> Callable[[str], None]:
        """What takes the log's lines from the first on; who read it before is told by EOFError that he is not heard."""
        self._reading += 1
        mine, place = self._reading, 0

        def take(raw: str) -> None:
            nonlocal place
            if mine != self._reading:
                raise EOFError("nobody listens")
            if not raw.endswith(("\n", "\r")):  # the connection broke within it
                return
            line = parse(raw[:LINE_CHARACTERS].rstrip("\r\n"))
            if line is None:
                # What SkyPilot says itself is not the same each time, so only the job's own lines are counted.
                self.whole |= is_last(raw)
                return
            place += 1
            if place > self._seen:
                self._seen = place
                self._take(line)

        return take

    def close(self) -> None:
        """Want nothing more."""
        self._reading += 1

    def _take(self, line: Line) -> None:
        if line.progress is None and self._kept < LOG_CHARACTERS:
            self._kept += len(line.text) + 1
            with self._path.open("a", encoding="utf-8", errors="replace") as log:
                log.write(line.text + "\n")
        self._hear(line)


def _object(text: str, mark: str) -> Mapping[str, Any] | None:
    if not text.startswith(mark + " "):
        return None
    try:
        found = json.loads(text[len(mark) + 1 :])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
