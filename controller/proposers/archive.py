"""What an agent may look up in a study: the one protocol between agents and the journal, git and the log files."""

from __future__ import annotations

from typing import Protocol


class Archive(Protocol):
    """Reads, and changes nothing. Every answer is a text of bounded size that is fit to be shown to a model.

    What programs and models wrote stands in fences, labelled as data, with nothing in it that could end them. What is
    not there raises UserError, with a sentence for the agent.
    """

    def source(self, candidate: str, first: int = 1) -> str:
        """The editable file of a candidate, or of the incumbent where none is named, from line `first` on."""

    def diff(self, candidate: str) -> str:
        """What a candidate changes in the incumbent that it was proposed against."""

    def results(self, *, wave: str = "", candidate: str = "", status: str = "", limit: int = 40) -> str:
        """The latest experiments that are of this wave, of this candidate and have this status, a line each."""

    def effects(self, wave: str) -> str:
        """Main effects and interactions of a wave, with intervals, and what it concluded."""

    def curve(self, experiment: str) -> str:
        """An experiment's loss at some fractions of its budget, beside that of its wave's controls."""

    def log(self, experiment: str, lines: int = 60) -> str:
        """The end of the log of an experiment's last attempt."""

    def notes(self) -> str:
        """All notes, those that were retired too."""
