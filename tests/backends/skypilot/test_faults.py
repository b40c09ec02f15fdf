"""What can go wrong between a controller and its attempts on clusters, and what that comes to: one thing a test."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from controller.backends import Ended, Started, Unreachable, Vanished
from controller.backends.skypilot import Record, SkyPilot
from controller.backends.skypilot.sdk import Job
from controller.backends.skypilot.trouble import Trouble
from controller.harness.fingerprint import fingerprint
from controller.records import Attempt, Label, Outcome
from controller.watcher import judge
from tests.backends.skypilot.double import (
    ApiServerConnectionError,
    ChunkedEncodingError,
    CommandError,
    Cut,
    JobStatus,
    ResourcesMismatchError,
    Sky,
    Task,
    When,
    World,
)
from tests.backends.skypilot.staging import RECIPE, Follower, Opener, die, ready, until
from tests.backends.workshop import Plan, attempt, bundle_of, open_gate, report_of
from tests.processes import alive_in

A, B = "autoresearch-study-01", "autoresearch-study-02"


@pytest.fixture
def gate(tmp_path: Path) -> str:
    return str(tmp_path / "gate")


class Diary:
    """Where a train.py says when it begins and ends; its name is what plans hold."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    @property
    def text(self) -> str:
        return self._path.read_text() if self._path.exists() else ""


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


def outcome(one: Attempt, ended: Ended) -> Outcome:
    return judge(one, ended, {}, "val_bpb")


def leftovers(tmp_path: Path) -> list[Path]:
    """What was packed to be sent and not removed."""
    return list((tmp_path / "workspace/.autoresearch/parcels").iterdir())


# Clusters that are lost


@pytest.mark.parametrize("lingers", [False, True])
@pytest.mark.parametrize("how", ["break", "end", "silent"])
async def test_a_lost_cluster_ends_each_of_its_attempts_once_and_no_others(
    world: World, backend: SkyPilot, gate: str, how: str, lingers: bool, impatient: None
) -> None:
    ready(world, backend, A, B)
    world.lingers = lingers
    running, queued, other = attempt(1, A), attempt(2, A), attempt(3, B)
    for one in (running, queued, other):
        await backend.submit(one.cluster, one, Plan(gate=gate).bundle())
    ear = Follower(backend)
    await ear.until(Started, running.id)
    await ear.until(Started, other.id)
    world.lose(A, how)
    for one in (running, queued):
        found = outcome(one, await ear.until(Ended, one.id))
        assert found.label is Label.LOST and found.reason.startswith("its cluster is gone: ")
    assert [event.cluster for event in await ear.next(Vanished)] == [A]  # type: ignore[attr-defined]
    await until(lambda: A not in world.clusters)
    assert world.downs == ([A] if lingers else [])
    open_gate(gate)
    assert report_of(await ear.until(Ended, other.id))["status"] == "done"
    assert sorted(ear.ends()) == [running.id, queued.id, other.id]
    assert len(await ear.next(Vanished)) == 1
    assert {cluster.name for cluster in await backend.up("study")} == {B}


async def test_what_befell_a_cluster_is_said_of_its_attempts(
    world: World, open_backend: Opener, gate: str, impatient: None
) -> None:
    async def preempted(record: Record) -> Trouble | None:
        return Trouble(f"{record.name} made room for a queen", Label.PREEMPTED)

    backend = open_backend(inquire=preempted)
    ready(world, backend, A)
    one = attempt(1, A)
    await backend.submit(A, one, Plan(gate=gate).bundle())
    ear = Follower(backend)
    await ear.until(Started, one.id)
    world.lose(A, "end")
    found = outcome(one, await ear.until(Ended, one.id))
    assert (found.label, found.reason) == (Label.PREEMPTED, f"its cluster is gone: {A} made room for a queen")
    (vanished,) = await ear.next(Vanished)
    assert vanished == Vanished(A, f"{A} made room for a queen")


async def test_a_cluster_that_was_lost_as_it_idled_is_noticed_by_the_next_submission(
    world: World, backend: SkyPilot
) -> None:
    ready(world, backend, A)
    world.lose(A, "end")
    one, other = attempt(1, A), attempt(2, A)
    for each in (one, other):
        await backend.submit(A, each, Plan().bundle())
    ear = Follower(backend)
    assert outcome(one, await ear.until(Ended, one.id)).label is Label.LOST
    assert outcome(other, await ear.until(Ended, other.id)).label is Label.LOST
    assert ear.ends() == [one.id, other.id]
    assert len(await ear.next(Vanished)) == 1


