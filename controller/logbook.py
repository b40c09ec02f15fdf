"""The log of a running controller: JSON, one object a line, in `<directory>/log/controller.jsonl`.

Any module writes to it with the standard library alone:

    log = logging.getLogger(__name__)
    log.info("attempt ended", extra={"attempt": attempt.id, "label": "crash"})

which makes `{"at": "2026-11-21T03:04:05.678Z", "level": "info", "logger": "scheduler", "event": "attempt ended",
"attempt": "a0012", "label": "crash"}`. The event is a constant, what varies goes into fields. A field can't be called
what logging calls something itself (`name`, `args`, `module`, `process`, `thread`, `created`, `message`, …): logging
raises KeyError where the line is written.

The log helps to find out what happened; it is not the journal. Whatever keeps it from being written, a full disk
foremost, is said once and never hurts the run. Times are the machine's own, also under a virtual clock.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

from controller.text import one_line, printable

ROOT = "controller"
"""Only loggers of this name or below it are written."""

FILE = Path("log") / "controller.jsonl"

FILE_BYTES = 10_000_000
OLD_FILES = 4
"""With the current one five files, 50 MB."""

TEXT_LENGTH = 2_000
TRACEBACK_LENGTH = 4_000
"""Characters of a text and of a traceback that are kept; of a traceback its end, which says what went wrong."""

ITEMS = 100
DEPTH = 4
"""Of a field that holds a collection: items that are kept, and collections within collections."""

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

_NONCE = re.compile(r"(?<![0-9a-fA-F])[0-9a-f]{32}(?![0-9a-fA-F])")
"""What `Clock.token` makes. Nobody may log one; this is for those who do, as in the words of an exception."""


@contextmanager
def open_logbook(directory: Path, verbose: bool, console_stream: TextIO) -> Iterator[Path]:
    """Write the controller's log below `directory` while the context lasts, and yield the file's path.

    With `verbose` the same goes to `console_stream` as plain lines. What keeps the file from being written is said
    there once, in a sentence; nothing is raised.
    """
    path = directory / FILE
    root = logging.getLogger(ROOT)
    before = root.level, root.propagate
    with ExitStack() as stack:
        handlers: list[logging.Handler] = [_File(path, console_stream)]
        if verbose:
            handlers.append(_Console(console_stream))
        for handler in handlers:
            stack.callback(handler.close)
            stack.callback(root.removeHandler, handler)
            root.addHandler(handler)
        stack.callback(_restore, root, *before)
        root.setLevel(logging.INFO)
        root.propagate = False
        yield path


def _restore(logger: logging.Logger, level: int, propagate: bool) -> None:
    logger.setLevel(level)
    logger.propagate = propagate


class _File(RotatingFileHandler):
    def __init__(self, path: Path, console: TextIO) -> None:
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8", delay=True)
        self.setFormatter(_Json())
        self._console = console
        self._said = False

    def _open(self) -> Any:
        path = Path(self.baseFilename)
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = super()._open()
        # A full disk or a kill may have cut the last line off in the middle.
        with suppress(OSError), path.open("rb") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    stream.write("\n")
        return stream

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        # What could not be written must not pile up in the stream's buffer.
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.close()
        if not self._said:
            self._said = True
            why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            _say(
                self._console,
                f"autoresearch: not all of the log {self.baseFilename} can be written ({why}); all else goes on",
            )

    def close(self) -> None:
        with suppress(OSError, ValueError):
            super().close()


class _Console(logging.StreamHandler[TextIO]):
    def __init__(self, console: TextIO) -> None:
        super().__init__(console)
        self.setFormatter(_Plain())

    def handleError(self, record: logging.LogRecord) -> None:
        """There is nobody to tell."""


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_entry(record), ensure_ascii=False, allow_nan=False)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = _entry(record)
        at, level, logger, event = (str(entry.pop(name)) for name in ("at", "level", "logger", "event"))
        trace = entry.pop("traceback", "")
        fields = [
            f"{name}={value if _is_word(value) else json.dumps(value, ensure_ascii=False)}"
            for name, value in entry.items()
        ]
        lines = [" ".join((at[11:19], f"{level:<7}", f"{logger}:", event, *fields)), *str(trace).splitlines()]
        return "\n    ".join(lines)


def _entry(record: logging.LogRecord) -> dict[str, Any]:
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    entry: dict[str, Any] = {
        "at": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name.removeprefix(f"{ROOT}."),
        "event": _line(record.getMessage()),
    }
    for name, value in vars(record).items():
        if name not in _STANDARD and name != "nonce":
            entry.setdefault(_line(name), _plain(value))
    if record.exc_info and record.exc_info[0] is not None:
        text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        entry["traceback"] = printable(_NONCE.sub("[nonce]", text)[-TRACEBACK_LENGTH:])
    return entry


def _plain(value: Any, depth: int = DEPTH) -> Any:
    """`value` as JSON holds it. Of our own records only the id: an attempt holds a nonce, a bundle a user's files."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str | Path | BaseException):
        return _line(str(value))
    if depth and isinstance(value, Mapping):
        items = list(value.items())[:ITEMS]
        return {_line(str(name)): _plain(item, depth - 1) for name, item in items if name != "nonce"}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth - 1) for item in list(value)[:ITEMS]]
    known = getattr(value, "id", None) or getattr(value, "name", None)
    return _line(known) if isinstance(known, str) else f"[{type(value).__name__}]"


def _line(text: str) -> str:
    return one_line(_NONCE.sub("[nonce]", text)[:TEXT_LENGTH])


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w./:+-]+", value) is not None


def _say(stream: TextIO, sentence: str) -> None:
    with suppress(OSError, ValueError):
        stream.write(f"{sentence}\n")
        stream.flush()
