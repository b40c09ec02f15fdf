"""The scheduler over a real journal: on this machine with real processes, and on a made-up fleet in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from controller.backends import Backend, Bundle, Fleet
from controller.backends.local import Local
from controller.clock import RealClock, VirtualClock
from controller.journal import AttemptStarted, AttemptSubmitted, Journal, StudyStarted, WaveDesigned, reading
from controller.records import (
    Attempt,
    Candidate,
    Cluster,
    Experiment,
    Interrupted,
    NothingRan,
    Outcome,
    Role,
    Tier,
    Wave,
)
from controller.scheduler import ARRIVAL_SECONDS, ATTEMPTS, Scheduler
from controller.settings import Settings, parse
from tests.backends.memory import Memory, World
from tests.backends.workshop import Plan, open_gate
from tests.processes import PATIENCE_SECONDS, alive_in, wait_for_the_end_of

FOREVER = "/nowhere/at/all"


def experiments(count: int, tier: Tier = Tier.SCREENING) -> list[Experiment]:
    return [Experiment(f"e{n:04d}", "w01", "c0000", Role.CELL, tier, n, 1) for n in range(1, count + 1)]


class Stage:
    """A study in a journal, and what its experiments do: `plan`, unless `plans` says otherwise."""

    def __init__(self, journal: Journal, settings: Settings, wanted: Sequence[Experiment]) -> None:
        self.journal = journal
        self.settings = settings
        self.wanted = list(wanted)
        self.plan = Plan()
        self.plans: dict[str, Plan] = {}
        baseline = Candidate("c0000", "0" * 40, "0" * 40, {}, "")
        begun = StudyStarted(baseline, "autoresearch/study", "val_bpb", True, {})
        wave = Wave("w01", 1, 0, "c0000", "doe", {}, {})
        journal.record("study", begun, WaveDesigned(wave, {}, (), (), tuple(wanted)))

    def bundle(self, experiment: Experiment) -> Bundle:
        return self.plans.get(experiment.id, self.plan).bundle(experiment.seed)

    async def run(self, scheduler: Scheduler, clusters: int) -> None:
        try:
            await scheduler.acquire(Fleet(clusters, self.plan.bundle()))
            await scheduler.run(self.wanted, self.bundle)
        finally:
            await scheduler.close()

    def results(self) -> dict[str, reading.Result]:
        return {one.experiment.id: one for one in reading.results_of(self.journal, "study")}

    def statuses(self) -> dict[str, str]:
        return {name: result.status for name, result in self.results().items()}

    def labels(self, experiment: str) -> list[str | None]:
        attempts = reading.attempts(self.journal, "study", experiment=experiment)
        return [reading.ending(self.journal, "study", attempt.id)["label"] for attempt in attempts]


Make = Callable[..., Stage]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Make]:
    opened = []

    def make(count: int, *, tier: Tier = Tier.SCREENING, settings: str = "", clock: object = None) -> Stage:
        opened.append(Journal.open(tmp_path / ".autoresearch", clock or VirtualClock()))
        return Stage(opened[-1], parse(f"---\n{settings}\n---\n"), experiments(count, tier))

    yield make
    for journal in opened:
        journal.close()


class OnThisMachine:
    """Real processes. `ended` is set whenever an attempt has ended."""

    def __init__(self, stage: Stage, backend: Local, clusters: int) -> None:
        self.stage = stage
        self.clusters = clusters
        self.scheduler = Scheduler("study", stage.settings, stage.journal, backend, RealClock())
        self.scheduler.observer = self
        self.ends: asyncio.Queue[tuple[str, Outcome]] = asyncio.Queue()
        self.all_run = asyncio.Event()

    def changed(self, scheduler: Scheduler) -> None:
        if sum(one.started is not None for one in scheduler.running.values()) == self.clusters:
            self.all_run.set()

    def ended(self, experiment: Experiment, cluster: str, outcome: Outcome) -> None:
        self.ends.put_nowait((experiment.id, outcome))

    async def run(self) -> None:
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            await self.stage.run(self.scheduler, self.clusters)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    yield Local(tmp_path / ".autoresearch", Path(sys.executable), RealClock(), capacity=2)
    left = alive_in(tmp_path)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for_the_end_of(*left)


async def test_an_experiment_whose_harness_dies_is_tried_three_times_and_then_given_up(
    stage: Make, local: Local, tmp_path: Path
) -> None:
    set_up = stage(3, clock=RealClock())
    set_up.plan = Plan(kills_harness_with_seeds=["2"])
    await OnThisMachine(set_up, local, 2).run()
    assert set_up.statuses() == {"e0001": "done", "e0002": "lost", "e0003": "done"}
    assert set_up.labels("e0002") == ["lost"] * ATTEMPTS
    assert set_up.labels("e0001") == [None]
    assert alive_in(tmp_path) == {}


async def test_a_failure_of_the_candidate_is_a_result_and_not_tried_again(stage: Make, local: Local) -> None:
    set_up = stage(2, clock=RealClock())
    set_up.plans["e0002"] = Plan(score=None)
    await OnThisMachine(set_up, local, 2).run()
    assert set_up.statuses() == {"e0001": "done", "e0002": "crash"}
    assert set_up.labels("e0002") == ["crash"]
    assert set_up.results()["e0002"].reason == "exit code 1: no luck"


async def test_stopping_keeps_what_is_finished_and_leaves_nothing_running(
    stage: Make, local: Local, tmp_path: Path
) -> None:
    set_up = stage(6, clock=RealClock())
    set_up.plan = Plan(gate=FOREVER)
    set_up.plans["e0001"] = Plan(score=1.5)
    running = OnThisMachine(set_up, local, 2)
    task = asyncio.create_task(running.run())
    name, outcome = await running.ends.get()
    assert (name, outcome.metrics) == ("e0001", {"val_bpb": 1.5})
    await running.all_run.wait()
    running.scheduler.stopping.set()
    with pytest.raises(Interrupted, match="everything finished so far is kept"):
        await task
    assert alive_in(tmp_path) == {}
    assert set_up.statuses() == {"e0001": "done"} | dict.fromkeys([f"e000{n}" for n in range(2, 7)], "queued")
    assert reading.attempts(set_up.journal, "study", open_only=True) == []
    assert all(label in (None, "cancelled") for n in range(1, 7) for label in set_up.labels(f"e000{n}"))


async def test_however_often_it_is_stopped_at_once_no_experiment_is_held_to_have_failed(
    stage: Make, tmp_path: Path
) -> None:
    set_up = stage(2, clock=RealClock())
    set_up.plan = Plan(gate=str(tmp_path / "gate"))
    for _ in range(ATTEMPTS + 1):
        backend = Local(tmp_path / ".autoresearch", Path(sys.executable), RealClock(), capacity=2)
        running = OnThisMachine(set_up, backend, 2)
        task = asyncio.create_task(running.run())
        await running.all_run.wait()
        running.scheduler.stopping.set()
        with pytest.raises(Interrupted):
            await task
    assert set(set_up.labels("e0001")) == {"cancelled"}
    open_gate(str(tmp_path / "gate"))
    backend = Local(tmp_path / ".autoresearch", Path(sys.executable), RealClock(), capacity=2)
    await OnThisMachine(set_up, backend, 2).run()
    assert set_up.statuses() == {"e0001": "done", "e0002": "done"}


class Fleeting:
    """A made-up fleet in virtual time."""

    def __init__(self, stage: Stage, accelerators: Sequence[str], world: World | None = None) -> None:
        self.stage = stage
        self.clock = VirtualClock()
        self.world = world or World()
        self.count = len(accelerators)
        self.backend = Memory(self.world, self.clock, accelerators)

    def run(self, backend: Backend | None = None) -> None:
        async def main() -> None:
            journal, settings = self.stage.journal, self.stage.settings
            scheduler = Scheduler("study", settings, journal, backend or self.backend, self.clock)
            await self.stage.run(scheduler, self.count)

        self.clock.run(main())

    def where(self) -> Mapping[str, list[str]]:
        """Clusters of each experiment's attempts, in order."""
        return {
            name: [one.cluster for one in reading.attempts(self.stage.journal, "study", experiment=name)]
            for name in self.stage.statuses()
        }


