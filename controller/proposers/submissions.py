"""Proposals that are handed in from outside while a study runs: by an agent that drives us, or by a person.

They come before those of any other proposer, and all that wait, as far as there is room, make one wave. Each was made
for the incumbent of its time: where that has changed, its edit is made anew on top of the present one. What may not run
by then is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from controller.clock import Clock
from controller.proposers.protocol import Context
from controller.proposers.vetting import Objected, moved, read, refusal, vet
from controller.records import NothingRan, Proposal, Refusal

POLL_SECONDS = 1.0
"""How often is looked whether something was handed in, where nothing else is left to do."""
SETTLE_SECONDS = 5.0
"""How long nothing more must have come before a wave is made of what waits: ideas come several at a time."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What was handed in as `id`: an `idea` as `vetting.read` takes it, made for a file with the text `source`."""

    id: str
    idea: Mapping[str, Any]
    source: str


class Inbox(Protocol):
    """Where submissions wait, until the journal has them."""

    @property
    def any(self) -> bool:
        """Whether some wait."""

    def submissions(self) -> Sequence[Submission]:
        """Those that wait, oldest first."""


class Submissions:
    """Proposes what waits in `inbox`; `tiers` are the accelerators of each tier."""

    name = "submissions"
    usd_at_most = 0.0
    usd_spent = 0.0

    def __init__(self, inbox: Inbox, clock: Clock, tiers: Sequence[Sequence[str]] = ()) -> None:
        self._inbox = inbox
        self._clock = clock
        self._tiers = tiers
        self._refusals: list[Refusal] = []

    @property
    def waiting(self) -> bool:
        """Whether there is something to propose."""
        return self._inbox.any

    async def come(self) -> None:
        """Wait until there is, and nothing more has come for a moment."""
        while not self.waiting:
            await self._clock.sleep(POLL_SECONDS)
        before = 0
        while before < (before := len(self._inbox.submissions())):
            await self._clock.sleep(SETTLE_SECONDS)

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        """What waits: the first whatever its size, as it was asked for, and of the others what there is room for.

        Raises NothingRan where nothing does.
        """
        found: list[Proposal] = []
        taken: dict[str, str] = {}
        for submission in self._inbox.submissions():
            idea = submission.idea
            try:
                proposal = read(idea, replace(context, source=submission.source))
                vetted = vet(moved(proposal, submission.source, context), context, taken, self._tiers)
            except Objected as error:
                refused = refusal(str(idea.get("name", "")), str(idea.get("hypothesis", "")), error)
                self._refusals.append(replace(refused, submission=submission.id))
                continue
            if found and len(taken) + len(vetted.models) > room:
                break
            taken |= dict.fromkeys(vetted.models, f"submission {submission.id}")
            found.append(replace(vetted.proposal, submission=submission.id))
        if not found and not self._refusals:
            raise NothingRan("nothing has been handed in; `autoresearch submit` hands an idea in")
        return found

    def refusals(self) -> Sequence[Refusal]:
        """What was refused since this was asked the last time."""
        found, self._refusals = self._refusals, []
        return found
