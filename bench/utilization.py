"""How busy a fleet is kept, and what another loop makes of the same fleet.

Simulated nights of eight hours on 13 H100 and 3 H200, with trainings of 300 s, SkyPilot's latencies, the built-in
scenario's faults, and a proposer that thinks for 60 to 120 s, three times:

- `ours`: the search as it is: the next wave is proposed while others run;
- `barrier`: the same search with a barrier: a wave is proposed when the one before it has ended. Its waves have
  `BARRIER_ROOM` cells, about as many as ours come to;
- `submit_poll_think`: one agent that submits, polls and thinks in turn (upstream_loop.py says what exactly).

Reported for each: `utilization`, the share of the time clusters were billed for in which an attempt ran on them, the
time they took to come up included; `training_share`, the share of it that was spent on training, whatever came of it;
`experiments_per_hour`, those that came to an end, whatever end; `of_possible`, these as a share of 192 an hour, of
which upstream's post counts 90 for its own loop, 0.47; `cluster_hours`, how long clusters were billed for (those that
idle for long are given back); and the real seconds that the simulation of a night took. All are means over the seeds.

    python bench/utilization.py [--json] [--seeds N]
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from nights import Night, finished, make_workspace, order, stopwatch
from rich.console import Console
from rich.table import Table
from upstream_loop import Agent

from controller.backends.simulated import load

CLUSTERS = 16
HOURS = 8.0
BARRIER_ROOM = 64
TARGET = 0.97
PUBLISHED_PER_HOUR = 90.0
POSSIBLE_PER_HOUR = CLUSTERS * 3600 / 300


@dataclass(frozen=True, slots=True)
class Use:
    """One night, or the mean of some."""

    utilization: float
    training_share: float
    experiments_per_hour: float
    of_possible: float
    cluster_hours: float
    real_seconds: float


def searched(night: Night, **more: Any) -> int:
    """A night of our own search; how many experiments came to an end."""
    with night.journal() as journal:
        search = night.search(journal, order(CLUSTERS, HOURS, **more))
        night.run(search)
        return sum(finished(search.study).values())


def looped(night: Night) -> int:
    """A night of upstream's loop."""
    agent = Agent(night, CLUSTERS, HOURS)
    night.clock.run(agent.run())
    return agent.experiments


STRATEGIES: dict[str, Callable[[Night], int]] = {
    "ours": searched,
    "barrier": lambda night: searched(night, overlap=False, room=BARRIER_ROOM),
    "submit_poll_think": looped,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how busy a fleet is kept.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", type=int, default=2, help="nights of each kind")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.perf_counter()
    found = {
        name: mean([measure(strategy, seed) for seed in range(options.seeds)]) for name, strategy in STRATEGIES.items()
    }
    if options.json:
        rounded = {name: {key: round(value, 4) for key, value in asdict(use).items()} for name, use in found.items()}
        published = {"experiments_per_hour": PUBLISHED_PER_HOUR, "of_possible": PUBLISHED_PER_HOUR / POSSIBLE_PER_HOUR}
        seconds = round(time.perf_counter() - began, 2)
        print(json.dumps({**rounded, "published": published, "real_seconds": seconds}))
    else:
        Console().print(table(found))


def measure(strategy: Callable[[Night], int], seed: int) -> Use:
    """One night."""
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as scratch:
        night = Night(make_workspace(Path(scratch, "workspace")), load(), seed)
        with stopwatch() as spent:
            experiments = strategy(night)
        use, hours = night.world.use(), night.world.time / 3600
    billed = sum(use.billed.values())
    return Use(
        use.occupied / billed,
        use.training / billed,
        experiments / hours,
        experiments / hours / POSSIBLE_PER_HOUR,
        billed,
        spent["real"],
    )


def mean(uses: list[Use]) -> Use:
    """The mean of each figure."""
    return Use(*(fmean(values) for values in zip(*(asdict(use).values() for use in uses), strict=True)))


def table(found: dict[str, Use]) -> Table:
    rows = Table("loop", title="How busy a fleet is kept", title_justify="left")
    for column in ("utilization", "training", "experiments/h", "of 192/h", "cluster hours", "real s"):
        rows.add_column(column, justify="right")
    for name, use in found.items():
        colour = ("green" if use.utilization >= TARGET else "red") if name == "ours" else "default"
        rows.add_row(
            name.replace("_", "-"),
            f"[{colour}]{use.utilization:.3f}[/]",
            f"{use.training_share:.3f}",
            f"{use.experiments_per_hour:.0f}",
            f"{use.of_possible:.2f}",
            f"{use.cluster_hours:.0f}",
            f"{use.real_seconds:.1f}",
        )
    share = PUBLISHED_PER_HOUR / POSSIBLE_PER_HOUR
    rows.add_row("upstream's post", "–", "–", f"{PUBLISHED_PER_HOUR:.0f}", f"{share:.2f}", "–", "–")
    return rows


if __name__ == "__main__":
    main()
