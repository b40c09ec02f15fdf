"""What the scores say: how large the noise is, which knobs matter, and whether a candidate is better.

Scores are plain numbers in the metric's unit; a run that crashed is simply not among them. One noise is pooled from
all replicates of an accelerator, because a candidate's own three runs are far too few to estimate it.
"""

from controller.stats.comparison import Comparison, compare, prediction_interval, verdict
from controller.stats.effects import Effect, Effects, Term, estimate_effects
from controller.stats.noise import Noise, combine, pooled, residual

__all__ = [
    "Comparison",
    "Effect",
    "Effects",
    "Noise",
    "Term",
    "combine",
    "compare",
    "estimate_effects",
    "pooled",
    "prediction_interval",
    "residual",
    "verdict",
]
