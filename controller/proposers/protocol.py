"""What a proposer is asked and what it answers: the one protocol of everything that has ideas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.records import Factor, Knobs, Proposal, Refusal


@dataclass(frozen=True, slots=True)
class Observation:
    """One cell of an earlier wave: all its factors' values, and its score (None where it failed, or never ran)."""

    knobs: Knobs
    score: float | None


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

    `refusals` are what was proposed for it and never ran.
    """

    id: str
    base: Knobs
    designs: tuple[PastDesign, ...]
    controls: tuple[float, ...]
    kept: bool
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a proposer may know of the study.

    `source` is the incumbent's editable file; `models` maps the digest of each model already tried to the candidate
    that was it; `seed` makes a proposer that draws lots repeat itself.
    """

    source: str
    minimize: bool
    min_effect: float
    models: Mapping[str, str]
    history: tuple[PastWave, ...]
    seed: int


class Proposer(Protocol):
    """A source of hypotheses. Must not touch git, journal or clusters."""

    name: str

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        """Proposals worth about `room` cells, best first; none where it has no idea left."""
