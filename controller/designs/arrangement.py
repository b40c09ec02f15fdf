"""The order in which a wave is run: cells at random, controls spread evenly among them.

Randomisation turns what drifts (time, cluster, neighbours) into noise, and spread controls make that noise visible.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from math import ceil
from typing import TypeVar

T = TypeVar("T")


def controls_for(cells: int) -> int:
    """How many controls a wave of `cells` cells deserves: one for every four, never fewer than three.

    Comparing k unreplicated cells with one control is most precise with √k controls (Dunnett, JASA 50, 1955): four for
    a wave of 16. Beyond that the share is kept, so that every stretch of the wave has a control of its own. Two
    would leave one degree of freedom, where Student's t at 95 % is 12.7; three leave two, where it is 4.3, and
    stand at start, middle and end. No cells need no controls.
    """
    return max(3, ceil(cells / 4)) if cells else 0


def arrange(items: Sequence[T], controls: Sequence[T], blocks: int, rng: random.Random) -> list[T]:
    """A randomised order of `items` with `controls`, in their own order, spread evenly among them.

    `blocks` is the number of clusters: every `blocks` consecutive places are one pass over the fleet. The first control
    stands near the start and the last near the end, so that all comparisons are concurrent; places on passes and
    on clusters that have no control yet are preferred, so that no cluster's own offset becomes the controls'.
    Raises ValueError where there are no clusters.
    """
    if blocks < 1:
        raise ValueError(f"blocks: {blocks} clusters cannot run a wave")
    length = len(items) + len(controls)
    control_at = dict(zip(_places(length, len(controls), blocks, rng), controls, strict=True))
    shuffled = iter(rng.sample(items, len(items)))
    return [control_at[place] if place in control_at else next(shuffled) for place in range(length)]


def _places(length: int, controls: int, blocks: int, rng: random.Random) -> list[int]:
    """Ascending places for the controls: one in each of as many equal stretches of the order."""
    in_pass: Counter[int] = Counter()
    on_cluster: Counter[int] = Counter()
    places = []
    # The two ends choose first, because they have only the outer half of their stretch to choose from.
    for i in sorted(range(controls), key=lambda i: i not in (0, controls - 1)):
        start, stop = i * length // controls, (i + 1) * length // controls
        half = (stop - start) // 2
        if controls > 1 and i == 0:
            stop -= half
        if controls > 1 and i == controls - 1:
            start += half
        stretch = rng.sample(range(start, stop), stop - start)
        place = min(stretch, key=lambda at: (in_pass[at // blocks], on_cluster[at % blocks]))
        in_pass[place // blocks] += 1
        on_cluster[place % blocks] += 1
        places.append(place)
    return sorted(places)
