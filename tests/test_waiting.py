"""Which of what waits a free cluster is given: no time, no journal, no backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.records import Experiment, Role, Tier
from controller.waiting import CELLS_PER_CONTROL, CONTROLS_LEFT, LOOK_AHEAD, Waiting

CELL, CONTROL, ARM = Role.CELL, Role.CONTROL, Role.CONFIRMATION
NOBODY: frozenset[str] = frozenset()


def screened(*roles: Role, wave: str = "w01") -> list[Experiment]:
    return [Experiment(f"{wave}-s{n}", wave, "c", role, Tier.SCREENING, n) for n, role in enumerate(roles)]


def confirmed(seeds: int, arms: int, wave: str = "w01") -> list[Experiment]:
    return [
        Experiment(f"{wave}-b{seed}{arm}", wave, "c", ARM, Tier.CONFIRMATION, seed)
        for seed in range(seeds)
        for arm in range(arms)
    ]


def waiting_for(experiments: Sequence[Experiment]) -> Waiting:
    waiting = Waiting()
    waiting.add(experiments)
    return waiting


def names(waiting: Waiting) -> list[str]:
    return [experiment.id for experiment in waiting]


def confirmation(waiting: Waiting, cluster: str, *, idle: bool = True, avoid: frozenset[str] = NOBODY) -> str | None:
    found = waiting.take_confirmation(cluster, "H200", idle, avoid)
    return found.id if found else None


def help_of(waiting: Waiting, cluster: str = "h", avoid: frozenset[str] = NOBODY) -> Role | None:
    found = waiting.take_to_help(cluster, "H200", avoid)
    return found.role if found else None


def test_screening_is_given_out_in_its_order_and_counted() -> None:
    waves = [*screened(CELL, CONTROL, CELL), *screened(CELL, wave="w02"), *confirmed(1, 2)]
    waiting = waiting_for(waves)
    assert len(waiting) == 6 and waiting.count(Tier.SCREENING) == 4 and waiting.count(Tier.CONFIRMATION) == 2
    taken = [waiting.take_screening("a", "H100", NOBODY) for _ in range(5)]
    assert taken == [*waves[:4], None]
    assert len(waiting) == waiting.count(Tier.CONFIRMATION) == 2


def test_what_is_put_back_is_the_next_to_be_given_out() -> None:
    waiting = waiting_for([*screened(CELL, CELL, CELL), *confirmed(2, 2)])
    first = waiting.take_screening("a", "H100", NOBODY)
    block = waiting.take_confirmation("a", "H200", True, NOBODY)
    assert first is not None and block is not None
    waiting.put_back(first, "H100")
    waiting.put_back(block, "H200")
    assert waiting.take_screening("b", "H100", NOBODY) == first
    assert waiting.take_confirmation("a", "H200", True, NOBODY) == block, "where it was before"


def test_what_a_cluster_is_to_avoid_is_left_for_another() -> None:
    waiting = waiting_for([*screened(CELL, CELL), *confirmed(1, 2)])
    found = waiting.take_screening("a", "H100", {"w01-s0"})
    assert found is not None and found.id == "w01-s1"
    assert waiting.take_screening("a", "H100", {"w01-s0"}) is None
    assert confirmation(waiting, "a", avoid=frozenset({"w01-b00"})) == "w01-b01"
    assert confirmation(waiting, "a", avoid=frozenset({"w01-b00"})) is None


def test_only_so_many_are_looked_at() -> None:
    cells = screened(*[CELL] * (LOOK_AHEAD + 1))
    assert waiting_for(cells).take_screening("a", "H100", {one.id for one in cells[:-2]}) == cells[-2]
    assert waiting_for(cells).take_screening("a", "H100", {one.id for one in cells[:-1]}) is None


def test_only_what_waits_of_that_wave_and_tier_is_withdrawn() -> None:
    first, second, blocks = screened(CELL, CONTROL, CELL), screened(CELL, wave="w02"), confirmed(1, 2)
    waiting = waiting_for([*first, *second, *blocks])
    waiting.take_screening("a", "H100", NOBODY)
    assert waiting.withdraw("w01", Tier.SCREENING) == first[1:]
    assert names(waiting) == [one.id for one in (*second, *blocks)]
    assert waiting.withdraw("w01", Tier.SCREENING) == []


# Blocks


def test_a_block_stays_on_the_cluster_that_has_begun_it() -> None:
    waiting = waiting_for(confirmed(2, 3))
    taken = [confirmation(waiting, cluster) for cluster in ("a", "b", "a", "b", "b", "a")]
    assert taken == ["w01-b00", "w01-b10", "w01-b01", "w01-b11", "w01-b12", "w01-b02"]


def test_a_cluster_that_is_not_idle_takes_nothing_from_another_one_s_block() -> None:
    waiting = waiting_for(confirmed(1, 3))
    assert confirmation(waiting, "a") == "w01-b00"
    assert waiting.has_block_of("a") and not waiting.has_block_of("b")
    assert confirmation(waiting, "b", idle=False) is None
    assert confirmation(waiting, "b", idle=True) == "w01-b01"
    assert waiting.has_block_of("a"), "it still belongs there"
    assert confirmation(waiting, "a", idle=False) == "w01-b02"
    assert not waiting.has_block_of("a")


def test_an_idle_cluster_begins_a_block_rather_than_helping_with_one() -> None:
    waiting = waiting_for(confirmed(2, 2))
    assert confirmation(waiting, "a") == "w01-b00"
    assert confirmation(waiting, "b") == "w01-b10"


def test_equal_seeds_of_two_waves_are_two_blocks() -> None:
    waiting = waiting_for([*confirmed(1, 2), *confirmed(1, 2, wave="w02")])
    assert [confirmation(waiting, cluster) for cluster in "ab"] == ["w01-b00", "w02-b00"]


def test_the_blocks_of_a_cluster_that_is_gone_may_find_another_one() -> None:
    waiting = waiting_for(confirmed(1, 3))
    assert confirmation(waiting, "a") == "w01-b00"
    waiting.forget("a")
    assert confirmation(waiting, "b", idle=False) == "w01-b01"
    assert waiting.has_block_of("b")


def test_a_block_that_ran_before_a_restart_stays_where_it_was() -> None:
    first, *rest = confirmed(1, 3)
    waiting = waiting_for(rest)
    waiting.placed(first, "a", "H200")
    assert waiting.has_block_of("a")
    assert confirmation(waiting, "b", idle=False) is None
    assert confirmation(waiting, "a", idle=False) == "w01-b01"


# Helping


def test_a_helper_takes_a_control_first_and_then_so_many_cells_for_each() -> None:
    waiting = waiting_for(screened(*[CELL] * 12, *[CONTROL] * (CONTROLS_LEFT + 2)))
    roles = [help_of(waiting) for _ in range(2 * (1 + CELLS_PER_CONTROL) + 1)]
    assert roles == [CONTROL, *[CELL] * CELLS_PER_CONTROL] * 2 + [None]
    assert Counter(one.role for one in waiting) == {CELL: 12 - 2 * CELLS_PER_CONTROL, CONTROL: CONTROLS_LEFT}


def test_helpers_on_one_accelerator_share_their_controls_and_on_two_they_do_not() -> None:
    waiting = waiting_for(screened(*[CELL] * 12, *[CONTROL] * (CONTROLS_LEFT + 2)))
    assert [help_of(waiting, cluster) for cluster in ("h", "i")] == [CONTROL, CELL]
    found = waiting.take_to_help("j", "B200", NOBODY)
    assert found is not None and found.role is CONTROL


def test_a_wave_without_controls_to_spare_is_not_helped_and_the_next_one_is() -> None:
    poor = screened(*[CONTROL] * CONTROLS_LEFT, CELL)
    rich = screened(*[CONTROL] * (CONTROLS_LEFT + 1), CELL, wave="w02")
    waiting = waiting_for([*poor, *rich])
    found = [waiting.take_to_help("h", "H200", NOBODY) for _ in range(3)]
    assert [one and (one.wave, one.role) for one in found] == [("w02", CONTROL), ("w02", CELL), None]


def test_a_control_that_a_helper_lost_has_to_be_run_again_before_more_cells() -> None:
    waiting = waiting_for(screened(*[CELL] * 8, *[CONTROL] * (CONTROLS_LEFT + 1)))
    control = waiting.take_to_help("h", "H200", NOBODY)
    assert control is not None and control.role is CONTROL
    assert help_of(waiting) is CELL
    waiting.put_back(control, "H200")
    assert waiting.take_to_help("h", "H200", NOBODY) == control
    assert [help_of(waiting) for _ in range(CELLS_PER_CONTROL)] == [CELL] * (CELLS_PER_CONTROL - 1) + [None]


def test_what_helped_before_a_restart_counts() -> None:
    control, *rest = screened(CONTROL, *[CELL] * 8, *[CONTROL] * CONTROLS_LEFT)
    waiting = waiting_for(rest)
    assert help_of(waiting) is None
    waiting.placed(control, "h", "H200")
    assert [help_of(waiting) for _ in range(CELLS_PER_CONTROL + 1)] == [CELL] * CELLS_PER_CONTROL + [None]


@pytest.mark.parametrize("role", [CELL, CONTROL])
def test_a_helper_avoids_what_it_is_to_avoid(role: Role) -> None:
    waiting = waiting_for(screened(CONTROL, CELL, *[CONTROL] * (CONTROLS_LEFT + 1), CELL))
    if role is CELL:
        assert help_of(waiting) is CONTROL
    first = next(one for one in waiting if one.role is role)
    found = waiting.take_to_help("h", "H200", {first.id})
    assert found is not None and found.role is role and found != first


TAKERS = st.sampled_from(["screening", "help", "confirmation", "put back", "withdraw"])


@given(
    st.lists(st.sampled_from([CELL, CELL, CELL, CONTROL]), max_size=40),
    st.lists(st.tuples(TAKERS, st.sampled_from(["a", "b"])), max_size=60),
)
def test_nothing_is_ever_lost_or_given_out_twice_and_helpers_keep_their_share(
    roles: list[Role], steps: list[tuple[str, str]]
) -> None:
    everything = [*screened(*roles), *confirmed(3, 3)]
    waiting = waiting_for(everything)
    out: list[tuple[Experiment, str]] = []
    withdrawn: list[Experiment] = []
    for what, cluster in steps:
        accelerator = {"screening": "H100"}.get(what, "H200")
        found = None
        if what == "screening":
            found = waiting.take_screening(cluster, accelerator, NOBODY)
        elif what == "help":
            found = waiting.take_to_help(cluster, accelerator, NOBODY)
        elif what == "confirmation":
            found = waiting.take_confirmation(cluster, accelerator, True, NOBODY)
        elif what == "put back" and out:
            waiting.put_back(*out.pop(0))
        elif what == "withdraw" and len(steps) % 7 == 0:
            withdrawn += waiting.withdraw("w01", Tier.SCREENING)
        if found is not None:
            out.append((found, accelerator))
        if what == "help" and found is not None:
            helped = Counter(one.role for one, where in out if where == "H200" and one.tier is Tier.SCREENING)
            assert found.role is CONTROL or helped[CELL] <= CELLS_PER_CONTROL * helped[CONTROL]
    together = [*waiting, *(one for one, _ in out), *withdrawn]
    assert sorted(one.id for one in together) == sorted(one.id for one in everything)
