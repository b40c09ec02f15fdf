"""What the harness prints: whole lines, whichever of its threads says them."""

from __future__ import annotations

import sys
import threading

_SAYING = threading.Lock()
_ORDER = "<sky-"
"""How a line begins to be an order to SkyPilot's client, which reads logs: to drop it, to begin again, or to open a
terminal on the machine of whoever reads."""


def say(line: str) -> None:
    """Print `line` at once.

    No line is an order to who reads the log. Each is written in one piece: were the mark of a trainer's line written
    apart from the line, another thread's could come between, and what the trainer has printed would begin a line of
    its own.
    """
    line = line.replace(_ORDER, f"< {_ORDER[1:]}")
    with _SAYING:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
