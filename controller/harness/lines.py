"""What the harness prints: whole lines, whichever of its threads says them."""

from __future__ import annotations

import sys
import threading

_SAYING = threading.Lock()


def say(line: str) -> None:
    """Print `line` at once.

    In one piece: were the mark of a trainer's line written apart from the line, another thread's could come between,
    and what the trainer has printed would begin a line of its own.
    """
    with _SAYING:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
