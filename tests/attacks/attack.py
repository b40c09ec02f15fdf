"""What an attack is: a train.py, and how an attempt of it may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    """source: the train.py, made when it is run; or what it does with the SPEAKER of the harness's tests.

    endings: labels, separated by spaces, any of which is right. Besides those of the controller there are `no_gain`, a
    score not better than the honest run's, and `nothing`, no valid result at all. `MARKER` in the source becomes a
    word that processes can be found by. timeout: the attempt's, in seconds.
    """

    source: str | Callable[[], str]
    endings: str
    timeout: float = 30.0
