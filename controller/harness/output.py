"""What the trainer prints: copied, marked, bounded, and read for scores where it scores itself."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections import deque

LOG_BYTES = 4 * 2**20
LINE_CHARACTERS = 2000
DRAIN_SECONDS = 5.0

OTHER_METRICS = 32

_SELF_REPORT = re.compile(
    r"\s*([A-Za-z_][A-Za-z0-9_]{0,63}):\s*([-+]?(?:[0-9.]+(?:[eE][-+]?[0-9]+)?|(?i:nan|inf|infinity)))\s*"
)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Output:
    """Copies the trainer's output to ours, every line marked and bounded, and remembers the last ones.

    `reported` holds the last number printed under each name, `metric` always among them; it need not be finite.
    """

    def __init__(self, child: subprocess.Popen[bytes], metric: str) -> None:
        assert child.stdout is not None
        self._stream = child.stdout
        self._metric = metric
        self._left = LOG_BYTES
        self._tail: deque[str] = deque(maxlen=20)
        self.reported: dict[str, float] = {}
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until everything that was written has been copied; a survivor holding the pipe is not waited for."""
        self._thread.join(DRAIN_SECONDS)

    def last_line(self) -> str:
        """The last line that says something, at most 300 characters."""
        return next((line for line in reversed(self._tail) if line.strip()), "")[:300]

    def _copy(self) -> None:
        pending = b""
        while chunk := os.read(self._stream.fileno(), 65536):
            *lines, pending = re.split(rb"[\r\n]", pending + chunk)
            pending = pending[-LINE_CHARACTERS:]
            for line in lines:
                self._line(line)
        self._line(pending)

    def _line(self, raw: bytes) -> None:
        text = _ANSI.sub("", raw[:LINE_CHARACTERS].decode("utf-8", errors="replace"))
        text = "".join(character if character.isprintable() or character == "\t" else "�" for character in text)
        if not text.strip():
            return
        self._tail.append(text)
        found = _SELF_REPORT.fullmatch(text)
        if found and (found[1] in {self._metric, *self.reported} or len(self.reported) < OTHER_METRICS):
            with contextlib.suppress(ValueError):
                self.reported[found[1]] = float(found[2])
        # A log that can't be written must not stop the copying, which would stop the trainer.
        with contextlib.suppress(OSError):
            if self._left > 0:
                self._left -= len(text) + 3
                print("|", text, flush=True)
                if self._left <= 0:
                    print(f"| (more than {LOG_BYTES >> 20} MiB of output: the rest is dropped)", flush=True)
