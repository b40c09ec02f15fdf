"""A fleet that is cut to fewer clusters keeps its proportions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.backends.skypilot.provisioning import Plan, shares
from controller.backends.skypilot.recipe import Recipe

FLEETS = st.dictionaries(st.sampled_from(["H100", "H200", "A100", "L4", "B200"]), st.integers(1, 40), min_size=1)


@given(fleet=FLEETS, clusters=st.integers(0, 100))
def test_shares_add_up_and_leave_nobody_out(fleet: dict[str, int], clusters: int) -> None:
    found = shares(fleet, clusters)
    total = sum(fleet.values())
    assert sum(found.values()) == min(clusters, total)
    assert found.keys() == fleet.keys()
    assert all(0 <= found[name] <= fleet[name] for name in fleet)
    if clusters >= len(fleet):
        assert all(found.values())


@given(fleet=FLEETS, clusters=st.integers(0, 100))
def test_shares_are_those_of_the_fleet(fleet: dict[str, int], clusters: int) -> None:
    found = shares(fleet, clusters)
    exact = {name: count * min(clusters, sum(fleet.values())) / sum(fleet.values()) for name, count in fleet.items()}
    if min(exact.values()) >= 1:
        assert all(abs(found[name] - exact[name]) < 1 for name in fleet)


@pytest.mark.parametrize(
    ("fleet", "clusters", "expected"),
    [
        ({"H100": 13, "H200": 3}, 16, {"H100": 13, "H200": 3}),
        ({"H100": 13, "H200": 3}, 20, {"H100": 13, "H200": 3}),
        ({"H100": 13, "H200": 3}, 4, {"H100": 3, "H200": 1}),
        ({"H100": 13, "H200": 3}, 2, {"H100": 1, "H200": 1}),
        ({"H100": 13, "H200": 3}, 1, {"H100": 1, "H200": 0}),
        ({"H100": 1, "H200": 1}, 0, {"H100": 0, "H200": 0}),
    ],
)
def test_some_shares(fleet: dict[str, int], clusters: int, expected: dict[str, int]) -> None:
    assert shares(fleet, clusters) == expected


def plan(fleet: dict[str, int] | None) -> Plan:
    return Plan(Recipe({}, Path(), {}, {}), fleet=fleet)


def test_what_lacks_is_asked_for_by_name() -> None:
    there = ["H100", "H100", "H200"]
    assert Counter(plan({"H100": 4, "H200": 2}).lacking(6, there)) == {"H100": 2, "H200": 1}
    assert plan({"H100": 4, "H200": 2}).lacking(3, there) == []
    assert plan(None).lacking(5, there) == [None, None]
    assert plan(None).lacking(2, there) == []


@given(fleet=FLEETS, clusters=st.integers(0, 60), there=st.lists(st.sampled_from(["H100", "H200", "T4"]), max_size=20))
def test_no_more_is_asked_for_than_is_missing(fleet: dict[str, int], clusters: int, there: list[str]) -> None:
    assert len(plan(fleet).lacking(clusters, there)) <= max(0, clusters - len(there))
