"""How many clusters there is room for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from controller.k8s.labels import fits
from controller.k8s.nodes import ContextReport, NodeGroup


@dataclass(frozen=True, slots=True)
class Room:
    """Clusters that could be had, by accelerator, and those that could not; `exact` where it is known what is used."""

    gets: Mapping[str, int]
    lacks: Mapping[str, int]
    exact: bool = True

    @property
    def enough(self) -> bool:
        """Whether all could be had."""
        return not self.lacks


def room(
    reports: Sequence[ContextReport], clusters: int, each: Mapping[str, int], fleet: Mapping[str, int] | None = None
) -> Room:
    """What `clusters` clusters would get of these contexts together.

    A cluster has the GPUs that `each` says of one of its accelerators, all of them on one node; which accelerator is
    left to what is free, unless `fleet` says how many clusters have which. What is free counts as far as the
    namespace's quota goes.
    """
    free = {
        (number, group.label): [node.free for node in group.nodes]
        for number, report in enumerate(reports)
        for group in report.groups
    }
    left = [report.quota.left if report.quota else None for report in reports]
    gets: dict[str, int] = {}

    def take(name: str, need: int, most: int) -> int:
        taken = 0
        for number, report in enumerate(reports):
            group = chosen(report, name)
            on_nodes = free[number, group.label] if group else []
            for node, gpus in enumerate(on_nodes):
                quota = left[number]
                count = min(most - taken, gpus // need)
                count = count if quota is None else min(count, quota // need)
                on_nodes[node] -= count * need
                left[number] = None if quota is None else quota - count * need
                taken += count
        if taken:
            gets[name] = gets.get(name, 0) + taken
        return most - taken

    lacks: dict[str, int] = {}
    if fleet:
        for name, count in fleet.items():
            lacks[name] = take(name, _need(each, name), count)
    else:
        missing = clusters
        for name, need in sorted(each.items(), key=lambda one: one[1]):  # frugal ones first: a quota goes further
            missing = take(name, max(1, need), missing)
        lacks[" or ".join(each)] = missing
    exact = all(report.exact for report in reports if report.usable)
    return Room(gets, {name: count for name, count in lacks.items() if count > 0}, exact)


def chosen(report: ContextReport, wanted: str) -> NodeGroup | None:
    """The nodes on which SkyPilot would put a request for `wanted`.

    It pins a pod to one label: that of the first node it finds with a fitting one.
    """
    return next(_fitting(report, wanted), None)


def passed_over(report: ContextReport, wanted: str) -> list[NodeGroup]:
    """The nodes that have `wanted`, too, but under another label than the one SkyPilot would ask for."""
    return list(_fitting(report, wanted))[1:]


def without_quota(report: ContextReport) -> ContextReport:
    """The context, had its namespace no quota."""
    return replace(report, quota=None)


def _fitting(report: ContextReport, wanted: str) -> Iterator[NodeGroup]:
    return (group for group in report.groups if report.usable and fits(wanted, group.accelerator))


def _need(each: Mapping[str, int], name: str) -> int:
    return max(1, next((need for known, need in each.items() if known.lower() == name.lower()), 1))
