"""The local backend: all that every backend does, and what only this one has to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.backends import Backend, Bundle, Ended, Fleet, Started
from controller.backends.local import Local
from controller.clock import RealClock
from controller.records import Attempt, Label, NothingRan
from controller.watcher import judge
from tests.backends.conformance import FOREVER, BackendConformance, clusters_of
from tests.backends.workshop import Ear, Plan, attempt, bundle_of, open_gate, report_of
from tests.processes import alive_in, alive_with, wait_for_the_end_of


@pytest.fixture
def open_backend(tmp_path: Path) -> Iterator[Callable[[], Local]]:
    """Opens the backend of this test's workspace, as each controller would; ends what a test leaves running."""
    opened = []

    def open_one() -> Local:
        opened.append(Local(tmp_path / ".autoresearch", Path(sys.executable), RealClock(), capacity=2))
        return opened[-1]

    yield open_one
    left = alive_in(tmp_path)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for_the_end_of(*left)
    # A controller that dies leaves its children to init; here they are ours to reap.
    for process in (process for backend in opened for process in backend._running.values()):
        if process.child:
            process.child.wait()


@pytest.fixture
def local(open_backend: Callable[[], Local]) -> Local:
    return open_backend()


class TestConformance(BackendConformance):
    @pytest.fixture
    def backend(self, local: Local) -> Backend:
        return local

    @pytest.fixture
    def successor(self, open_backend: Callable[[], Local]) -> Callable[[], Backend]:
        return open_backend


async def test_sixteen_slots_never_run_more_at_once_than_this_machine_can(local: Local, tmp_path: Path) -> None:
    clusters = await clusters_of(local, 16)
    diary = tmp_path / "diary"
    for number, cluster in enumerate(clusters, 1):
        await local.submit(cluster, attempt(number, cluster), Plan(diary=str(diary)).bundle())
    ear = Ear(local)
    for number, cluster in enumerate(clusters, 1):
        await ear.until(Ended, attempt(number, cluster).id)
    at_once = [0]
    for event in ear.heard:
        at_once.append(at_once[-1] + {Started: 1, Ended: -1}.get(type(event), 0))
    assert max(at_once) == 2
    written = diary.read_text()
    assert written.count("+") == written.count("-") == 16
    assert max(written[:end].count("+") - written[:end].count("-") for end in range(33)) <= 2


async def killed(local: Local, tmp_path: Path, helper: str = "") -> tuple[Attempt, Bundle]:
    """An attempt whose harness has just been killed, together with what it was sent."""
    (cluster,) = await clusters_of(local, 1)
    diary = tmp_path / "diary"
    os.mkfifo(diary)
    one, bundle = attempt(1, cluster), Plan(gate=FOREVER, diary=str(diary), helper=helper).bundle()
    await local.submit(cluster, one, bundle)
    ear = Ear(local)
    await ear.until(Started, one.id)
    assert await asyncio.to_thread(diary.read_text) == "+"
    await ear.hang_up()
    (harness,) = (pid for pid, command in alive_in(tmp_path).items() if "-m harness" in command)
    os.kill(harness, signal.SIGKILL)
    wait_for_the_end_of(harness)
    return one, bundle


async def test_an_attempt_whose_harness_is_killed_is_lost_and_leaves_nothing_running(
    local: Local, tmp_path: Path
) -> None:
    marker = os.urandom(8).hex()
    one, bundle = await killed(local, tmp_path, marker)
    assert len(alive_with(marker)) == 1
    ended = await Ear(local).until(Ended, one.id)
    assert ended.report is None
    assert judge(one, ended, bundle.job["hashes"], "val_bpb").label is Label.LOST
    assert alive_in(tmp_path) == {}
    assert alive_with(marker) == {}


async def test_what_a_killed_harness_left_running_is_ended_by_a_later_controller(
    local: Local, open_backend: Callable[[], Local], tmp_path: Path
) -> None:
    marker = os.urandom(8).hex()
    one, _ = await killed(local, tmp_path, marker)
    assert await open_backend().owned("study") == set()
    assert alive_with(marker) == {}
    assert sorted(path.name for path in (tmp_path / ".autoresearch/attempts" / one.id).iterdir()) == [
        "lock",
        "log.txt",
        "process.json",
    ]


@pytest.mark.parametrize("forged", ["[]", "{", '"done"', '{"status": "cancelled"}', '{"status": "done", "nonce": "0"}'])
async def test_a_result_that_its_trainer_wrote_does_not_count(local: Local, forged: str) -> None:
    (cluster,) = await clusters_of(local, 1)
    one = attempt(1, cluster)
    source = (
        f"import os, time\nopen('../result.json', 'w').write({forged!r})\nos.kill(os.getppid(), 9)\ntime.sleep(600)"
    )
    await local.submit(cluster, one, bundle_of(source))
    assert judge(one, await Ear(local).until(Ended, one.id), {}, "val_bpb").label is Label.LOST


