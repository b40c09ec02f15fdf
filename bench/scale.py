"""What the controller costs as fleets and studies grow: processor time for an experiment, and memory.

Each row is a study on a simulated fleet, with the built-in scenario's faults, early stopping and confirmations, from
nothing to so many experiments, in a process of its own. Processor time is that of the whole process and of the git that
it starts, the simulation of the fleet included; `first` and `last` are that of the first and the last tenth of the
experiments, in which a cost that grows with the study would show. Memory is the process's peak.

    python bench/scale.py                     a table; the whole takes some ten minutes
    python bench/scale.py --json              one JSON object
    python bench/scale.py --row 16x5000       this row alone, or several
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from nights import Night, Nobody, cpu_seconds, make_workspace, order
from rich.console import Console
from rich.table import Table

from controller.backends.simulated import load
from controller.records import Experiment, Outcome
from controller.search import Stop

ROWS = ("16x5000", "100x20000", "1000x100000")
PARTS = 10
MOST_MB = 1000.0
FLAT = 2.0
"""How many times as much an experiment may cost in the dearest row as in the cheapest."""


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds of processor time are for each experiment that ended; `hours` are simulated."""

    clusters: int
    experiments: int
    cpu_ms_per_experiment: float
    cpu_ms_first: float
    cpu_ms_last: float
    peak_mb: float
    hours: float
    real_seconds: float


class Counter(Nobody):
    """Calls `enough` once so many attempts have ended, and notes the processor time after each tenth of them."""

    def __init__(self, attempts: int) -> None:
        self.enough: Callable[[], None] = lambda: None
        self.marks = [(0, cpu_seconds())]
        self.ends = 0
        self._attempts = attempts

    def ended(self, experiment: Experiment, cluster: str, outcome: Outcome) -> None:
        self.ends += 1
        if self.ends % max(1, self._attempts // PARTS) == 0:
            self.marks.append((self.ends, cpu_seconds()))
        if self.ends == self._attempts:
            self.enough()

    def costs(self) -> list[float]:
        """Milliseconds of processor time for each attempt, in each tenth."""
        return [1000 * (after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(self.marks)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what an experiment costs the controller.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--row", action="append", metavar="CLUSTERSxEXPERIMENTS", help="this row, instead of all")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(asdict(measure(*map(int, options.row[0].split("x"))))))
        return
    rows = []
    for row in options.row or ROWS:
        command = [sys.executable, __file__, "--here", "--row", row]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        rows.append(Row(**json.loads(done.stdout)))
    print(json.dumps(summary(rows))) if options.json else Console().print(table(rows))


def measure(clusters: int, experiments: int) -> Row:
    """One row, in this process."""
    logging.disable(logging.CRITICAL)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as scratch:
        night = Night(make_workspace(Path(scratch, "workspace")), load(), 0)
        with night.journal() as journal:
            counter = Counter(experiments)
            search = night.search(journal, order(clusters, hours=None), observer=counter)
            counter.enough = lambda: search.stop(Stop("asked", "that is enough"))
            before = cpu_seconds()
            night.run(search)
            spent = cpu_seconds() - before
    costs = counter.costs()
    return Row(
        clusters,
        counter.ends,
        round(1000 * spent / counter.ends, 2),
        round(costs[0], 2),
        round(costs[-1], 2),
        round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        round(night.clock.monotonic() / 3600, 1),
        round(time.perf_counter() - began, 1),
    )


def summary(rows: Sequence[Row]) -> dict[str, object]:
    """The rows, and whether they hold what they should."""
    costs = [row.cpu_ms_per_experiment for row in rows]
    return {
        "rows": [asdict(row) for row in rows],
        "growth": round(max(costs) / min(costs), 2),
        "peak_mb": max(row.peak_mb for row in rows),
    }


def table(rows: Sequence[Row]) -> Table:
    found = Table(title="What an experiment costs the controller", title_justify="left")
    columns = "clusters", "experiments", "CPU ms each", "first tenth", "last tenth", "peak MB", "hours", "real s"
    for column in columns:
        found.add_column(column, justify="right")
    least = min(row.cpu_ms_per_experiment for row in rows)
    for row in rows:
        flat = "green" if row.cpu_ms_per_experiment <= FLAT * least else "red"
        small = "green" if row.peak_mb <= MOST_MB else "red"
        found.add_row(
            f"{row.clusters:,}",
            f"{row.experiments:,}",
            f"[{flat}]{row.cpu_ms_per_experiment:.2f}[/]",
            f"{row.cpu_ms_first:.2f}",
            f"{row.cpu_ms_last:.2f}",
            f"[{small}]{row.peak_mb:.0f}[/]",
            f"{row.hours:.1f}",
            f"{row.real_seconds:.0f}",
        )
    return found


if __name__ == "__main__":
    main()
