"""A SkyPilot of directories and processes, and the backend over it, as each controller of a workspace would have it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from controller.backends.skypilot import Plan, Sdk, SkyPilot, read
from controller.backends.skypilot.trouble import Inquiry
from tests.backends.skypilot.double import Sky, World
from tests.backends.skypilot.staging import RECIPE, Canaries, HastyClock, Opener, nobody_knows, report_at_once
from tests.processes import alive_in, wait_for_the_end_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A server with nothing on it, and as many clusters to be had as are asked for."""
    found = World(tmp_path / "world")
    yield found
    found.close()
    left = alive_in(tmp_path)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for_the_end_of(*left)


@pytest.fixture
def open_backend(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Opens the backend of a workspace, this test's if none is named, as each of its controllers would."""
    monkeypatch.setattr("controller.backends.skypilot.following.MOST_PAUSE", 1.0)

    def open_one(
        recipe: str = RECIPE,
        workspace: str = "workspace",
        environ: Mapping[str, str] | None = None,
        inquire: Inquiry = nobody_knows,
        sky: Sky | None = None,
        **plan: object,
    ) -> SkyPilot:
        root = tmp_path / workspace
        root.mkdir(exist_ok=True)
        (root / "experiment.yaml").write_text(recipe)
        whole = Plan(read(root, environ or {}), **plan)  # type: ignore[arg-type]
        return SkyPilot(Sdk(sky or Sky(world)), whole, root / ".autoresearch", HastyClock(), {}, inquire)

    return open_one


@pytest.fixture
def backend(open_backend: Opener) -> SkyPilot:
    """The backend of this test's workspace."""
    return open_backend()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is silent is asked after at once."""
    monkeypatch.setattr("controller.backends.skypilot.following.SILENCE_SECONDS", 0.1)


@pytest.fixture
def canaries(world: World) -> Canaries:
    """Has every canary report at once what a good one would, but for what is changed in it by the cluster's name."""
    changed: Canaries = {}
    world.on_made = lambda machines: report_at_once(machines, changed.get(machines.name, {}))
    return changed
