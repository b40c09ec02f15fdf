"""What a language model's tokens cost, and the meter of one call: it can never run past the call's cap.

Prices change, and no interface tells them: check these against https://platform.claude.com/docs/en/about-claude/pricing
and correct them in program.md's front matter where they differ. They are those of October 2026, for a cache that lasts
five minutes, without discounts and without surcharges for a region or for speed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from controller.records import UserError

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars for a million tokens: read anew, written by the model, stored in the cache, and read from it."""

    input: float
    output: float
    cache_write: float
    cache_read: float

    @property
    def dearest_input(self) -> float:
        """The most that a token of a question can cost."""
        return max(self.input, self.cache_write, self.cache_read)


PRICES: Mapping[str, Prices] = {
    "claude-fable-5-1": Prices(10.0, 50.0, 12.5, 0.25),
    "claude-fable-5": Prices(10.0, 50.0, 12.5, 1.0),
    "claude-opus-5-5": Prices(4.0, 20.0, 5.0, 0.2),
    "claude-opus-5": Prices(5.0, 25.0, 6.25, 0.5),
    "claude-opus-4-8": Prices(5.0, 25.0, 6.25, 0.5),
    "claude-opus-4-7": Prices(5.0, 25.0, 6.25, 0.5),
    "claude-opus-4-6": Prices(5.0, 25.0, 6.25, 0.5),
    "claude-opus-4-5": Prices(5.0, 25.0, 6.25, 0.5),
    "claude-sonnet-5-5": Prices(2.0, 10.0, 2.5, 0.1),
    "claude-sonnet-5": Prices(2.0, 10.0, 2.5, 0.2),
    "claude-sonnet-4-6": Prices(3.0, 15.0, 3.75, 0.3),
    "claude-sonnet-4-5": Prices(3.0, 15.0, 3.75, 0.3),
    # A question of up to 100,000 tokens costs a fifth of this.
    "claude-haiku-5-5": Prices(0.5, 2.5, 0.625, 0.05),
    "claude-haiku-4-5": Prices(1.0, 5.0, 1.25, 0.1),
}


def prices_of(model: str) -> Prices:
    """The prices of `model`, which may end in a date. Raises UserError where they are not known."""
    undated = re.sub(r"-20\d{6}$", "", model)
    if undated in PRICES:
        return PRICES[undated]
    raise UserError(
        f"the prices of {model[:80]} are not known; give them in program.md's front matter, in dollars for a million"
        " tokens, such as `llm: {prices: {input: 4, output: 20, cache_write: 5, cache_read: 0.2}}`"
    )


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that are billed: `input` read anew, `output` written, `stored` in the cache and `cached`, read from it."""

    input: int = 0
    output: int = 0
    stored: int = 0
    cached: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input,
            self.output + other.output,
            self.stored + other.stored,
            self.cached + other.cached,
        )

    @property
    def question(self) -> int:
        """All that was read."""
        return self.input + self.stored + self.cached

    def usd(self, prices: Prices) -> float:
        """What they cost."""
        return (
            self.input * prices.input
            + self.output * prices.output
            + self.stored * prices.cache_write
            + self.cached * prices.cache_read
        ) / MILLION


class Meter:
    """What one call has cost so far, beside the most it may."""

    def __init__(self, prices: Prices, cap: float) -> None:
        self.prices = prices
        self.cap = cap
        self.tokens = Tokens()
        """What the interface said it has billed."""
        self.unknown = 0.0
        """Dollars for answers that never came to their end, each at the most it can have cost."""

    @property
    def spent(self) -> float:
        """Dollars."""
        return self.tokens.usd(self.prices) + self.unknown

    @property
    def left(self) -> float:
        """Dollars."""
        return max(0.0, self.cap - self.spent)

    def affordable_answer(self, question: int) -> int:
        """How many tokens an answer may have, to a question of so many, so that both can be paid."""
        left = self.left - question * self.prices.dearest_input / MILLION
        return max(0, int(left / self.prices.output * MILLION))

    def worst(self, question: int, answer: int) -> float:
        """The most that a question and an answer of so many tokens can cost."""
        return (question * self.prices.dearest_input + answer * self.prices.output) / MILLION
