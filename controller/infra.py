"""Where experiments run: from what `--infra` says to a backend."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.clock import Clock
from controller.records import NothingRan, UserError

if TYPE_CHECKING:
    from controller.backends import Backend
    from controller.backends.skypilot import Plan, Sdk
    from controller.settings import Settings
    from controller.workspace import Workspace

LOCAL = "local"
SIMULATED = "simulated"
NO_CATALOG = frozenset({"kubernetes", "slurm", "ssh", "local", "fake"})
"""Infras that cost what their owner says, and no list does."""


def is_simulated(infra: str) -> bool:
    """Whether `infra` is a made-up world: `simulated`, or `simulated:FILE`."""
    return infra.partition(":")[0] == SIMULATED


def local_backend(root: Path, directory: Path, clock: Clock) -> Backend:
    """This machine, as the backend of the workspace at `root`."""
    from controller.backends.local import Local, workspace_python

    return Local(directory, workspace_python(root, sys.executable), clock)


def open_backend(infra: str, workspace: Workspace, clock: Clock) -> Backend:
    """The backend that `infra` names; asks SkyPilot, where it is that, whether it can be used at all.

    Raises UserError where infra, experiment.yaml or the fleet make no sense, NothingRan where SkyPilot can't be used.
    """
    if infra == LOCAL:
        return local_backend(workspace.root, workspace.directory, clock)
    return _opened(infra, workspace, workspace.settings.fleet, workspace.directory, clock)


def open_to_reproduce(infra: str, workspace: Workspace, accelerator: str, directory: Path, clock: Clock) -> Backend:
    """The backend that `infra` names, for what `workspace`'s commit says of itself, on clusters with `accelerator`.

    Raises as `open_backend` does.
    """
    if infra == LOCAL:
        return local_backend(workspace.repository.root, directory, clock)
    from controller.backends.skypilot.recipe import FILE

    text = workspace.repository.read(workspace.head, FILE)
    return _opened(infra, workspace, {accelerator: 1}, directory, clock, text)


def fleet_size(asked: int | None, settings: Settings) -> int:
    """How many clusters to use: as many as asked for, else as many as the front matter's fleet names."""
    named = sum(settings.fleet.values())
    if asked is None and not named:
        raise UserError(
            "say how many clusters to use with --clusters, or name them in program.md's front matter, such as"
            " `fleet: {H100: 13, H200: 3}`"
        )
    if asked is not None and named and asked > named:
        raise UserError(f"program.md's fleet names {named} clusters; ask for at most as many, or name more there")
    return asked if asked is not None else named


def enabled_infras() -> list[str]:
    """What SkyPilot has access to. Raises NothingRan where it can't be asked."""
    from controller.backends.skypilot import Sdk

    return asyncio.run(_infras(Sdk(load_sky())))


def _opened(
    infra: str,
    workspace: Workspace,
    fleet: Mapping[str, int],
    directory: Path,
    clock: Clock,
    task: str | None = None,
) -> Backend:
    from controller.backends.skypilot import Sdk, SkyPilot

    plan = _plan(infra, workspace, fleet, task)
    sky = load_sky()
    plan, prices = asyncio.run(_asked(Sdk(sky), plan))
    _check_task(sky, plan)
    return SkyPilot(Sdk(sky), plan, directory, clock, prices)


def _plan(infra: str, workspace: Workspace, fleet: Mapping[str, int], task: str | None) -> Plan:
    from controller.backends.skypilot import Plan, read

    recipe = read(workspace.root, os.environ, task)
    plan = Plan(recipe, infra, dict(fleet) or None, workspace.settings.metric.name)
    for accelerator in fleet or (None,):
        plan.choices(accelerator)
    if recipe.nodes > 1 and workspace.evaluated(workspace.head):
        raise UserError("experiment.yaml asks for several nodes, but the evaluator trains on one; set num_nodes to 1")
    if not recipe.run and not workspace.evaluated(workspace.head):
        raise UserError("experiment.yaml has no `run`, and this workspace no evaluator that could do without; add one")
    return plan


async def _asked(sdk: Sdk, plan: Plan) -> tuple[Plan, Mapping[str, float]]:
    """The plan with what SkyPilot has access to, and what accelerators cost there."""
    from controller.backends import Unreachable
    from controller.backends.skypilot.sdk import Refused

    infras = await _infras(sdk)
    known = {one.partition("/")[0].lower() for one in infras}
    places = {str(one.get("infra") or one.get("cloud") or "").partition("/")[0].lower() for one in plan.choices(None)}
    places = {"kubernetes" if place == "k8s" else place for place in places} - {"", "*"}
    if places and known.isdisjoint(places):
        wanted, there = " or ".join(sorted(places)), ", ".join(sorted(known))
        raise UserError(f"SkyPilot has no access to {wanted}, only to {there}; `sky check` says what it needs")
    priced = sorted((places & known or known) - NO_CATALOG)
    prices: Mapping[str, float] = {}
    if priced:
        try:
            prices = await sdk.prices(plan.recipe.wants(), priced)
        except (Unreachable, Refused):  # They are in program.md, or are not known.
            prices = {}
    return replace(plan, infras=tuple(infras)), prices


async def _infras(sdk: Sdk) -> list[str]:
    from controller.backends import Unreachable
    from controller.backends.skypilot.sdk import Refused

    instead = "--infra local runs on this machine instead"
    try:
        infras = await sdk.infras()
    except Unreachable as error:
        raise NothingRan(
            f"SkyPilot's API server can't be reached ({error}); `sky api info` says where it is looked for; {instead}"
        ) from None
    except Refused as error:
        raise NothingRan(f"SkyPilot can't be used: {error}; {instead}") from None
    if not infras:
        raise NothingRan(f"SkyPilot has access to no infra; `sky check` says what each one needs; {instead}")
    return infras


def _check_task(sky: Any, plan: Plan) -> None:
    recipe = plan.recipe
    choices = [one for name in plan.fleet or (None,) for one in plan.choices(name)]
    try:
        sky.Task.from_yaml_config(recipe.task(choices, secrets=dict(recipe.secrets)))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"experiment.yaml is not a task of SkyPilot's: {reason}") from None


def load_sky() -> Any:
    """The module `sky`. Raises UserError where it is not installed."""
    from controller.backends.skypilot import load

    try:
        return load()
    except ImportError as error:
        raise UserError(
            f"SkyPilot is not installed here ({error}); install this project again with pip, or use --infra local"
        ) from None
