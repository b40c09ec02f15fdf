"""The controller's own search on a simulated fleet."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from nights import Night, finished, make_workspace, order

from controller.backends.simulated import Scenario, load
from controller.journal import AttemptEnded, ConfirmationPlanned, Event, WaveDecided
from controller.workspace import find
from tests.backends.simulated.stage import calm


def night(workspace: Path, scenario: Scenario, seed: int) -> tuple[Night, list[Event]]:
    """Two hours of four clusters, and all that was recorded."""
    found = Night(find(workspace), scenario, seed)
    with found.journal() as journal:
        search = found.search(journal, order(4, 2))
        found.run(search)
        assert sum(finished(search.study).values()) > 40
        return found, [event for _, _, event in journal.events()]


def test_a_night_repeats_to_the_last_event(tmp_path: Path) -> None:
    make_workspace(tmp_path / "workspace", "tiers: {confirmation: {seeds: 2}}\n")
    recorded: list[list[Event]] = []
    for seed in (3, 3, 4):
        # The same commit each time: it has the second in which it was made in it.
        copy = tmp_path / f"copy {len(recorded)}"
        shutil.copytree(tmp_path / "workspace", copy)
        recorded.append(night(copy, load().with_faults(5), seed)[1])
    assert recorded[0] == recorded[1]
    assert recorded[0] != recorded[2]


def test_what_the_journal_says_of_a_calm_night_is_what_happened(tmp_path: Path) -> None:
    make_workspace(tmp_path / "workspace")
    found, recorded = night(tmp_path / "workspace", calm(), 1)
    assert found.world.sites == {}
    assert found.world.alive() == []
    done = [event for event in recorded if isinstance(event, AttemptEnded) and event.outcome.label is None]
    use = found.world.use()
    assert len(done) * 300 / 3600 < use.training < use.occupied < sum(use.billed.values()) < 4 * 2
    assert use.occupied > 0.9 * sum(use.billed.values())
    scores = [event.outcome.metrics["val_bpb"] for event in done]
    assert min(scores) > 0.9 and max(scores) < 1.1
    assert sum(event.outcome.timings["training"] for event in done) == pytest.approx(300 * len(done))


def test_where_all_clusters_serve_both_tiers_a_wave_is_confirmed_before_more_is_screened(tmp_path: Path) -> None:
    make_workspace(tmp_path / "workspace")
    one_kind = load(Path("one_accelerator"))
    often_lost = one_kind.with_faults(0).but({"faults": {"attempts": {"vanishes": 0.05}}})
    found = Night(find(tmp_path / "workspace"), often_lost, 1)
    with found.journal() as journal:
        found.run(found.search(journal, order(8, 4)))
        recorded = [(at, event) for at, _, event in journal.events()]
    planned = {event.wave: at for at, event in recorded if isinstance(event, ConfirmationPlanned) and event.experiments}
    decided = {event.wave: at for at, event in recorded if isinstance(event, WaveDecided)}
    took = [decided[wave] - at for wave, at in planned.items() if wave in decided]
    # Four runs on one cluster, behind what runs there, and again what was lost.
    assert len(took) > 4
    assert max(took) < 10 * 345
