"""What the trainer prints: copied, marked, bounded, and read for scores where it scores itself."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import threading
from collections import deque
from collections.abc import Iterator

from .lines import say

LOG_BYTES = 4 * 2**20
LINE_CHARACTERS = 2000
"""How much of a line the log shows."""
READ_BYTES = 2**16
"""How much of a line, its end, is read for scores."""
DRAIN_SECONDS = 5.0

OTHER_METRICS = 256
"""Numbers remembered beside the study's metric: those printed last."""

NAME = r"[A-Za-z_](?:[A-Za-z0-9_./@-]{0,62}[A-Za-z0-9_])?"
"""What a metric may be called: nothing that a log's punctuation, a terminal or a git trailer could take for its own."""

# Every repetition is bounded, or ends at a character that it can't contain: hostile text costs linear time.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
_PREFIX = re.compile(r"\s{0,40}(?:\([^()]{0,200}\bpid=[0-9]{1,10}[^()]{0,200}\)\s{0,40})+")
"""Who printed the line, as ray and SkyPilot say it: `(train, rank=0, pid=1234)`."""
_SKYPILOT = re.compile(r"\s{0,40}EXPERIMENT_(STATUS|RESULT|DESC):\s{0,40}(\S*)")
"""The lines of SkyPilot's parallel example, whose job ends with success whatever became of the run."""
_OTHERS = re.compile(r"\b(?:baseline|best|highest|initial|lowest|old|prev|previous|target)[\s:()\[\]]{1,4}$", re.I)
"""Words right before a name that make its number another one than the model's present score."""
_PAIR = re.compile(
    rf"""(?<![\w./@-]) ({NAME}) ["']? \s{{0,40}} [:=] \s{{0,40}} ["']?
    ([-+]? (?: [0-9]{{1,400}} (?:\.[0-9]{{0,400}})? | \.[0-9]{{1,400}} ) (?:[eE][-+]?[0-9]{{1,9}})?
     | [-+]? (?i:nan|inf(?:inity)?) )
    (?! [\w/:…] | \s?% | \.[\w.] | ,[0-9] | [-+*×^][0-9] )  # a date, a unit, a share, a part of something longer""",
    re.VERBOSE,
)


def numbers(line: str) -> Iterator[tuple[str, float]]:
    """Each name with its number in a printed line: `name: 1.2`, `name=1.2`, or keys of a JSON object that ends it.

    A name counts as a whole word only: `best_loss: 1`, `eval/loss: 1` and `best loss: 1` say nothing of `loss`.
    """
    found, at = None, line.find("{")
    if at >= 0 and line.rstrip().endswith("}"):
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(line[at:])
    said = line[:at] if isinstance(found, dict) else line
    for pair in _PAIR.finditer(said) if ":" in said or "=" in said else ():
        if not _OTHERS.search(said, max(0, pair.start(1) - 20), pair.start(1)):
            yield pair[1], float(pair[2])
    for name, value in found.items() if isinstance(found, dict) else ():
        if re.fullmatch(NAME, name) and isinstance(value, (int, float)) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):
                yield name, float(value)


class Output:
    """Copies the trainer's output to ours, every line marked and bounded, and remembers the last ones.

    `reported` holds the last number printed under each name, which need not be finite: `metric` and the OTHER_METRICS
    printed last. `silenced` is how many lines were dropped since `silence`. `status` is what the last EXPERIMENT_STATUS
    said, None where there was none.
    """

    def __init__(self, child: subprocess.Popen[bytes], metric: str) -> None:
        assert child.stdout is not None
        self._stream = child.stdout
        self._metric = metric
        self._left = LOG_BYTES
        self._tail: deque[str] = deque(maxlen=20)
        self.reported: dict[str, float] = {}
        self.silenced = 0
        self.status: str | None = None
        self._failed_after = ""
        self._silent = threading.Event()
        self._awake, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def silence(self) -> None:
        """Copy what was written so far, and nothing from now on: the trainer is about to see what nobody may learn."""
        os.write(self._wake, b".")
        self._silent.wait(DRAIN_SECONDS)
        self._silent.set()

    def join(self) -> None:
        """Wait until everything that was written has been copied; a survivor holding the pipe is not waited for."""
        self._thread.join(DRAIN_SECONDS)

    def last_line(self) -> str:
        """The last line that says something, at most 300 characters; the last before a status that tells of failure."""
        if self.failed:
            return self._failed_after
        return self._tail[-1][:300] if self._tail else ""

    @property
    def failed(self) -> bool:
        """Whether a run script has said, last, that its experiment has failed."""
        return self.status not in (None, "done")

    def _copy(self) -> None:
        line, cut = bytearray(), False
        for chunk in self._chunks():
            first, *others = re.split(rb"[\r\n]", chunk)
            line += first
            for other in others:
                self._line(bytes(line), cut)
                line, cut = bytearray(other), False
            cut |= len(line) > READ_BYTES
            del line[:-READ_BYTES]
        self._line(bytes(line), cut)
        self._silent.set()

    def _chunks(self) -> Iterator[bytes]:
        """What is written, as it comes. Falls silent, once asked, when all that was written before is given."""
        stream, left = self._stream.fileno(), LOG_BYTES
        while True:
            readable, _, _ = select.select([stream, self._awake], [], [])
            if self._awake in readable and (stream not in readable or left <= 0):
                os.read(self._awake, 1)
                yield b"\n"  # what stands in a line that is not ended yet was written before
                self._silent.set()
            elif stream in readable:
                chunk = os.read(stream, 65536)
                if not chunk:
                    return
                left -= len(chunk) if self._awake in readable else 0
                yield chunk

    def _line(self, raw: bytes, cut: bool) -> None:
        text = _ANSI.sub("", raw.decode("utf-8", errors="replace"))
        # The rest of a word may look like another word.
        self._read(re.sub(r"\A\S*", "", text) if cut else text)
        shown = text[:LINE_CHARACTERS]
        shown = "".join(character if character.isprintable() or character == "\t" else "�" for character in shown)
        if not shown.strip():
            return
        self._tail.append(shown)
        if self._silent.is_set():
            self.silenced += 1
            return
        # A log that can't be written must not stop the copying, which would stop the trainer.
        with contextlib.suppress(OSError):
            if self._left > 0:
                self._left -= len(shown) + 3
                say(f"| {shown}")
                if self._left <= 0:
                    say(f"| (more than {LOG_BYTES >> 20} MiB of output: the rest is dropped)")

    def _read(self, text: str) -> None:
        if prefix := _PREFIX.match(text):
            text = text[prefix.end() :]
        if said := _SKYPILOT.match(text):
            if said[1] == "STATUS":
                before, self.status = self.last_line(), said[2][:40]
                if self.failed:
                    self._failed_after = before
                    self.reported.pop(self._metric, None)
            if said[1] != "RESULT":
                return  # a description may quote any number
            text = text[said.start(2) :]
        for name, number in numbers(text):
            self.reported.pop(name, None)
            self.reported[name] = number
            if len(self.reported) - (self._metric in self.reported) > OTHER_METRICS:
                del self.reported[next(other for other in self.reported if other != self._metric)]