async def test_a_cluster_that_is_only_silent_is_kept(world: World, backend: SkyPilot, diary: Diary) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    world.fail("exec", CommandError("ssh: connect to host: Connection timed out"), When.INSTEAD)
    with pytest.raises(Unreachable, match="timed out"):
        await backend.submit(A, one, Plan(diary=str(diary)).bundle())
    await backend.submit(A, one, Plan(diary=str(diary)).bundle())
    ear = Follower(backend)
    assert report_of(await ear.until(Ended, one.id))["status"] == "done"
    assert diary.text == "+-" and world.downs == [] and A in world.clusters
    assert not [event for event in ear.heard if isinstance(event, Vanished)]


async def test_cancelling_what_is_on_a_lost_cluster_ends_it(world: World, backend: SkyPilot, gate: str) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    await backend.submit(A, one, Plan(gate=gate).bundle())
    ear = Follower(backend)
    await ear.until(Started, one.id)
    world.lose(A, "silent")
    await backend.cancel(one.id)
    assert outcome(one, await ear.until(Ended, one.id)).label is Label.LOST
    assert ear.ends() == [one.id]


async def test_a_later_controller_does_without_what_is_on_a_lost_cluster(
    world: World, backend: SkyPilot, open_backend: Opener, gate: str
) -> None:
    ready(world, backend, A, B)
    one, other = attempt(1, A), attempt(2, B)
    for each in (one, other):
        await backend.submit(each.cluster, each, Plan(gate=gate).bundle())
    ear = Follower(backend)
    await ear.until(Started, other.id)
    die(backend)
    world.lose(A, "silent")
    later = open_backend()
    assert await later.owned("study") == {other.id}
    open_gate(gate)
    assert report_of(await Follower(later).until(Ended, other.id))["status"] == "done"


# Submissions


@pytest.mark.parametrize(
    ("when", "error"),
    [
        (When.BEFORE, ChunkedEncodingError("Connection aborted.")),
        (When.BEFORE, ApiServerConnectionError("Could not connect to SkyPilot API server")),
        (When.UNHEARD, ChunkedEncodingError("Connection aborted.")),
        (When.AFTER, ChunkedEncodingError("Response ended prematurely")),
        (When.AFTER, RuntimeError("Failed to get request 1a2b: 404 Not Found")),
        (When.INSTEAD, ApiServerConnectionError("Could not connect to SkyPilot API server")),
    ],
    ids=lambda value: value.name if isinstance(value, When) else type(value).__name__,
)
async def test_a_submission_that_is_not_answered_is_made_once(
    world: World, backend: SkyPilot, diary: Diary, tmp_path: Path, when: When, error: Exception
) -> None:
    ready(world, backend, A)
    one, bundle = attempt(1, A), Plan(diary=str(diary)).bundle()
    world.fail("exec", error, when)
    with pytest.raises(Unreachable):
        await backend.submit(A, one, bundle)
    await backend.submit(A, one, bundle)
    ear = Follower(backend)
    assert report_of(await ear.until(Ended, one.id))["nonce"] == one.nonce
    assert diary.text == "+-" and ear.about(one.id) == ["Started", "Ended"]
    assert len(world.clusters[A].jobs) == 1
    await backend.discard(one.id)
    assert leftovers(tmp_path) == []


async def test_a_submission_that_the_server_still_works_on_is_waited_for(
    world: World, backend: SkyPilot, diary: Diary
) -> None:
    ready(world, backend, A)
    one, bundle = attempt(1, A), Plan(diary=str(diary)).bundle()
    world.hold("exec")
    world.fail("exec", when=When.UNHEARD)
    with pytest.raises(Unreachable):
        await backend.submit(A, one, bundle)
    again = asyncio.ensure_future(backend.submit(A, one, bundle))
    await until(lambda: world.calls["api_status"] >= 3)
    assert not again.done() and world.calls["exec"] == 1
    world.let_go("exec")
    await again
    ear = Follower(backend)
    assert report_of(await ear.until(Ended, one.id))["status"] == "done"
    assert diary.text == "+-" and ear.about(one.id) == ["Started", "Ended"]
    assert len(world.clusters[A].jobs) == 1


