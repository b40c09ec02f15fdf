"""What a proposer is asked and what it answers: the one protocol of everything that has ideas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.records import Factor, Knobs, Proposal, Refusal


@dataclass(frozen=True, slots=True)
class Observation:
    """One cell of an earlier wave: all its factors' values, and its score.

    The score is None where it failed or never ran, and where it was `pruned`: ended early, as it was clearly worse than
    the wave's controls at the same point.
    """

    knobs: Knobs
    score: float | None
    pruned: bool = False


@dataclass(frozen=True, slots=True)
class PastDesign:
    """What became of one proposal: its factors as proposed, and its cells.

    Effects are estimated from one design and the wave's controls: another design of the wave varies other knobs, and
    taken together the two could not be told apart.
    """

    factors: tuple[Factor, ...]
    cells: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class PastWave:
    """An earlier wave. `base` is what the controls ran with, for every factor; `kept` whether a cell was kept.

    The scores of `controls` and cells are as on one accelerator; `minimize` says whether lower ones are better.
    `refusals` are what was proposed for it and never ran.
    """

    id: str
    base: Knobs
    designs: tuple[PastDesign, ...]
    controls: tuple[float, ...]
    kept: bool
    refusals: tuple[Refusal, ...] = ()
    minimize: bool = True


@dataclass(frozen=True, slots=True)
class Context:
    """What a proposer may know of the study.

    `source` is the incumbent's editable file; `models` maps the digest of each model already tried to the candidate
    that was it, or is being tried; `pending` are the designs that are being screened meanwhile; `seed` makes a proposer
    that draws lots repeat itself.
    """

    source: str
    minimize: bool
    min_effect: float
    models: Mapping[str, str]
    history: tuple[PastWave, ...]
    seed: int
    pending: tuple[PastDesign, ...] = ()


class Proposer(Protocol):
    """A source of hypotheses. Must not touch git, journal or clusters.

    `usd_at_most` is the most that one call of `propose` can cost in dollars, `usd_spent` what all of them have cost.
    """

    name: str
    usd_at_most: float
    usd_spent: float

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        """Proposals worth about `room` cells, best first; none where it has no idea left."""
