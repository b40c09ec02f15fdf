"""What befalls clusters and attempts in a simulated world, fault by fault, in virtual time."""

from __future__ import annotations

from statistics import fmean

import pytest

from controller.backends import BackendEvent, Ended, Fleet, Started, Unreachable, Vanished
from controller.backends.simulated import Simulated, load
from controller.records import Attempt, Label
from tests.backends.simulated.stage import SECONDS, Stage, calm, faults
from tests.backends.workshop import Plan, attempt

HOUR = 3600.0
NO_STOP = {"idle": 1e9}
"""Clusters that idle stay."""


async def run_of(stage: Stage, seconds: float = HOUR, number: int = 1) -> Attempt:
    """One attempt on a cluster of its own, and what is heard in the time after."""
    (cluster,) = await stage.clusters()
    async with stage.listening():
        one = await stage.submit(number, cluster)
        await stage.clock.sleep(seconds)
    return one


# Time


def test_an_attempt_starts_soon_where_nothing_runs_and_at_once_where_it_was_queued() -> None:
    stage = Stage(calm())

    async def main() -> None:
        (cluster,) = await stage.clusters()
        async with stage.listening():
            before = stage.clock.monotonic()
            one, other = [await stage.submit(number, cluster) for number in (1, 2)]
            assert stage.clock.monotonic() == pytest.approx(before + 4)
            await stage.clock.sleep(HOUR / 2)
        (start, _), (end, _) = stage.told(one.id)
        (next_start, _), (next_end, _) = stage.told(other.id)
        assert 5 <= start - before <= 8
        assert end - start == pytest.approx(SECONDS)
        assert next_start - end == pytest.approx(1.3, abs=0.01)
        assert next_end - next_start == pytest.approx(SECONDS)

    stage.play(main())


def test_clusters_come_up_one_by_one_and_are_billed_from_when_a_machine_was_found() -> None:
    stage = Stage(calm())

    async def main() -> None:
        found = []
        async for cluster in stage.backend.acquire(Fleet(16, Plan().bundle(), "study")):
            assert cluster.billed_seconds == pytest.approx(stage.clock.monotonic() - 60)
            found.append((stage.clock.monotonic(), cluster.accelerator))
        times = [time for time, _ in found]
        assert times == sorted(times)
        assert times[0] >= 60 and times[-1] <= 240 and times[-1] - times[0] > 60
        assert sum(accelerator == "H200" for _, accelerator in found) == 3

    stage.play(main())


def test_clusters_are_billed_until_they_are_given_back_or_lost() -> None:
    stage = Stage(calm(seconds={"boot": [30, 30]}))

    async def main() -> None:
        first, second = await stage.clusters(2)
        await stage.clock.sleep(300)
        await stage.backend.release([first])
        assert stage.world.billed_hours() == {"H100": pytest.approx((2 * 330 + 3 + 3) / HOUR)}
        await stage.clock.sleep(HOUR)
        stage.world.look()
        # The other one has shut itself down meanwhile.
        assert stage.world.billed_hours() == {"H100": pytest.approx((333 + 30 + 600) / HOUR)}
        assert second not in stage.world.sites

    stage.play(main())


def test_what_clusters_were_there_for_is_known() -> None:
    stage = Stage(calm())

    async def main() -> None:
        await run_of(stage)
        use = stage.world.use()
        assert use.occupied == pytest.approx(SECONDS / HOUR)
        # These runs tell nothing on their way, and have trained once they are done.
        assert use.training == pytest.approx(300 / HOUR)

    stage.play(main())


def test_the_same_seed_is_the_same_night_and_another_is_another() -> None:
    # An outage would ask for patience, and all that it does is to lose answers.
    eventful = load().with_faults(10).but({"faults": {"outages": {"an_hour": 0}}})

    def night(seed: int) -> list[tuple[float, BackendEvent]]:
        stage = Stage(eventful, seed)

        async def main() -> None:
            clusters = await stage.clusters(8)
            async with stage.listening():
                for number in range(32):
                    await stage.submit(number, clusters[number % len(clusters)])
                await stage.clock.sleep(4 * HOUR)

        stage.play(main())
        return stage.heard

    assert night(1) == night(1)
    assert night(1) != night(2)


# What befalls attempts


