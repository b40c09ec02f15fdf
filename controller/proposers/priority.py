"""Which knobs to try first, when nothing has been measured: what has paid off most often in training runs in general.

Learning rates first, above all that of the bulk of the weights; then the model's size and shape; then how the learning
rate goes over the run; batch size; optimizer memory and regularisation; initialisation. This orders, it does not
choose: every number is tried some day, except those that decide how a run is watched rather than what it learns.
"""

from __future__ import annotations

import re

from controller.records import Knobs

KINDS = (
    re.compile(r"^((MATRIX|HIDDEN|BASE|MAX|PEAK|MUON|ADAM|ADAMW)_)?(LR|LEARNING_RATE)$"),
    re.compile(r"DEPTH|LAYER|ASPECT_RATIO|WIDTH|(^|_)D?_?MODEL($|_)|HIDDEN|EMBD?$"),
    re.compile(r"(^|_)(LR|LEARNING_RATE)$"),
    re.compile(r"WARM|COOLDOWN|FINAL|DECAY_RATIO|SCHEDULE"),
    re.compile(r"^(?!DEVICE|MICRO).*BATCH"),
    re.compile(r"MOMENTUM|BETA|DECAY|DROPOUT|CLIP"),
    re.compile(r"HEAD|MLP|EXPANSION|DIM"),
    re.compile(r"STD|INIT|SCALE|GAIN"),
    re.compile(r"^(?!DEVICE|MICRO)"),
    re.compile(r""),
)

NOT_LEARNING = re.compile(r"(^|_)(SEED|EVAL|VAL|LOG|LOGGING|PRINT|VERBOSE|WORKERS|PORT|VERSION|BUDGET)(_|$)")
"""A better seed, for one, is luck and no discovery."""


def kind(knob: str) -> int:
    """The place of the knob's kind among all kinds, 0 for the most promising."""
    return next(place for place, pattern in enumerate(KINDS) if pattern.search(knob))


def ranked(knobs: Knobs) -> list[str]:
    """The numeric knobs worth trying, most promising first, in file order within a kind."""
    numeric = [knob for knob, value in knobs.items() if isinstance(value, int | float) and not isinstance(value, bool)]
    return sorted((knob for knob in numeric if not NOT_LEARNING.search(knob)), key=kind)
