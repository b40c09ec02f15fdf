"""How an attempt says that it has failed."""

from __future__ import annotations


class Failure(Exception):
    """The attempt ended without a score: a label of the controller's tree, and why."""

    def __init__(self, label: str, reason: str) -> None:
        super().__init__(reason)
        self.label = label