async def test_what_a_server_has_forgotten_that_it_does_runs_once(
    world: World, backend: SkyPilot, diary: Diary
) -> None:
    ready(world, backend, A)
    one, bundle = attempt(1, A), Plan(diary=str(diary)).bundle()
    world.hold("exec")
    first = asyncio.ensure_future(backend.submit(A, one, bundle))
    await until(lambda: world.held("exec") == 1)
    world.forget_requests()
    with pytest.raises(Unreachable, match="Failed to get request"):
        await first
    second = asyncio.ensure_future(backend.submit(A, one, bundle))
    await until(lambda: world.held("exec") == 2)
    world.let_go("exec")
    await second
    ear = Follower(backend)
    assert report_of(await ear.until(Ended, one.id))["status"] == "done"
    assert [job.name for job in world.clusters[A].jobs] == [one.id] * 2
    assert diary.text == "+-" and ear.about(one.id) == ["Started", "Ended"]


async def test_what_is_submitted_twice_runs_once(world: World, backend: SkyPilot, diary: Diary) -> None:
    ready(world, backend, A)
    world.twice = True
    one, other = attempt(1, A), attempt(2, A)
    for each, score in ((one, 1.5), (other, 2.5)):
        await backend.submit(A, each, Plan(score=score, diary=str(diary)).bundle())
    ear = Follower(backend)
    for each, score in ((one, 1.5), (other, 2.5)):
        report = report_of(await ear.until(Ended, each.id))
        assert report["metrics"]["val_bpb"] == score and report["nonce"] == each.nonce
        assert ear.about(each.id) == ["Started", "Ended"]
    assert len(world.clusters[A].jobs) == 4 and diary.text == "+-+-"


async def test_of_what_was_submitted_twice_a_later_controller_adopts_what_runs(
    world: World, backend: SkyPilot, open_backend: Opener, gate: str, diary: Diary
) -> None:
    ready(world, backend, A)
    world.twice = True
    one = attempt(1, A)
    await backend.submit(A, one, Plan(gate=gate, diary=str(diary)).bundle())
    await until(lambda: diary.text)
    die(backend)
    later = open_backend()
    assert await later.owned("study") == {one.id}
    ear = Follower(later)
    await ear.until(Started, one.id)
    open_gate(gate)
    assert report_of(await ear.until(Ended, one.id))["status"] == "done"
    assert diary.text == "+-" and ear.ends() == [one.id]


async def test_a_submission_that_takes_long_holds_up_nothing_else(
    world: World, backend: SkyPilot, gate: str, diary: Diary
) -> None:
    ready(world, backend, A, B)
    one, slow = attempt(1, A), attempt(2, B)
    await backend.submit(A, one, Plan(gate=gate).bundle())
    world.hold("exec")
    submitting = asyncio.ensure_future(backend.submit(B, slow, Plan(diary=str(diary)).bundle()))
    await until(lambda: world.held("exec") == 1)
    assert {cluster.name for cluster in await backend.up("study")} == {A, B}
    open_gate(gate)
    ear = Follower(backend)
    assert report_of(await ear.until(Ended, one.id))["status"] == "done"
    assert not submitting.done()
    world.let_go("exec")
    await submitting
    assert report_of(await ear.until(Ended, slow.id))["status"] == "done"
    assert diary.text == "+-"


async def test_what_skypilot_refuses_is_lost_and_not_asked_for_again(world: World, backend: SkyPilot) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    world.fail("exec", ResourcesMismatchError("Requested H100:8, this is H100:1"), When.INSTEAD)
    for _ in range(2):
        await backend.submit(A, one, Plan().bundle())
    ear = Follower(backend)
    found = outcome(one, await ear.until(Ended, one.id))
    assert (found.label, found.reason) == (Label.LOST, "SkyPilot refused it: Requested H100:8, this is H100:1")
    assert world.calls["exec"] == 1 and ear.ends() == [one.id]


async def test_an_attempt_on_a_cluster_of_nobodys_is_lost(world: World, backend: SkyPilot) -> None:
    world.somebodys(B)
    for number, cluster in enumerate((A, B), 1):
        one = attempt(number, cluster)
        await backend.submit(cluster, one, Plan().bundle())
        assert outcome(one, await Follower(backend).until(Ended, one.id)).label is Label.LOST
    assert world.calls["exec"] == 0 and world.downs == []


