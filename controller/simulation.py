"""A workspace as the world of a simulation: copied, so that nothing of it gets into the user's own repository."""

from __future__ import annotations

import shutil
import subprocess

from controller.backends.simulated import Scenario, Simulated, Truth, World
from controller.clock import Clock, VirtualClock
from controller.records import UserError
from controller.workspace import PROGRAM, Workspace, find

FOLDER = "simulated"


def copied(workspace: Workspace) -> Workspace:
    """A fresh clone of `workspace` in its .autoresearch folder, with program.md as it lies in the work tree."""
    target = workspace.directory / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    workspace.repository.exclude(f"/{workspace.directory.name}/")
    command = ["git", "clone", "--quiet", "--no-local", str(workspace.root), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"the workspace could not be copied to {target}: {' '.join(done.stderr.split())}")
    program = workspace.root / PROGRAM
    if program.is_file():
        shutil.copyfile(program, target / PROGRAM)
    return find(target)


def simulated_backend(workspace: Workspace, scenario: Scenario, seed: int, clock: Clock) -> Simulated:
    """A new world around `workspace`, whose file as checked out is the baseline of all that is true."""
    truth = Truth(scenario, seed, workspace.source(workspace.head))
    jump = clock.jump if isinstance(clock, VirtualClock) else lambda seconds: None
    return Simulated(World(truth, jump), clock)
