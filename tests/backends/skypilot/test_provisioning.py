"""Clusters from being asked for to being given back, whatever SkyPilot, its server and other people do meanwhile."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest

from controller.backends import Awaited, Ended, Fleet, Vanished
from controller.backends.skypilot import SkyPilot
from controller.backends.skypilot.claims import LABEL, Claim
from controller.backends.skypilot.parcel import SCRIPTS
from controller.backends.skypilot.provisioning import _canary_of
from controller.records import NothingRan
from tests.backends.skypilot.double import (
    ApiServerConnectionError,
    ChunkedEncodingError,
    ClusterStatus,
    JobStatus,
    Machines,
    Sky,
    When,
    World,
)
from tests.backends.skypilot.staging import (
    RECIPE,
    Canaries,
    Follower,
    Opener,
    acquired,
    names,
    ready,
    report_at_once,
    until,
)
from tests.backends.workshop import Plan, attempt, bundle_of, report_of
from tests.processes import PATIENCE_SECONDS

ONE, TWO, THREE = (f"autoresearch-study-{number:02d}" for number in (1, 2, 3))


def accelerators(world: World) -> Counter[str]:
    return Counter(machines.accelerator for machines in world.clusters.values())


# What is asked for


async def test_a_launch_says_when_its_cluster_is_to_go_by_itself(
    world: World, open_backend: Opener, canaries: Canaries
) -> None:
    await acquired(open_backend(), 1)
    await acquired(open_backend("resources: {accelerators: H100, autostop: 2h}\nrun: x\n"), 2)
    assert [(launch.idle_minutes, launch.down) for launch in world.launches] == [(10, True), (120, True)]
    assert [machines.goes_down for machines in world.clusters.values()] == [True, True]
    assert open_backend().idle_seconds == 600


async def test_a_fleet_by_name_is_asked_for_by_name(world: World, open_backend: Opener, canaries: Canaries) -> None:
    backend = open_backend(fleet={"H100": 2, "H200": 1})
    assert len(await acquired(backend, 3)) == 3
    assert accelerators(world) == {"H100": 2, "H200": 1}
    gone = next(name for name, machines in world.clusters.items() if machines.accelerator == "H200")
    await backend.release([gone])
    assert len(await acquired(backend, 3)) == 3
    assert accelerators(world) == {"H100": 2, "H200": 1}


async def test_without_a_fleet_the_first_that_is_to_be_had_is_taken(
    world: World, backend: SkyPilot, canaries: Canaries
) -> None:
    world.stock = {"H100": 1, "H200": 2}
    assert Counter(cluster.accelerator for cluster in await acquired(backend, 3)) == {"H100": 1, "H200": 2}


async def test_a_cluster_costs_from_when_it_was_launched(world: World, backend: SkyPilot, canaries: Canaries) -> None:
    (cluster,) = await acquired(backend, 1)
    world.clusters[cluster.name].launched_at -= 3600
    (seen,) = await acquired(backend, 1)
    assert seen.billed_seconds is not None and 3600 <= seen.billed_seconds < 3700


async def test_all_of_them_carry_this_workspaces_label_and_those_of_the_recipe(
    world: World, open_backend: Opener, canaries: Canaries
) -> None:
    backend = open_backend("resources: {accelerators: H100, labels: {team: research}}\nrun: x\n")
    (cluster,) = await acquired(backend, 1)
    assert world.clusters[cluster.name].labels == {"team": "research", LABEL: backend._fleet.claims.owner}


# What is not to be had


async def test_fewer_come_where_the_stock_lacks_and_the_rest_once_it_does_not(
    world: World, backend: SkyPilot, canaries: Canaries
) -> None:
    world.stock = {"H100": 1, "H200": 1}
    assert len(await acquired(backend, 4)) == 2
    ear = Follower(backend)
    (awaited,) = await ear.next(Awaited)
    assert isinstance(awaited, Awaited) and "Failed to acquire resources" in awaited.reason
    assert set(world.clusters) == set(await up(backend))
    world.stock = {"H100": 1, "H200": 3}
    assert len(await acquired(backend, 4)) == 4


async def test_no_stock_at_all_is_no_reason_not_to_ask_again(
    world: World, backend: SkyPilot, canaries: Canaries
) -> None:
    world.stock = {}
    assert await acquired(backend, 2) == []
    assert world.clusters == {} and await up(backend) == []


async def test_what_skypilot_refuses_as_such_is_said(world: World, backend: SkyPilot) -> None:
    world.fail("launch", ValueError("No cloud access is set up.\nRun: sky check"), When.INSTEAD, times=2)
    with pytest.raises(NothingRan, match=r"No cloud access is set up\. Run: sky check"):
        await acquired(backend, 2)
    assert world.clusters == {} and world.calls["launch"] == 2


async def test_what_is_refused_for_some_is_none_of_the_others_matter(
    world: World, backend: SkyPilot, canaries: Canaries
) -> None:
    world.fail("launch", ValueError("Quota exceeded"), When.INSTEAD)
    assert len(await acquired(backend, 3)) == 2


async def test_a_recipe_that_skypilot_does_not_take_is_said(world: World, open_backend: Opener) -> None:
    backend = open_backend("resources: {acelerators: H100}\nrun: x\n")
    with pytest.raises(NothingRan, match=r"experiment.yaml is not a task .*'acelerators' was unexpected"):
        await acquired(backend, 1)
    assert world.calls["launch"] == 0


@pytest.mark.parametrize("study", ["a---b", "_nov21", "été"])
async def test_a_study_whose_jobs_skypilot_does_not_take_is_said_before_a_cluster_costs(
    world: World, backend: SkyPilot, study: str
) -> None:
    with pytest.raises(NothingRan, match=f"a study called {study}; choose another --tag"):
        await acquired(backend, 1, study)
    assert world.calls["launch"] == 0


async def test_it_is_told_why_clusters_do_not_come(
    world: World, backend: SkyPilot, canaries: Canaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.backends.skypilot.provisioning.LOOK_SECONDS", 0.01)
    world.hold("provision")
    asking = asyncio.ensure_future(acquired(backend, 2))
    await until(lambda: world.held("provision") == 2)
    for machines in world.clusters.values():
        machines.why = "Launching: waiting for a node"
    ear = Follower(backend)

    def told() -> bool:
        ear.take_in()
        return Awaited("2 coming up: Launching: waiting for a node") in ear.heard

    await until(told)
    world.let_go("provision")
    assert len(await asking) == 2
    ear.take_in()
    assert ear.heard[-1] == Awaited("")


# Canaries


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"metrics": {"val_bpb": 1.5}}, "val_bpb 1.5, where the others have 1.25"),
        ({"hashes": {"train": "", "fixed": ""}}, "does not say which code it ran"),
        ({"environment": {"python": "3.11.2", "packages": {"torch": "2.12.1", "numpy": "2.2.1"}}}, "torch 2.12.1"),
        ({"accelerator": "A100"}, "it has the accelerator A100, where H100 was said"),
        ({"status": "crash", "reason": "CUDA error: uncorrectable ECC"}, "ended as crash: CUDA error: uncorrectable"),
        ({"nonce": "0"}, "its canary's result is another's"),
    ],
    ids=["score", "code", "packages", "accelerator", "crash", "nonce"],
)
async def test_a_cluster_whose_canary_differs_is_set_aside_and_the_others_go_on(
    world: World, backend: SkyPilot, canaries: Canaries, changes: dict[str, object], difference: str
) -> None:
    assert names(await acquired(backend, 2)) == {ONE, TWO}
    canaries[THREE] = changes
    assert names(await acquired(backend, 4)) == {ONE, TWO, "autoresearch-study-04"}
    (vanished,) = await Follower(backend).next(Vanished)
    assert isinstance(vanished, Vanished) and vanished.cluster == THREE
    assert vanished.reason.startswith("set aside: ") and difference in vanished.reason
    assert world.downs == [THREE] and set(await up(backend)) == {ONE, TWO, "autoresearch-study-04"}


async def test_a_cluster_with_other_data_is_set_aside(world: World, backend: SkyPilot, canaries: Canaries) -> None:
    hashes = Plan().bundle().job["hashes"]
    canaries[TWO] = {"hashes": {**hashes, "data": "d2"}}
    assert names(await acquired(backend, 1)) == {ONE}
    assert names(await acquired(backend, 2)) == {ONE}
    (vanished,) = await Follower(backend).next(Vanished)
    assert vanished == Vanished(TWO, "set aside: the hash of its data is d2, where the others have d1")


async def test_what_canaries_reported_is_known_to_later_controllers(
    world: World, backend: SkyPilot, open_backend: Opener, canaries: Canaries
) -> None:
    await acquired(backend, 1)
    canaries[TWO] = {"metrics": {"val_bpb": 1.5}}
    assert names(await acquired(open_backend(), 2)) == {ONE}


async def test_a_set_up_that_fails_is_said_with_its_last_words(world: World, open_backend: Opener) -> None:
    backend = open_backend(RECIPE + "setup: |\n  echo no such package: torhc\n  exit 3\n")
    assert await acquired(backend, 1) == []
    (vanished,) = await Follower(backend).next(Vanished)
    assert vanished == Vanished(ONE, "set aside: its set-up failed: no such package: torhc")
    assert world.clusters == {}


async def test_a_set_up_runs_once_where_experiments_run_with_the_commits_files(
    world: World, open_backend: Opener, canaries: Canaries
) -> None:
    backend = open_backend(RECIPE + "setup: |\n  pwd >> $HOME/setups\n  test -f train.py\n")
    (cluster,) = await acquired(backend, 1)
    await acquired(backend, 1)
    there = world.clusters[cluster.name]
    assert (there.homes[0] / "setups").read_text() == f"{there.workdirs[0]}\n"


async def test_what_the_commits_own_ignore_files_say_leaves_nothing_out(
    world: World, open_backend: Opener, canaries: Canaries
) -> None:
    backend = open_backend(RECIPE + "setup: test -f data.bin\n")
    setup = bundle_of("", (".skyignore", "*\n"), (".gitignore", "*\n"), ("data.bin", "x"))
    assert names([cluster async for cluster in backend.acquire(Fleet(1, setup, "study"))]) == {ONE}


async def test_a_canary_that_is_lost_with_its_cluster_is_told_of(
    world: World, backend: SkyPilot, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    world.on_made = lambda machines: setattr(machines, "stuck", True)
    asking = asyncio.ensure_future(acquired(backend, 1))
    await until(lambda: world.clusters and world.clusters[ONE].jobs)
    world.lose(ONE, "silent")
    assert await asking == []
    assert "cluster went as it came up" in caplog.text and world.clusters == {}


async def test_real_canaries_pass_on_clusters_that_are_alike(world: World, backend: SkyPilot) -> None:
    assert len(await acquired(backend, 2)) == 2
    reports = [canary.report for canary in backend._fleet.claims.canaries("study")]
    assert [report["metrics"] for report in reports] == [{"val_bpb": 1.25}] * 2
    assert all(report["environment"]["gpu"] == "NVIDIA H100" for report in reports)


# Others


async def test_clusters_of_others_are_left_alone_whatever_they_are_called(
    world: World, backend: SkyPilot, open_backend: Opener, canaries: Canaries
) -> None:
    world.somebodys(ONE)
    world.somebodys(TWO, up=False)
    neighbour = open_backend(workspace="neighbour")
    theirs = names(await acquired(neighbour, 2))
    ours = names(await acquired(backend, 2))
    assert not ours & theirs and not {ONE, TWO} & (ours | theirs)
    assert set(await up(backend)) == ours and set(await up(neighbour)) == theirs
    everybodys = {ONE, TWO} | ours | theirs
    await backend.release(everybodys)
    assert set(world.downs) == ours
    assert set(world.clusters) == everybodys - ours


async def test_another_study_of_this_workspace_is_another(world: World, backend: SkyPilot, canaries: Canaries) -> None:
    one = names(await acquired(backend, 1, "nov21"))
    other = names(await acquired(backend, 1, "nov21-2"))
    assert (set(await up(backend, "nov21")), set(await up(backend, "nov21-2"))) == (one, other)


async def test_a_cluster_that_somebody_else_asked_for_first_is_not_used_and_not_taken_down(
    world: World, backend: SkyPilot, open_backend: Opener, canaries: Canaries
) -> None:
    neighbour = open_backend(workspace="neighbour")
    world.hold("launch")
    asking = [asyncio.ensure_future(acquired(one, 1)) for one in (neighbour, backend)]
    await until(lambda: world.held("launch") == 2)
    assert {launch.cluster for launch in world.requests.values() if launch.call == "launch"} == {ONE}
    world.let_go("launch")
    found = [names(clusters) for clusters in await asyncio.gather(*asking)]
    assert sorted(found, key=len) == [set(), {ONE}]
    assert world.downs == []
    left_out = backend if found[0] else neighbour
    assert await up(left_out) == []
    assert names(await acquired(left_out, 1)) == {TWO}


async def test_a_launch_that_is_refused_takes_nothing_of_others_down(
    world: World, backend: SkyPilot, canaries: Canaries
) -> None:
    world.hold("launch")
    world.fail("launch", ValueError(f"{ONE} is owned by somebody"), When.INSTEAD)
    asking = asyncio.ensure_future(acquired(backend, 1))
    await until(lambda: world.held("launch") == 1)
    world.somebodys(ONE)
    world.let_go("launch")
    with pytest.raises(NothingRan, match="owned by somebody"):
        await asking
    assert world.downs == [] and ONE in world.clusters


# Answers that don't come


@pytest.mark.parametrize("when", [When.BEFORE, When.UNHEARD, When.AFTER])
async def test_a_launch_that_is_not_answered_is_made_once(
    world: World, backend: SkyPilot, canaries: Canaries, when: When
) -> None:
    world.fail("launch", ChunkedEncodingError("Connection aborted."), when, times=2)
    assert names(await acquired(backend, 3)) == {ONE, TWO, THREE}
    assert set(world.clusters) == {ONE, TWO, THREE} and world.downs == []
    jobs = Counter(job.name for machines in world.clusters.values() for job in machines.jobs)
    assert jobs == {"canary": 3}


@pytest.mark.parametrize("call", ["status", "queue", "autostop"])
async def test_questions_that_are_not_answered_are_asked_again(
    world: World, open_backend: Opener, canaries: Canaries, call: str
) -> None:
    backend = open_backend(infras=("kubernetes", "slurm"))
    world.fail(call, ApiServerConnectionError("Could not connect to SkyPilot API server"), times=2)
    world.fail("launch", ChunkedEncodingError("Response ended prematurely"), When.AFTER)
    assert len(await acquired(backend, 2)) == 2
    assert len(world.clusters) == 2 and world.faults[call][0].left == 0


async def test_giving_back_is_asked_for_again_after_no_answer(
    world: World, backend: SkyPilot, canaries: Canaries
) -> None:
    (cluster,) = await acquired(backend, 1)
    world.fail("down", when=When.BEFORE)
    with pytest.raises(Exception, match="RemoteDisconnected"):
        await backend.release([cluster.name])
    await backend.release([cluster.name])
    assert world.clusters == {}
    await backend.release([cluster.name])


@pytest.mark.parametrize("place", ["launch", "provision"])
async def test_a_launch_that_never_ends_can_be_given_back_and_holds_up_no_other(
    world: World, backend: SkyPilot, canaries: Canaries, place: str
) -> None:
    assert names(await acquired(backend, 1)) == {ONE}
    world.hold(place)
    came: list[str] = []

    async def ask() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for cluster in backend.acquire(Fleet(2, Plan().bundle(), "study")):
                came.append(cluster.name)  # noqa: PERF401

    asking = asyncio.ensure_future(ask())
    await until(lambda: world.held(place) == 1)
    assert came == [ONE]
    assert set(await up(backend)) == {ONE, TWO}
    await backend.release([TWO])
    await asking
    world.let_go(place)
    assert set(await up(backend)) == {ONE} == set(world.clusters)
    assert not [request for request in world.unfinished() if request.name == "sky.launch"]


async def test_who_asks_no_longer_leaves_nothing_waiting(
    world: World, backend: SkyPilot, canaries: Canaries, tmp_path: Path
) -> None:
    world.hold("provision")
    asking = cast("AsyncGenerator[Any, None]", backend.acquire(Fleet(2, Plan().bundle(), "study")))
    first = asyncio.ensure_future(anext(asking))
    await until(lambda: world.held("provision") == 2)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert set(await up(backend)) == {ONE, TWO}
    await backend.release([ONE, TWO])
    assert world.clusters == {} and not world.unfinished()
    assert not list((tmp_path / "workspace/.autoresearch/parcels").iterdir())


async def test_few_calls_are_made_at_once(world: World, backend: SkyPilot) -> None:
    world.hold("status")
    asking = [asyncio.ensure_future(backend.up("study")) for _ in range(20)]
    await until(lambda: world.held("status") == 4)
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.calls["status"] == 4
    world.let_go("status")
    await asyncio.gather(*asking)
    assert world.calls["status"] == 20


# Controllers that died


@pytest.mark.parametrize(("labels_late", "interrupted"), [(False, False), (True, False), (False, True)])
async def test_a_cluster_that_a_dead_controller_was_launching_is_waited_for(
    world: World, backend: SkyPilot, open_backend: Opener, canaries: Canaries, labels_late: bool, interrupted: bool
) -> None:
    world.labels_late = labels_late
    world.hold("provision")
    forgotten = asyncio.ensure_future(acquired(backend, 1))
    await until(lambda: world.held("provision") == 1)
    if interrupted:
        forgotten.cancel()
    later = open_backend()
    assert await up(later) == [ONE]
    asking = asyncio.ensure_future(acquired(later, 1))
    await until(lambda: world.calls["api_status"] >= 2)
    world.let_go("provision")
    assert names(await asking) == {ONE}
    assert world.downs == [] and world.calls["launch"] == 1 and len(world.clusters[ONE].jobs) == 1
    await asyncio.gather(forgotten, return_exceptions=interrupted)


async def test_a_cluster_whose_canary_still_runs_is_waited_for(
    world: World, backend: SkyPilot, open_backend: Opener, canaries: Canaries
) -> None:
    world.on_made = lambda machines: setattr(machines, "stuck", True)
    forgotten = asyncio.ensure_future(acquired(backend, 1))
    await until(lambda: world.clusters and world.clusters[ONE].jobs)
    later = open_backend()
    asking = asyncio.ensure_future(acquired(later, 1))
    await until(lambda: world.clusters[ONE].jobs[0].readings == 2)
    world.unstick(ONE)
    assert names(await asking) == {ONE} and world.calls["launch"] == 1
    await forgotten


@pytest.mark.parametrize("status", [ClusterStatus.INIT, ClusterStatus.UP, ClusterStatus.STOPPED])
@pytest.mark.parametrize("labels_late", [False, True])
async def test_a_cluster_that_was_left_half_made_is_given_back_and_replaced(
    world: World, backend: SkyPilot, canaries: Canaries, status: ClusterStatus, labels_late: bool
) -> None:
    ready(world, backend, ONE)
    world.clusters[ONE].status = status
    backend._fleet.claims.put(Claim(ONE, "study", "nonce"))
    world.labels_late = labels_late
    assert await acquired(backend, 1) == []
    assert world.downs == [ONE]
    assert names(await acquired(backend, 1)) == {ONE}
    assert len(world.clusters[ONE].jobs) == 1


async def test_a_cluster_that_is_up_without_a_claim_is_not_trusted(
    world: World, backend: SkyPilot, canaries: Canaries
) -> None:
    ready(world, backend, ONE, TWO)
    backend._fleet.claims.drop(ONE)
    assert names(await acquired(backend, 2)) == {TWO}
    assert world.downs == [ONE]


async def test_a_name_whose_cluster_went_by_itself_is_nobodys(
    world: World, backend: SkyPilot, canaries: Canaries
) -> None:
    (cluster,) = await acquired(backend, 1)
    Sky(world).get(Sky(world).down(cluster.name))
    await backend.release([cluster.name])
    world.somebodys(cluster.name, up=False)
    assert await up(backend) == []


# Slurm


SBATCH = """#!/bin/bash
sleep 0.2
echo "$(basename "$0") $*" >> "$HOME/asked"
[ "$(basename "$0")" != sbatch ] || echo "$((100 + $(grep -c ^sbatch "$HOME/asked")));cluster"
"""


def with_slurm(machines: Machines) -> None:
    for name in ("sbatch", "scancel"):
        (machines.homes[0] / "bin" / name).write_text(SBATCH)
        (machines.homes[0] / "bin" / name).chmod(0o755)
    report_at_once(machines, {})


async def test_on_slurm_a_cluster_is_kept_from_the_first_by_what_runs_on_it(
    tmp_path: Path, open_backend: Opener
) -> None:
    world = World(tmp_path / "slurm", infra=("Slurm", "rig"))
    world.on_made = with_slurm
    recipe = "resources: {infra: slurm/rig, accelerators: H100}\nsetup: 'true'\nrun: python3 train.py\n"
    backend = open_backend(recipe, sky=Sky(world))
    try:
        (cluster,) = await acquired(backend, 1)
        await until(lambda: world.job(cluster.name, "canary").status is JobStatus.SUCCEEDED)
    finally:
        world.close()
    (launch,) = world.launches
    assert (launch.idle_minutes, launch.down, world.calls["autostop"]) == (None, False, 0)
    asked = (world.clusters[cluster.name].homes[0] / "asked").read_text().splitlines()
    assert [line.split()[0] for line in asked] == ["sbatch", "sbatch", "scancel"]
    begins = [line.partition("--begin=now+")[2].split()[0] for line in asked if line.startswith("sbatch")]
    assert begins == ["3600", f"{60 + 120 + 600}"]
    assert all("--wrap=scancel --full 4711" in line for line in asked if line.startswith("sbatch"))
    assert asked[-1] == "scancel --quiet 101"


async def test_where_it_is_not_known_to_be_slurm_the_cluster_is_told_once_it_is_not(
    world: World, open_backend: Opener, canaries: Canaries
) -> None:
    backend = open_backend(infras=("kubernetes", "slurm"))
    (cluster,) = await acquired(backend, 1)
    assert [(launch.idle_minutes, launch.down) for launch in world.launches] == [(None, False)]
    there = world.clusters[cluster.name]
    assert (there.idle_minutes, there.goes_down) == (10, True)


def keep(home: Path, seconds: str, **others: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin", **others}
    script = ["bash", str(SCRIPTS / "keep.sh"), seconds]
    return subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60)


class TestKeep:
    """keep.sh against a Slurm that runs at once what is to begin later."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        for name, text in {
            "sbatch": 'for last; do :; done\ncd "$HOME" && ${last#--wrap=}\necho 7',
            "scancel": 'echo "$@" >> "$HOME/ended"',
        }.items():
            (tmp_path / "bin").mkdir(exist_ok=True)
            (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
            (tmp_path / "bin" / name).chmod(0o755)
        return tmp_path

    def test_what_is_to_begin_later_ends_the_allocation(self, home: Path) -> None:
        assert keep(home, "5", SLURM_JOB_ID="4711", SLURM_JOB_PARTITION="main").returncode == 0
        assert (home / "ended").read_text() == "--full 4711\n"
        assert (home / ".autoresearch-deadline").read_text() == "7\n"

    def test_what_was_to_end_it_before_is_called_off(self, home: Path) -> None:
        for _ in range(2):
            keep(home, "5", SLURM_JOB_ID="4711", SLURM_JOB_PARTITION="main")
        assert (home / "ended").read_text().splitlines() == ["--full 4711", "--full 4711", "--quiet 7"]

    def test_the_deadline_before_stays_where_no_other_can_be_set(self, home: Path) -> None:
        keep(home, "5", SLURM_JOB_ID="4711", SLURM_JOB_PARTITION="main")
        (home / "bin/sbatch").write_text("#!/bin/bash\nexit 1\n")
        refused = keep(home, "5", SLURM_JOB_ID="4711", SLURM_JOB_PARTITION="main")
        assert refused.returncode != 0 and "takes no job" in refused.stdout
        assert (home / "ended").read_text() == "--full 4711\n"

    @pytest.mark.parametrize("environment", [{}, {"SLURM_JOB_ID": "4711", "SLURM_PROCID": "1"}])
    def test_elsewhere_it_does_nothing(self, home: Path, environment: dict[str, str]) -> None:
        assert keep(home, "5", **environment).returncode == 0
        assert not (home / "ended").exists()


# Secrets


async def test_secrets_reach_the_set_up_and_no_experiment(world: World, open_backend: Opener, tmp_path: Path) -> None:
    backend = open_backend(
        RECIPE + 'secrets: {HF_TOKEN: null}\nenvs: {GREETING: hello}\nsetup: echo "$GREETING $HF_TOKEN" > $HOME/got\n',
        environ={"HF_TOKEN": "hf-unspeakable", "OTHER": "other-unspeakable"},
    )
    (cluster,) = await acquired(backend, 1)
    there = world.clusters[cluster.name]
    assert (there.homes[0] / "got").read_text() == "hello hf-unspeakable\n"
    (there.homes[0] / "got").unlink()
    assert "unspeakable" not in backend._fleet.claims.log(cluster.name).read_text()
    await run_and_look(world, backend, cluster.name, tmp_path)


async def test_nothing_of_the_controllers_own_environment_travels(
    world: World, backend: SkyPilot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "HARMLESS"):
        monkeypatch.setenv(name, "unspeakable")
    (cluster,) = await acquired(backend, 1)
    assert all("unspeakable" not in str(launch.config) for launch in world.launches)
    await run_and_look(world, backend, cluster.name, tmp_path)


async def run_and_look(world: World, backend: SkyPilot, cluster: str, tmp_path: Path) -> None:
    """Run an attempt that prints all it can read of what its parents were given, and look for secrets everywhere."""
    source = """
import os
process = os.getpid()
while process > 1:
    try:
        print(open(f"/proc/{process}/environ").read().replace(chr(0), " "))
    except OSError:
        break
    stat = open(f"/proc/{process}/stat").read()
    process = int(stat.rpartition(")")[2].split()[1])
    if os.readlink(f"/proc/{process}/cwd") == os.environ["HERE"]:
        break
print("val_bpb: 1")
""".replace('os.environ["HERE"]', repr(str(Path.cwd())))
    one = attempt(1, cluster)
    await backend.submit(cluster, one, bundle_of(source))
    assert report_of(await Follower(backend).until(Ended, one.id))["status"] == "done"
    text = await backend.log(one.id)
    assert "SKYPILOT_NODE_RANK=0" in text and "unspeakable" not in text
    assert "unspeakable" not in str(world.executed)
    for place in (world.directory, tmp_path / "workspace"):
        sent = [path for path in place.rglob("*") if path.is_file()]
        assert sent and not [path for path in sent if b"unspeakable" in path.read_bytes()]


async def up(backend: SkyPilot, study: str = "study") -> list[str]:
    return [cluster.name for cluster in await backend.up(study)]


def test_two_clusters_of_one_name_have_canaries_of_two() -> None:
    """On Slurm the files of a lost cluster are still there when another takes its name."""
    first, second = (_canary_of(Claim("autoresearch-mar5-03", "mar5", nonce * 32)) for nonce in "ab")
    assert first != second and first.startswith("autoresearch-mar5-03-canary-")
