"""From factors to an order of runs: which cells a proposal asks for, and how a wave's cells and controls are arranged.

A cell is a plain mapping from knob to value. Nothing here measures, schedules or remembers; all randomness comes from
the generator passed in, so a wave can be drawn again from its seed.
"""

from controller.designs.arrangement import arrange, controls_for
from controller.designs.dispatch import cells
from controller.designs.factorial import full_factorial, sweep
from controller.designs.screening import screen

__all__ = ["arrange", "cells", "controls_for", "full_factorial", "screen", "sweep"]
