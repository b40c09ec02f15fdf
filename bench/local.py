"""How busy a wave keeps this machine: one slot a core, real training with the tiny profile.

    python bench/local.py            a table
    python bench/local.py --json     one JSON object

busy_share is the share of slot time occupied by an attempt until the queue runs dry (target 0.95), training_share the
share spent training. What lies between, at the median attempt of attempt_s, is import_s, the start of Python and the
import of torch, measured by itself; and overhead_s, everything else: the harness, the sandbox, building the model,
scoring with its probes (evaluation_s), the controller (target 1.5).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
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
        found = figures(workspace, wave, slots, import_seconds(slots))
    if as_json:
        print(json.dumps(found))
        return
    table = Table(title=f"A local wave on {slots} slots")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in found.items():
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    Console().print(table)


def figures(workspace: Path, wave: dict[str, Any], slots: int, import_s: float) -> dict[str, float | int]:
    """The shares that the wave reports itself, and the times of its attempts."""
    shown = [
        json.loads(run("-C", str(workspace), "show", experiment["experiment"], "--json"))
        for experiment in wave["experiments"]
    ]
    ran = [(one["seconds"], one["attempts"][-1]["timings"]) for one in shown if one["status"] == "done"]
    return {
        "slots": slots,
        "experiments": len(wave["experiments"]),
        "busy_share": round(wave["busy_share"], 4),
        "training_share": round(wave["training_share"], 4),
        "attempt_s": round(median(seconds for seconds, _ in ran), 2),
        "training_s": round(median(timings["training"] for _, timings in ran), 2),
        "import_s": round(import_s, 2),
        "overhead_s": round(median(seconds - timings["training"] for seconds, timings in ran) - import_s, 2),
        "evaluation_s": round(median(timings["evaluation"] for _, timings in ran), 2),
    }


def import_seconds(slots: int, rounds: int = 5) -> float:
    """Median seconds from starting Python until torch is imported, on as many cores at once as a wave keeps busy.

    torch._dynamo, which is half of it, is not imported by torch itself but by the first optimizer.
    """
    code = "import time, torch._dynamo; print(time.monotonic())"
    taken = []
    for _ in range(rounds):
        begin = time.monotonic()
        started = [
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(slots)
        ]
        taken += [float(process.communicate()[0]) - begin for process in started]
    return median(taken)


def run(*arguments: str) -> str:
    return subprocess.run([COMMAND, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