TWO_TIERS = "tiers: {screening: {accelerators: [H100, A100]}, confirmation: {accelerators: H200}}"


def accelerators_of(fleet: Fleeting) -> set[str]:
    known = dict(reading.clusters(fleet.stage.journal, "study"))
    return {known[cluster] for clusters in fleet.where().values() for cluster in clusters}


@pytest.mark.parametrize(("tier", "serving"), [(Tier.SCREENING, {"H100", "A100"}), (Tier.CONFIRMATION, {"H200"})])
def test_a_tier_is_served_by_its_own_accelerators(stage: Make, tier: Tier, serving: set[str]) -> None:
    fleet = Fleeting(stage(12, tier=tier, settings=TWO_TIERS), ["H100", "H200", "A100", "L4"])
    fleet.run()
    assert set(fleet.stage.statuses().values()) == {"done"}
    assert accelerators_of(fleet) == serving


@pytest.mark.parametrize("tier", list(Tier))
def test_where_no_cluster_has_a_tiers_accelerator_every_cluster_serves_it(stage: Make, tier: Tier) -> None:
    fleet = Fleeting(stage(12, tier=tier, settings=TWO_TIERS), ["L4", "CPU", "T4"])
    fleet.run()
    assert set(fleet.stage.statuses().values()) == {"done"}
    assert accelerators_of(fleet) == {"L4", "CPU", "T4"}


