"""How long the command makes its user wait: on nothing, on a small study, and on one of 100,000 experiments.

Runs the real command in a workspace that `autoresearch init` made, several times each, and reports medians in seconds:

    python bench/startup.py            a table
    python bench/startup.py --json     one JSON object
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from synthetic import fill

COMMAND = Path(sys.executable).with_name("autoresearch")
SMALL, LARGE = 60, 100_000


@dataclass(frozen=True, slots=True)
class Measurement:
    """A command line, the study it runs on (0 experiments: none), and the seconds it should stay under."""

    key: str
    experiments: int
    arguments: tuple[str, ...]
    target: float
    runs: int = 5


def measurements(workspace: Path) -> list[Measurement]:
    here = ("-C", str(workspace))
    return [
        Measurement("help_s", 0, ("--help",), 0.3, 9),
        Measurement("status_s", SMALL, (*here, "status"), 0.5, 9),
        Measurement("status_100k_s", LARGE, (*here, "status"), 0.5, 9),
        Measurement("results_100k_s", LARGE, (*here, "results", "--json"), 3.0),
        Measurement("plot_100k_s", LARGE, (*here, "plot", "-o", str(workspace.parent / "plot.html")), 5.0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how long the command makes its user wait.")
    parser.add_argument("--json", action="store_true", help="print one JSON object of medians in seconds")
    as_json = parser.parse_args().json
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as scratch:
        workspace = Path(scratch) / "workspace"
        run(("init", str(workspace), "--profile", "tiny"))
        taken = measure(workspace, measurements(workspace))
    if as_json:
        print(json.dumps({one.key: round(seconds, 3) for one, seconds in taken}))
    else:
        Console().print(table(taken))


def measure(workspace: Path, wanted: Sequence[Measurement]) -> list[tuple[Measurement, float]]:
    """The median of each measurement; the study is written anew where the next one wants another size."""
    taken, filled = [], 0
    for one in wanted:
        if one.experiments != filled:
            shutil.rmtree(workspace / ".autoresearch", ignore_errors=True)
            fill(workspace / ".autoresearch", one.experiments)
            filled = one.experiments
        run(one.arguments)  # The first run pays for compiling modules and for reading files from the disk.
        taken.append((one, median(run(one.arguments) for _ in range(one.runs))))
    return taken


def run(arguments: Sequence[str]) -> float:
    """Seconds of wall clock that the command takes; ends this script where it fails."""
    began = time.perf_counter()
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"autoresearch {' '.join(arguments)} ended with exit code {done.returncode}: {done.stderr.strip()}")
    return seconds


def table(taken: Sequence[tuple[Measurement, float]]) -> Table:
    rows = Table("command", "experiments", title="How long a command takes", title_justify="left")
    for column in ("median s", "target s"):
        rows.add_column(column, justify="right")
    for one, seconds in taken:
        words = [word for word in one.arguments if not word.startswith("/") and word != "-C"]
        colour = "green" if seconds <= one.target else "red"
        rows.add_row(
            f"autoresearch {' '.join(words)}",
            f"{one.experiments:,}" if one.experiments else "–",
            f"[{colour}]{seconds:.2f}[/]",
            f"{one.target:.1f}",
        )
    return rows


if __name__ == "__main__":
    main()
