"""How many clusters there is room for."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from controller.k8s import Context, ContextReport, Node, NodeGroup, Quota, chosen, passed_over, room, without_quota

EITHER = {"H100": 1, "H200": 1}


def report(free: Mapping[str, tuple[int, ...]], quota: int | None = None, usable: bool = True) -> ContextReport:
    """A context with nodes that have so many GPUs free, by accelerator; each group has a label of its own."""
    groups = tuple(
        NodeGroup(
            name.partition("/")[0], f"label={name}", tuple(Node(f"{name}{at}", one) for at, one in enumerate(all_))
        )
        for name, all_ in free.items()
    )
    return ContextReport(Context("here"), groups, Quota("gpus", quota, 0) if quota else None, (), usable)


BOTH = report({"H100": (8, 5), "H200": (3,)})


@pytest.mark.parametrize(
    ("there", "clusters", "each", "gets", "lacks"),
    [
        (BOTH, 16, EITHER, {"H100": 13, "H200": 3}, {}),
        (BOTH, 12, EITHER, {"H100": 12}, {}),
        (BOTH, 20, EITHER, {"H100": 13, "H200": 3}, {"H100 or H200": 4}),
        (BOTH, 16, {"H100": 1}, {"H100": 13}, {"H100": 3}),
        (BOTH, 2, {"H100": 4}, {"H100": 2}, {}),
        # 13 are free, but a cluster's are on one node: 2 on the first, 1 on the second.
        (BOTH, 4, {"H100": 4}, {"H100": 3}, {"H100": 1}),
        (BOTH, 1, {"H100": 13}, {}, {"H100": 1}),
        (BOTH, 4, {"H100": 8, "H200": 1}, {"H200": 3, "H100": 1}, {}),
        (BOTH, 2, {"B200": 1}, {}, {"B200": 2}),
        (BOTH, 3, {"h100": 1}, {"h100": 3}, {}),
        (report({}), 16, EITHER, {}, {"H100 or H200": 16}),
        (report({"H100": (8,)}, usable=False), 1, EITHER, {}, {"H100 or H200": 1}),
        (report({"": (8,)}), 1, EITHER, {}, {"H100 or H200": 1}),
        # Two names of one thing are not had twice.
        (report({"H100": (8,)}), 16, {"H100": 1, "H100-80GB": 1}, {"H100": 8}, {"H100 or H100-80GB": 8}),
    ],
)
def test_any_accelerator_will_do(
    there: ContextReport, clusters: int, each: dict[str, int], gets: dict[str, int], lacks: dict[str, int]
) -> None:
    found = room([there], clusters, each)
    assert (found.gets, found.lacks) == (gets, lacks)
    assert found.enough == (not lacks)


@pytest.mark.parametrize(
    ("there", "fleet", "each", "gets", "lacks"),
    [
        (BOTH, {"H100": 13, "H200": 3}, EITHER, {"H100": 13, "H200": 3}, {}),
        (BOTH, {"H100": 12, "H200": 4}, EITHER, {"H100": 12, "H200": 3}, {"H200": 1}),
        (BOTH, {"H100": 3, "H200": 2}, {"h100": 4, "H200": 2}, {"H100": 3, "H200": 1}, {"H200": 1}),
        (BOTH, {"B200": 2}, EITHER, {}, {"B200": 2}),
    ],
)
def test_a_fleet_says_how_many_of_each(
    there: ContextReport, fleet: dict[str, int], each: dict[str, int], gets: dict[str, int], lacks: dict[str, int]
) -> None:
    found = room([there], sum(fleet.values()), each, fleet)
    assert (found.gets, found.lacks) == (gets, lacks)


def test_a_quota_binds_all_accelerators_together() -> None:
    there = report({"H100": (8, 5), "H200": (3,)}, quota=10)
    assert room([there], 16, EITHER).gets == {"H100": 10}
    assert room([there], 16, EITHER, {"H100": 9, "H200": 7}).gets == {"H100": 9, "H200": 1}
    assert room([there], 16, {"H100": 4}).gets == {"H100": 2}
    assert room([there], 16, {"H100": 4, "H200": 1}).gets == {"H200": 3, "H100": 1}
    assert room([without_quota(there)], 16, EITHER).enough


def test_contexts_add_up_each_under_its_own_quota() -> None:
    first, second = report({"H100": (8,)}, quota=2), report({"H100": (8,), "H200": (8,)})
    assert room([first, second], 16, EITHER).gets == {"H100": 10, "H200": 6}
    assert room([], 1, EITHER).lacks == {"H100 or H200": 1}


def test_only_the_first_fitting_label_counts() -> None:
    there = report({"H200": (8,), "H100/SXM": (4,), "H100/PCIe": (8,)})
    found = chosen(there, "H100")
    assert found and found.label == "label=H100/SXM"
    assert [group.label for group in passed_over(there, "H100")] == ["label=H100/PCIe"]
    assert room([there], 8, {"H100": 1}).gets == {"H100": 4}


def test_what_is_in_use_may_be_unknown() -> None:
    node = Node("a", 8, None)
    there = ContextReport(Context("here"), (NodeGroup("H100", "label", (node,)),))
    assert not room([there], 1, EITHER).exact and room([there], 8, EITHER).enough
    assert room([BOTH], 1, EITHER).exact


def test_more_in_use_than_there_is_leaves_nothing() -> None:
    assert Node("a", 4, 8).free == 0 and Node("a", 8, 0, "cordoned").free == 0
