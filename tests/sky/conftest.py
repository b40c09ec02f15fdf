"""The rig: real SkyPilot on a real Slurm, brought up by `make test-sky`, which runs these tests inside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():  # its own, of its libraries
    warnings.simplefilter("ignore")
    import sky

from controller.clock import RealClock
from controller.journal import Journal
from tests.foreign import commit

PATIENCE_SECONDS = 240.0

PROGRAM = """---
tiers:
  screening: {accelerators: [H100], seeds: 1}
  confirmation: {accelerators: [H200], seeds: 2, promote: 1}
fleet: {H100: 3, H200: 1}
timeout_minutes: 3
---
Research in the rig.
"""


@dataclass(frozen=True)
class Desk:
    """A workspace in the rig, and the commands that a person gives there."""

    root: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that goes on."""
        return subprocess.Popen(
            self._command(*arguments), cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *arguments: str) -> str:
        """What a command that succeeds prints."""
        done = subprocess.run(self._command(*arguments), cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def fails(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """The exit code of a command, and what it said of its failure."""
        done = subprocess.run(
            self._command(*arguments),
            cwd=self.root,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr

    def json(self, *arguments: str) -> Any:
        """What a command prints for machines."""
        return json.loads(self.run(*arguments, "--json"))

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The journal's events of one kind, in order."""
        journal = Journal.read(self.root / ".autoresearch", RealClock())
        if journal is None:
            return []
        try:
            found = [json.loads(body) for (body,) in journal.db.execute("SELECT body FROM events ORDER BY seq")]
        finally:
            journal.close()
        return [event for event in found if event["kind"] == kind]

    def git(self, *arguments: str) -> str:
        """What git says."""
        return subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True).stdout

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-c", "from controller.cli import main; main()", *arguments]


@pytest.fixture(scope="session")
def rig() -> Path:
    found = os.environ.get("AUTORESEARCH_RIG")
    if found is None:
        pytest.fail("these tests run in the rig: make test-sky")
    # The commands go through SkyPilot here, unlike in other tests.
    os.environ["AUTORESEARCH_INFRA"] = "skypilot"
    return Path(found)


@pytest.fixture(scope="session")
def desk(rig: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A workspace of the tiny profile, whose task is the rig's."""
    place = Desk(tmp_path_factory.mktemp("desk"))
    place.run("init", str(place.root / "study"), "--profile", "tiny")
    desk = Desk(place.root / "study")
    commit(desk.root, {"experiment.yaml": (rig / "experiment.yaml").read_text(), "program.md": PROGRAM})
    return desk


@pytest.fixture(scope="session")
def bystander(rig: Path) -> Iterator[str]:
    """Somebody else's cluster, which has a name like ours."""
    name = "autoresearch-mar5-09"
    task = sky.Task.from_yaml_config({"run": "sleep 3600", "resources": {"infra": "slurm", "cpus": "1"}})
    sky.get(sky.launch(task, cluster_name=name))
    yield name
    sky.get(sky.down(name))


def until(what: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """What `what` comes to, once it comes to anything."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"nothing after {seconds:.0f} s"
        time.sleep(0.2)
    return found


def slurm(*arguments: str) -> str:
    """What a command of Slurm's prints."""
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