async def test_a_job_that_never_starts_can_be_cancelled(world: World, backend: SkyPilot) -> None:
    ready(world, backend, A)
    world.clusters[A].stuck = True
    stuck, other = attempt(1, A), attempt(2, A)
    for one in (stuck, other):
        await backend.submit(A, one, Plan().bundle())
    ear = Follower(backend)
    await backend.cancel(stuck.id)
    assert outcome(stuck, await ear.until(Ended, stuck.id)).label is Label.CANCELLED
    assert ear.about(stuck.id) == ["Ended"] and ear.about(other.id) == []
    world.unstick(A)
    assert report_of(await ear.until(Ended, other.id))["status"] == "done"
    assert sorted(ear.ends()) == [stuck.id, other.id]


async def test_an_attempt_is_followed_though_the_one_before_it_has_only_just_ended(
    world: World, backend: SkyPilot
) -> None:
    ready(world, backend, A)

    async def nothing() -> None:
        pass

    backend._workers[A] = asyncio.ensure_future(nothing())  # one that has ended, of which nobody was told yet
    await backend._workers[A]
    one = attempt(1, A)
    await backend.submit(A, one, Plan().bundle())
    assert report_of(await Follower(backend).until(Ended, one.id))["status"] == "done"


# Logs


@pytest.mark.parametrize("how", ["break", "end"])
async def test_a_stream_that_breaks_is_taken_up_again(world: World, backend: SkyPilot, gate: str, how: str) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    world.cuts = [Cut("", how), Cut("Job started", how), Cut("| first", how), Cut("| second", how)]
    world.fail("tail_logs", times=1)
    await backend.submit(A, one, Plan(gate=gate, prints=["first", "second", "third"]).bundle())
    await until(lambda: not world.cuts)
    open_gate(gate)
    ear = Follower(backend)
    assert report_of(await ear.until(Ended, one.id))["status"] == "done"
    lines = (await backend.log(one.id)).splitlines()
    assert lines[:-1] == ["| first", "| second", "| third", "| val_bpb: 1.25"]
    assert ear.about(one.id) == ["Started", "Ended"]


async def test_a_stream_that_falls_silent_for_ever_is_read_again_once_its_job_is_over(
    world: World, backend: SkyPilot, gate: str, impatient: None
) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    world.cuts = [Cut("| first", "silent")]
    await backend.submit(A, one, Plan(gate=gate, prints=["first", "second"]).bundle())
    ear = Follower(backend)
    await ear.until(Started, one.id)
    open_gate(gate)
    assert report_of(await ear.until(Ended, one.id))["status"] == "done"
    lines = (await backend.log(one.id)).splitlines()
    assert lines[:-1] == ["| first", "| second", "| val_bpb: 1.25"]


async def test_a_stream_that_ends_just_before_its_job_does_is_read_again(
    world: World, backend: SkyPilot, gate: str
) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    world.cuts = [Cut("| first", "end")]
    world.hold("job_status")
    await backend.submit(A, one, Plan(gate=gate, prints=["first"]).bundle())
    await until(lambda: world.held("job_status"))
    open_gate(gate)
    await until(lambda: world.job(A, one.id).status is JobStatus.SUCCEEDED)
    world.let_go("job_status")
    assert report_of(await Follower(backend).until(Ended, one.id))["status"] == "done"


async def test_a_server_that_is_away_while_an_attempt_runs_is_waited_for_and_told_of(
    world: World, backend: SkyPilot, gate: str
) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    world.cuts = [Cut("| first", "break", times=3)]
    world.fail("job_status", times=3)
    await backend.submit(A, one, Plan(gate=gate, prints=["first"]).bundle())
    ear = Follower(backend)
    await until(lambda: world.calls["job_status"] >= 3)
    open_gate(gate)
    assert report_of(await ear.until(Ended, one.id))["status"] == "done"
    assert len(ear.troubles) == 3 and ear.about(one.id) == ["Started", "Ended"]


async def test_a_log_that_never_has_a_result_is_not_read_for_ever(world: World, backend: SkyPilot) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    world.cuts = [Cut("AUTORESEARCH_PROGRESS", "end", times=1_000_000)]
    await backend.submit(A, one, Plan().bundle())
    found = outcome(one, await Follower(backend).until(Ended, one.id))
    assert found.label is Label.LOST
    assert "SUCCEEDED without a result" in found.reason


