"""Whether so many clusters could be had: what `autoresearch check` finds, as lines and as one object.

Only Kubernetes is looked into: of other infras no more is known than whether SkyPilot has them enabled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

from controller.k8s import (
    Context,
    ContextReport,
    NoAnswer,
    NodeGroup,
    Room,
    contexts,
    is_allowed,
    namespace,
    passed_over,
    read_context,
    room,
    skypilot_config,
    tolerations,
    without_quota,
)
from controller.k8s.client import SECONDS, bounded
from controller.records import AutoresearchError, UserError

CLUSTERS = 16
EITHER = {"H100": 1, "H200": 1}
"""What a cluster has where no workspace says."""
AT_ONCE = 8
"""Contexts that are asked at the same time: one that does not answer costs no more than all of them."""


@dataclass(frozen=True)
class Asked:
    """So many clusters, each with the GPUs that `each` says of any one accelerator; `fleet` says how many have which.

    `config` is what experiment.yaml sets of SkyPilot's own settings.
    """

    clusters: int = CLUSTERS
    each: Mapping[str, int] = field(default_factory=lambda: EITHER)
    fleet: Mapping[str, int] | None = None
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Found:
    """What there is. `infras` is None where SkyPilot wasn't, or couldn't be, asked.

    `problems` are those of no context in particular.
    """

    asked: Asked
    infras: tuple[str, ...] | None
    reports: tuple[ContextReport, ...]
    problems: tuple[str, ...] = ()

    @property
    def room(self) -> Room:
        """What could be had of all contexts together."""
        return self._room(self.reports)

    @property
    def enough(self) -> bool:
        """Whether SkyPilot could have all the clusters that were asked for, as far as is known: see `elsewhere`."""
        return bool(self.elsewhere) or self.room.enough

    @property
    def elsewhere(self) -> list[str]:
        """The infras that are not looked into, where Kubernetes is none of them."""
        return [] if self.infras is None or _has_kubernetes(self.infras) else list(self.infras)

    def lines(self) -> list[str]:
        """All of it for a person, a line a fact."""
        lines = []
        if self.infras is not None:
            lines.append(f"SkyPilot has access to {', '.join(self.infras) or 'nothing'}")
        lines += self.problems
        for infra in self.elsewhere:
            lines.append(f"{infra}: what is free there is not looked into; `sky gpus list --infra {infra}` may say")
        for report in self.reports:
            name, current = bounded(report.context.name), ", current" if report.context.current else ""
            lines.append(f"context {name}, namespace {bounded(report.context.namespace)}{current}")
            lines += [f"  {row}" for row in _table(report.groups)]
            if report.usable or len(self.reports) == 1:
                lines.append(f"  {self._sentence([report])}")
            lines += [f"  - {problem}" for problem in self._problems(report)]
        if len(self.reports) != 1 and not (self.elsewhere and not self.reports):
            lines.append(self._sentence(self.reports, "in all, " if self.reports else ""))
        return lines

    def as_json(self) -> dict[str, Any]:
        """All of it for machines: the contract of `autoresearch check --json`."""
        return {
            "infras": None if self.infras is None else list(self.infras),
            "clusters": self.asked.clusters,
            "accelerators": dict(self.asked.each),
            "fleet": dict(self.asked.fleet) if self.asked.fleet else None,
            "contexts": [
                {
                    "context": report.context.name,
                    "namespace": report.context.namespace,
                    "current": report.context.current,
                    "usable": report.usable,
                    "accelerators": [_group_json(group, report.exact) for group in report.groups],
                    "quota": report.quota and {"hard": report.quota.hard, "used": report.quota.used},
                    **_room_json(self._room([report])),
                    "problems": self._problems(report),
                }
                for report in self.reports
            ],
            **_room_json(self.room),
            "enough": self.enough,
            "problems": list(self.problems),
        }

    def _room(self, reports: Sequence[ContextReport]) -> Room:
        return room(reports, self.asked.clusters, self.asked.each, self.asked.fleet)

    def _sentence(self, reports: Sequence[ContextReport], where: str = "") -> str:
        found = self._room(reports)
        would = f"{where}`--clusters {self.asked.clusters}` would get"
        if not found.gets:
            return f"{would} nothing now"
        gets = f"{'' if found.exact else 'at most '}{_listed(found.gets)}"
        if found.enough:
            return f"{would} {gets}"
        sizes = {need for need in self.asked.each.values() if need > 1}
        whole = ", each with all its GPUs on one node" if sizes else ""
        missing = sum(found.lacks.values())
        verb = "is" if missing == 1 else "are"
        return f"{would} {gets} now{whole}; {_listed(found.lacks)} {verb} lacking"

    def _problems(self, report: ContextReport) -> list[str]:
        """What is wrong with a context in itself, and with what was asked for in it."""
        found = list(report.problems)
        for name in self.asked.fleet or self.asked.each:
            found += [_passed_over(name, group) for group in passed_over(report, name)]
        lacks, quota = sum(self._room([report]).lacks.values()), report.quota
        if quota and sum(self._room([without_quota(report)]).lacks.values()) < lacks:
            found.append(
                f"quota {quota.name} leaves {quota.left} of the {quota.hard} GPUs of namespace"
                f" {report.context.namespace}: have it raised, or give back what is used"
            )
        return found


def check(
    asked: Asked,
    names: Sequence[str] = (),
    enabled: Callable[[], list[str]] | None = None,
    seconds: float = SECONDS,
) -> Found:
    """Look at the contexts called `names`, or at all that the kubeconfig has.

    `enabled` lists the infras that SkyPilot has access to. Raises UserError where a name is not in the kubeconfig.
    """
    infras, problems = _enabled(enabled)
    try:
        known = contexts()
    except NoAnswer as error:
        needed = not infras or _has_kubernetes(infras)
        return Found(asked, infras, (), (*problems, *([str(error)] if needed else [])))
    if infras and not _has_kubernetes(infras):
        problems.append("SkyPilot has no access to Kubernetes; `sky check k8s` says why")
    have = [one.name for one in known]
    if unknown := [name for name in names if name not in have]:
        raise UserError(f"the kubeconfig has no context {bounded(unknown[0])}; it has {bounded(', '.join(have))}")
    # SkyPilot keeps its own pools of machines in the same file, under names of this form.
    looked_at = [one for one in known if one.name in names or (not names and not one.name.startswith("ssh-"))]
    config = skypilot_config()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reports = pool.map(lambda context: _report(context, config, asked.config or {}, seconds), looked_at)
        return Found(asked, infras, tuple(reports), tuple(problems))


def asked_in(root: Path | None, clusters: int | None) -> Asked:
    """What the workspace at `root` asks for; any of H100 and H200 where it, or anything, does not say.

    Raises UserError where experiment.yaml or program.md can't be read, or name fewer clusters.
    """
    if root is None:
        return Asked(clusters or CLUSTERS)
    from controller.backends.skypilot.provisioning import shares
    from controller.backends.skypilot.recipe import FILE, read
    from controller.infra import fleet_size
    from controller.settings import parse
    from controller.workspace import PROGRAM

    try:
        settings = parse((root / PROGRAM).read_text(encoding="utf-8"))
    except FileNotFoundError:
        settings = parse("")
    except UnicodeDecodeError:
        raise UserError(f"{PROGRAM} is not UTF-8 text; save it as UTF-8") from None
    count = fleet_size(clusters, settings) if settings.fleet else clusters or CLUSTERS
    fleet = shares(settings.fleet, count) if settings.fleet else None
    if not (root / FILE).exists():
        return Asked(count, dict.fromkeys(fleet, 1) if fleet else EITHER, fleet)
    recipe = read(root, os.environ)
    wants = {name: max(1, ceil(number)) for name, number in recipe.wants().items()}
    return Asked(count, wants or EITHER, fleet, recipe.config.get("config"))


def _enabled(enabled: Callable[[], list[str]] | None) -> tuple[tuple[str, ...] | None, list[str]]:
    """What SkyPilot has access to, and what is wrong with that."""
    if enabled is None:
        return None, []
    try:
        infras = tuple(enabled())
    except AutoresearchError as error:  # Kubernetes can be looked into all the same.
        return None, [str(error)]
    return infras, [] if infras else ["SkyPilot has access to no infra; `sky check` says what each one needs"]


def _has_kubernetes(infras: Sequence[str]) -> bool:
    return any(infra.lower().partition("/")[0] in ("kubernetes", "k8s") for infra in infras)


def _report(context: Context, config: Mapping[str, Any], own: Mapping[str, Any], seconds: float) -> ContextReport:
    context = replace(context, namespace=namespace(config, context))
    context = replace(context, namespace=namespace(own, context))
    report = read_context(context, [*tolerations(config, context), *tolerations(own, context)], seconds)
    if is_allowed(config, context):
        return report
    sentence = (
        f"SkyPilot does not use context {bounded(context.name, 100)}:"
        " name it under kubernetes.allowed_contexts in ~/.sky/config.yaml, or make it the current one"
    )
    return replace(report, problems=(*report.problems, sentence), usable=False)


def _passed_over(wanted: str, group: NodeGroup) -> str:
    nodes = "1 node is" if len(group.nodes) == 1 else f"{len(group.nodes)} nodes are"
    remedy = (
        f"ask for {group.accelerator} in experiment.yaml, too"
        if group.accelerator.lower() != wanted.lower()
        else "to have all, label each node with GPUs by SkyPilot's own skypilot.co/accelerator, such as h100"
    )
    return (
        f"{nodes} not counted, as SkyPilot finds {wanted} under one label only, and passes over {group.label}: {remedy}"
    )


def _table(groups: Sequence[NodeGroup]) -> list[str]:
    if not groups:
        return []
    names = [group.accelerator for group in groups]
    rows = [["accelerator", "nodes", "GPUs", "used", "free"]]
    for group in sorted(groups, key=lambda one: one.accelerator):
        name = group.accelerator or "unknown"
        if names.count(group.accelerator) > 1:
            name = f"{name} ({group.label.partition('=')[2]})"
        used, free = ("?", "?") if group.used is None else (str(group.used), str(group.free))
        rows.append([name, str(len(group.nodes)), str(group.gpus), used, free])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _listed(counts: Mapping[str, int]) -> str:
    *first, last = [f"{count} {name}" for name, count in counts.items()]
    return f"{', '.join(first)} and {last}" if first else last


def _group_json(group: NodeGroup, exact: bool) -> dict[str, Any]:
    return {
        "accelerator": group.accelerator or None,
        "label": group.label or None,
        "nodes": len(group.nodes),
        "gpus": group.gpus,
        "used": group.used,
        "free": group.free if exact else None,
        "closed": {node.name: node.closed for node in group.nodes if node.closed},
    }


def _room_json(found: Room) -> dict[str, Any]:
    return {"gets": dict(found.gets), "lacks": dict(found.lacks), "exact": found.exact, "enough": found.enough}