@pytest.mark.parametrize("forged", ["[1]", "{}", '{"progress": "all", "slot": 7, "pid": 1}', "[" * 100_000])
async def test_what_a_trainer_writes_beside_its_bundle_harms_nobody(
    local: Local, open_backend: Callable[[], Local], tmp_path: Path, forged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.backends.local.PATIENCE_SECONDS", 0.0)
    (cluster,) = await clusters_of(local, 1)
    one = attempt(1, cluster)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    source = f"""
import time
for name in ("progress", "process"):
    open(f"../{{name}}.json", "w").write({forged!r})
open({str(fifo)!r}, "w").close()
time.sleep(600)
"""
    await local.submit(cluster, one, bundle_of(source))
    ear = Ear(local)
    await ear.until(Started, one.id)
    await asyncio.to_thread(fifo.read_text)
    later = open_backend()
    assert await later.owned("study") == {one.id}
    await later.cancel(one.id)
    assert judge(one, await Ear(later).until(Ended, one.id), {}, "val_bpb").label is Label.CANCELLED
    assert alive_in(tmp_path) == {}


async def test_an_attempt_of_a_lost_journal_makes_way_for_one_of_the_same_name(
    local: Local, open_backend: Callable[[], Local], tmp_path: Path
) -> None:
    clusters = await clusters_of(local, 2)
    over, live = (attempt(number, cluster) for number, cluster in enumerate(clusters, 1))
    await local.submit(over.cluster, over, Plan(prints=["first life"]).bundle())
    await local.submit(live.cluster, live, Plan(gate=FOREVER).bundle())
    ear = Ear(local)
    await ear.until(Ended, over.id)
    await ear.until(Started, live.id)
    await ear.hang_up()
    later = open_backend()
    await later.owned("study")
    for one in (over, live):
        again = replace(one, nonce="another")
        await later.submit(one.cluster, again, Plan(score=2.5).bundle())
        assert report_of(await Ear(later).until(Ended, one.id))["nonce"] == "another"
    assert alive_in(tmp_path) == {}
    log = tmp_path / ".autoresearch/attempts" / f"{over.id}.before-1" / "log.txt"
    assert "first life" in log.read_text()


async def test_what_was_half_laid_out_is_cleared_away(local: Local, tmp_path: Path) -> None:
    half = tmp_path / ".autoresearch/attempts/study.e0001.1.partial/bundle"
    half.mkdir(parents=True)
    assert await local.owned("study") == set()
    assert not half.parent.exists()


async def test_a_slot_with_an_adopted_attempt_takes_no_second_one(
    local: Local, open_backend: Callable[[], Local], tmp_path: Path
) -> None:
    first, second = await clusters_of(local, 2)
    one, other, another = attempt(1, first), attempt(2, first), attempt(3, second)
    gate = str(tmp_path / "gate")
    await local.submit(first, one, Plan(gate=gate).bundle())
    ear = Ear(local)
    await ear.until(Started, one.id)
    await ear.hang_up()
    later = open_backend()
    await later.owned("study")
    assert await clusters_of(later, 2) == [first, second]
    await later.submit(first, other, Plan().bundle())
    await later.submit(second, another, Plan().bundle())
    ear = Ear(later)
    await ear.until(Ended, another.id)
    assert ear.about(other.id) == []
    open_gate(gate)
    await ear.until(Ended, other.id)
    assert ear.about(one.id) == ["Started", "Ended"]


class TestWithGpus:
    """Two GPUs as far as anyone can tell: a program called nvidia-smi that names them."""

    @pytest.fixture
    def two_gpus(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Local:
        program = tmp_path / "bin/nvidia-smi"
        program.parent.mkdir()
        program.write_text(
            '#!/bin/sh\n[ "$1" = -i ] || printf "NVIDIA H100 80GB HBM3\\nNVIDIA H200\\n"\n'
            '[ "$2" = 0 ] && echo NVIDIA H100 80GB HBM3\n[ "$2" = 1 ] && echo NVIDIA H200\nexit 0\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        return Local(tmp_path / ".autoresearch", Path(sys.executable), RealClock())

    async def test_a_slot_has_the_accelerator_that_was_observed(self, two_gpus: Local) -> None:
        clusters = [cluster async for cluster in two_gpus.acquire(Fleet(3, Plan().bundle()))]
        assert [cluster.accelerator for cluster in clusters] == ["H100", "H200", "H100"]
        assert two_gpus.capacity == 2
        ear = Ear(two_gpus)
        for number, cluster in enumerate(clusters, 1):
            one = attempt(number, cluster.name)
            await two_gpus.submit(cluster.name, one, Plan().bundle())
            assert report_of(await ear.until(Ended, one.id))["accelerator"] == cluster.accelerator

    async def test_a_gpu_never_has_two_attempts_while_another_is_idle(self, two_gpus: Local, gate: str) -> None:
        clusters = await clusters_of(two_gpus, 4)
        attempts = [attempt(number, clusters[place]) for number, place in enumerate((0, 2, 1, 3), 1)]
        for one in attempts:
            await two_gpus.submit(one.cluster, one, Plan(gate=gate).bundle())
        ear = Ear(two_gpus)
        await ear.until(Started, attempts[0].id)
        await ear.until(Started, attempts[2].id)
        assert ear.about(attempts[1].id) == []
        open_gate(gate)
        for one in attempts:
            await ear.until(Ended, one.id)

    @pytest.fixture
    def gate(self, tmp_path: Path) -> str:
        return str(tmp_path / "gate")


async def test_neither_trainer_nor_harness_can_read_the_controllers_secrets(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "NVIDIA_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "sk-secret")
    (cluster,) = await clusters_of(local, 1)
    one = attempt(1, cluster)
    source = (
        "import os\nprint(dict(os.environ))\nprint(open(f'/proc/{os.getppid()}/environ').read())\nprint('val_bpb: 1')"
    )
    await local.submit(cluster, one, bundle_of(source))
    assert report_of(await Ear(local).until(Ended, one.id))["status"] == "done"
    log = await local.log(one.id)
    assert "PATH=" in log
    assert "secret" not in log.split("AUTORESEARCH")[0]


async def test_data_that_cannot_be_prepared_is_said(local: Local) -> None:
    setup = bundle_of("", ("prepare/__init__.py", ""), ("prepare/__main__.py", "print('one')\nraise OSError('no net')"))
    with pytest.raises(NothingRan, match=r"could not be prepared \(`python -m prepare`\): OSError: no net"):
        await anext(aiter(local.acquire(Fleet(1, Bundle(setup.archive, {**setup.job, "evaluated": True})))))
