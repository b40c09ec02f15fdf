"""How much of everything a run under the trial protocol may spend, phase by phase. Reads no clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prepare.profile import Budget

PARTS = 64
"""A share of a token budget is a whole number of so many parts of it: steps that divide the whole mostly divide these,
powers of two, and then the share too is spent to its last token."""
WARMUP_SHARE = 0.35
"""Of the CPU budget that may pass before the budget begins: torch alone takes 2 CPU seconds to import."""
OVERRUN = 0.1
"""Of the budget, in seconds, that may pass after its end before a trainer that has not noticed is ended."""
EVALUATION_SECONDS = 300.0
EVALUATION_SHARE = 0.25
"""Of the budget, in seconds or CPU seconds, that answering may take at most."""
ANSWERING_LEAST = 0.5
"""CPU seconds that answering may take beside what training took for as many tokens: who learns meanwhile takes more."""
SETTLE_SECONDS = 30.0
SETTLE_SHARE = 0.02
"""Of the budget, in seconds or CPU seconds, that may pass between the last step and serving."""
SETTLE_LEAST = 0.25
AHEAD = 0.25
"""By what fraction of its CPU seconds a trainer may be ahead of its tokens."""


def part_of(whole: Budget, share: float) -> Budget:
    """`whole`, all that is an amount of training in it scaled by `share`; getting ready takes as long as ever."""
    if share == 1:
        return whole
    part = max(1, whole.tokens // PARTS) if whole.tokens is not None else 1
    return replace(
        whole,
        tokens=None if whole.tokens is None else max(part, int(whole.tokens * share) // part * part),
        seconds=None if whole.seconds is None else whole.seconds * share,
        cpu_seconds=None if whole.cpu_seconds is None else whole.cpu_seconds * share,
    )


class Limits:
    """The limits of a run that trains for `share` of the budget `whole`.

    budget: what it may spend on training. What does not become less with that (getting ready, ending a step, handing
    over, answering) is held to fractions of the whole.
    """

    def __init__(self, whole: Budget, share: float) -> None:
        self._whole = whole
        self.budget = part_of(whole, share)

    def __str__(self) -> str:
        budget = self.budget
        spent_on = [f"{budget.tokens} tokens" if budget.tokens else f"{budget.seconds:g} s"]
        return ", ".join(spent_on + ([f"{budget.cpu_seconds:g} CPU s"] if budget.cpu_seconds else []))

    @property
    def warmup_cpu(self) -> float | None:
        """CPU seconds until it is ready."""
        whole = self._whole.cpu_seconds
        return None if whole is None else WARMUP_SHARE * whole

    @property
    def training_seconds(self) -> float | None:
        """Seconds from ready to the end of training, the last step and all."""
        if self.budget.seconds is None or self._whole.seconds is None:
            return None
        return self.budget.seconds + OVERRUN * self._whole.seconds

    def training_cpu(self, progress: float) -> float | None:
        """CPU seconds that it may have used by the time it has spent `progress` of its budget."""
        whole, most = self._whole.cpu_seconds, self.budget.cpu_seconds
        return None if whole is None or most is None else min(most, most * progress + AHEAD * whole)

    @property
    def settle_seconds(self) -> float:
        """Seconds from the last step until it serves."""
        whole = self._whole.seconds
        return max(1.0, SETTLE_SHARE * whole) if whole else SETTLE_SECONDS

    @property
    def settle_cpu(self) -> float | None:
        """CPU seconds from the last step until it serves."""
        whole = self._whole.cpu_seconds
        return None if whole is None else max(SETTLE_LEAST, SETTLE_SHARE * whole)

    @property
    def evaluation_seconds(self) -> float:
        """Seconds in which it must have answered everything."""
        whole = self._whole.seconds
        return EVALUATION_SHARE * whole if whole else EVALUATION_SECONDS

    def evaluation_cpu(self, spent: float, tokens: int, asked: int) -> float | None:
        """CPU seconds in which it must have answered `asked` tokens, where training on `tokens` took `spent`."""
        whole = self._whole.cpu_seconds
        if whole is None:
            return None
        most = EVALUATION_SHARE * whole
        return min(most, ANSWERING_LEAST + spent / tokens * asked) if tokens else most