def test_sixteen_clusters_are_never_idle_while_experiments_wait(stage: Make) -> None:
    fleet = Fleeting(stage(64), ["H100"] * 16)
    fleet.stage.plan = Plan(seconds=300)
    fleet.run()
    assert set(fleet.stage.statuses().values()) == {"done"}
    assert fleet.clock.monotonic() == pytest.approx(4 * 300)


def test_near_the_end_nothing_queues_behind_a_slow_experiment_while_a_cluster_is_idle(stage: Make) -> None:
    fleet = Fleeting(stage(5), ["H100"] * 4)
    fleet.stage.plan = Plan(seconds=100)
    fleet.stage.plans["e0001"] = Plan(seconds=1000)
    fleet.run()
    assert fleet.clock.monotonic() == pytest.approx(1000)


def test_a_lost_attempt_is_retried_on_another_cluster(stage: Make) -> None:
    fleet = Fleeting(stage(1), ["H100", "H100"])
    fleet.stage.plan = Plan(lost_on=["m-01"], seconds=10)
    fleet.run()
    assert fleet.where() == {"e0001": ["m-01", "m-02"]}
    assert fleet.stage.statuses() == {"e0001": "done"}
    assert fleet.stage.labels("e0001") == ["lost", None]


def test_one_broken_cluster_costs_no_experiment(stage: Make) -> None:
    fleet = Fleeting(stage(40), ["H100"] * 3)
    fleet.stage.plan = Plan(lost_on=["m-02"], seconds=10)
    fleet.run()
    assert set(fleet.stage.statuses().values()) == {"done"}
    assert all(clusters.count("m-02") <= 1 for clusters in fleet.where().values())


def test_where_there_is_no_other_cluster_the_same_one_is_tried_again(stage: Make) -> None:
    fleet = Fleeting(stage(2), ["H100"])
    fleet.stage.plans["e0001"] = Plan(lost_on=["m-01"])
    fleet.run()
    assert fleet.stage.statuses() == {"e0001": "lost", "e0002": "done"}
    assert fleet.where()["e0001"] == ["m-01"] * ATTEMPTS


def test_an_attempt_is_in_the_journal_before_its_backend_hears_of_it(stage: Make) -> None:
    fleet = Fleeting(stage(3), ["H100"])

    class Curious(Memory):
        async def submit(self, cluster: str, attempt: Attempt, bundle: Bundle) -> None:
            assert attempt in reading.attempts(fleet.stage.journal, "study", open_only=True)
            await super().submit(cluster, attempt, bundle)

        async def discard(self, attempt: str) -> None:
            open_ones = reading.attempts(fleet.stage.journal, "study", open_only=True)
            assert attempt not in [one.id for one in open_ones]
            await super().discard(attempt)

    backend = Curious(fleet.world, fleet.clock, ["H100"])
    fleet.run(backend)
    assert len(fleet.world.discarded) == 3


