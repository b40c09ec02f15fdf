"""The line a training run shows: rewritten in place on a terminal, one every tenth of the budget in a log."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TextIO


@dataclass
class ProgressLine:
    """Remembers the last step, so that the next request can tell how long it took.

    begin and the `now` arguments are monotonic seconds.
    """

    begin: float
    stream: TextIO = field(default_factory=lambda: sys.stdout)

    def __post_init__(self) -> None:
        self._step, self._tokens, self._last, self._tenth = 0, 0, self.begin, 0

    def show(self, tokens: int, loss: float | None, progress: float, now: float, done: bool) -> None:
        """Call at every request for a step of `tokens` tokens; describes the step before it, if there was one."""
        terminal = self.stream.isatty()
        if self._step and (terminal or done or self._tenth < int(10 * progress)):
            self._tenth = int(10 * progress)
            seconds = max(now - self._last, 1e-9)
            left = (now - self.begin) * (1 - progress) / progress if progress else 0.0
            line = (
                f"step {self._step:05d} ({100 * progress:.1f}%) | loss: {'?' if loss is None else f'{loss:.4f}'} | "
                f"dt: {1000 * seconds:.0f}ms | tok/sec: {self._tokens / seconds:,.0f} | remaining: {left:.0f}s"
            )
            print(
                f"\r{line}    " if terminal else line,
                end="\n" if done or not terminal else "",
                flush=True,
                file=self.stream,
            )
        self._step, self._tokens, self._last = self._step + 1, tokens, now
