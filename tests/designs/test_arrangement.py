from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.designs import arrange, controls_for

waves = st.tuples(st.integers(0, 60), st.integers(0, 20), st.integers(1, 20), st.integers(0, 99))


def places(order: list[str]) -> list[int]:
    return [place for place, item in enumerate(order) if item.startswith("control")]


def wave(cells: int, controls: int, clusters: int, seed: int) -> list[str]:
    return arrange(
        [f"cell {i}" for i in range(cells)],
        [f"control {i}" for i in range(controls)],
        clusters,
        random.Random(seed),
    )


@given(waves)
def test_nothing_is_lost_and_controls_keep_their_order(drawn: tuple[int, int, int, int]) -> None:
    cells, controls, _, _ = drawn
    order = wave(*drawn)
    assert [item for item in order if item.startswith("control")] == [f"control {i}" for i in range(controls)]
    assert sorted(item for item in order if item.startswith("cell")) == sorted(f"cell {i}" for i in range(cells))


@given(waves)
def test_every_stretch_of_the_order_has_its_control(drawn: tuple[int, int, int, int]) -> None:
    _, controls, _, _ = drawn
    order = wave(*drawn)
    for i, place in enumerate(places(order)):
        assert i * len(order) // controls <= place < (i + 1) * len(order) // controls


@given(waves.filter(lambda drawn: drawn[1] > 1))
def test_the_first_control_is_near_the_start_and_the_last_near_the_end(drawn: tuple[int, int, int, int]) -> None:
    _, controls, _, _ = drawn
    order = wave(*drawn)
    near = len(order) / controls / 2 + 1
    assert places(order)[0] < near
    assert len(order) - 1 - places(order)[-1] < near


@given(st.integers(1, 6), st.integers(2, 6), st.integers(0, 99))
def test_whole_passes_share_the_controls_evenly(per_pass: int, passes: int, seed: int) -> None:
    order = wave(16 * passes - per_pass * passes, per_pass * passes, 16, seed)
    found = [place // 16 for place in places(order)]
    assert [found.count(i) for i in range(passes)] == [per_pass] * passes


@given(st.integers(2, 16), st.integers(0, 99))
def test_with_one_control_a_pass_no_cluster_has_two(clusters: int, seed: int) -> None:
    found = [place % clusters for place in places(wave(clusters * (clusters - 1), clusters, clusters, seed))]
    assert len(set(found)) == clusters


@given(st.integers(0, 999))
def test_no_cluster_is_given_many_of_the_controls(seed: int) -> None:
    found = [place % 16 for place in places(wave(48, 12, 16, seed))]
    assert max(map(found.count, found)) <= 2


def test_the_order_follows_from_the_generator() -> None:
    assert wave(20, 5, 4, seed=1) == wave(20, 5, 4, seed=1) != wave(20, 5, 4, seed=2)


def test_cells_are_equally_likely_anywhere() -> None:
    seen = [wave(4, 0, 2, seed).index("cell 0") for seed in range(2000)]
    assert all(abs(seen.count(place) - 500) < 4 * (2000 * 0.25 * 0.75) ** 0.5 for place in range(4))


def test_a_wave_without_clusters_is_refused() -> None:
    with pytest.raises(ValueError, match="clusters"):
        wave(4, 2, 0, seed=1)


@pytest.mark.parametrize(("cells", "controls"), [(0, 0), (1, 3), (8, 3), (12, 3), (13, 4), (16, 4), (64, 16)])
def test_about_one_control_for_four_cells_and_never_fewer_than_three(cells: int, controls: int) -> None:
    assert controls_for(cells) == controls
