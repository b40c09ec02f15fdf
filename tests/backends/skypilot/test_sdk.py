"""SkyPilot's SDK as coroutines: what its errors mean, what its records say, and that the real one has all we use."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from controller.backends import Unreachable
from controller.backends.skypilot import sdk as ours
from controller.backends.skypilot.sdk import Gone, Record, Refused, Sdk, Silent, load
from tests.backends.skypilot.double import (
    ApiServerConnectionError,
    ChunkedEncodingError,
    ClusterDoesNotExist,
    ClusterNotUpError,
    CommandError,
    NotSupportedError,
    RequestCancelled,
    ResourcesUnavailableError,
    Sky,
    Task,
    When,
    World,
)

CALLS = ("launch", "exec", "status", "queue", "job_status", "tail_logs", "cancel", "down", "autostop", "get")
REAL = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # which importing the real one gives several of
ABOUT_SERVERS = ("api_status", "api_cancel", "enabled_clouds", "list_accelerators")


@REAL
def test_the_real_one_has_every_error_that_is_told_apart() -> None:
    exceptions = load().exceptions
    names = ours._AWAY | ours._SILENT | ours._GONE | {"ResourcesUnavailableError"}
    assert names and all(issubclass(getattr(exceptions, name), Exception) for name in names)
    double = (ApiServerConnectionError, ClusterDoesNotExist, ClusterNotUpError, CommandError, NotSupportedError)
    for error in (*double, RequestCancelled, ResourcesUnavailableError):
        bases = {base.__name__ for base in getattr(exceptions, error.__name__).__mro__}
        assert {base.__name__ for base in error.__mro__} <= bases, error


@REAL
def test_the_real_one_takes_what_its_double_does() -> None:
    sky = load()
    for name in (*CALLS, *ABOUT_SERVERS):
        taken = inspect.signature(getattr(sky.client.sdk, name)).parameters
        assert set(inspect.signature(getattr(Sky, name)).parameters) - {"self"} <= set(taken), name
    assert {mode.name for mode in sky.StatusRefreshMode} >= {mode.name for mode in Sky.StatusRefreshMode}
    assert {status.value for status in sky.JobStatus} >= {"PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"}
    assert {status.value for status in sky.JobStatus if status.is_terminal()} == {
        status for status in (one.value for one in sky.JobStatus) if ours.is_over(status)
    }
    assert sky.ClusterStatus.UP.value == "UP"
    known = {"name": "study.e0001.1", "run": "true", "resources": {"accelerators": {"H100": 1.0}}}
    misspelt, misnamed = {"nmae": "x"}, {"name": "a---b"}
    for kind in (sky.Task, Task):
        kind.from_yaml_config(dict(known)).validate_name()
        with pytest.raises(ValueError):
            kind.from_yaml_config(dict(misspelt))
        task = kind.from_yaml_config(dict(misnamed))
        with pytest.raises(ValueError):
            task.validate_name()
    ours._show_tracebacks()


def test_what_the_real_one_says_is_not_on_standard_output() -> None:
    says = "from controller.backends.skypilot import load; load(); import logging"
    says += "; logging.getLogger('sky').info('a local server is started')"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", says], capture_output=True, text=True, check=True)
    assert done.stdout == "" and "a local server is started" in done.stderr


@REAL
def test_an_error_of_the_real_one_leaves_tracebacks_as_they_are() -> None:
    with pytest.raises(Refused):
        Sdk(load()).task({"nmae": "x"})
    assert not hasattr(sys, "tracebacklimit")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ChunkedEncodingError("Connection broken"), Unreachable),
        (ConnectionResetError("reset"), Unreachable),
        (TimeoutError("timed out"), Unreachable),
        (ApiServerConnectionError("no server"), Unreachable),
        (RequestCancelled("by another process"), Unreachable),
        (RuntimeError("Failed to get request 1a2b: 404"), Unreachable),
        (CommandError("exit 255"), Silent),
        (ClusterDoesNotExist("x"), Gone),
        (ClusterNotUpError("x"), Gone),
        (ResourcesUnavailableError("no H100"), Refused),
        (NotSupportedError("no autostop"), Refused),
        (ValueError("no such thing"), Refused),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
async def test_an_error_is_what_can_be_done_about_it(world: World, error: Exception, kind: type[Exception]) -> None:
    world.fail("status", error, When.INSTEAD)
    with pytest.raises(kind) as caught:
        await Sdk(Sky(world)).clusters()
    assert type(caught.value) is kind
    assert str(error) in str(caught.value)
    if isinstance(caught.value, Refused):
        assert caught.value.lacking is isinstance(error, ResourcesUnavailableError)


async def test_an_error_of_a_kind_derived_from_a_known_one_is_of_that_kind(world: World) -> None:
    class KubeAPIUnreachableError(ResourcesUnavailableError):
        pass

    world.fail("status", KubeAPIUnreachableError("no API"), When.INSTEAD)
    with pytest.raises(Refused) as caught:
        await Sdk(Sky(world)).clusters()
    assert caught.value.lacking


async def test_what_an_error_says_is_one_line_and_short(world: World) -> None:
    world.fail("status", ValueError("\x1b[31mNo!\n\n" + "x" * 100_000), When.INSTEAD)
    with pytest.raises(Refused) as caught:
        await Sdk(Sky(world)).clusters()
    said = str(caught.value)
    assert len(said) <= ours.REASON_CHARACTERS and said.isprintable() and "No! xxx" in said


async def test_a_cluster_is_what_its_record_says(world: World) -> None:
    there = world.made("c", {"labels": {"a": "b"}, "infra": "aws/us-east-1"}, "H100-80GB", 8, nodes=2)
    (record,) = await Sdk(Sky(world)).clusters()
    assert record == Record(
        "c",
        is_up=False,
        accelerator="H100",
        count=8.0,
        since=int(there.launched_at),
        labels={"a": "b"},
        infra="aws/us-east-1",
        on_cloud="c-1a2b",
        cpus=4.0,
        dollars_an_hour=32.0,
        owner="me",
        named="H100-80GB",
    )
    assert await Sdk(Sky(world)).clusters(["other"]) == []


async def test_a_record_with_next_to_nothing_in_it_is_read() -> None:
    bare = {"name": "c", "status": "INIT", "launched_at": None, "handle": None, "last_event": "Waiting for a node"}
    broken = SimpleNamespace(accelerators=None, cpus="many", get_cost=lambda seconds: 1 / 0)
    half = {**bare, "handle": SimpleNamespace(launched_resources=broken), "init_status_reason": "No\nquota"}
    sky = SimpleNamespace(get=lambda found: found, status=lambda names, refresh: [bare, half])
    sky.StatusRefreshMode = Sky.StatusRefreshMode
    first, second = await Sdk(sky).clusters()
    assert first == Record("c", False, "CPU", 0.0, 0.0, why="Waiting for a node", named="CPU")
    assert second == Record("c", False, "CPU", 0.0, 0.0, why="No quota", named="CPU")


async def test_a_jobs_state_is_found_under_its_number_however_that_is_written() -> None:
    answers: list[Mapping[Any, Any]] = [{7: "RUNNING"}, {"7": "FAILED"}, {7: None}, {}]
    sky = SimpleNamespace(get=lambda found: found, job_status=lambda cluster, job_ids: answers.pop(0))
    states = [await Sdk(sky).state("c", 7) for _ in range(4)]
    assert states == ["RUNNING", "FAILED", None, None]


async def test_prices_are_those_of_one_accelerator_where_it_is_cheapest(world: World) -> None:
    offers = [(98.32, 8), (2.99, 1), (None, 1), (0.0, 1), (5.0, 0)]
    world.price_list = {
        "H100": [SimpleNamespace(price=price, accelerator_count=count) for price, count in offers],
        "H200": [SimpleNamespace(price=28.8, accelerator_count=8)],
        "L4": [SimpleNamespace(price=None, accelerator_count=1)],
    }
    prices = await Sdk(Sky(world)).prices(["H100", "H200", "L4", "T4"], ["aws"])
    assert prices == {"H100": 2.99, "H200": 3.6}


async def test_infras_are_those_that_are_enabled(world: World) -> None:
    world.enabled = ["kubernetes", "slurm"]
    assert await Sdk(Sky(world)).infras() == ["kubernetes", "slurm"]


async def test_taking_down_what_is_not_there_is_done(world: World) -> None:
    await Sdk(Sky(world)).down("nothing")
    assert world.downs == ["nothing"]
