"""The SkyPilot backend does what every backend does, on real clusters; and what only a real one can show."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from controller.backends import Backend, Ended
from controller.backends.skypilot import Plan, Sdk, SkyPilot, load, read
from controller.clock import RealClock
from tests.backends import conformance, workshop
from tests.backends.conformance import BackendConformance, clusters_of
from tests.backends.workshop import Ear, attempt, bundle_of, report_of
from tests.processes import wait_for_the_end_of

EXPERIMENTS = itertools.count(0, 20)

# Clusters, nodes and this all share the cores of one machine.
workshop.PATIENCE_SECONDS = conformance.PATIENCE_SECONDS = 240.0

TASK = """
resources: {infra: slurm, accelerators: {H100: 1, H200: 1}, cpus: 1+, memory: 1+}
run: python3 train.py
"""


@pytest.fixture(scope="module")
def place(rig: Path) -> Path:
    """The controller's own folder, which lives as long as the clusters do."""
    # What runs on a node, as another user, looks for gates and writes diaries below.
    directory = Path(tempfile.mkdtemp(dir=rig / "run", prefix="conformance-"))
    directory.chmod(0o755)
    (directory / "experiment.yaml").write_text(TASK)
    return directory


@pytest.fixture
def tmp_path(place: Path) -> Path:
    """A folder of the test's own that nodes can write to."""
    folder = place / f"test-{next(EXPERIMENTS):04d}"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def successor(place: Path) -> Callable[[], Backend]:
    plan = Plan(read(place, os.environ))
    return lambda: SkyPilot(Sdk(load()), plan, place / ".autoresearch", RealClock(), {})


@pytest.fixture
async def backend(successor: Callable[[], Backend]) -> AsyncIterator[Backend]:
    """Finds up what the tests before have left up; nothing of theirs runs there any more once it is done."""
    workshop.begin_at(next(EXPERIMENTS))
    made = successor()
    yield made
    if _trainers():
        later = successor()
        for left in await later.owned("study"):
            await later.cancel(left)
    for number in range(20):
        await made.discard(attempt(number, "").id)


@pytest.fixture(scope="module", autouse=True)
def _taken_down(place: Path) -> Iterator[None]:
    yield
    asyncio.run(_release_all(place))


async def _release_all(place: Path) -> None:
    made = SkyPilot(Sdk(load()), Plan(read(place, os.environ)), place / ".autoresearch", RealClock(), {})
    await made.release([cluster.name for cluster in await made.up("study")])


class TestConformance(BackendConformance):
    many = 2
    rounds = 2

    @pytest.fixture
    def backend(self, backend: Backend) -> Backend:
        return backend

    @pytest.fixture
    def successor(self, successor: Callable[[], Backend]) -> Callable[[], Backend]:
        return successor

    @pytest.fixture
    async def nothing_up(self, place: Path) -> None:
        await _release_all(place)

    @pytest.fixture
    def alive(self) -> Callable[[], object]:
        """Trainers of nodes are seen here, as the rig's processes."""
        return lambda: _trainers()

    @pytest.fixture
    def settle(self) -> Callable[[], Awaitable[None]]:
        return lambda: asyncio.to_thread(wait_for_the_end_of, *_trainers())


def _trainers() -> list[int]:
    """The processes that run a train.py on a node."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
            where = (process / "cwd").readlink()
        except OSError:
            continue
        if b"train.py" in command and "autoresearch-attempts" in str(where):
            found.append(int(process.name))
    return found


async def test_ten_attempts_queued_on_one_cluster_each_run_their_own_code(backend: Backend) -> None:
    """Files of one size and one second of modification: what SkyPilot's own working directory would mix up."""
    (cluster,) = await clusters_of(backend, 1)
    bundles = [bundle_of(f"print('val_bpb:', 1.0{number})\n") for number in range(10)]
    attempts = [attempt(number, cluster) for number in range(10)]
    assert len({len(bundle.archive) for bundle in bundles}) == 1
    await asyncio.gather(*(backend.submit(cluster, *both) for both in zip(attempts, bundles, strict=True)))
    ear = Ear(backend)
    for number, (one, bundle) in enumerate(zip(attempts, bundles, strict=True)):
        report = report_of(await ear.until(Ended, one.id))
        assert report["hashes"] == dict(bundle.job["hashes"])
        assert report["metrics"]["val_bpb"] == 1.0 + number / 100