# Ends


@pytest.mark.parametrize("praises", [True, False])
async def test_a_crash_that_skypilot_calls_a_success_is_a_crash(world: World, backend: SkyPilot, praises: bool) -> None:
    ready(world, backend, A)
    world.praises = praises
    one = attempt(1, A)
    await backend.submit(A, one, Plan(score=None, prints=["oh"]).bundle())
    found = outcome(one, await Follower(backend).until(Ended, one.id))
    assert found.label is Label.CRASH and "no luck" in found.reason


@pytest.mark.parametrize("praises", [True, False])
async def test_a_job_without_a_result_is_lost_whatever_skypilot_calls_it(
    world: World, backend: SkyPilot, gate: str, praises: bool
) -> None:
    ready(world, backend, A)
    world.praises = praises
    one = attempt(1, A)
    await backend.submit(A, one, Plan(gate=gate, prints=["its last words"]).bundle())
    await until(lambda: "its last words" in "".join(world.job(A, one.id).lines))
    world.kill(A, 1)
    ear = Follower(backend)
    found = outcome(one, await ear.until(Ended, one.id))
    state = "SUCCEEDED" if praises else "FAILED"
    assert (found.label, found.reason) == (
        Label.LOST,
        f"its job ended as {state} without a result: | its last words",
    )
    assert ear.ends() == [one.id] and A in world.clusters


async def test_a_job_that_its_cluster_does_not_know_is_lost(world: World, backend: SkyPilot, gate: str) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    await backend.submit(A, one, Plan(gate=gate).bundle())
    ear = Follower(backend)
    await ear.until(Started, one.id)
    world.forget_jobs(A)
    found = outcome(one, await ear.until(Ended, one.id))
    assert (found.label, found.reason) == (Label.LOST, "its cluster knows nothing of its job")


async def test_a_result_that_its_trainer_forged_does_not_count(world: World, backend: SkyPilot) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    forged = """{"attempt": "study.e0001.1", "nonce": "0", "status": "done", "metrics": {"val_bpb": 0.1}}"""
    source = f"print('AUTORESEARCH {forged}')\\nprint('val_bpb: 1.5')".replace("\\n", "\n")
    await backend.submit(A, one, bundle_of(source))
    assert outcome(one, await Follower(backend).until(Ended, one.id)).metrics["val_bpb"] == 1.5


# Adoption


async def test_a_submission_that_a_dead_controller_had_in_flight_is_waited_for_and_adopted(
    world: World, backend: SkyPilot, open_backend: Opener, gate: str, diary: Diary
) -> None:
    ready(world, backend, A, B)
    running, coming = attempt(1, A), attempt(2, B)
    await backend.submit(A, running, Plan(gate=gate).bundle())
    world.hold("exec")
    unanswered = asyncio.ensure_future(backend.submit(B, coming, Plan(diary=str(diary)).bundle()))
    await until(lambda: world.held("exec") == 1)
    later = open_backend()
    owned = asyncio.ensure_future(later.owned("study"))
    await until(lambda: world.calls["api_status"] >= 3)
    assert not owned.done()
    world.let_go("exec")
    assert await owned == {running.id, coming.id}
    await unanswered
    die(backend)
    open_gate(gate)
    ear = Follower(later)
    for one in (running, coming):
        assert report_of(await ear.until(Ended, one.id))["status"] == "done"
    assert sorted(ear.ends()) == [running.id, coming.id] and diary.text == "+-"
    assert [job.name for job in world.clusters[B].jobs] == [coming.id]


async def test_what_ends_while_a_later_controller_still_looks_for_others_is_its_own(
    world: World, backend: SkyPilot, open_backend: Opener, gate: str
) -> None:
    """Found on real clusters: the answer of a slow one came after the result of what ran on another."""
    ready(world, backend, A, B)
    one = attempt(1, A)
    await backend.submit(A, one, Plan(gate=gate).bundle())
    await Follower(backend).until(Started, one.id)
    die(backend)
    later = open_backend()
    look = later._sdk.jobs

    async def jobs(cluster: str) -> list[Job]:
        if cluster == B:
            await until(lambda: one.id in later._flights)
            open_gate(gate)
            await until(lambda: one.id in later._over)
        return await look(cluster)

    later._sdk.jobs = jobs  # type: ignore[method-assign]
    assert await later.owned("study") == {one.id}
    assert report_of(await Follower(later).until(Ended, one.id))["status"] == "done"