def test_an_end_may_be_told_late_while_its_cluster_goes_on() -> None:
    stage = Stage(calm(faults=faults(late=1)))

    async def main() -> None:
        (cluster,) = await stage.clusters()
        async with stage.listening():
            one, other = [await stage.submit(number, cluster) for number in (1, 2)]
            await stage.clock.sleep(HOUR / 2)
        (start, _), (told, _) = stage.told(one.id)
        assert 30 <= told - start - SECONDS <= 300
        (next_start, _), _ = stage.told(other.id)
        assert next_start == pytest.approx(start + SECONDS + 1.3, abs=0.01)
        assert stage.label(one) is None

    stage.play(main())


def test_an_end_may_be_told_twice() -> None:
    stage = Stage(calm(faults=faults(told_twice=1)))

    async def main() -> None:
        one = await run_of(stage)
        first, second = stage.ended(one)
        assert first == second

    stage.play(main())


def test_an_end_may_never_be_told_until_somebody_asks() -> None:
    stage = Stage(calm(faults=faults(untold=1), seconds=NO_STOP))

    async def main() -> None:
        one = await run_of(stage, 10 * HOUR)
        assert stage.told(one.id)[1:] == []
        assert stage.world.alive() == []
        async with stage.listening():
            await stage.backend.cancel(one.id)
            await stage.clock.sleep(1)
            await stage.backend.cancel(one.id)
            await stage.clock.sleep(1)
        (event,) = stage.ended(one)
        assert stage.label(one) is None
        later = Simulated(stage.world, stage.clock)
        assert await later.owned("study") == {one.id}
        assert list(stage.world.inbox) == [Started(one.id), event]

    stage.play(main())


def test_a_result_may_be_garbled_in_several_ways_and_none_of_them_counts() -> None:
    stage = Stage(calm(faults=faults(garbled=1)))

    async def main() -> None:
        clusters = await stage.clusters(40)
        async with stage.listening():
            attempts = [await stage.submit(number, cluster) for number, cluster in enumerate(clusters)]
            await stage.clock.sleep(HOUR / 4)
        assert [stage.label(one) for one in attempts] == [Label.LOST] * 40
        reports = [event.report for event in stage.events(Ended)]
        assert len(reports) == 40
        ways = {type(report).__name__ if not isinstance(report, dict) else str(report["status"]) for report in reports}
        assert ways == {"NoneType", "str", "done", "7"}

    stage.play(main())


def test_an_attempt_may_have_run_something_else() -> None:
    stage = Stage(calm(faults=faults(mismatch=1)))
    one = stage.play(run_of(stage))
    assert stage.label(one) is Label.MISMATCH


def test_an_attempt_may_hang_and_then_half_of_them_hear_no_cancel() -> None:
    stage = Stage(calm(faults=faults(hangs=1), seconds=NO_STOP))

    async def main() -> None:
        clusters = await stage.clusters(40)
        async with stage.listening():
            attempts = [await stage.submit(number, cluster) for number, cluster in enumerate(clusters)]
            await stage.clock.sleep(60)
            assert stage.events(Ended) == []
            for one in attempts:
                await stage.backend.cancel(one.id)
            await stage.clock.sleep(1)
            deaf = [one.id for one in attempts if not stage.ended(one)]
            assert 10 <= len(deaf) <= 30
            assert stage.world.alive() == deaf
            assert {event.report["status"] for event in stage.events(Ended) if event.report} == {"cancelled"}
            await stage.clock.sleep(HOUR)
            assert stage.world.alive() == [], "their clusters end them, past all limits"
            await stage.backend.release(clusters)
        assert stage.world.alive() == []

    stage.play(main())


def test_an_attempt_may_vanish_and_its_cluster_goes_on() -> None:
    stage = Stage(calm(faults=faults(vanishes=1)))

    async def main() -> None:
        (cluster,) = await stage.clusters()
        async with stage.listening():
            attempts = [await stage.submit(number, cluster) for number in (1, 2, 3)]
            await stage.clock.sleep(HOUR)
        for one in attempts:
            (start, _), (end, _) = stage.told(one.id)
            assert 0 < end - start < SECONDS
            (event,) = stage.ended(one)
            assert (event.report, stage.label(one)) == (None, Label.LOST)
        assert stage.events(Vanished) == [Vanished(cluster, "it shut itself down, as it was idle")]

    stage.play(main())


def test_a_setup_may_fail() -> None:
    stage = Stage(calm(faults=faults(setup_fails=1)))
    one = stage.play(run_of(stage))
    assert stage.label(one) is Label.SETUP_FAILED


