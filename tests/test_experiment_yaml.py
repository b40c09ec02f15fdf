"""experiment.yaml is SkyPilot's own format: SkyPilot itself must accept it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PARSE = """
import json, sky
task = sky.Task.from_yaml("experiment.yaml")
accelerators = sorted(name for resources in task.resources for name in (resources.accelerators or {}))
print(json.dumps({"accelerators": accelerators, "run": task.run, "setup": task.setup, "nodes": task.num_nodes}))
"""


def test_skypilot_accepts_the_task_as_it_is(tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run([sys.executable, "-c", PARSE], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout.splitlines()[-1])
    assert task["accelerators"] == ["H100", "H200"]
    assert "train/train.py" in task["run"]
    assert "-m prepare" in task["setup"]
    assert task["nodes"] == 1
