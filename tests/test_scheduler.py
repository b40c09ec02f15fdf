"""The scheduler over a real journal: on this machine with real processes, and on a made-up fleet in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controller.backends import Awaited, Bundle, Ended, Fleet, Progressed, Started
from controller.backends.local import Local
from controller.budget import Caps, Ledger
from controller.clock import Clock, RealClock, VirtualClock
from controller.clusters import ARRIVAL_SECONDS, DEPTH, IDLE_SECONDS
from controller.errands import FAREWELL_SECONDS
from controller.journal import (
    AttemptEnded,
    AttemptPruned,
    AttemptStarted,
    AttemptSubmitted,
    ClusterSeen,
    Journal,
    StudyStarted,
    WaveDesigned,
    reading,
)
from controller.pruning import Curve
from controller.records import (
    Attempt,
    Candidate,
    Experiment,
    Label,
    NothingRan,
    Outcome,
    Role,
    Tier,
    UserError,
    Wave,
)
from controller.scheduler import (
    ATTEMPTS,
    CANCEL_SECONDS,
    CHECK_SECONDS,
    RETRY_SECONDS,
    START_SECONDS,
    STRIKES,
    Scheduler,
)
from controller.settings import Settings, parse
from controller.waiting import CELLS_PER_CONTROL, CONTROLS_LEFT
from tests.backends.memory import Memory, World
from tests.backends.workshop import Plan, open_gate
from tests.processes import PATIENCE_SECONDS, alive_in, wait_for_the_end_of

FOREVER = "/nowhere/at/all"
HANGS = Plan(seconds=1e7)
DAY = 24 * 3600.0

CELL, CONTROL = Role.CELL, Role.CONTROL


def experiments(count: int, tier: Tier = Tier.SCREENING) -> list[Experiment]:
    return [Experiment(f"e{n:04d}", "w01", "c0000", CELL, tier, n, 1) for n in range(1, count + 1)]


def screening(*roles: Role) -> list[Experiment]:
    return [Experiment(f"s{n:03d}", "w01", "c0000", role, Tier.SCREENING, n, 1) for n, role in enumerate(roles)]


def blocks(seeds: int, arms: int) -> list[Experiment]:
    """A confirmation: for each seed as many arms, the last of them the control."""
    roles = [Role.CONFIRMATION] * (arms - 1) + [CONTROL]
    return [
        Experiment(f"b{seed}{arm}", "w01", "c0000", role, Tier.CONFIRMATION, seed, 1)
        for seed in range(seeds)
        for arm, role in enumerate(roles)
    ]


def fleet_of(count: int) -> Fleet:
    return Fleet(count, Plan().bundle(), "study")


class Stage:
    """A study in a journal, and what its experiments do: `plan`, unless `plans` says otherwise."""

    def __init__(self, directory: Path, settings: Settings, wanted: Sequence[Experiment], clock: Any) -> None:
        self.clock = clock
        self.journal = Journal.open(directory, clock, durable=False)
        self.settings = settings
        self.wanted = list(wanted)
        self.plan = Plan()
        self.plans: dict[str, Plan] = {}
        baseline = Candidate("c0000", "0" * 40, "0" * 40, {}, "")
        begun = StudyStarted(baseline, "autoresearch/study", "val_bpb", True, {})
        wave = Wave("w01", 1, 0, "c0000", "doe", {}, {})
        self.journal.record("study", begun, WaveDesigned(wave, {}, (), (), tuple(wanted)))

    def bundle(self, experiment: Experiment) -> Bundle:
        return self.plans.get(experiment.id, self.plan).bundle(experiment.seed)

    def results(self) -> dict[str, reading.Result]:
        return {one.experiment.id: one for one in reading.results_of(self.journal, "study")}

    def statuses(self) -> dict[str, str]:
        return {name: result.status for name, result in self.results().items()}

    def attempts(self, experiment: str) -> list[Attempt]:
        return reading.attempts(self.journal, "study", experiment=experiment)

    def labels(self, experiment: str) -> list[str | None]:
        return [reading.ending(self.journal, "study", one.id)["label"] for one in self.attempts(experiment)]

    def where(self) -> Mapping[str, list[str]]:
        """Clusters of each experiment's attempts, in order."""
        return {name: [one.cluster for one in self.attempts(name)] for name in self.statuses()}

    def times(self, column: str, experiment: str) -> list[float]:
        """When the attempts at an experiment were `submitted`, `started` or `ended`, in seconds since the beginning."""
        query = f"SELECT {column} FROM attempts WHERE experiment = ? ORDER BY submitted"
        found = self.journal.db.execute(query, (experiment,)).fetchall()
        return [at - VirtualClock().now() for (at,) in found]

    def happened(self, kind: type[object]) -> int:
        return sum(isinstance(event, kind) for _, _, event in self.journal.events())


Make = Callable[..., Stage]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Make]:
    opened: list[Stage] = []

    def make(wanted: int | Sequence[Experiment], *, settings: str = "", clock: Clock | None = None) -> Stage:
        listed = experiments(wanted) if isinstance(wanted, int) else wanted
        program = parse(f"---\n{settings}\n---\n")
        opened.append(Stage(tmp_path / ".autoresearch", program, listed, clock or VirtualClock()))
        return opened[-1]

    yield make
    for one in opened:
        one.journal.close()


class OnThisMachine:
    """Real processes. `ends` has whatever has ended, `all_run` is set when every cluster runs something."""

    def __init__(self, stage: Stage, backend: Local, clusters: int) -> None:
        clock = RealClock()
        ledger = Ledger(stage.journal, "study", stage.settings, Caps(), backend.idle_seconds, clock)
        self.stage = stage
        self.clusters = clusters
        self.scheduler = Scheduler("study", stage.settings, stage.journal, backend, clock, ledger, stage.bundle)
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
            await self.scheduler.adopt()
            self.scheduler.begin(self.stage.plan.bundle(), self.clusters)
            unfinished = [one.experiment for one in self.stage.results().values() if one.status == "queued"]
            self.scheduler.add(unfinished)
            try:
                while not self.scheduler.idle:
                    await self.scheduler.step()
            finally:
                await self.scheduler.close()


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    monkeypatch.setattr("controller.scheduler.RETRY_SECONDS", 0.0)
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


