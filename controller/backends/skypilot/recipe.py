"""The workspace's experiment.yaml: what a cluster has and how it is set up, as SkyPilot's own task format says it.

Everything in it is used as written, but for these: `run` is the harness's, where the evaluator is present; `workdir`
is the commit that is to be run; secrets reach the set-up and no experiment, since those run what an agent wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from controller.accelerators import canonical
from controller.records import UserError

FILE = "experiment.yaml"
ANY = "skypilot"
"""The infra that leaves the choice to experiment.yaml, and where that says nothing, to SkyPilot."""


@dataclass(frozen=True)
class Recipe:
    """An experiment.yaml, read: `config` as it is, and what of it is looked at here."""

    config: Mapping[str, Any]
    root: Path
    environment: Mapping[str, str]
    secrets: Mapping[str, str]

    @property
    def run(self) -> str:
        """What it runs where nobody replaces that."""
        return str(self.config.get("run") or "")

    @property
    def setup(self) -> str:
        """What it runs once on each cluster."""
        return str(self.config.get("setup") or "")

    @property
    def nodes(self) -> int:
        """How many machines make a cluster."""
        return int(self.config.get("num_nodes") or 1)

    @property
    def idle_minutes(self) -> int | None:
        """After how many idle minutes it wants a cluster to take itself down, where it says so."""
        asked = next((one["autostop"] for one in self.choices() if one.get("autostop")), None)
        minutes = asked.get("idle_minutes") if isinstance(asked, dict) else asked
        said = re.fullmatch(r"([0-9]{1,6})([mhdw]?)", str(minutes).strip().lower())
        return int(said[1]) * {"": 1, "m": 1, "h": 60, "d": 1440, "w": 10080}[said[2]] if said else None

    def choices(self, infra: str = ANY) -> list[dict[str, Any]]:
        """Its resources as a list of alternatives, each with one accelerator at most, on `infra`."""
        return [_placed(one, infra) for one in _alternatives(self.config.get("resources") or {})]

    def wants(self) -> dict[str, float]:
        """The accelerators that a cluster may have, and how many of each."""
        return {name: count for one in self.choices() for name, count in _accelerators(one)}

    def task(self, choices: list[dict[str, Any]], **others: Any) -> dict[str, Any]:
        """It as a task of SkyPilot's with these resources; `others` replace what it says."""
        kept = {key: value for key, value in self.config.items() if key not in ("resources", "secrets", "workdir")}
        ordered = "ordered" if _is_ordered(self.config.get("resources") or {}) else "any_of"
        resources = {"resources": {ordered: choices}} if choices else {}
        mounts = {"file_mounts": _from_root(kept["file_mounts"], self.root)} if kept.get("file_mounts") else {}
        task = {**kept, **resources, **mounts, "envs": dict(self.environment), **others}
        return {key: value for key, value in task.items() if value not in (None, {}, "")}