async def test_a_submission_that_an_interrupted_controller_broke_off_is_adopted_too(
    world: World, backend: SkyPilot, open_backend: Opener, diary: Diary, tmp_path: Path
) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    world.hold("exec")
    submitting = asyncio.ensure_future(backend.submit(A, one, Plan(diary=str(diary)).bundle()))
    await until(lambda: world.held("exec") == 1)
    submitting.cancel()
    await asyncio.gather(submitting, return_exceptions=True)
    world.let_go("exec")
    later = open_backend()
    assert await later.owned("study") == {one.id}
    assert report_of(await Follower(later).until(Ended, one.id))["status"] == "done"
    assert diary.text == "+-"
    await later.discard(one.id)
    assert leftovers(tmp_path) == []


async def test_a_cluster_that_is_still_launched_keeps_no_controller_from_adopting(
    world: World, backend: SkyPilot, open_backend: Opener, gate: str
) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    await backend.submit(A, one, Plan(gate=gate).bundle())
    world.hold("provision")
    world.hold("launch")
    for name, place in (("autoresearch-study-02", "launch"), ("autoresearch-study-03", "provision")):
        Sky(world).launch(Task({"name": "canary"}), cluster_name=name)
        if place == "launch":
            await until(lambda: world.held("launch") == 1)
            world.let_go("launch")
    await until(lambda: world.held("provision") == 2)
    die(backend)
    assert await open_backend().owned("study") == {one.id}


# Files


async def test_ten_attempts_in_a_row_each_run_their_own_code_however_alike_their_files_are(
    world: World, open_backend: Opener
) -> None:
    class Dated(Sky):
        """All files are of one second, as those of attempts that are queued in a row are."""

        def exec(self, task: Task, cluster_name: str | None = None) -> str:
            for path in Path(task.config["workdir"]).rglob("*"):
                os.utime(path, (1_000_000_000, 1_000_000_000))
            return super().exec(task, cluster_name)

    backend = open_backend(sky=Dated(world))
    ready(world, backend, A)
    bundles = [bundle_of(f"print('val_bpb: 1.{number}')") for number in range(10, 20)]
    assert len({len(bundle.archive) for bundle in bundles}) == 1
    for number, bundle in enumerate(bundles):
        await backend.submit(A, attempt(number, A), bundle)
    ear = Follower(backend)
    for number, bundle in enumerate(bundles):
        report = report_of(await ear.until(Ended, attempt(number, A).id))
        assert report["hashes"]["train"] == bundle.job["hashes"]["train"]
        assert report["metrics"]["val_bpb"] == float(f"1.{10 + number}")
    assert len({bundle.job["hashes"]["train"] for bundle in bundles}) == 10


async def test_there_is_a_trap_in_which_a_path_that_is_used_twice_is_caught(world: World, tmp_path: Path) -> None:
    there = world.somebodys("trap")
    for text in ("0.04", "0.05", "0.050"):
        file = tmp_path / "workdir/train.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        os.utime(file, (1_000_000_000, 1_000_000_000))
        sky = Sky(world)
        sky.get(sky.exec(Task({"name": "x", "workdir": str(file.parent)}), cluster_name="trap"))
        expected = {"0.04": "0.04", "0.05": "0.04", "0.050": "0.050"}[text]
        assert (there.workdirs[0] / "train.py").read_text() == expected


async def test_an_attempt_leaves_little_behind(world: World, backend: SkyPilot, tmp_path: Path) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    await backend.submit(A, one, Plan(prints=["first"]).bundle())
    assert report_of(await Follower(backend).until(Ended, one.id))["status"] == "done"
    await until(lambda: world.job(A, one.id).status is JobStatus.SUCCEEDED)
    directory = world.clusters[A].workdirs[0] / "autoresearch-attempts" / one.id
    assert {path.name for path in directory.iterdir()} == {
        "begun-0",
        "bundle.tar",
        "keep.sh",
        "result-line",
        "run.sh",
        "start.sh",
    }
    assert leftovers(tmp_path) == []
    assert alive_in(tmp_path) == {}