async def test_stopping_at_once_keeps_what_is_finished_and_leaves_nothing_running(
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
    running.scheduler.cancel()
    await task
    assert alive_in(tmp_path) == {}
    assert set_up.statuses() == {"e0001": "done"} | dict.fromkeys([f"e000{n}" for n in range(2, 7)], "queued")
    assert reading.attempts(set_up.journal, "study", open_only=True) == []
    assert all(label in (None, "cancelled") for n in range(1, 7) for label in set_up.labels(f"e000{n}"))


async def test_however_often_it_is_stopped_at_once_no_experiment_is_held_to_have_failed(
    stage: Make, local: Local, tmp_path: Path
) -> None:
    set_up = stage(2, clock=RealClock())
    set_up.plan = Plan(gate=str(tmp_path / "gate"))
    for _ in range(ATTEMPTS + 1):
        backend = Local(tmp_path / ".autoresearch", Path(sys.executable), RealClock(), capacity=2)
        running = OnThisMachine(set_up, backend, 2)
        task = asyncio.create_task(running.run())
        await running.all_run.wait()
        running.scheduler.cancel()
        await task
    assert set(set_up.labels("e0001")) == {"cancelled"}
    open_gate(str(tmp_path / "gate"))
    await OnThisMachine(set_up, local, 2).run()
    assert set_up.statuses() == {"e0001": "done", "e0002": "done"}


class Fleeting:
    """A made-up fleet in virtual time, and one controller of it."""

    def __init__(
        self,
        stage: Stage,
        accelerators: Sequence[str],
        *,
        world: World | None = None,
        caps: Caps | None = None,
        idle_seconds: float = 0.0,
        boot_seconds: float = 0.0,
    ) -> None:
        assert isinstance(stage.clock, VirtualClock)
        self.stage = stage
        self.clock = stage.clock
        self.world = world or World()
        self.count = len(accelerators)
        self.backend = Memory(self.world, self.clock, accelerators)
        self.backend.idle_seconds = idle_seconds
        self.backend.boot_seconds = boot_seconds
        self.ledger = Ledger(stage.journal, "study", stage.settings, caps or Caps(), idle_seconds, self.clock)
        arguments = stage.journal, self.backend, self.clock, self.ledger, stage.bundle
        self.scheduler = Scheduler("study", stage.settings, *arguments)
        self.finished: list[str] = []
        self.scheduler.hooks.finished = lambda experiment, outcome: self.finished.append(experiment.id)
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._died = False

    def at(self, seconds: float, what: Callable[[], object]) -> None:
        """Have `what` happen then."""
        self._later.append((seconds, what))

    def die(self) -> None:
        """The controller is killed."""
        self._died = True
        self.scheduler.wake()

    def run(self, until: float | None = None) -> None:
        """Run to the end, or until then: all there is to do, on all clusters."""
        self.clock.run(self.main(until))

    async def main(self, until: float | None = None) -> None:
        scheduler, began = self.scheduler, self.clock.monotonic()
        tasks = [asyncio.ensure_future(self._then(seconds, what)) for seconds, what in self._later]
        if until is not None:
            tasks.append(asyncio.ensure_future(self._then(until, scheduler.wake)))
        await scheduler.adopt()
        left = [one.experiment for one in self.stage.results().values() if one.status in ("queued", "running")]
        scheduler.add(left)
        scheduler.begin(self.stage.plan.bundle(), self.count)
        try:
            while until is not None or not (scheduler.idle or scheduler.stuck):
                await scheduler.step()
                assert self.clock.monotonic() - began < 10 * DAY, "it never ends"
                if self._died or (until is not None and self.clock.monotonic() >= until):
                    break
        finally:
            for task in [*tasks, *(scheduler._errands._tasks if self._died else ())]:
                task.cancel()
            if not self._died:
                await scheduler.close()

    async def _then(self, seconds: float, what: Callable[[], object]) -> None:
        await self.clock.sleep(max(0.0, seconds - self.clock.monotonic()))
        what()

    def accelerators(self) -> set[str]:
        """What the experiments ran on."""
        known = dict(reading.clusters(self.stage.journal, "study"))
        return {known[cluster] for clusters in self.stage.where().values() for cluster in clusters}

    def submitted(self) -> list[Attempt]:
        """Every attempt, in the order in which the backend heard of them."""
        return [attempt for attempt, _ in self.world.attempts.values()]

    def all_done(self) -> bool:
        return set(self.stage.statuses().values()) == {"done"}

    def untroubled(self) -> bool:
        """Whether everything is done at the first attempt, and nothing was replaced."""
        names = self.stage.statuses()
        first_time = all(len(self.stage.attempts(name)) == 1 for name in names)
        return self.all_done() and first_time and not self.scheduler.replaced and sorted(self.finished) == sorted(names)


def one_after_another(
    stage: Stage, world: World, killed: Sequence[float], made: Callable[[int], Mapping[str, Any]]
) -> Fleeting:
    """Controllers in one world, killed at these times, and a last one that comes to its end. Each is `made` in turn."""

    async def main() -> Fleeting:
        for number, seconds in enumerate(killed):
            fleet = Fleeting(stage, world=world, **made(number))
            fleet.at(seconds, fleet.die)
            await fleet.main()
        last = Fleeting(stage, world=world, **made(len(killed)))
        await last.main()
        return last

    clock: VirtualClock = stage.clock
    return clock.run(main())


# Which cluster runs what

TWO_TIERS = "tiers: {screening: {accelerators: [H100, A100]}, confirmation: {accelerators: H200}}"


@pytest.mark.parametrize(("tier", "serving"), [(Tier.SCREENING, {"H100", "A100"}), (Tier.CONFIRMATION, {"H200"})])
def test_a_tier_is_served_by_its_own_accelerators(stage: Make, tier: Tier, serving: set[str]) -> None:
    fleet = Fleeting(stage(experiments(12, tier), settings=TWO_TIERS), ["H100", "H200", "A100", "L4"])
    fleet.run()
    assert fleet.untroubled()
    assert fleet.accelerators() == serving


@pytest.mark.parametrize("tier", list(Tier))
def test_where_no_cluster_has_a_tiers_accelerator_every_cluster_serves_it(stage: Make, tier: Tier) -> None:
    fleet = Fleeting(stage(experiments(12, tier), settings=TWO_TIERS), ["L4", "CPU", "T4"])
    fleet.run()
    assert fleet.untroubled()
    assert fleet.accelerators() == {"L4", "CPU", "T4"}
    assert fleet.scheduler.serving(tier) == 0, "they are given back at the end"


def test_sixteen_clusters_are_never_idle_while_experiments_wait(stage: Make) -> None:
    fleet = Fleeting(stage(64), ["H100"] * 16)
    fleet.stage.plan = Plan(seconds=300)
    fleet.run()
    assert fleet.untroubled()
    assert fleet.clock.monotonic() == pytest.approx(4 * 300)


def test_a_cluster_has_its_next_experiment_before_it_is_free_and_no_more_than_that(stage: Make) -> None:
    fleet = Fleeting(stage(12), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    depths: list[int] = []
    for seconds in (50, 150, 250, 350, 450, 550):
        fleet.at(seconds, lambda: depths.extend(len(fleet.world.queues[name]) + 1 for name in ("m-01", "m-02")))
    fleet.run()
    assert depths == [DEPTH] * 8 + [1] * 4, "at the end nothing waits behind another"


def test_near_the_end_nothing_queues_behind_a_slow_experiment_while_a_cluster_is_idle(stage: Make) -> None:
    fleet = Fleeting(stage(5), ["H100"] * 4)
    fleet.stage.plan = Plan(seconds=100)
    fleet.stage.plans["e0001"] = Plan(seconds=700)
    fleet.run()
    assert fleet.clock.monotonic() == pytest.approx(700)


def test_confirmations_run_before_what_is_still_to_be_screened(stage: Make) -> None:
    fleet = Fleeting(stage([*screening(*[CELL] * 9), *blocks(2, 3)]), ["CPU"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    fleet.run()
    assert fleet.untroubled()
    order = [attempt.experiment[0] for attempt in fleet.submitted()]
    assert order == ["b"] * 6 + ["s"] * 9


def test_the_arms_of_a_block_run_on_one_cluster_one_after_another(stage: Make) -> None:
    fleet = Fleeting(stage(blocks(3, 4), settings=TWO_TIERS), ["H200"] * 3)
    fleet.stage.plan = Plan(seconds=100)
    fleet.run()
    assert fleet.untroubled()
    homes = {
        seed: {clusters[0] for name, clusters in fleet.stage.where().items() if name[1] == str(seed)}
        for seed in range(3)
    }
    assert sorted(map(len, homes.values())) == [1, 1, 1] and len(set.union(*homes.values())) == 3
    assert fleet.clock.monotonic() == pytest.approx(400)


def test_a_cluster_with_nothing_else_to_do_takes_a_part_of_another_one_s_block(stage: Make) -> None:
    fleet = Fleeting(stage(blocks(1, 4), settings=TWO_TIERS), ["H200"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    fleet.run()
    assert fleet.untroubled()
    assert fleet.clock.monotonic() == pytest.approx(200)


def test_a_cluster_of_the_other_tier_helps_beside_controls_of_its_own(stage: Make) -> None:
    wave = screening(*([CONTROL, CELL, CELL, CELL, CELL, CELL] * 8))
    fleet = Fleeting(stage(wave, settings=TWO_TIERS), ["H100", "H200", "H200"])
    fleet.stage.plan = Plan(seconds=100)
    fleet.run()
    assert fleet.untroubled()
    roles = {one.id: one.role for one in wave}
    where = dict(reading.clusters(fleet.stage.journal, "study"))
    helped: Counter[Role] = Counter()
    for attempt in fleet.submitted():
        if where[attempt.cluster] == "H200":
            helped[roles[attempt.experiment]] += 1
            assert helped[CELL] <= CELLS_PER_CONTROL * helped[CONTROL]
    assert helped[CELL] > CELLS_PER_CONTROL, "two of three clusters would be idle otherwise"
    assert 8 - helped[CONTROL] >= CONTROLS_LEFT


def test_a_cluster_of_the_other_tier_leaves_a_wave_alone_that_has_no_control_to_spare(stage: Make) -> None:
    wave = screening(*[CONTROL] * CONTROLS_LEFT, *[CELL] * 9)
    fleet = Fleeting(stage(wave, settings=TWO_TIERS), ["H100", "H200"])
    fleet.run()
    assert fleet.untroubled() and fleet.accelerators() == {"H100"}


def test_a_cluster_that_helps_is_free_for_its_own_tier_as_soon_as_it_has_work(stage: Make) -> None:
    wave = [*screening(*[CONTROL, CELL, CELL, CELL, CELL] * 6), *blocks(1, 2)]
    fleet = Fleeting(stage(wave, settings=TWO_TIERS), ["H100", "H200"])
    fleet.stage.plan = Plan(seconds=100)
    late = [one for one in wave if one.tier is Tier.CONFIRMATION]
    fleet.at(0, lambda: fleet.scheduler.waiting.withdraw("w01", Tier.CONFIRMATION))
    fleet.at(250, lambda: fleet.scheduler.add(late))
    fleet.run()
    assert fleet.all_done()
    started = [fleet.stage.times("started", one.id)[0] for one in late]
    assert sorted(started) == pytest.approx([400, 500]), "after the one that runs and the one that is queued"


# When experiments fail


def test_a_lost_attempt_is_retried_on_another_cluster(stage: Make) -> None:
    fleet = Fleeting(stage(1), ["H100", "H100"])
    fleet.stage.plan = Plan(lost_on=["m-01"], seconds=10)
    fleet.run()
    assert fleet.stage.where() == {"e0001": ["m-01", "m-02"]}
    assert fleet.stage.statuses() == {"e0001": "done"}
    assert fleet.stage.labels("e0001") == ["lost", None]
    assert fleet.finished == ["e0001"]


def test_after_each_failure_it_waits_longer_before_it_tries_again(stage: Make) -> None:
    fleet = Fleeting(stage(1), ["H100"] * 3)
    fleet.stage.plan = Plan(lost_on=["m-01", "m-02", "m-03"], seconds=10)
    fleet.run()
    assert fleet.stage.statuses() == {"e0001": "lost"}
    assert sorted(fleet.stage.where()["e0001"]) == ["m-01", "m-02", "m-03"]
    second, third = 10 + RETRY_SECONDS, 20 + 3 * RETRY_SECONDS
    assert fleet.stage.times("submitted", "e0001") == pytest.approx([0, second, third])
    assert fleet.finished == ["e0001"]


def test_a_cluster_that_fails_everything_is_replaced_and_costs_no_experiment(stage: Make) -> None:
    fleet = Fleeting(stage(40), ["H100"] * 3)
    fleet.stage.plan = Plan(lost_on=["m-02"], seconds=10)
    fleet.run()
    assert fleet.all_done() and fleet.scheduler.replaced == 1
    where = fleet.stage.where().values()
    assert all(clusters.count("m-02") <= 1 for clusters in where)
    assert sum(clusters.count("m-02") for clusters in where) <= STRIKES + DEPTH - 1
    assert any("m-04" in clusters for clusters in where)
    (lease,) = [one for one in reading.leases(fleet.stage.journal, "study") if one.cluster == "m-02"]
    assert lease.until is not None and lease.reason.startswith(f"{STRIKES} failures in a row, the last lost: m-02 went")


def test_failures_with_a_success_between_them_replace_nothing(stage: Make) -> None:
    fleet = Fleeting(stage(8), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=10)
    fleet.stage.plans |= {f"e000{n}": Plan(seconds=10, lost_on=["m-02"]) for n in (1, 2, 5, 6)}
    fleet.run()
    assert fleet.all_done() and fleet.scheduler.replaced == 0


def test_the_only_cluster_is_not_replaced_and_tried_again(stage: Make) -> None:
    fleet = Fleeting(stage(2), ["H100"])
    fleet.stage.plans["e0001"] = Plan(lost_on=["m-01"])
    fleet.run()
    assert fleet.stage.statuses() == {"e0001": "lost", "e0002": "done"}
    assert fleet.stage.where()["e0001"] == ["m-01"] * ATTEMPTS


def test_what_waits_or_rests_of_a_wave_can_be_withdrawn_and_what_runs_goes_on(stage: Make) -> None:
    fleet = Fleeting(stage(8), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    fleet.stage.plans["e0001"] = Plan(seconds=10, lost_on=["m-01", "m-02"])
    gone: list[Experiment] = []
    fleet.at(15, lambda: gone.extend(fleet.scheduler.withdraw("w01", Tier.SCREENING, "it is pointless")))
    fleet.run()
    assert [one.id for one in gone] == ["e0006", "e0007", "e0008", "e0001"]
    statuses = fleet.stage.statuses()
    assert {name for name, status in statuses.items() if status == "cancelled"} == {one.id for one in gone}
    assert [statuses[name] for name in ("e0002", "e0003", "e0004", "e0005")] == ["done"] * 4
    assert fleet.stage.results()["e0008"].reason == "it is pointless"
    assert sorted(fleet.finished) == ["e0002", "e0003", "e0004", "e0005"]


# When the backend fails

CALLS = ["submit", "cancel", "owned", "up", "acquire", "events", "discard", "release"]


@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize(
    ("calls", "begins", "seconds"),
    [
        *(([call], begins, 250.0) for call in CALLS for begins in (0.0, 150.0)),
        *((CALLS, begins, 250.0) for begins in (0.0, 150.0)),
        (["events"], 0.0, 5000.0),
        (["events"], 150.0, 5000.0),
        (CALLS, 150.0, 5000.0),
    ],
)
def test_a_backend_that_gives_no_answer_only_delays(
    stage: Make, calls: list[str], begins: float, seconds: float, heard: bool
) -> None:
    fleet = Fleeting(stage(12), ["H100"] * 3)
    fleet.stage.plan = Plan(seconds=100)
    fleet.backend.heard = heard
    fleet.at(begins, lambda: fleet.backend.away.update(dict.fromkeys(calls, begins + seconds)))
    fleet.run()
    assert fleet.untroubled()
    assert len(fleet.world.attempts) == 12
    assert fleet.clock.monotonic() < 400 + begins + seconds + 2 * FAREWELL_SECONDS


def test_a_cluster_that_cannot_be_reached_for_long_is_replaced_and_nothing_is_held_to_have_failed(stage: Make) -> None:
    fleet = Fleeting(stage(6), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    fleet.backend.away["submit m-01"] = DAY
    fleet.run()
    assert fleet.all_done() and fleet.scheduler.replaced == 1
    assert all(set(fleet.stage.labels(name)) <= {None, "cancelled"} for name in fleet.stage.statuses())


@pytest.mark.parametrize("call", CALLS)
def test_a_backend_that_is_away_when_everything_is_cancelled_ends_it_once_it_is_back(stage: Make, call: str) -> None:
    fleet = Fleeting(stage(6), ["H100"] * 2)
    fleet.stage.plan = HANGS
    fleet.at(40, lambda: fleet.backend.away.update({call: 240.0}))
    fleet.at(50, fleet.scheduler.cancel)
    fleet.run()
    assert set(fleet.stage.statuses().values()) == {"queued"}
    assert fleet.world.running == {} and fleet.world.clusters == {}
    assert {label for name in fleet.stage.statuses() for label in fleet.stage.labels(name)} == {"cancelled"}


def test_a_backend_that_is_away_at_the_end_keeps_nobody_and_the_next_controller_takes_up_its_clusters(
    stage: Make,
) -> None:
    fleet = Fleeting(stage(2), ["H100"] * 2)
    fleet.at(0, lambda: fleet.backend.away.update({"release": DAY}))
    fleet.run()
    assert fleet.untroubled() and fleet.clock.monotonic() <= 2 * FAREWELL_SECONDS
    assert [lease.until for lease in reading.leases(fleet.stage.journal, "study")] == [None, None]
    later = Fleeting(fleet.stage, ["H100"] * 2, world=fleet.world)
    later.run(until=fleet.clock.monotonic() + 60)
    assert fleet.world.clusters == {} and fleet.world.requests == 2
    leases = reading.leases(fleet.stage.journal, "study")
    assert [(lease.cluster, lease.reason) for lease in leases] == [("m-01", "released"), ("m-02", "released")]


def test_a_mistake_in_a_backend_is_raised(stage: Make) -> None:
    fleet = Fleeting(stage(2), ["H100"])

    class Mistaken(Memory):
        async def submit(self, cluster: str, attempt: Attempt, bundle: Bundle) -> None:
            raise ZeroDivisionError

    fleet.scheduler._backend = fleet.scheduler.clusters._backend = Mistaken(fleet.world, fleet.clock, ["H100"])
    with pytest.raises(ZeroDivisionError):
        fleet.run()
    assert fleet.world.clusters == {}, "its clusters are given back all the same"


def test_every_end_told_twice_counts_once(stage: Make) -> None:
    fleet = Fleeting(stage(9), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=10)
    fleet.backend.tells_twice = True
    fleet.run()
    assert fleet.untroubled() and fleet.stage.happened(AttemptEnded) == 9


def test_what_is_told_of_an_attempt_that_nobody_knows_is_cleared_away_and_not_recorded(stage: Make) -> None:
    fleet = Fleeting(stage(1), ["H100"])
    fleet.stage.plan = Plan(seconds=100)
    stray = "study.e9999.1"
    for event in (Started(stray), Progressed(stray, 0.5, 1.0), Ended(stray, None, "it is over")):
        fleet.at(10, partial(fleet.backend.tell, event))
    fleet.run()
    assert fleet.untroubled()
    assert stray in fleet.world.discarded


def test_an_attempt_that_never_ends_is_a_failure_of_the_infrastructure(stage: Make) -> None:
    fleet = Fleeting(stage(3), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    fleet.stage.plans["e0001"] = HANGS
    fleet.run()
    assert fleet.stage.statuses() == {"e0001": "lost", "e0002": "done", "e0003": "done"}
    assert fleet.stage.labels("e0001") == ["lost"] * ATTEMPTS
    ended, started = fleet.stage.times("ended", "e0001"), fleet.stage.times("started", "e0001")
    worst = fleet.ledger.worst_seconds
    assert all(worst <= end - start <= worst + 2 * CHECK_SECONDS for end, start in zip(ended, started, strict=True))


@pytest.mark.parametrize("trouble", ["deaf", "mute"])
def test_the_cluster_of_an_attempt_that_cannot_be_cancelled_is_replaced(stage: Make, trouble: str) -> None:
    fleet = Fleeting(stage(4), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    getattr(fleet.backend, trouble).add("m-01")

    fleet.stage.plans["e0001"] = Plan(seconds=100, hangs_on=["m-01"]) if trouble == "deaf" else fleet.stage.plan
    fleet.run()
    assert fleet.all_done() and fleet.scheduler.replaced == 1
    assert fleet.stage.labels("e0001") == ["lost", None]
    assert fleet.stage.where()["e0001"][0] == "m-01" != fleet.stage.where()["e0001"][1]
    (end, _) = fleet.stage.times("ended", "e0001")
    assert end <= fleet.ledger.worst_seconds + CANCEL_SECONDS + 3 * CHECK_SECONDS
    assert all(
        label in (None, "cancelled", "lost") for name in fleet.stage.statuses() for label in fleet.stage.labels(name)
    )


def test_a_late_end_of_an_attempt_that_was_given_up_changes_nothing(stage: Make) -> None:
    fleet = Fleeting(stage(2), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    fleet.backend.mute.add("m-01")
    first = "study.e0001.1"
    fleet.at(1500, lambda: fleet.backend.tell(fleet.world.reports[first]))
    fleet.run(until=2000)
    assert fleet.all_done()
    assert fleet.stage.labels("e0001") == ["lost", None]
    assert fleet.stage.happened(AttemptEnded) == 3
    assert first in fleet.world.discarded


def test_a_cluster_that_does_not_start_what_it_is_given_is_replaced_and_nothing_is_held_to_have_failed(
    stage: Make,
) -> None:
    fleet = Fleeting(stage(6), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    fleet.backend.stuck.add("m-01")
    fleet.run()
    assert fleet.all_done() and fleet.scheduler.replaced == 1
    assert all(set(fleet.stage.labels(name)) <= {None, "cancelled"} for name in fleet.stage.statuses())
    (lease,) = [one for one in reading.leases(fleet.stage.journal, "study") if one.cluster == "m-01"]
    assert lease.until is not None and lease.reason == "it does not start what it is given"
    assert START_SECONDS < lease.until - lease.since < START_SECONDS + 3 * CHECK_SECONDS


@pytest.mark.parametrize("ends_first", [True, False])
def test_when_a_cluster_vanishes_what_it_ran_is_retried_and_what_it_had_queued_is_not_held_against_anybody(
    stage: Make, ends_first: bool
) -> None:
    fleet = Fleeting(stage(8), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    fleet.at(50, lambda: fleet.backend.vanish("m-01", ends_first=ends_first))
    fleet.run()
    assert fleet.all_done()
    labels = Counter(label for name in fleet.stage.statuses() for label in fleet.stage.labels(name))
    assert labels == {None: 8, "lost": 1, "cancelled": 1}
    (lost,) = [name for name in fleet.stage.statuses() if "lost" in fleet.stage.labels(name)]
    assert fleet.stage.where()[lost][0] == "m-01"
    leases = {lease.cluster: lease for lease in reading.leases(fleet.stage.journal, "study")}
    assert set(leases) == {"m-01", "m-02", "m-03"}, "another one takes its place"
    assert leases["m-01"].until == pytest.approx(VirtualClock().now() + 50) and leases["m-01"].reason == "preempted"


def test_why_clusters_are_awaited_is_known_for_as_long_as_they_are(stage: Make) -> None:
    fleet = Fleeting(stage(4), ["H100"] * 2, boot_seconds=100)
    fleet.stage.plan = Plan(seconds=100)
    known: dict[int, str] = {}

    def note(at: int) -> None:
        known[at] = reading.awaited(fleet.stage.journal, "study")

    fleet.at(50, lambda: fleet.backend.tell(Awaited("1 coming up: no GPU is free")))
    for moment in (40, 60, 180, 250):
        fleet.at(moment, partial(note, moment))
    fleet.run()
    assert known == {40: "", 60: "1 coming up: no GPU is free", 180: "1 coming up: no GPU is free", 250: ""}


def test_clusters_that_never_come_are_given_up_with_the_reason_that_was_told(stage: Make) -> None:
    fleet = Fleeting(stage(2), ["H100"])
    fleet.backend.away["acquire"] = DAY
    fleet.at(100, lambda: fleet.backend.tell(Awaited("no H100 is left anywhere")))
    with pytest.raises(NothingRan, match="no cluster could be had within 15 minutes: no H100 is left anywhere"):
        fleet.run()


def test_what_was_preempted_is_retried_like_what_was_lost(stage: Make) -> None:
    fleet = Fleeting(stage(1), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    attempt = "study.e0001.1"
    fleet.at(50, lambda: fleet.backend.tell(Ended(attempt, None, "its pod was preempted", Label.PREEMPTED)))
    fleet.run(until=1000)
    assert fleet.stage.labels("e0001") == ["preempted", None]


def test_a_cluster_that_vanishes_without_a_word_of_its_attempts_holds_nothing_up_for_ever(stage: Make) -> None:
    fleet = Fleeting(stage(6), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    fleet.backend.mute.add("m-01")
    fleet.at(50, lambda: fleet.backend.vanish("m-01"))
    fleet.run()
    assert fleet.all_done() and fleet.scheduler.replaced == 0


# Stopping


def test_draining_lets_what_runs_finish_and_returns_what_is_queued(stage: Make) -> None:
    fleet = Fleeting(stage(8), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    fleet.at(50, fleet.scheduler.drain)
    fleet.run()
    assert fleet.clock.monotonic() == pytest.approx(100)
    assert fleet.stage.statuses() == dict.fromkeys(["e0001", "e0002"], "done") | {
        f"e000{n}": "queued" for n in range(3, 9)
    }
    assert {label for n in range(3, 9) for label in fleet.stage.labels(f"e000{n}")} == {"cancelled"}
    assert {one.id for one in fleet.scheduler.waiting} == {f"e000{n}" for n in range(3, 9)}
    later = Fleeting(fleet.stage, ["H100"] * 2, world=fleet.world)
    later.run()
    assert later.all_done() and sorted(later.finished) == [f"e000{n}" for n in range(3, 9)]


def test_cancelling_ends_all_at_once(stage: Make) -> None:
    fleet = Fleeting(stage(8), ["H100"] * 2)
    fleet.stage.plan = Plan(seconds=100)
    fleet.at(50, fleet.scheduler.cancel)
    fleet.run()
    assert fleet.clock.monotonic() == pytest.approx(50)
    assert set(fleet.stage.statuses().values()) == {"queued"}
    assert fleet.world.running == {} and fleet.finished == []


def test_whoever_steps_can_be_woken(stage: Make) -> None:
    fleet = Fleeting(stage([]), ["H100"])
    woken: list[float] = []

    async def main() -> None:
        fleet.scheduler.begin(fleet.stage.plan.bundle(), 1)
        for _ in range(3):
            await fleet.scheduler.step()
            woken.append(fleet.clock.monotonic())
        asyncio.get_running_loop().call_later(7, fleet.scheduler.wake)
        await fleet.scheduler.step()
        woken.append(fleet.clock.monotonic())
        await fleet.scheduler.close()

    fleet.clock.run(main())
    assert woken[-1] - woken[-2] == pytest.approx(7)


def test_an_attempt_is_in_the_journal_before_its_backend_hears_of_it(stage: Make) -> None:
    fleet = Fleeting(stage(3), ["H100"])
    journal = fleet.stage.journal

    class Curious(Memory):
        async def submit(self, cluster: str, attempt: Attempt, bundle: Bundle) -> None:
            assert attempt in reading.attempts(journal, "study", open_only=True)
            await super().submit(cluster, attempt, bundle)

        async def discard(self, attempt: str) -> None:
            assert attempt not in [one.id for one in reading.attempts(journal, "study", open_only=True)]
            await super().discard(attempt)

    fleet.scheduler._backend = fleet.scheduler.clusters._backend = Curious(fleet.world, fleet.clock, ["H100"])
    fleet.run()
    assert fleet.untroubled() and len(fleet.world.discarded) == 3


# Clusters that come and go


def test_no_cluster_at_all_is_said(stage: Make) -> None:
    fleet = Fleeting(stage(1), ["H100"])
    fleet.backend.most = 0
    with pytest.raises(NothingRan, match="no cluster could be had"):
        fleet.run()


def test_a_backend_that_gives_no_answer_from_the_beginning_is_not_waited_for_all_night(stage: Make) -> None:
    fleet = Fleeting(stage(1), ["H100"])
    fleet.backend.away["acquire"] = DAY
    with pytest.raises(NothingRan, match=f"no cluster could be had within {ARRIVAL_SECONDS / 60:.0f} minutes"):
        fleet.run()
    assert fleet.clock.monotonic() < 2 * ARRIVAL_SECONDS + FAREWELL_SECONDS


def test_a_cluster_that_comes_up_late_is_put_to_work_at_once(stage: Make) -> None:
    fleet = Fleeting(stage(3), ["H100"] * 3, boot_seconds=60)
    fleet.stage.plan = Plan(seconds=700)
    fleet.run()
    assert fleet.untroubled()
    assert fleet.clock.monotonic() == pytest.approx(3 * 60 + 700)


def test_a_tier_waits_for_its_accelerator_while_the_fleet_is_coming_up(stage: Make) -> None:
    fleet = Fleeting(stage(experiments(3, Tier.CONFIRMATION)), ["H100", "H100", "H200"], boot_seconds=60)
    fleet.run()
    assert fleet.untroubled() and fleet.accelerators() == {"H200"}


def test_a_tier_does_not_wait_for_ever_for_a_fleet_that_never_gets_complete(stage: Make) -> None:
    fleet = Fleeting(
        stage(experiments(3, Tier.CONFIRMATION)), ["H100", "H100", "H200"], boot_seconds=ARRIVAL_SECONDS / 2.5
    )
    fleet.stage.plan = Plan(seconds=10)
    fleet.run()
    assert fleet.untroubled() and fleet.accelerators() == {"H100"}
    assert fleet.clock.monotonic() == pytest.approx(ARRIVAL_SECONDS + 20)


def test_clusters_that_are_still_coming_up_at_the_end_are_given_back_too(stage: Make) -> None:
    fleet = Fleeting(stage(1), ["H100"] * 4, boot_seconds=60)
    fleet.stage.plan = Plan(seconds=10)
    fleet.run()
    assert fleet.untroubled()
    assert fleet.world.clusters == {} and fleet.world.requests == 4


def test_clusters_that_could_not_be_had_are_asked_for_again(stage: Make) -> None:
    fleet = Fleeting(stage(40), ["H100"] * 4)
    fleet.stage.plan = Plan(seconds=100)
    fleet.backend.most = 2
    fleet.at(100, lambda: setattr(fleet.backend, "most", 4))
    fleet.run()
    assert fleet.untroubled()
    assert {cluster for clusters in fleet.stage.where().values() for cluster in clusters} > {"m-03", "m-04"}


def test_clusters_that_an_earlier_controller_had_beyond_what_is_asked_for_are_given_back(stage: Make) -> None:
    set_up = stage(40)
    set_up.plan = Plan(seconds=100)
    second = one_after_another(set_up, World(), [150.0], lambda n: {"accelerators": ["H100"] * (2 if n else 4)})
    assert second.all_done() and second.world.requests == 4
    leases = reading.leases(set_up.journal, "study")
    assert len(leases) == 4
    hours = sum((lease.until or 1e12) - lease.since for lease in leases) / 3600
    assert sorted(round((lease.until or 1e12) - VirtualClock().now()) for lease in leases)[:2] == [150, 150]
    assert second.ledger.spent().gpu_hours == pytest.approx(hours)


@pytest.mark.parametrize(
    ("idle_seconds", "patience"), [(DAY, IDLE_SECONDS), (IDLE_SECONDS, IDLE_SECONDS / 2)], ids=["long", "short"]
)
def test_a_cluster_with_nothing_to_do_is_given_back_and_comes_back_when_there_is(
    stage: Make, idle_seconds: float, patience: float
) -> None:
    fleet = Fleeting(stage(12), ["H100"] * 3, idle_seconds=idle_seconds)
    fleet.stage.plan = Plan(seconds=100)
    late = fleet.stage.wanted[2:]
    fleet.at(0, lambda: fleet.scheduler.waiting.withdraw("w01", Tier.SCREENING))
    fleet.at(0, lambda: fleet.scheduler.add(fleet.stage.wanted[:2]))
    up: list[int] = []
    for seconds in (50, patience - 1, 100 + patience + 2 * CHECK_SECONDS, 2000, 4990):
        fleet.at(seconds, lambda: up.append(len(fleet.world.clusters)))
    fleet.at(5000, lambda: fleet.scheduler.add(late))
    fleet.run(until=5500)
    assert up == [3, 3, 0, 0, 0]
    assert fleet.untroubled()
    reasons = [lease.reason for lease in reading.leases(fleet.stage.journal, "study")]
    assert reasons[:3] == ["idle"] * 3 and len(reasons) == 6


def test_a_cluster_for_which_nothing_more_will_come_is_given_back_at_once(stage: Make) -> None:
    fleet = Fleeting(stage(2), ["H100"] * 3, idle_seconds=300)
    fleet.stage.plan = Plan(seconds=500)
    fleet.scheduler.expecting = frozenset()
    up: list[int] = []
    fleet.at(100, lambda: up.append(len(fleet.world.clusters)))
    fleet.at(490, lambda: up.append(len(fleet.world.clusters)))
    fleet.run()
    assert fleet.untroubled() and up == [2, 2]


def test_where_idling_is_free_nothing_is_given_back_before_the_end(stage: Make) -> None:
    fleet = Fleeting(stage(1), ["H100"] * 3)
    fleet.run(until=DAY)
    assert {lease.until for lease in reading.leases(fleet.stage.journal, "study")} == {VirtualClock().now() + DAY}


def test_a_cluster_given_back_as_idle_does_not_come_back_for_work_that_it_would_not_be_given(stage: Make) -> None:
    wave = screening(*[CONTROL] * CONTROLS_LEFT, *[CELL] * 30)
    fleet = Fleeting(stage(wave, settings=TWO_TIERS), ["H100", "H200"], idle_seconds=300)
    fleet.stage.plan = Plan(seconds=300)
    fleet.run()
    assert fleet.untroubled()
    leases = [lease for lease in reading.leases(fleet.stage.journal, "study") if lease.accelerator == "H200"]
    assert [lease.reason for lease in leases] == ["idle"]


@pytest.mark.parametrize(("most", "served_by"), [(2, "H200"), (1, "H100")])
def test_a_tier_whose_cluster_was_given_back_waits_for_another_as_long_as_one_can_be_had(
    stage: Make, most: int, served_by: str
) -> None:
    wave = [*screening(*[CONTROL] * CONTROLS_LEFT, *[CELL] * 30), *blocks(2, 2)]
    fleet = Fleeting(stage(wave, settings=TWO_TIERS), ["H100", "H200"], idle_seconds=300)
    fleet.stage.plan = Plan(seconds=300)
    late = [one for one in wave if one.tier is Tier.CONFIRMATION]
    fleet.at(0, lambda: fleet.scheduler.waiting.withdraw("w01", Tier.CONFIRMATION))
    fleet.at(3000, lambda: setattr(fleet.backend, "most", most))
    fleet.at(3010, lambda: fleet.scheduler.add(late))
    fleet.run()
    assert fleet.all_done()
    known = dict(reading.clusters(fleet.stage.journal, "study"))
    assert {known[fleet.stage.attempts(one.id)[0].cluster] for one in late} == {served_by}
    assert max(fleet.stage.times("submitted", one.id)[0] for one in late) < 4500, "not after all of the screening"


def test_a_fleet_that_never_got_complete_is_not_filled_up_again_when_nothing_is_left_for_it(stage: Make) -> None:
    fleet = Fleeting(stage(2), ["H100"] * 4, idle_seconds=300)
    fleet.stage.plan = Plan(seconds=700)
    fleet.stage.plans["e0002"] = Plan(seconds=10)
    fleet.backend.most = 3
    fleet.scheduler.expecting = frozenset()
    fleet.run()
    assert fleet.untroubled() and fleet.world.requests == 3


# The budget


def test_the_budget_is_never_exceeded_and_what_it_does_not_allow_waits_for_more(stage: Make) -> None:
    fleet = Fleeting(stage(40), ["H100"] * 2, caps=Caps(gpu_hours=2.0), idle_seconds=300)
    fleet.stage.plan = Plan(seconds=600)
    fleet.run()
    assert fleet.scheduler.stuck and set(fleet.scheduler.blocked) == {Tier.SCREENING}
    assert "of 2 GPU-hours are spent" in fleet.scheduler.blocked[Tier.SCREENING]
    assert 1.0 < fleet.ledger.spent().gpu_hours <= 2.0
    statuses = Counter(fleet.stage.statuses().values())
    assert set(statuses) == {"done", "queued"} and statuses["done"] >= 6
    more = Fleeting(fleet.stage, ["H100"] * 2, world=fleet.world, caps=Caps(gpu_hours=3.0), idle_seconds=300)
    more.run()
    assert more.scheduler.stuck and 2.0 < more.ledger.spent().gpu_hours <= 3.0
    rest = Fleeting(fleet.stage, ["H100"] * 2, world=fleet.world, idle_seconds=300)
    rest.run()
    assert rest.all_done() and not rest.scheduler.stuck


def test_confirmation_may_use_what_is_kept_from_screening(stage: Make) -> None:
    fleet = Fleeting(stage([*screening(*[CELL] * 12), *blocks(1, 3)]), ["H100"], caps=Caps(gpu_hours=1.5))
    fleet.stage.plan = Plan(seconds=600)
    fleet.ledger.set_aside = 3
    fleet.run()
    statuses = fleet.stage.statuses()
    assert [statuses[f"b0{arm}"] for arm in range(3)] == ["done"] * 3
    assert Counter(statuses[f"s{n:03d}"] for n in range(12))["queued"] > 6


def test_what_is_blocked_of_screening_does_not_hold_up_a_confirmation_that_comes_later(stage: Make) -> None:
    fleet = Fleeting(stage([*screening(*[CELL] * 12), *blocks(1, 2)]), ["H100"], caps=Caps(gpu_hours=1.5))
    fleet.stage.plan = Plan(seconds=600)
    fleet.ledger.set_aside = 2
    confirmations = [one for one in fleet.stage.wanted if one.tier is Tier.CONFIRMATION]
    fleet.at(0, lambda: fleet.scheduler.waiting.withdraw("w01", Tier.CONFIRMATION))
    fleet.run()
    assert fleet.scheduler.stuck
    fleet.scheduler.withdraw("w01", Tier.SCREENING, "the budget")
    fleet.scheduler.add(confirmations)
    assert not fleet.scheduler.stuck, "the budget allows for these"


def test_a_budget_that_pays_for_no_run_at_all_is_said_before_anything_is_spent(stage: Make) -> None:
    fleet = Fleeting(stage(3), ["H100"] * 2, caps=Caps(gpu_hours=0.1))
    fleet.run()
    assert fleet.scheduler.stuck
    assert set(fleet.scheduler.blocked.values()) == {
        "the budget, or the time that is left, does not suffice for a cluster that could run anything"
    }
    assert fleet.world.requests == 0 and set(fleet.stage.statuses().values()) == {"queued"}


def test_a_budget_that_pays_for_fewer_clusters_has_fewer(stage: Make) -> None:
    fleet = Fleeting(stage(2), ["H100"] * 8, caps=Caps(gpu_hours=1.0))
    fleet.stage.plan = Plan(seconds=60)
    fleet.run()
    assert fleet.untroubled() and 1 <= fleet.world.requests < 8


def test_when_the_last_cluster_vanishes_and_no_other_can_be_paid_for_that_is_the_end(stage: Make) -> None:
    fleet = Fleeting(stage(12), ["H100"], caps=Caps(gpu_hours=0.7), idle_seconds=300)
    fleet.stage.plan = Plan(seconds=600)
    fleet.at(1000, lambda: fleet.backend.vanish("m-01"))
    fleet.run()
    assert fleet.scheduler.stuck and fleet.clock.monotonic() < 1200
    assert fleet.world.requests == 1


def test_a_cluster_that_idles_goes_before_it_eats_into_what_is_kept_for_runs(stage: Make) -> None:
    fleet = Fleeting(stage(1), ["H100"] * 2, caps=Caps(gpu_hours=1.2), idle_seconds=300)
    fleet.stage.plan = Plan(seconds=700)
    fleet.run()
    assert fleet.untroubled() and fleet.ledger.spent().gpu_hours <= 1.2


def test_a_dollar_cap_without_the_price_of_a_cluster_s_accelerator_is_the_user_s_mistake(stage: Make) -> None:
    set_up = stage(1, settings="prices: {H100: 2.0, H200: 3.0}")
    fleet = Fleeting(set_up, ["L4"], caps=Caps(usd=10.0))
    with pytest.raises(UserError, match="needs the price of an hour of L4"):
        fleet.run()
    assert fleet.world.clusters == {}


def test_when_the_hours_are_over_what_runs_may_finish_and_nothing_more_begins(stage: Make) -> None:
    fleet = Fleeting(stage(40), ["H100"] * 2, caps=Caps(hours=1.0))
    fleet.stage.plan = Plan(seconds=600)
    fleet.run()
    assert fleet.scheduler.stuck and fleet.clock.monotonic() <= 3600
    said = "the 1 hours are over for anything that is not running yet"
    assert any(why.startswith(said) for why in fleet.scheduler.blocked.values())
    assert Counter(fleet.stage.statuses().values())["done"] >= 8


# Early stopping

LOSSES = tuple(3 - n / 20 for n in range(1, 21))


def test_a_run_that_is_held_to_be_hopeless_is_recorded_as_such_before_it_is_ended(stage: Make) -> None:
    fleet = Fleeting(stage(3), ["H100"])
    fleet.stage.plan = Plan(seconds=100, losses=LOSSES)
    seen: list[tuple[str, str, int]] = []

    def hopeless(experiment: Experiment, accelerator: str, curve: Curve) -> str | None:
        seen.append((experiment.id, accelerator, len(curve.points())))
        return "far behind" if experiment.id == "e0002" and len(curve.points()) == 2 else None

    class Curious(Memory):
        async def cancel(self, attempt: str) -> None:
            assert reading.pruned(fleet.stage.journal, "study", attempt) == "far behind"
            await super().cancel(attempt)

    fleet.scheduler.hooks.hopeless = hopeless
    fleet.scheduler._backend = fleet.scheduler.clusters._backend = Curious(fleet.world, fleet.clock, ["H100"])
    fleet.run()
    assert fleet.stage.statuses() == {"e0001": "done", "e0002": "pruned", "e0003": "done"}
    result = fleet.stage.results()["e0002"]
    assert (result.reason, result.accelerator, result.score) == ("far behind", "H100", None)
    assert fleet.stage.labels("e0002") == ["pruned"]
    assert seen == [
        (name, "H100", n) for name, looks in (("e0001", 4), ("e0002", 2), ("e0003", 4)) for n in range(1, looks + 1)
    ]
    assert fleet.clock.monotonic() == pytest.approx(100 + 40 + 100)
    assert sorted(fleet.finished) == ["e0001", "e0002", "e0003"]
    (first,) = [
        event.outcome.curve
        for _, _, event in fleet.stage.journal.events()
        if isinstance(event, AttemptEnded) and event.attempt == "study.e0001.1"
    ]
    assert [look for look, _ in first] == [0.2, 0.35, 0.5, 0.7]


def test_a_run_that_ended_before_it_could_be_ended_early_keeps_its_score(stage: Make) -> None:
    fleet = Fleeting(stage(1), ["H100"])
    fleet.stage.plan = Plan(seconds=100, losses=LOSSES)
    fleet.scheduler.hooks.hopeless = lambda experiment, accelerator, curve: "far behind"
    fleet.at(20, lambda: fleet.backend.away.update({"cancel": 200.0}))
    fleet.run()
    assert fleet.stage.statuses() == {"e0001": "done"}


@pytest.mark.parametrize("lives_on", [True, False])
def test_a_restart_between_the_decision_to_end_a_run_and_its_end_makes_no_difference(
    stage: Make, lives_on: bool
) -> None:
    set_up = stage(1)
    set_up.plan = Plan(seconds=300, losses=LOSSES)
    world = World()

    def between(number: int) -> Mapping[str, Any]:
        if number:
            set_up.journal.record("study", AttemptPruned("study.e0001.1", "far behind"))
            if not lives_on:
                world.running.pop("study.e0001.1").cancel()
                world.attempts.clear()
        return {"accelerators": ["H100"]}

    later = one_after_another(set_up, world, [100.0], between)
    assert set_up.statuses() == {"e0001": "pruned"}
    assert set_up.results()["e0001"].reason == "far behind"
    assert later.clock.monotonic() < 300 and world.running == {}


# After a crash


def test_what_an_earlier_controller_left_is_adopted_made_again_or_ended(stage: Make) -> None:
    """One attempt still runs, one is over, one never came to run, one is unknown to the journal."""
    set_up = stage(3)
    set_up.plan = Plan(seconds=50, score=1.5)
    set_up.plans["e0002"] = Plan(seconds=10, score=2.5)
    left = [Attempt(f"study.e000{n}.1", f"e000{n}", f"m-0{n}", f"{n:032x}") for n in range(1, 4)]
    stray = Attempt("study.e0009.1", "e0009", "m-04", "9" * 32)
    fleet = Fleeting(set_up, ["H100"] * 4)
    begun = VirtualClock().now()

    async def main() -> None:
        clusters = [cluster async for cluster in fleet.backend.acquire(fleet_of(4))]
        set_up.journal.record("study", *(ClusterSeen(cluster, begun) for cluster in clusters))
        set_up.journal.record("study", *map(AttemptSubmitted, left), AttemptStarted(left[0].id))
        for attempt, plan in zip(left[:2], (set_up.plan, set_up.plans["e0002"]), strict=True):
            await fleet.backend.submit(attempt.cluster, attempt, plan.bundle(int(attempt.experiment[-1])))
        await fleet.backend.submit(stray.cluster, stray, HANGS.bundle())
        await fleet.clock.sleep(20)
        await Fleeting(set_up, ["H100"] * 4, world=fleet.world).main()

    fleet.clock.run(main())
    assert set_up.statuses() == {"e0001": "done", "e0002": "done", "e0003": "done"}
    assert [set_up.results()[f"e000{n}"].score for n in range(1, 4)] == [1.5, 2.5, 1.5]
    assert set_up.labels("e0001") == set_up.labels("e0002") == [None]
    assert set_up.labels("e0003") == ["cancelled", None]
    assert set_up.times("started", "e0001") == [0.0], "it was running all the while"
    assert fleet.world.running == {} and fleet.world.requests == 4
    assert stray.id in fleet.world.reports and stray.id in fleet.world.discarded
    assert {lease.since for lease in reading.leases(set_up.journal, "study")} == {begun}


def test_wherever_a_controller_is_killed_the_next_one_goes_on_and_nothing_runs_twice(stage: Make) -> None:
    set_up = stage(12)
    set_up.plan = Plan(seconds=100)
    killed = [0.0, 0.5, 101, 150, 200, 250.5, 300]
    last = one_after_another(set_up, World(), killed, lambda n: {"accelerators": ["H100"] * 2})
    assert last.all_done()
    labels = [label for name in set_up.statuses() for label in set_up.labels(name)]
    assert set(labels) <= {None, "cancelled"} and labels.count(None) == 12
    assert last.world.requests == 2, "its clusters were there"
    assert last.clock.monotonic() == pytest.approx(600), "no time was lost"


def test_clusters_that_came_up_while_no_controller_was_there_and_went_again_are_billed(stage: Make) -> None:
    set_up = stage(2)
    set_up.plan = Plan(seconds=100)
    world = World()

    def between(number: int) -> Mapping[str, Any]:
        if number:
            assert world.listener is not None and reading.arriving(set_up.journal, "study") == 3
            for name in list(world.clusters):
                world.listener.vanish(name)
        return {
            "accelerators": ["H100"] * (2 if number else 4),
            "idle_seconds": 300,
            "boot_seconds": 0 if number else 60,
        }

    later = one_after_another(set_up, world, [90.0], between)
    assert later.all_done() and reading.arriving(set_up.journal, "study") == 0
    leases = reading.leases(set_up.journal, "study")
    unseen = [lease for lease in leases if lease.cluster.startswith("unseen")]
    assert len(unseen) == 3 and all(lease.until is not None for lease in leases)
    assert {round((lease.until or 0) - lease.since) for lease in unseen} == {ARRIVAL_SECONDS + 300}


def test_a_cluster_that_went_while_no_controller_was_there_is_billed_for_no_longer_than_it_can_have_lived(
    stage: Make,
) -> None:
    set_up = stage(2)
    set_up.plan = Plan(seconds=100)
    world = World()

    def between(number: int) -> Mapping[str, Any]:
        if number:
            assert world.listener is not None
            world.listener.vanish("m-01")
            world.listener.vanish("m-02")
            set_up.clock.leap(DAY)
        return {"accelerators": ["H100"] * 2, "idle_seconds": 300}

    later = one_after_another(set_up, world, [50.0], between)
    assert later.all_done()
    most = (50 + 2 * later.ledger.worst_seconds + 300) * 2 / 3600
    assert later.ledger.spent().gpu_hours < most + 2 * 200 / 3600
