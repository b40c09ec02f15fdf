"""What a cluster loses between two experiments: queued ahead and heard of by a stream, or in a loop of commands.

Runs in the rig (`make bench-sky`), on real SkyPilot clusters, with experiments that only wait. The loop is what the
instructions of SkyPilot's parallel example come to: `sky exec -d`, `sky logs` until it ends, read the score, the next.
Both run on the same clusters, one after the other, so that their ratio says something on any machine.

    python bench/skypilot.py --clusters 2 --experiments 6 --seconds 5
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml

from controller.backends import Bundle, Ended, Fleet
from controller.backends.skypilot import Plan, Sdk, SkyPilot, load, read
from controller.clock import RealClock
from controller.harness.fingerprint import fingerprint
from controller.records import Attempt

TRAINER = """
import time
print("began:", time.time())
time.sleep({seconds})
print("ended:", time.time())
print("val_bpb:", 1.25)
"""


@dataclass(frozen=True)
class Run:
    """One experiment: when it began and ended by its own word, and when its result was known, in Unix seconds."""

    cluster: str
    began: float
    ended: float
    known: float


@dataclass(frozen=True)
class Arm:
    """What a way of working came to."""

    name: str
    runs: list[Run]
    cpu_seconds: float
    calls: int

    def row(self) -> dict[str, Any]:
        """The medians of what the runs say, in seconds."""
        known = [run.known - run.ended for run in self.runs]
        gaps, waits = [], []
        for cluster in {run.cluster for run in self.runs}:
            there = sorted((run for run in self.runs if run.cluster == cluster), key=lambda run: run.began)
            for before, after in pairwise(there):
                gaps.append(after.began - before.ended)
                waits.append(max(0.0, after.began - before.known))
        span = max(run.ended for run in self.runs) - min(run.began for run in self.runs)
        busy = sum(run.ended - run.began for run in self.runs)
        return {
            "way": self.name,
            "end_to_result": round(median(known), 2),
            "result_to_next": round(median(waits), 2),
            "end_to_next": round(median(gaps), 2),
            "occupied": round(busy / (span * len({run.cluster for run in self.runs})), 3),
            "controller_cpu": round(self.cpu_seconds / len(self.runs), 2),
            "calls": round(self.calls / len(self.runs), 1),
        }


def bundle(seconds: float) -> Bundle:
    """An experiment that waits."""
    source = TRAINER.format(seconds=seconds).encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("train.py")
        member.size = len(source)
        tar.addfile(member, io.BytesIO(source))
    job = {"edit": "train.py", "evaluated": False, "metric": "val_bpb", "seed": 1, "timeout": 120.0}
    return Bundle(archive.getvalue(), job | {"hashes": fingerprint([("train.py", source)], "train.py")})


async def ours(backend: SkyPilot, sdk: Sdk, clusters: list[str], experiments: int, seconds: float) -> Arm:
    """Two attempts a cluster at once, the next submitted as one ends."""
    made = bundle(seconds)
    waiting = [f"bench.e{number:04d}.1" for number in range(1, experiments * len(clusters) + 1)]
    where: dict[str, str] = {}
    submitting: set[asyncio.Task[None]] = set()

    def submit(cluster: str) -> None:
        if waiting:
            name = waiting.pop(0)
            where[name] = cluster
            attempt = Attempt(name, name.split(".")[1], cluster, "0" * 32)
            submitting.add(asyncio.ensure_future(backend.submit(cluster, attempt, made)))

    calls, cpu = sdk.calls, _cpu()
    for cluster in clusters * 2:
        submit(cluster)
    runs: list[Run] = []
    async for event in backend.events():
        if isinstance(event, Ended):
            assert event.report is not None, event.reason
            told = event.report["metrics"]
            runs.append(Run(where[event.attempt], told["began"], told["ended"], time.time()))
            submit(where[event.attempt])
            if len(runs) == experiments * len(clusters):
                break
    return Arm("queued ahead, streamed", runs, _cpu() - cpu, sdk.calls - calls)


def loop(clusters: list[str], experiments: int, seconds: float, resources: dict[str, Any]) -> Arm:
    """`sky exec -d`, `sky logs`, the next: on each cluster, by commands."""
    from concurrent.futures import ThreadPoolExecutor

    sky = str(Path(sys.executable).parent / "sky")
    calls = 0

    def one(cluster: str, directory: Path) -> list[Run]:
        nonlocal calls
        (directory / "train.py").write_text(TRAINER.format(seconds=seconds))
        task = {"workdir": str(directory), "run": "python3 -u train.py", "resources": resources}
        (directory / "task.yaml").write_text(yaml.safe_dump(task))
        runs = []
        for _ in range(experiments):
            command = [sky, "exec", "-d", cluster, str(directory / "task.yaml")]
            said = subprocess.run(command, capture_output=True, text=True, check=True)
            found = re.search(r"Job submitted, ID: (\d+)", re.sub(r"\x1b\[[0-9;]*m", "", said.stdout + said.stderr))
            assert found is not None, said.stdout + said.stderr
            log = subprocess.run([sky, "logs", cluster, found[1]], capture_output=True, text=True, check=True).stdout
            calls += 2
            began, ended = (float(re.search(rf"{word}: ([0-9.]+)", log)[1]) for word in ("began", "ended"))  # type: ignore[index]
            runs.append(Run(cluster, began, ended, time.time()))
        return runs

    cpu = _cpu()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(len(clusters)) as pool:
        places = [Path(scratch, cluster) for cluster in clusters]
        for place in places:
            place.mkdir()
        runs = [run for found in pool.map(one, clusters, places) for run in found]
    return Arm("sky exec, sky logs", runs, _cpu() - cpu, calls)


def _cpu() -> float:
    """CPU seconds of this process and of the commands it ran."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


async def measure(clusters: int, experiments: int, seconds: float, directory: Path) -> list[Arm]:
    """Both ways on the same clusters."""
    task = {"resources": {"infra": "slurm", "accelerators": "H100:1", "cpus": "1+"}, "run": "python3 train.py"}
    (directory / "experiment.yaml").write_text(yaml.safe_dump(task))
    sdk = Sdk(load())
    backend = SkyPilot(sdk, Plan(read(directory, os.environ)), directory / ".autoresearch", RealClock(), {})
    names = [one.name async for one in backend.acquire(Fleet(clusters, bundle(0.0), "bench"))]
    try:
        arms = [await ours(backend, sdk, names, experiments, seconds)]
        arms.append(await asyncio.to_thread(loop, names, experiments, seconds, {"accelerators": "H100:1"}))
        return arms
    finally:
        await backend.release(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clusters", type=int, default=2)
    parser.add_argument("--experiments", type=int, default=6, help="a cluster")
    parser.add_argument("--seconds", type=float, default=5.0, help="that each takes")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        arms = asyncio.run(measure(asked.clusters, asked.experiments, asked.seconds, Path(scratch)))
    rows = [arm.row() for arm in arms]
    if asked.json:
        print(json.dumps({"clusters": asked.clusters, "seconds": asked.seconds, "arms": rows}, indent=1))
        return
    print("seconds, medians; occupied: share of cluster time; CPU seconds and calls an experiment")
    print(f"{'way':<24}" + "".join(f"{name:>16}" for name in rows[0] if name != "way"))
    for row in rows:
        print(f"{row['way']:<24}" + "".join(f"{value:>16}" for name, value in row.items() if name != "way"))
    ratio = mean(row["end_to_next"] for row in rows[1:]) / rows[0]["end_to_next"]
    print(f"between two experiments the loop loses {ratio:.1f} times as long")


if __name__ == "__main__":
    main()
