"""What befell a cluster's pods becomes the label and the reason of what ran on it, through the real client."""

from __future__ import annotations

from typing import Any

import pytest

from controller.backends.skypilot.sdk import Record
from controller.backends.skypilot.trouble import Trouble, of_pods
from controller.records import Label
from tests.k8s.apiserver import World, container, event, pod
from tests.k8s.conftest import Serve

ON_CLOUD = "autoresearch-mar5-07-ab12"
HEAD = f"{ON_CLOUD}-head"


def record(infra: str = "kubernetes/here") -> Record:
    return Record("autoresearch-mar5-07", False, "H100", 1, 0.0, infra=infra, on_cloud=ON_CLOUD)


def ended(reason: str) -> dict[str, Any]:
    return {"containerStatuses": [container({"terminated": {"reason": reason, "exitCode": 137}})]}


@pytest.mark.parametrize(
    ("world", "label", "said"),
    [
        (
            World(pods=[pod(HEAD, "a", cluster=ON_CLOUD, phase="Failed", **ended("OOMKilled"))]),
            "out_of_memory",
            "memory",
        ),
        (World(events=[event(HEAD, "Preempted", "by a pod of more priority")]), "preempted", "of more priority"),
        (World(events=[event(HEAD, "Evicted", "the node was low on ephemeral-storage")]), "preempted", "ephemeral"),
        (
            World(
                pods=[pod(HEAD, cluster=ON_CLOUD, phase="Pending")], events=[event(HEAD, "FailedScheduling", "no GPU")]
            ),
            "lost",
            "no GPU",
        ),
    ],
)
async def test_its_label_and_its_reason(world: World, label: str, said: str, serve: Serve) -> None:
    serve(world)
    found = await of_pods(record())
    assert found is not None
    assert found.label is Label(label)
    assert said in found.sentence and HEAD in found.sentence


async def test_where_nothing_is_known_nothing_is_said(serve: Serve) -> None:
    serve(World())
    assert await of_pods(record()) is None
    assert await of_pods(record("kubernetes/another-context")) is None
    assert await of_pods(record("slurm/rig")) is None


async def test_a_server_that_refuses_leaves_it_at_what_is_known(serve: Serve) -> None:
    serve(World(refuses={"/api/v1/namespaces/default/pods": 403}))
    assert await of_pods(record()) is None


def test_a_label_says_whose_failure_it_is() -> None:
    assert Label.PREEMPTED.infrastructure and not Label.OUT_OF_MEMORY.infrastructure
    assert Trouble("x", Label.PREEMPTED).label.infrastructure
