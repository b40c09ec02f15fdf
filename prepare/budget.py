"""Counts what a trial spends and says when it is over: one set of rules for the harness and for a run by hand.

Reads no clock. Callers pass monotonic seconds and CPU seconds, so the rules can be tested without waiting and the
harness can count on a clock the trainer cannot reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from prepare.profile import Budget

DIVERGED_LOSS = 100.0
"""Nats per token; a model that knows nothing has ln(vocabulary), 6 to 9."""


@dataclass(frozen=True)
class Grant:
    """An answer to "one more step?".

    go: take it. progress: the fraction of the budget spent before that step, in [0, 1].
    label: why a refusal is a failure ("diverged", "overtime"); None while training and when the budget is simply spent.
    """

    go: bool
    progress: float
    label: str | None = None


class Meter:
    """One trial's account of its budget."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.tokens = 0
        self.steps = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self._start: tuple[float, float] | None = None

    def start(self, now: float, cpu: float) -> None:
        """Begin counting at `now` (monotonic seconds) and `cpu` (CPU seconds of the trainer)."""
        self._start = (now, cpu)

    def more(self, tokens: int, loss: float | None, now: float, cpu: float) -> Grant:
        """May one more step of `tokens` tokens be taken? `loss` is the last step's, in nats per token, if known.

        Under a token budget a step is granted only if it fits entirely: never more than the budget, and exactly the
        budget where steps divide it. Granted tokens count as spent. Raises ValueError if `tokens` is not positive,
        RuntimeError before `start`.
        """
        if self._start is None:
            raise RuntimeError("the budget is not running yet: call ready before the first step")
        if tokens <= 0:
            raise ValueError(f"a step needs a positive number of tokens, not {tokens}")
        self.seconds, self.cpu_seconds = now - self._start[0], cpu - self._start[1]
        progress = self.progress
        if loss is not None and not (math.isfinite(loss) and loss <= DIVERGED_LOSS):
            return Grant(False, progress, "diverged")
        if self.budget.cpu_seconds is not None and self.cpu_seconds > self.budget.cpu_seconds:
            return Grant(False, progress, "overtime")
        if self.budget.tokens is not None and self.tokens + tokens > self.budget.tokens:
            return Grant(False, progress)
        if self.budget.seconds is not None and self.seconds >= self.budget.seconds:
            return Grant(False, progress)
        self.tokens += tokens
        self.steps += 1
        return Grant(True, progress)

    @property
    def progress(self) -> float:
        """The fraction of the budget spent, in [0, 1], as of the last request."""
        if self.budget.tokens is not None:
            return min(1.0, self.tokens / self.budget.tokens)
        assert self.budget.seconds is not None
        return min(1.0, self.seconds / self.budget.seconds)
