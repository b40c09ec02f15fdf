"""Never idle, never stuck: one proposer that thinks, and another that answers whenever the first does not.

`first` is asked. While clusters run out of work and it takes longer than there is patience for, where it fails, costs
more than there is left, or proposes nothing that may run, `meanwhile` answers, and a line says so, once until `first`
answers again. An answer that comes
late serves the next call, its edits made anew where the incumbent has changed since. After a failure `first` is left
alone for a while, longer after each further one; where its answers go round in circles, `LOOPS` in a row with nothing
that may run, it is told so with the next question.

`first` need not be asked in every call, so that what is on the books for one is kept true here: what a late answer may
still cost counts as spent until it is known, which may later make a call cost less than nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from controller.clock import Clock
from controller.proposers.api import Unavailable
from controller.proposers.prices import Tokens
from controller.proposers.protocol import Choosy, Context, Jotting, Metered, Notetaker, Proposer
from controller.proposers.vetting import Objected, moved, refusal, usable
from controller.records import Proposal, Refusal
from controller.text import clip

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 120.0
"""How long `first` may think though clusters have nothing to do."""
PAUSE_SECONDS = 60.0
"""How long it is left alone after a failure; twice as long after each further one in a row."""
MOST_PAUSE_SECONDS = 900.0
LOOPS = 3


@dataclass(frozen=True, slots=True)
class _Call:
    """What `first` was asked about, when, by what it had spent by then, and the task that thinks of it."""

    context: Context
    at: float
    spent: float
    task: asyncio.Task[list[Proposal]]


class _Nothing(Exception):
    """`first` gives nothing that may run: why, as the end of a sentence. It may have `failed`."""

    def __init__(self, why: str, failed: bool = False) -> None:
        super().__init__(why)
        self.failed = failed


@runtime_checkable
class Listener(Protocol):
    """A proposer that can be told something with its next question."""

    def remark(self, text: str) -> None:
        """Tell it `text` then."""


class Relay:
    """Asks `first`, and `meanwhile` whenever that does not answer; see the top of this file.

    `name` is that of whoever answered last. `say` is told when they take turns.
    """

    def __init__(
        self,
        first: Proposer,
        meanwhile: Proposer,
        clock: Clock,
        say: Callable[[str], None] = lambda line: None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.name = first.name
        self.usd_at_most = first.usd_at_most
        self.usd_spent = first.usd_spent + meanwhile.usd_spent
        self._first = first
        self._meanwhile = meanwhile
        self._clock = clock
        self._say = say
        self._patience = patience
        self._call: _Call | None = None
        self._failures = 0
        self._circles = 0
        self._not_before = 0.0
        self._hurried = asyncio.Event()
        """Set once clusters run out of work while `first` thinks."""
        self._stands_in = False
        """Whether `meanwhile` answered last."""
        self._refusals: list[Refusal] = []

    def afford(self, payable: Callable[[float], bool]) -> None:
        """Ask for no more than can be paid: where `first` cannot be, the next call costs nothing, and goes without."""
        most = self._first.usd_at_most
        self.usd_at_most = most if payable(most) else 0.0

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        """What `first` proposes, or else what `meanwhile` does; nothing where neither has anything to propose."""
        payable = self.usd_at_most >= self._first.usd_at_most
        try:
            return await self._propose(context, room, payable)
        finally:
            self.usd_spent = self._spent()

    async def _propose(self, context: Context, room: int, payable: bool) -> list[Proposal]:
        if self._call is None and payable and self._clock.monotonic() >= self._not_before:
            self._ask(context, room)
        asked = self._call is not None
        try:
            return self._relayed(await self._answer(context, payable))
        except _Nothing as error:
            nothing = error
        found = await self._meanwhile.propose(context, room)
        if not found:
            # Nobody but the first can have an idea now: it is waited for, as long as it takes.
            if not asked and payable:
                await self._clock.sleep(max(0.0, self._not_before - self._clock.monotonic()))
                self._ask(context, room)
            if self._call is not None:
                await asyncio.wait({self._call.task})
                try:
                    return self._relayed(self._heard(self._call, context))
                except _Nothing as error:
                    nothing = error
            if nothing.failed:
                # Not the end of all ideas: whoever asked may ask again.
                raise Unavailable(f"{self._first.name} {nothing}") from None
        return self._stood_in(found, str(nothing))

    def hurry(self) -> None:
        """Clusters run out of work: no more than the rest of the patience is left."""
        self._hurried.set()

    async def _answer(self, context: Context, payable: bool) -> list[Proposal]:
        """What `first` proposes, as far as there is patience. Raises _Nothing."""
        if self._call is None:
            raise _Nothing("is left alone for a while" if payable else "costs more than is left for language models")
        if not self._call.task.done():
            self._hurried.clear()
            patience = asyncio.ensure_future(self._lose_patience(self._call.at))
            try:
                await asyncio.wait({self._call.task, patience}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                patience.cancel()
        if not self._call.task.done():
            seconds = self._clock.monotonic() - self._call.at
            raise _Nothing(f"has been thinking for {seconds:.0f} seconds, and clusters run out of work")
        return self._heard(self._call, context)

    async def _lose_patience(self, since: float) -> None:
        await self._clock.sleep(max(0.0, since + self._patience - self._clock.monotonic()))
        await self._hurried.wait()

    def jottings(self) -> Sequence[Jotting]:
        """The notes that they want taken."""
        return [note for one in self._both() if isinstance(one, Notetaker) for note in one.jottings()]

    def refusals(self) -> Sequence[Refusal]:
        """What they proposed that may not run."""
        theirs = [refused for one in self._both() if isinstance(one, Choosy) for refused in one.refusals()]
        mine, self._refusals = self._refusals, []
        return [*theirs, *mine]

    def metered(self) -> tuple[str, Tokens]:
        """The language model of `first`, and its tokens."""
        return self._first.metered() if isinstance(self._first, Metered) else ("", Tokens())

    def _both(self) -> tuple[Proposer, Proposer]:
        return self._first, self._meanwhile

    def _ask(self, context: Context, room: int) -> None:
        task = asyncio.ensure_future(self._first.propose(context, room))
        # Whoever asked may be gone by then: an exception that nobody waits for is no news.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._call = _Call(context, self._clock.monotonic(), self._first.usd_spent, task)

    def _heard(self, call: _Call, context: Context) -> list[Proposal]:
        """What of an answer that is there may run as things stand. Raises _Nothing."""
        self._call = None
        try:
            found = call.task.result()
        except asyncio.CancelledError:
            raise self._failed("was called off") from None
        except Exception as error:
            reason = clip(str(error) or type(error).__name__, 200)
            log.warning("the proposer failed", extra={"proposer": self._first.name, "reason": reason})
            raise self._failed(f"gives no answer ({reason})") from None
        made: list[Proposal] = []
        for proposal in found:
            try:
                made.append(moved(proposal, call.context.source, context))
            except Objected as error:
                self._refusals.append(refusal(proposal.name, proposal.hypothesis, error))
        kept, refused = usable(made, context)
        self._refusals += refused
        self._failures = 0
        if not kept:
            raise self._circled()
        self._circles = 0
        return kept

    def _circled(self) -> _Nothing:
        self._circles += 1
        if self._circles >= LOOPS and isinstance(self._first, Listener):
            self._first.remark(
                f"None of your last {self._circles} answers held a proposal that may run: all were refused, or had"
                " been tried before. Propose something of another kind."
            )
        self._pause(self._circles - LOOPS + 1)
        times = f", {self._circles} times in a row" if self._circles > 1 else ""
        self._refusals = list(self.refusals())
        why = f" ({clip(self._refusals[-1].reason, 200)})" if self._refusals else ""
        return _Nothing(f"proposes nothing that may run{times}{why}")

    def _failed(self, why: str) -> _Nothing:
        self._failures += 1
        self._pause(self._failures)
        return _Nothing(why, failed=True)

    def _pause(self, times: int) -> None:
        if times > 0:
            seconds = min(MOST_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(times - 1, 10))
            self._not_before = self._clock.monotonic() + seconds

    def _relayed(self, found: list[Proposal]) -> list[Proposal]:
        if self._stands_in:
            self._say(f"{self._first.name} proposes again")
        self._stands_in, self.name = False, self._first.name
        return found

    def _stood_in(self, found: list[Proposal], why: str) -> list[Proposal]:
        if not self._stands_in:
            self._say(f"{self._first.name} {why}: {self._meanwhile.name} proposes meanwhile")
        log.info("another proposer stands in", extra={"proposer": self._meanwhile.name, "reason": why})
        self._stands_in, self.name = True, self._meanwhile.name
        return found

    def _spent(self) -> float:
        thinks = self._call is not None and not self._call.task.done()
        held = self._call.spent + self._first.usd_at_most if thinks and self._call else 0.0
        return max(self._first.usd_spent, held) + self._meanwhile.usd_spent
