"""How busy a wave keeps this machine: one slot a core, real training with the tiny profile.

    python bench/local.py            a table
    python bench/local.py --json     one JSON object

busy_share is the share of slot time occupied by an attempt until the queue runs dry (target 0.95), training_share the
share spent training: what lies between is the start of Python, the import of torch, and scoring. attempt_s is the
median attempt, startup_s its median time until training begins.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

COMMAND = Path(sys.executable).with_name("autoresearch")
FACTORS = ("--factor", "MATRIX_LR=0.02,0.04,0.08", "--factor", "WEIGHT_DECAY=0.1,0.2")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how busy a wave keeps this machine.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    slots = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as scratch:
        workspace = Path(scratch) / "workspace"
        run("init", str(workspace), "--profile", "tiny")
        wave = json.loads(run("-C", str(workspace), "wave", "--clusters", str(slots), *FACTORS, "--json"))
        found = figures(workspace, wave, slots)
    if as_json:
        print(json.dumps(found))
        return
    table = Table(title=f"A local wave on {slots} slots")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in found.items():
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    Console().print(table)


def figures(workspace: Path, wave: dict[str, Any], slots: int) -> dict[str, float | int]:
    """The shares that the wave reports itself, and the times of its attempts."""
    timings = [
        attempt["timings"]
        for experiment in wave["experiments"]
        for attempt in json.loads(run("-C", str(workspace), "show", experiment["experiment"], "--json"))["attempts"]
        if attempt["label"] is None
    ]
    return {
        "slots": slots,
        "experiments": len(wave["experiments"]),
        "busy_share": round(wave["busy_share"], 4),
        "training_share": round(wave["training_share"], 4),
        "attempt_s": round(median(timing["total"] for timing in timings), 2),
        "startup_s": round(median(timing["warmup"] for timing in timings), 2),
        "evaluation_s": round(median(timing["evaluation"] for timing in timings), 2),
    }


def run(*arguments: str) -> str:
    return subprocess.run([COMMAND, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
