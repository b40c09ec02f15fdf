"""What every backend does. A test class inherits BackendConformance and overrides its two fixtures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from controller.backends import Backend, Ended, Fleet, Started
from controller.records import Label
from controller.watcher import judge
from tests.backends.workshop import Ear, Plan, attempt, open_gate, report_of
from tests.processes import PATIENCE_SECONDS, alive_in, wait_for_the_end_of

FOREVER = "/nowhere/at/all"
"""A gate that never opens."""


async def clusters_of(backend: Backend, count: int) -> list[str]:
    return [cluster.name async for cluster in backend.acquire(Fleet(count, Plan().bundle(), "study"))]


class BackendConformance:
    """Behaviours, one a test. `backend` runs at least two attempts at once, on as many clusters as are asked for.

    Tests leave clusters up, which the next may find: one that counts them asks for `nothing_up`.
    """

    many = 5
    """More clusters than most tests need."""
    rounds = 4
    """How often is tried what goes wrong now and then."""

    @pytest.fixture
    def nothing_up(self) -> None:
        """No clusters are up as the test begins."""

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError

    @pytest.fixture
    def successor(self) -> Callable[[], Backend]:
        """Makes the backend that a later controller would have, over the same workspace."""
        raise NotImplementedError

    @pytest.fixture
    def alive(self, tmp_path: Path) -> Callable[[], object]:
        """What still runs, as a container that is empty where nothing does."""
        return lambda: alive_in(tmp_path)

    @pytest.fixture
    def settle(self, tmp_path: Path) -> Callable[[], Awaitable[None]]:
        """Returns when all that runs has ended by itself."""
        return lambda: asyncio.to_thread(wait_for_the_end_of, *alive_in(tmp_path))

    @pytest.fixture
    def gate(self, tmp_path: Path) -> str:
        return str(tmp_path / "gate")

    async def test_acquire_yields_as_many_clusters_as_were_asked_for(self, backend: Backend) -> None:
        clusters = [cluster async for cluster in backend.acquire(Fleet(self.many, Plan().bundle(), "study"))]
        assert len({cluster.name for cluster in clusters}) == self.many
        assert all(cluster.accelerator for cluster in clusters)
        assert backend.capacity >= 2 and backend.idle_seconds >= 0

    @pytest.mark.usefixtures("nothing_up")
    async def test_what_is_up_is_what_was_acquired_and_not_released(self, backend: Backend) -> None:
        async def up() -> set[str]:
            return {cluster.name for cluster in await backend.up("study")}

        acquired = await clusters_of(backend, 2)
        assert await up() == set(acquired)
        await backend.release([acquired[1]])
        assert await up() == {acquired[0]}
        await backend.release(acquired)
        assert await up() == set()

    @pytest.mark.usefixtures("nothing_up")
    async def test_acquiring_again_gives_the_clusters_that_are_up_and_only_as_many_more_as_are_missing(
        self, backend: Backend
    ) -> None:
        first = await clusters_of(backend, 2)
        assert set(await clusters_of(backend, 2)) == set(first)
        assert set(await clusters_of(backend, 1)) < set(first)
        more = await clusters_of(backend, 3)
        assert set(first) < set(more) and len(more) == len(set(more)) == 3
        await backend.release(first[:1])
        again = await clusters_of(backend, 3)
        assert set(again) >= set(more) - set(first[:1]) and len(set(again)) == 3
        assert {cluster.name for cluster in await backend.up("study")} == set(again)

    async def test_an_attempt_starts_and_ends_with_its_own_report(self, backend: Backend) -> None:
        (cluster,) = await clusters_of(backend, 1)
        one, bundle = attempt(1, cluster), Plan(score=1.5).bundle()
        await backend.submit(cluster, one, bundle)
        ear = Ear(backend)
        ended = await ear.until(Ended, one.id)
        assert ear.about(one.id) == ["Started", "Ended"]
        report = report_of(ended)
        assert (report["attempt"], report["nonce"]) == (one.id, one.nonce)
        assert report["hashes"]["train"] == bundle.job["hashes"]["train"]
        outcome = judge(one, ended, bundle.job["hashes"], "val_bpb")
        assert outcome.label is None
        assert outcome.metrics["val_bpb"] == 1.5
        assert outcome.accelerator

    async def test_a_failing_attempt_ends_with_its_label(self, backend: Backend) -> None:
        (cluster,) = await clusters_of(backend, 1)
        one, bundle = attempt(1, cluster), Plan(score=None).bundle()
        await backend.submit(cluster, one, bundle)
        ended = await Ear(backend).until(Ended, one.id)
        assert judge(one, ended, bundle.job["hashes"], "val_bpb").label is Label.CRASH

    async def test_an_attempt_submitted_again_runs_once(self, backend: Backend, tmp_path: Path, gate: str) -> None:
        (cluster,) = await clusters_of(backend, 1)
        one, other = attempt(1, cluster), attempt(2, cluster)
        bundle = Plan(gate=gate, diary=str(tmp_path / "diary")).bundle()
        ear = Ear(backend)
        await backend.submit(cluster, one, bundle)
        await backend.submit(cluster, one, bundle)
        await ear.until(Started, one.id)
        await backend.submit(cluster, one, bundle)
        open_gate(gate)
        await ear.until(Ended, one.id)
        await backend.submit(cluster, one, bundle)
        await backend.discard(one.id)
        await backend.submit(cluster, one, bundle)
        await backend.submit(cluster, other, Plan().bundle())
        await ear.until(Ended, other.id)
        assert ear.about(one.id) == ["Started", "Ended"]
        assert (tmp_path / "diary").read_text() == "+-"

    async def test_an_attempt_waits_for_the_one_before_it_and_runs_its_own_code(
        self, backend: Backend, gate: str
    ) -> None:
        first, second = await clusters_of(backend, 2)
        bundles = [Plan(score=1.5, gate=gate).bundle(), Plan(score=2.5).bundle(), Plan(score=3.5).bundle()]
        attempts = [attempt(1, first), attempt(2, first), attempt(3, second)]
        for one, bundle in zip(attempts, bundles, strict=True):
            await backend.submit(one.cluster, one, bundle)
        ear = Ear(backend)
        await ear.until(Started, attempts[0].id)
        await ear.until(Ended, attempts[2].id)
        assert ear.about(attempts[1].id) == []
        open_gate(gate)
        for one, bundle in zip(attempts, bundles, strict=True):
            report = report_of(await ear.until(Ended, one.id))
            assert report["hashes"] == bundle.job["hashes"]
            assert report["metrics"]["val_bpb"] == Plan.of(bundle).score
        order = [event.attempt for event in ear.heard if isinstance(event, (Started, Ended))]
        assert order.index(attempts[1].id) > order.index(attempts[0].id, 1 + order.index(attempts[0].id))

    async def test_a_running_and_a_queued_attempt_can_be_cancelled(
        self, backend: Backend, alive: Callable[[], object]
    ) -> None:
        first, second = await clusters_of(backend, 2)
        running, queued, other = attempt(1, first), attempt(2, first), attempt(3, second)
        for one in (running, queued, other):
            await backend.submit(one.cluster, one, Plan(gate=FOREVER).bundle())
        ear = Ear(backend)
        await ear.until(Started, running.id)
        await ear.until(Started, other.id)
        await backend.cancel(queued.id)
        assert judge(queued, await ear.until(Ended, queued.id), {}, "val_bpb").label is Label.CANCELLED
        await backend.cancel(running.id)
        assert judge(running, await ear.until(Ended, running.id), {}, "val_bpb").label is Label.CANCELLED
        assert ear.about(queued.id) == ["Ended"]
        assert ear.about(other.id) == ["Started"]
        await backend.cancel(other.id)
        await ear.until(Ended, other.id)
        assert not alive()

    async def test_an_attempt_cancelled_as_soon_as_it_starts_is_cancelled_and_not_lost(self, backend: Backend) -> None:
        (cluster,) = await clusters_of(backend, 1)
        ear = Ear(backend)
        for number in range(self.rounds):
            one = attempt(number, cluster)
            await backend.submit(cluster, one, Plan(gate=FOREVER).bundle())
            await ear.until(Started, one.id)
            await backend.cancel(one.id)
            await backend.cancel(one.id)
            ended = await ear.until(Ended, one.id)
            assert judge(one, ended, {}, "val_bpb").label is Label.CANCELLED

    async def test_the_cluster_of_a_cancelled_attempt_takes_the_next(self, backend: Backend) -> None:
        (cluster,) = await clusters_of(backend, 1)
        one, other = attempt(1, cluster), attempt(2, cluster)
        await backend.submit(cluster, one, Plan(gate=FOREVER).bundle())
        await backend.submit(cluster, other, Plan(score=1.5).bundle())
        ear = Ear(backend)
        await ear.until(Started, one.id)
        await backend.cancel(one.id)
        assert report_of(await ear.until(Ended, other.id))["metrics"]["val_bpb"] == 1.5

    async def test_the_log_is_kept_whole_and_by_its_end(self, backend: Backend) -> None:
        (cluster,) = await clusters_of(backend, 1)
        one = attempt(1, cluster)
        await backend.submit(cluster, one, Plan(prints=["first", "second", "third"]).bundle())
        await Ear(backend).until(Ended, one.id)
        whole = await backend.log(one.id)
        lines = whole.splitlines()
        assert [line for line in lines if line in ("| first", "| second", "| third")] == lines[:3]
        assert (await backend.log(one.id, 2)).splitlines() == lines[-2:]
        assert await backend.log(one.id, 1000) == whole
        await backend.discard(one.id)
        assert await backend.log(one.id) == whole

    async def test_a_later_controller_adopts_what_runs(
        self, backend: Backend, successor: Callable[[], Backend], gate: str
    ) -> None:
        (cluster,) = await clusters_of(backend, 1)
        one, bundle = attempt(1, cluster), Plan(score=1.5, gate=gate).bundle()
        await backend.submit(cluster, one, bundle)
        ear = Ear(backend)
        await ear.until(Started, one.id)
        await ear.hang_up()
        later = successor()
        assert await later.owned("study") == {one.id}
        assert await later.owned("study") == {one.id}
        ear = Ear(later)
        await ear.until(Started, one.id)
        open_gate(gate)
        ended = await ear.until(Ended, one.id)
        assert ear.about(one.id) == ["Started", "Ended"]
        assert judge(one, ended, bundle.job["hashes"], "val_bpb").metrics == {"val_bpb": 1.5}

    async def test_a_later_controller_collects_what_ended_meanwhile(
        self, backend: Backend, successor: Callable[[], Backend], settle: Callable[[], Awaitable[None]], gate: str
    ) -> None:
        (cluster,) = await clusters_of(backend, 1)
        one, bundle = attempt(1, cluster), Plan(score=1.5, gate=gate).bundle()
        await backend.submit(cluster, one, bundle)
        ear = Ear(backend)
        await ear.until(Started, one.id)
        await ear.hang_up()
        open_gate(gate)
        await settle()
        later = successor()
        assert await later.owned("study") == {one.id}
        ended = await Ear(later).until(Ended, one.id)
        assert judge(one, ended, bundle.job["hashes"], "val_bpb").metrics == {"val_bpb": 1.5}
        await later.discard(one.id)
        assert await successor().owned("study") == set()

    async def test_a_later_controller_can_end_what_runs(
        self, backend: Backend, successor: Callable[[], Backend], alive: Callable[[], object]
    ) -> None:
        (cluster,) = await clusters_of(backend, 1)
        one = attempt(1, cluster)
        await backend.submit(cluster, one, Plan(gate=FOREVER).bundle())
        ear = Ear(backend)
        await ear.until(Started, one.id)
        await ear.hang_up()
        later = successor()
        await later.owned("study")
        await later.cancel(one.id)
        assert judge(one, await Ear(later).until(Ended, one.id), {}, "val_bpb").label is Label.CANCELLED
        assert not alive()

    async def test_what_another_study_runs_is_not_owned(
        self, backend: Backend, successor: Callable[[], Backend]
    ) -> None:
        clusters = await clusters_of(backend, 2)
        studies = ["study.two", "study-2"]
        ear = Ear(backend)
        for number, (cluster, study) in enumerate(zip(clusters, studies, strict=True), 1):
            one = attempt(number, cluster, study)
            await backend.submit(cluster, one, Plan(gate=FOREVER).bundle())
            await ear.until(Started, one.id)
        assert await successor().owned("study") == set()
        assert await successor().owned("study.two") == {attempt(1, "", "study.two").id}
        await ear.hang_up()
        await backend.release(clusters)

    async def test_what_is_unknown_or_over_has_no_effect(self, backend: Backend) -> None:
        (cluster,) = await clusters_of(backend, 1)
        one, other = attempt(1, cluster), attempt(2, cluster)
        for name in ("study.e9999.1", "nothing"):
            await backend.cancel(name)
            await backend.discard(name)
            assert await backend.log(name) == ""
        await backend.release(["nowhere"])
        ear = Ear(backend)
        await backend.submit(cluster, one, Plan().bundle())
        await ear.until(Ended, one.id)
        await backend.cancel(one.id)
        await backend.submit(cluster, other, Plan().bundle())
        assert report_of(await ear.until(Ended, other.id))["status"] == "done"
        assert ear.about(one.id) == ["Started", "Ended"]
        assert await backend.owned("nothing") == set()

    async def test_release_ends_everything(
        self, backend: Backend, successor: Callable[[], Backend], alive: Callable[[], object]
    ) -> None:
        clusters = await clusters_of(backend, 2)
        ear = Ear(backend)
        attempts = [attempt(number, clusters[number % 2]) for number in range(1, 5)]
        for one in attempts:
            await backend.submit(one.cluster, one, Plan(gate=FOREVER).bundle())
        await ear.until(Started, attempts[0].id)
        await ear.until(Started, attempts[1].id)
        await ear.hang_up()
        await backend.release(clusters)
        assert not alive()

    async def test_releasing_one_cluster_leaves_the_others_alone(self, backend: Backend, gate: str) -> None:
        first, second = await clusters_of(backend, 2)
        ear = Ear(backend)
        one, other = attempt(1, first), attempt(2, second)
        await backend.submit(first, one, Plan(gate=FOREVER).bundle())
        await backend.submit(second, other, Plan(score=1.5, gate=gate).bundle())
        await ear.until(Started, one.id)
        await ear.until(Started, other.id)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await backend.release([first])
        assert judge(one, await ear.until(Ended, one.id), {}, "val_bpb").label is Label.CANCELLED
        assert ear.about(other.id) == ["Started"]
        open_gate(gate)
        assert report_of(await ear.until(Ended, other.id))["metrics"]["val_bpb"] == 1.5