def test_a_log_may_lack_its_end() -> None:
    logs = []
    for share in (0, 1):
        stage = Stage(calm(faults=faults(log_cut=share)))

        async def main(stage: Stage = stage) -> str:
            (cluster,) = await stage.clusters()
            one = await stage.submit(1, cluster, Plan(prints=["first"], seconds=SECONDS))
            await stage.clock.sleep(HOUR)
            stage.world.look()
            return await stage.backend.log(one.id)

        logs.append(stage.play(main()))
    assert logs == ["| first\ndone\n", "| first\n"]


def test_faults_of_attempts_are_as_frequent_as_the_scenario_says() -> None:
    stage = Stage(calm(faults=faults(vanishes=0.1, setup_fails=0.2)))

    async def main() -> None:
        clusters = await stage.clusters(100)
        async with stage.listening():
            attempts = [await stage.submit(number, clusters[number % 100]) for number in range(1000)]
            await stage.clock.sleep(2 * HOUR)
        labels = [stage.label(one) for one in attempts]
        assert len(labels) == 1000
        assert labels.count(Label.LOST) / 1000 == pytest.approx(0.1, abs=0.03)
        assert labels.count(Label.SETUP_FAILED) / 1000 == pytest.approx(0.2, abs=0.04)

    stage.play(main())


# What befalls clusters


def test_clusters_are_preempted_at_a_constant_rate_with_all_that_is_on_them() -> None:
    stage = Stage(calm(faults={"preemptions": 1}, seconds=NO_STOP))

    async def main() -> None:
        clusters = await stage.clusters(300)
        began = stage.world.time
        async with stage.listening():
            running, queued = [await stage.submit(number, clusters[-1], Plan(seconds=1e9)) for number in (1, 2)]
            await stage.clock.sleep(20 * HOUR)
        lives = [(time - began) / HOUR for time, event in stage.heard if isinstance(event, Vanished)]
        assert len(lives) > 280  # some were gone while others still came up
        assert fmean(lives) == pytest.approx(1, rel=0.15)
        for one in (running, queued):
            (event,) = stage.ended(one)
            assert event.report is None and "preempted" in event.reason
        assert stage.told(queued.id)[0][0] == stage.told(clusters[-1])[0][0]
        assert stage.world.sites == {}

    stage.play(main())


def test_on_a_dud_every_attempt_vanishes() -> None:
    stage = Stage(calm(faults={"duds": 0.5}))

    async def main() -> None:
        clusters = await stage.clusters(16)
        async with stage.listening():
            attempts = [await stage.submit(number, clusters[number % 16]) for number in range(48)]
            await stage.clock.sleep(HOUR)
        lost = {one.cluster for one in attempts if stage.label(one) is Label.LOST}
        fine = {one.cluster for one in attempts if stage.label(one) is None}
        assert 4 <= len(lost) <= 12
        assert lost.isdisjoint(fine) and len(lost) + len(fine) == 16

    stage.play(main())


def test_clusters_may_never_come_up_and_can_be_asked_for_again() -> None:
    stage = Stage(calm(faults={"never_up": 0.5}))

    async def main() -> None:
        first = await stage.clusters(100)
        assert 35 <= len(first) <= 65
        more = await stage.clusters(100)
        assert set(first) < set(more) and len(more) == len(set(more)) <= 100

    stage.play(main())
    nowhere = Stage(calm(faults={"never_up": 1}))
    assert nowhere.play(nowhere.clusters(4)) == []


def test_a_cluster_that_has_nothing_to_do_shuts_itself_down_and_one_that_has_does_not() -> None:
    stage = Stage(calm())

    async def main() -> None:
        async with stage.listening():
            idle, busy = await stage.clusters(2)
            began = {site.name: site.up_at for site in stage.world.sites.values()}
            one = await stage.submit(1, busy, Plan(seconds=2 * HOUR))
            await stage.clock.sleep(4 * HOUR)
        ((gone, kind),) = stage.told(idle)
        assert kind == "Vanished" and gone == pytest.approx(began[idle] + 600)
        ((gone, kind),) = stage.told(busy)
        assert kind == "Vanished" and gone == pytest.approx(stage.told(one.id)[-1][0] + 600)
        assert await stage.backend.up("study") == []

    stage.play(main())