async def test_on_a_cluster_without_accelerators_attempts_wait_for_each_other_too(
    world: World, open_backend: Opener, gate: str, tmp_path: Path
) -> None:
    backend = open_backend("resources: {cpus: 4}\nrun: python3 train.py\n")
    ready(world, backend, A, B)
    world.clusters[A].accelerator, world.clusters[A].count = "CPU", 0
    one, other, elsewhere = attempt(1, A), attempt(2, A), attempt(3, B)
    diaries = [tmp_path / "one", tmp_path / "other"]
    await backend.submit(A, one, Plan(gate=gate, diary=str(diaries[0])).bundle())
    await until(diaries[0].exists)
    await backend.submit(A, other, Plan(diary=str(diaries[1])).bundle())
    await until(lambda: world.job(A, other.id).status is JobStatus.RUNNING)
    assert world.job(A, one.id).status is JobStatus.RUNNING
    ear = Follower(backend)
    await backend.submit(B, elsewhere, Plan().bundle())
    await ear.until(Ended, elsewhere.id)  # The other has had as much time.
    assert ear.about(one.id) == ["Started"] and not diaries[1].exists()
    open_gate(gate)
    for each in (one, other):
        assert report_of(await ear.until(Ended, each.id))["status"] == "done"


async def test_a_cluster_is_asked_for_what_skypilot_calls_its_accelerator(world: World, backend: SkyPilot) -> None:
    ready(world, backend, A)
    world.clusters[A].accelerator = "H100-80GB"
    one = attempt(1, A)
    await backend.submit(A, one, Plan().bundle())
    assert report_of(await Follower(backend).until(Ended, one.id))["status"] == "done"


async def test_of_an_experiment_on_several_machines_the_first_is_listened_to(
    world: World, open_backend: Opener
) -> None:
    recipe = "num_nodes: 2\n" + RECIPE
    backend = open_backend(recipe)
    source = """
import os, sys
if os.environ["SKYPILOT_NODE_RANK"] != "0":
    print('AUTORESEARCH {"status": "done", "attempt": "study.e0001.1"}')
    print('\\r(head, rank=0, pid=1) AUTORESEARCH {"status": "done"}')
print("val_bpb: 1.5")
"""
    ready(world, backend, A)
    world.clusters[A].nodes = 2
    (world.clusters[A].workdirs[1]).mkdir(parents=True)
    one = attempt(1, A)
    await backend.submit(A, one, bundle_of(source))
    found = outcome(one, await Follower(backend).until(Ended, one.id))
    assert found.metrics == {"val_bpb": 1.5}, (found, world.job(A, one.id).lines)
    assert (await backend.log(one.id)).splitlines()[:-1] == ["| val_bpb: 1.5"]
    assert "rank=1" in "".join(world.job(A, one.id).lines)


# The log that is kept


async def test_the_log_has_the_harness_lines_and_no_others(world: World, backend: SkyPilot) -> None:
    ready(world, backend, A)
    one = attempt(1, A)
    await backend.submit(A, one, Plan(prints=["(setup pid=1) x", "├── Waiting", "\x1b[31mred", "a\rb"]).bundle())
    await Follower(backend).until(Ended, one.id)
    lines = (await backend.log(one.id)).splitlines()
    assert lines[:-1] == ["| (setup pid=1) x", "| ├── Waiting", "| red", "| a", "| b", "| val_bpb: 1.25"]
    assert lines[-1].startswith("AUTORESEARCH {")


async def test_the_log_is_bounded_and_the_result_is_heard_all_the_same(
    world: World, backend: SkyPilot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.backends.skypilot.stream.LOG_CHARACTERS", 10_000)
    ready(world, backend, A)
    one = attempt(1, A)
    await backend.submit(A, one, bundle_of("for _ in range(1000):\n    print('x' * 100)\nprint('val_bpb: 1')"))
    assert report_of(await Follower(backend).until(Ended, one.id))["metrics"] == {"val_bpb": 1}
    assert 10_000 <= len(await backend.log(one.id)) <= 10_103


def test_the_hashes_of_these_tests_are_the_harness_own() -> None:
    bundle: Any = bundle_of("print('val_bpb: 1')")
    assert bundle.job["hashes"] == fingerprint([("train.py", b"print('val_bpb: 1')")], "train.py")