def read(root: Path, environ: Mapping[str, str], text: str | None = None) -> Recipe:
    """The recipe of the workspace at `root`, or `text` in its place; what it leaves open is as in `environ`.

    Raises UserError.
    """
    path = root / FILE
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8") if text is None else text) or {}
    except FileNotFoundError:
        raise UserError(
            f"{root} has no {FILE}, which says what a cluster needs; add one, or use --infra local"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UserError(f"{FILE}{where}: can't be read: {reason}; correct it") from None
    if not isinstance(found, dict):
        raise UserError(f"{FILE} must be a SkyPilot task: keys with values, like `setup:` and `run:`")
    if found.get("workdir") not in (None, ".", "./"):
        raise UserError(f"{FILE}: workdir must be `.`, since what runs are the workspace's own commits")
    resources = found.get("resources")
    if resources is not None and not isinstance(resources, dict):
        raise UserError(f"{FILE}: resources must be keys with values, like `accelerators: H100:1`")
    if not isinstance(found.get("file_mounts") or {}, dict):
        raise UserError(f"{FILE}: file_mounts must be paths on the cluster with their sources")
    nodes = found.get("num_nodes")
    if nodes is not None and (not isinstance(nodes, int) or isinstance(nodes, bool) or nodes < 1):
        raise UserError(f"{FILE}: num_nodes must be a whole number from 1 on")
    list(_alternatives(resources or {}))
    return Recipe(found, root, _filled(found, "envs", environ), _filled(found, "secrets", environ))


def for_fleet(recipe: Recipe, accelerator: str, infra: str) -> list[dict[str, Any]]:
    """The resources of a cluster that must have `accelerator`. Raises UserError where experiment.yaml rules it out."""
    fitting = []
    for one in recipe.choices(infra):
        names = [(name, count) for name, count in _accelerators(one)]
        if not names:
            fitting.append({**one, "accelerators": {accelerator: 1}})
        fitting += [one for name, _ in names if canonical(name).lower() == accelerator.lower()]
    if not fitting:
        known = ", ".join(recipe.wants())
        raise UserError(f"clusters with {accelerator} are wanted, but {FILE} asks for {known} only; add it there")
    return fitting


def _alternatives(resources: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    base = {key: value for key, value in resources.items() if key not in ("any_of", "ordered")}
    alternatives = resources.get("any_of") or resources.get("ordered") or [{}]
    if not isinstance(alternatives, list) or not all(isinstance(one, dict) for one in alternatives if one):
        raise UserError(f"{FILE}: any_of and ordered must be lists of resources, like `- accelerators: H100:1`")
    for one in alternatives:
        merged = {**base, **(one or {})}
        accelerators = list(_accelerators(merged))
        if not accelerators:
            yield {key: value for key, value in merged.items() if key != "accelerators"}
        for name, count in accelerators:
            yield {**merged, "accelerators": {name: count}}


def _accelerators(resources: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Name and number of each accelerator in any of the ways in which SkyPilot lets them be written."""
    asked = resources.get("accelerators")
    if isinstance(asked, dict):
        for name, count in asked.items():
            # `{H100:1, H200:1}`, without blanks, is to YAML two names without values.
            yield from [(str(name), _count(count))] if count is not None else _accelerators({"accelerators": str(name)})
    elif isinstance(asked, (list, tuple, set)):
        for one in asked:
            yield from _accelerators({"accelerators": str(one)})
    elif asked:
        name, _, count = str(asked).partition(":")
        yield name.strip(), _count(count or 1)


def _count(said: Any) -> float:
    try:
        count = float(said)
    except (TypeError, ValueError):
        count = 0.0
    if not 0 < count < 1000:
        raise UserError(f"{FILE}: {said!r:.40} is no number of accelerators")
    return int(count) if count == int(count) else count


def _is_ordered(resources: Mapping[str, Any]) -> bool:
    return bool(resources.get("ordered")) or isinstance(resources.get("accelerators"), list)


def _placed(resources: dict[str, Any], infra: str) -> dict[str, Any]:
    if infra == ANY:
        return resources
    return {key: value for key, value in resources.items() if key not in ("cloud", "region", "zone")} | {"infra": infra}


def _filled(found: Mapping[str, Any], key: str, environ: Mapping[str, str]) -> dict[str, str]:
    asked = found.get(key) or {}
    if not isinstance(asked, dict):
        raise UserError(f"{FILE}: {key} must be names with values")
    missing = [str(name) for name, value in asked.items() if value is None and str(name) not in environ]
    if missing:
        raise UserError(f"{FILE} leaves {', '.join(missing)} open; set it in the environment of this command")
    return {str(name): environ[str(name)] if value is None else str(value) for name, value in asked.items()}


def _from_root(mounts: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """File mounts with local paths made whole: SkyPilot would look for them from where the command was given."""
    whole: dict[str, Any] = {}
    for target, source in mounts.items():
        is_local = isinstance(source, str) and "://" not in source and not source.startswith(("/", "~"))
        whole[str(target)] = str(root / source) if is_local else source
    return whole
