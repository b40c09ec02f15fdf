"""A fleet that isn't there: a whole night in seconds, with known truth and faults of every kind, from one seed.

The controller's code runs on it unchanged, under a virtual clock. What the world is like (how much candidates differ,
what noise there is, how long things take, what goes wrong) is data: scenario.yaml, or a file of the user's own.
"""

from controller.backends.simulated.backend import Simulated
from controller.backends.simulated.scenario import Scenario, load
from controller.backends.simulated.truth import Truth
from controller.backends.simulated.world import World

__all__ = ["Scenario", "Simulated", "Truth", "World", "load"]
