"""What a candidate is called where a person reads of it."""

from __future__ import annotations

from controller.journal import Journal, reading
from controller.records import Candidate
from controller.text import clip, describe

MOST = 60
"""Characters of the name that an edit was given."""


def called(journal: Journal, tag: str, candidate: Candidate) -> str:
    """The knobs in which it differs from its incumbent, and, where its code does too, what the edit was called."""
    knobs = describe(candidate.knobs)
    proposed = reading.proposed(journal, tag, candidate.proposal)
    if proposed is None or not proposed.edited:
        return knobs
    name = clip(proposed.name, MOST) or "an edit"
    return f"{name}: {knobs}" if knobs else name
