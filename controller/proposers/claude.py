"""Claude as a proposer: a dialogue over Anthropic's API in which it looks things up and proposes experiments.

One call is one dialogue of a bounded number of turns, a bounded time, and a cap in dollars that is kept before each
turn: what the next answer may cost at most must still be there. What it proposes is checked while it can still correct
it (`vetting`); it writes neither git nor journal, and nothing it says is run but as a proposal.

Set ANTHROPIC_API_KEY, and ANTHROPIC_BASE_URL for a gateway; model, effort and cap are `llm` in program.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from controller.proposers.api import SILENCE_SECONDS, Api, Unavailable
from controller.proposers.archive import Archive
from controller.proposers.dialogue import converse
from controller.proposers.prices import Meter, Prices, Tokens, prices_of
from controller.proposers.prompt import question, system
from controller.proposers.protocol import Context, Jotting
from controller.proposers.tools import Desk
from controller.records import Proposal, Refusal, UserError
from controller.settings import Llm
from controller.text import clip

log = logging.getLogger(__name__)

SECONDS = 1200.0
"""The longest that a dialogue may take."""
EFFORT = "high"
"""How much it thinks, where program.md does not say, and the model takes such a wish."""


class Claude:
    """Asks Claude; see the top of this file. `tiers` are the accelerators of each tier."""

    name = "claude"

    def __init__(
        self,
        archive: Archive,
        settings: Llm,
        tiers: Sequence[Sequence[str]] = (),
        *,
        seconds: float = SECONDS,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self.usd_at_most = settings.usd_per_call
        self.usd_spent = 0.0
        self._archive = archive
        self._model = settings.model
        self._effort = settings.effort or ("" if "-4-5" in settings.model else EFFORT)
        self._prices = prices(settings)
        self._tiers = tiers
        self._seconds = seconds
        self._silence = silence
        self._remarks: list[str] = []
        self._jottings: list[Jotting] = []
        self._refusals: list[Refusal] = []
        self._tokens = Tokens()

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        """What comes of one dialogue. Raises Unavailable where it broke off before the first proposal was accepted."""
        meter = Meter(self._prices, self.usd_at_most)
        desk = Desk(context, room, self._archive, self._tiers)
        first = question(context, room, self._remarks)
        why = "it was called off"
        try:
            async with (
                asyncio.timeout(self._seconds),
                Api(self._model, self._effort, meter, silence=self._silence) as api,
            ):
                why = await converse(api, desk, system(context), first)
        except TimeoutError:
            why = f"{self._model} took longer than {self._seconds / 60:.0f} minutes"
            if not desk.accepted:
                raise Unavailable(why) from None
        except Unavailable as error:
            why = str(error)
            raise
        finally:
            self.usd_spent += meter.spent
            self._tokens += meter.tokens
            self._jottings += desk.jottings
            self._refusals += desk.refusals
            self._log(meter, desk, why)
        self._remarks = []
        return desk.accepted

    def remark(self, text: str) -> None:
        """Tell it something with the next question."""
        self._remarks.append(text)

    def jottings(self) -> Sequence[Jotting]:
        """The notes it wants taken, since this was asked last."""
        found, self._jottings = self._jottings, []
        return found

    def refusals(self) -> Sequence[Refusal]:
        """What it proposed and could not get right, since this was asked last."""
        found, self._refusals = self._refusals, []
        return found

    def metered(self) -> tuple[str, Tokens]:
        """The model, and the tokens it was billed for since this was asked last."""
        found, self._tokens = self._tokens, Tokens()
        return self._model, found

    def _log(self, meter: Meter, desk: Desk, why: str) -> None:
        tokens = meter.tokens
        log.info(
            "a language model was asked",
            extra={
                "model": self._model,
                "ended": why,
                "proposals": len(desk.accepted),
                "refused": len(desk.refusals),
                "usd": round(meter.spent, 4),
                "input_tokens": tokens.input,
                "output_tokens": tokens.output,
                "stored_tokens": tokens.stored,
                "cached_tokens": tokens.cached,
            },
        )


def prices(settings: Llm) -> Prices:
    """What tokens cost: as program.md says, or else as is known of the model. Raises UserError."""
    given = settings.prices
    if not given:
        return prices_of(settings.model)
    read = given["input"]
    return Prices(read, given["output"], given.get("cache_write", 1.25 * read), given.get("cache_read", read))


def check(settings: Llm) -> None:
    """Raises UserError where Claude cannot be asked: no key is to be had, or the model's prices are not known."""
    from anthropic import AnthropicError, AsyncAnthropic

    prices(settings)
    try:
        client = AsyncAnthropic()
    except (AnthropicError, ValueError, OSError) as error:
        reason = clip(str(error), 200).rstrip(".")
        raise UserError(f"the key for claude can't be read ({reason}); set ANTHROPIC_API_KEY") from None
    if client.api_key is None and client.auth_token is None and client.credentials is None:
        raise UserError("claude needs a key: set ANTHROPIC_API_KEY, or use `--proposer doe`, which needs none")