def test_a_cluster_in_anothers_place_is_another_machine() -> None:
    stage = Stage(calm())

    async def main() -> None:
        names = await stage.clusters(16)
        machines = {site.name: (site.machine, site.accelerator) for site in stage.world.sites.values()}
        gone = names[3]
        await stage.backend.release([gone])
        assert set(await stage.clusters(16)) == set(names)
        again = {site.name: (site.machine, site.accelerator) for site in stage.world.sites.values()}
        assert {name for name in names if machines[name] != again[name]} == {gone}
        assert machines[gone][1] == again[gone][1]

    stage.play(main())


# What befalls the backend and its controller


def test_in_an_outage_nothing_is_answered_though_perhaps_done() -> None:
    stage = Stage(calm(faults={"outages": {"an_hour": 2, "seconds": [100, 100]}}, seconds=NO_STOP))

    async def main() -> None:
        clusters = await patiently(stage, 40)
        while not stage.world.unreachable:
            await stage.clock.sleep(1)
            stage.world.look()
        attempts = [attempt(number, cluster) for number, cluster in enumerate(clusters)]
        bundle = Plan(seconds=HOUR).bundle()
        for one in attempts:
            with pytest.raises(Unreachable):
                await stage.backend.submit(one.cluster, one, bundle)
        done = len(stage.world.flights)
        assert 10 <= done <= 30
        for call in (
            stage.backend.up("study"),
            stage.backend.owned("study"),
            stage.backend.cancel("study.e0001.1"),
            stage.backend.discard("study.e0001.1"),
            stage.backend.release(clusters[:1]),
        ):
            with pytest.raises(Unreachable):
                await call
        with pytest.raises(Unreachable):
            await anext(aiter(stage.backend.events()))
        with pytest.raises(Unreachable):
            await anext(aiter(stage.backend.acquire(Fleet(41, bundle, "study"))))
        await stage.clock.sleep(100)
        for one in attempts:
            await stage.backend.submit(one.cluster, one, bundle)
        assert len(stage.world.flights) == 40
        assert len(await stage.backend.up("study")) in (40, 41)

    stage.play(main())


async def patiently(stage: Stage, count: int) -> list[str]:
    while True:
        try:
            return await stage.clusters(count)
        except Unreachable:
            await stage.clock.sleep(30)


def test_outages_are_as_frequent_and_as_long_as_the_scenario_says() -> None:
    stage = Stage(calm(faults={"outages": {"an_hour": 1, "seconds": [30, 300]}}))

    async def main() -> float:
        out = 0
        for _ in range(200 * 60):
            await stage.clock.sleep(60)
            stage.world.look()
            out += stage.world.unreachable
        return out / (200 * 60)

    # Once an hour for 165 s in the mean, some of them during another.
    assert stage.play(main()) == pytest.approx(165 / HOUR, rel=0.2)


def test_the_controllers_clock_is_set_as_often_and_as_far_as_the_scenario_says() -> None:
    stage = Stage(calm(faults={"clock_jumps": {"an_hour": 1, "seconds": 3600}}))

    async def main() -> None:
        await stage.clock.sleep(100 * HOUR)
        stage.world.look()

    stage.play(main())
    assert len(stage.jumps) == pytest.approx(100, abs=25)
    assert -3600 <= min(stage.jumps) < -3000 and 3000 < max(stage.jumps) <= 3600


def test_the_world_goes_on_while_no_controller_is_there() -> None:
    stage = Stage(calm())

    async def main() -> None:
        (cluster,) = await stage.clusters()
        one, other = [await stage.submit(number, cluster) for number in (1, 2)]
        stage.clock.leap(500)
        later = Simulated(stage.world, stage.clock)
        assert await later.owned("study") == {one.id, other.id}
        assert [type(event).__name__ for event in stage.world.inbox] == ["Started", "Ended", "Started"]
        stage.clock.leap(HOUR)
        last = Simulated(stage.world, stage.clock)
        assert await last.up("study") == []
        assert await last.owned("study") == {one.id, other.id}

    stage.play(main())


def test_what_is_over_and_recorded_takes_no_room() -> None:
    stage = Stage(calm())
    one = stage.play(run_of(stage))
    flight = stage.world.flights[one.id]
    assert flight.ended is not None and flight.bundle is None
    stage.play(stage.backend.discard(one.id))
    assert flight.ended is None
    assert stage.play(stage.backend.owned("study")) == set()
    assert stage.play(stage.backend.log(one.id)) == "done\n"
