"""How much of the slots' time was used, until the queue ran dry: by attempts, and by training within them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """One attempt: Unix seconds of its start and end, and the seconds of it that went into training."""

    started: float
    ended: float
    training: float


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Shares of slot time, between 0 and 1: `busy` with an attempt, and `training`."""

    busy: float
    training: float


def occupancy(phases: Sequence[Sequence[Span]], slots: int) -> Occupancy | None:
    """Over several phases, each from its first start until its last: after that a phase has nothing left to start.

    A phase that never had more attempts than slots does not count. None where none counts.
    """
    available = busy = training = 0.0
    for spans in phases:
        if len(spans) <= slots:
            continue
        begin, dry = min(span.started for span in spans), max(span.started for span in spans)
        available += slots * (dry - begin)
        for span in spans:
            share = max(0.0, min(span.ended, dry) - span.started)
            busy += share
            training += span.training * share / (span.ended - span.started) if span.ended > span.started else 0.0
    return Occupancy(busy / available, training / available) if available > 0 else None
