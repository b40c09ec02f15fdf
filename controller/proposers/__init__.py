"""Who has ideas: one protocol, one file a proposer."""

from controller.proposers.doe import Doe
from controller.proposers.person import Person
from controller.proposers.protocol import Context, Jotting, Notetaker, Observation, PastDesign, PastWave, Proposer

__all__ = [
    "Context",
    "Doe",
    "Jotting",
    "Notetaker",
    "Observation",
    "PastDesign",
    "PastWave",
    "Person",
    "Proposer",
]
