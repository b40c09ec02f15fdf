"""What early stopping gains, and what it costs: nights with it and without.

Simulated nights of eight hours on 13 H100 and 3 H200, with the built-in scenario, one of each kind for every seed.
Reported for both kinds: experiments that came to an end, whatever end, for each hour of a cluster that was billed; and
for nights with early stopping, how many runs were ended, and the share of them that would have won: whose candidate's
true score, on the accelerator it was run on, is better than that of the incumbent it was compared with, however
slightly.

**How losses behave on the way is set, not measured** (`Truth.loss`: the curve's noise is 4 sigmas, and halfway it leads
2 sigmas past where the run ends). With other curves these figures would be others.

    python bench/pruning.py [--json] [--seeds N]
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nights import TAG, Night, finished, make_workspace, order
from rich.console import Console
from rich.table import Table

from controller.backends.simulated import load
from controller.journal import Journal, reading
from controller.records import Label

MOST_WRONG = 0.01


@dataclass(frozen=True, slots=True)
class Found:
    """Nights of one kind, taken together: `pruned` runs were ended early, and `wrong` of them would have won."""

    experiments: int
    gpu_hours: float
    keeps: int
    pruned: int
    wrong: int

    @property
    def per_gpu_hour(self) -> float:
        """Experiments that came to an end, for each hour that was billed."""
        return self.experiments / self.gpu_hours

    @property
    def wrong_share(self) -> float:
        """The share of the runs that were ended which would have won."""
        return self.wrong / self.pruned if self.pruned else 0.0

    def __add__(self, other: Found) -> Found:
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return Found(*(one + another for one, another in pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what early stopping gains and costs.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", type=int, default=5, help="nights of each kind")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found = {stopping: Found(0, 0.0, 0, 0, 0) for stopping in (True, False)}
    for seed in range(options.seeds):
        for stopping in found:
            found[stopping] += measure(seed, stopping)
    if options.json:
        print(json.dumps(summary(found)))
    else:
        Console().print(table(found))


def measure(seed: int, stopping: bool) -> Found:
    """One night."""
    settings = f"early_stopping: {'true' if stopping else 'false'}\n"
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as scratch:
        night = Night(make_workspace(Path(scratch, "workspace"), settings), load(), seed)
        with night.journal() as journal:
            search = night.search(journal, order())
            night.run(search)
            pruned, wrong = judged(night, journal)
            hours = sum(night.world.use().billed.values())
            return Found(sum(finished(search.study).values()), hours, len(reading.kept(journal, TAG)), pruned, wrong)


def judged(night: Night, journal: Journal) -> tuple[int, int]:
    """How many runs were ended early, and how many of them would have won."""
    pruned = wrong = 0
    for result in reading.results_of(journal, TAG):
        if result.status != Label.PRUNED or result.accelerator is None:
            continue
        incumbent = reading.wave(journal, TAG, result.experiment.wave).incumbent
        mine, theirs = (
            night.true_score(reading.candidate(journal, TAG, name).commit, result.accelerator)
            for name in (result.experiment.candidate, incumbent)
        )
        pruned += 1
        wrong += mine < theirs
    return pruned, wrong


def summary(found: dict[bool, Found]) -> dict[str, Any]:
    """All that is reported, by name."""
    stopping, without = found[True], found[False]
    return {
        "experiments_per_gpu_hour": round(stopping.per_gpu_hour, 3),
        "experiments_per_gpu_hour_without": round(without.per_gpu_hour, 3),
        "gain": round(stopping.per_gpu_hour / without.per_gpu_hour - 1, 4),
        "pruned": stopping.pruned,
        "pruned_share": round(stopping.pruned / stopping.experiments, 4),
        "pruned_that_would_have_won": stopping.wrong,
        "wrong_share": round(stopping.wrong_share, 4),
        "keeps": stopping.keeps,
        "keeps_without": without.keeps,
        "curves": "set, not measured",
    }


def table(found: dict[bool, Found]) -> Table:
    rows = Table("early stopping", title="What early stopping gains and costs", title_justify="left")
    for column in ("experiments", "GPU-hours", "per GPU-hour", "keeps", "pruned", "would have won"):
        rows.add_column(column, justify="right")
    for stopping, nights in found.items():
        colour = "green" if nights.wrong_share <= MOST_WRONG else "red"
        rows.add_row(
            "on" if stopping else "off",
            f"{nights.experiments:,}",
            f"{nights.gpu_hours:.1f}",
            f"{nights.per_gpu_hour:.2f}",
            str(nights.keeps),
            str(nights.pruned) if stopping else "–",
            f"[{colour}]{nights.wrong} ({nights.wrong_share:.2%})[/]" if stopping else "–",
        )
    rows.caption = "How losses behave on the way is set, not measured."
    rows.caption_justify = "left"
    return rows


if __name__ == "__main__":
    main()