def test_no_cluster_at_all_is_said(stage: Make) -> None:
    fleet = Fleeting(stage(1), [])
    with pytest.raises(NothingRan, match="no cluster could be had"):
        fleet.run()


def test_what_an_earlier_controller_left_is_adopted_made_again_or_ended(stage: Make) -> None:
    """One attempt still runs, one is over, one never came to run, one is unknown to the journal."""
    set_up = stage(3)
    fleet = Fleeting(set_up, ["H100"] * 4)
    set_up.plan = Plan(seconds=50, score=1.5)
    left = [Attempt(f"study.e000{n}.1", f"e000{n}", f"m-0{n}", f"{n:032x}") for n in range(1, 4)]
    stray = Attempt("study.e0009.1", "e0009", "m-04", "9" * 32)
    later = Memory(fleet.world, fleet.clock, ["H100"] * 4)

    async def main() -> None:
        clusters = [cluster.name async for cluster in fleet.backend.acquire(Fleet(4, set_up.plan.bundle()))]
        set_up.journal.record("study", *(AttemptSubmitted(one) for one in left), AttemptStarted(left[0].id))
        await fleet.backend.submit(clusters[0], left[0], set_up.bundle(set_up.wanted[0]))
        await fleet.backend.submit(clusters[1], left[1], Plan(seconds=10, score=2.5).bundle(2))
        await fleet.backend.submit(clusters[3], stray, Plan(gate=FOREVER).bundle())
        set_up.plans["e0002"] = Plan(seconds=10, score=2.5)
        await fleet.clock.sleep(20)
        scheduler = Scheduler("study", set_up.settings, set_up.journal, later, fleet.clock)
        await scheduler.adopt()
        await set_up.run(scheduler, 4)

    fleet.clock.run(main())
    assert set_up.statuses() == {"e0001": "done", "e0002": "done", "e0003": "done"}
    assert [set_up.results()[f"e000{n}"].score for n in range(1, 4)] == [1.5, 2.5, 1.5]
    assert set_up.labels("e0001") == [None]
    assert set_up.labels("e0002") == [None]
    assert set_up.labels("e0003") == ["cancelled", None]
    assert fleet.world.running == {}
    assert stray.id in fleet.world.reports


class Slow(Memory):
    """A fleet whose clusters come up a minute after one another, and, where `endless`, never all of them."""

    endless = False

    async def acquire(self, fleet: Fleet) -> AsyncIterator[Cluster]:
        async for cluster in super().acquire(fleet):
            await self._clock.sleep(60)
            yield cluster
        if self.endless:
            await asyncio.Event().wait()


def test_a_cluster_that_comes_up_late_is_put_to_work_at_once(stage: Make) -> None:
    fleet = Fleeting(stage(3), ["H100"] * 3)
    fleet.stage.plan = Plan(seconds=1000)
    fleet.run(Slow(fleet.world, fleet.clock, ["H100"] * 3))
    assert fleet.clock.monotonic() == pytest.approx(3 * 60 + 1000)


def test_a_tier_waits_for_its_accelerator_while_the_fleet_is_coming_up(stage: Make) -> None:
    fleet = Fleeting(stage(3, tier=Tier.CONFIRMATION), ["H100", "H100", "H200"])
    fleet.run(Slow(fleet.world, fleet.clock, ["H100", "H100", "H200"]))
    assert accelerators_of(fleet) == {"H200"}


def test_a_tier_does_not_wait_for_ever_for_a_fleet_that_never_gets_complete(stage: Make) -> None:
    fleet = Fleeting(stage(3, tier=Tier.CONFIRMATION), ["H100", "H100"])
    backend = Slow(fleet.world, fleet.clock, ["H100", "H100"])
    backend.endless = True
    fleet.run(backend)
    assert set(fleet.stage.statuses().values()) == {"done"}
    assert fleet.clock.monotonic() == pytest.approx(60 + ARRIVAL_SECONDS)
