"""Why a cluster's pods don't run: what is said, and of which kind, through the real client."""

from __future__ import annotations

from typing import Any

import pytest

from controller.k8s import Kind, NoAnswer, PodTrouble, reasons
from tests.k8s.apiserver import World, container, event, pod
from tests.k8s.conftest import Serve

CLUSTER = "study-07-ab12"
HEAD = f"{CLUSTER}-head"
EVENTS = "/api/v1/namespaces/default/events"
PODS = "/api/v1/namespaces/default/pods"
NO_GPU = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu. preemption: not eligible"
OOM = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}


def head(on: str | None = "a", **options: Any) -> dict[str, Any]:
    return pod(HEAD, on, 1, cluster=CLUSTER, **options)


def scheduled(status: str, **more: str) -> list[dict[str, str]]:
    return [{"type": "PodScheduled", "status": status, **more}]


def disrupted(reason: str, message: str = "") -> list[dict[str, str]]:
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}]


def found(serve: Serve, *pods: dict[str, Any], events: list[dict[str, Any]] | None = None) -> list[PodTrouble]:
    serve(World(pods=pods, events=events or []))
    return reasons("here", "default", CLUSTER)


def test_a_pod_that_runs_is_no_trouble(serve: Serve) -> None:
    before = [event(HEAD, "FailedScheduling", NO_GPU), event(HEAD, "Scheduled", at=1, kind="Normal")]
    assert found(serve, head(conditions=scheduled("True")), events=before) == []


IN_STATUS = [
    (
        head(None, phase="Pending", conditions=scheduled("False", reason="Unschedulable", message=NO_GPU)),
        Kind.PENDING,
        f"pod {HEAD} is pending: {NO_GPU}",
    ),
    (
        head(None, phase="Pending", conditions=scheduled("False", reason="SchedulingGated")),
        Kind.PENDING,
        f"pod {HEAD} is pending: SchedulingGated",
    ),
    (
        head(phase="Pending", containerStatuses=[container({"waiting": {"reason": "ContainerCreating"}})]),
        Kind.PENDING,
        f"pod {HEAD} is pending: its containers are being created",
    ),
    (head(None, phase="Pending"), Kind.PENDING, f"pod {HEAD} is pending: it has no node yet"),
    (
        head(phase="Failed", reason="Evicted", message="The node was low on resource: ephemeral-storage."),
        Kind.EVICTED,
        f"pod {HEAD} was evicted: The node was low on resource: ephemeral-storage.",
    ),
    (
        head(
            phase="Failed",
            reason="Evicted",
            message="The node was low on resource: memory.",
            conditions=disrupted("TerminationByKubelet", "The node was low on resource: memory."),
        ),
        Kind.EVICTED,
        f"pod {HEAD} was evicted: The node was low on resource: memory.",
    ),
    (
        head(conditions=disrupted("EvictionByEvictionAPI", "Eviction API: evicting")),
        Kind.EVICTED,
        f"pod {HEAD} was evicted: EvictionByEvictionAPI: Eviction API: evicting",
    ),
    (
        head(conditions=disrupted("PreemptionByScheduler", "default-scheduler: preempting to accommodate a pod")),
        Kind.PREEMPTED,
        f"pod {HEAD} was preempted: PreemptionByScheduler: default-scheduler: preempting to accommodate a pod",
    ),
    (
        head(conditions=disrupted("DeletionByTaintManager")),
        Kind.PREEMPTED,
        f"pod {HEAD} was preempted: DeletionByTaintManager",
    ),
    (
        head(phase="Failed", reason="Terminated", message="Pod was terminated in response to imminent node shutdown."),
        Kind.PREEMPTED,
        f"pod {HEAD} was preempted: Pod was terminated in response to imminent node shutdown.",
    ),
    (
        head(phase="Failed", containerStatuses=[container(OOM)]),
        Kind.OOM_KILLED,
        f"pod {HEAD} ran out of memory: container ray-node was OOMKilled",
    ),
    (
        head(containerStatuses=[container({"waiting": {"reason": "CrashLoopBackOff"}}, OOM)]),
        Kind.OOM_KILLED,
        f"pod {HEAD} ran out of memory: container ray-node was OOMKilled",
    ),
    (
        head(
            phase="Pending",
            containerStatuses=[
                container({"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "an/image"'}})
            ],
        ),
        Kind.FAILED_PULL,
        f'pod {HEAD} can\'t get its image: Back-off pulling image "an/image"',
    ),
    (
        head(containerStatuses=[container({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}})]),
        Kind.OTHER,
        f"pod {HEAD} does not start (CrashLoopBackOff): back-off 5m0s",
    ),
    (
        head(phase="Failed", containerStatuses=[container({"terminated": {"reason": "Error", "exitCode": 3}})]),
        Kind.OTHER,
        f"pod {HEAD} ended with exit code 3 (Error)",
    ),
    (
        head(phase="Failed", reason="UnexpectedAdmissionError", message="Allocate failed due to no devices"),
        Kind.OTHER,
        f"pod {HEAD} failed: Allocate failed due to no devices",
    ),
    (head(phase="Unknown"), Kind.OTHER, f"pod {HEAD} is on a node that can't be reached"),
]


@pytest.mark.parametrize(("one", "kind", "sentence"), IN_STATUS)
def test_what_its_status_says(one: dict[str, Any], kind: Kind, sentence: str, serve: Serve) -> None:
    assert found(serve, one) == [PodTrouble(HEAD, kind, sentence)]


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([event(HEAD, "FailedScheduling", "older"), event(HEAD, "FailedScheduling", NO_GPU, at=5)], NO_GPU),
        ([event(HEAD, "FailedScheduling", NO_GPU, at=5), event(HEAD, "FailedScheduling", "older")], NO_GPU),
        ([event("another-head", "FailedScheduling", "of another")], "Unschedulable"),
        ([event(HEAD, "FailedScheduling", "of a pod before it", uid="before")], "Unschedulable"),
    ],
)
def test_a_condition_without_a_message_leaves_it_to_events(
    events: list[dict[str, Any]], said: str, serve: Serve
) -> None:
    waits = head(None, phase="Pending", conditions=scheduled("False", reason="Unschedulable"))
    assert [one.sentence for one in found(serve, waits, events=events)] == [f"pod {HEAD} is pending: {said}"]


MOUNT = "MountVolume.SetUp failed for volume"


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([event(HEAD, "FailedMount", MOUNT, at=2)], MOUNT),
        (
            [event(HEAD, "FailedMount", MOUNT, at=2), event(HEAD, "Pulling", "Pulling image", kind="Normal", at=3)],
            "Pulling image",
        ),
        ([event(HEAD, "Pulling", "Pulling image", kind="Normal", at=2)], "Pulling image"),
        ([], "its containers are being created"),
    ],
)
def test_a_pod_that_has_a_node_waits_for_what_came_last(events: list[dict[str, Any]], said: str, serve: Serve) -> None:
    waits = head(phase="Pending", conditions=scheduled("True"))
    before = [event(HEAD, "FailedScheduling", NO_GPU), event(HEAD, "Scheduled", kind="Normal", at=1)]
    assert found(serve, waits, events=[*events, *before])[0].sentence == f"pod {HEAD} is pending: {said}"


@pytest.mark.parametrize(
    ("reason", "kind"), [("Evicted", Kind.EVICTED), ("Preempted", Kind.PREEMPTED), ("Preempting", Kind.PREEMPTED)]
)
def test_an_event_tells_of_an_end_before_the_status_does(reason: str, kind: Kind, serve: Serve) -> None:
    [trouble] = found(serve, head(), events=[event(HEAD, reason, "why", at=1)])
    assert trouble.kind is kind and trouble.sentence.endswith(": why")


def test_a_deletion_that_was_called_off_is_none(serve: Serve) -> None:
    called_off = event(HEAD, "TaintManagerEviction", f"Cancelling deletion of Pod default/{HEAD}", kind="Normal")
    assert found(serve, head(), events=[called_off]) == []


GONE = [
    (
        [event(HEAD, "Started", kind="Normal", at=1), event(HEAD, "Evicted", "low on memory", at=2)],
        Kind.EVICTED,
        "was evicted: low on memory",
    ),
    (
        [
            event(HEAD, "Preempted", "Preempted by pod 1b2c on node a", kind="Normal", at=2),
            event(HEAD, "Killing", "Stopping container ray-node", kind="Normal", at=3),
        ],
        Kind.PREEMPTED,
        "was preempted: Preempted by pod 1b2c on node a",
    ),
    (
        [
            event(HEAD, "NodeNotReady", "Node is not ready", at=1),
            event(HEAD, "TaintManagerEviction", "Marking for deletion Pod default/head", kind="Normal", at=2),
        ],
        Kind.PREEMPTED,
        "was preempted: Marking for deletion Pod default/head",
    ),
    ([event(HEAD, "FailedScheduling", NO_GPU)], Kind.PENDING, f"is gone, and never had a node: {NO_GPU}"),
    (
        [
            event(HEAD, "Failed", "Failed to pull image: not found", at=1),
            event(HEAD, "BackOff", "Back-off pulling image", at=2),
        ],
        Kind.FAILED_PULL,
        "can't get its image: Back-off pulling image",
    ),
    (
        [event(HEAD, "BackOff", "Back-off restarting failed container", at=1)],
        Kind.OTHER,
        "is gone, after: BackOff: Back-off restarting failed container",
    ),
    (
        [
            event(HEAD, "FailedScheduling", NO_GPU),
            event(HEAD, "Scheduled", kind="Normal", at=1),
            event(HEAD, "FailedMount", MOUNT, at=2),
            event(HEAD, "Started", kind="Normal", at=3),
            event(HEAD, "Killing", "Stopping container ray-node", kind="Normal", at=4),
        ],
        Kind.OTHER,
        "is gone, and last: Killing: Stopping container ray-node",
    ),
    (
        [event(HEAD, "Evicted", "the one before", uid="before"), event(HEAD, "Started", "", kind="Normal", at=3)],
        Kind.OTHER,
        "is gone, and last: Started",
    ),
]


@pytest.mark.parametrize(("events", "kind", "said"), GONE)
def test_a_pod_that_is_gone_has_left_its_events(
    events: list[dict[str, Any]], kind: Kind, said: str, serve: Serve
) -> None:
    assert found(serve, events=events) == [PodTrouble(HEAD, kind, f"pod {HEAD} {said}")]


def test_other_clusters_are_left_out(serve: Serve) -> None:
    others = [f"{CLUSTER}-2-head", f"a-{HEAD}", CLUSTER, f"{HEAD}er", "other-head"]
    events = [event(name, "Evicted", "why") for name in others]
    of_other = pod("other-head", "a", cluster="other", phase="Failed", reason="Evicted")
    assert found(serve, of_other, events=events) == []


def test_each_pod_of_a_cluster_is_told_of(serve: Serve) -> None:
    worker = pod(f"{CLUSTER}-worker1", "b", cluster=CLUSTER, phase="Failed", reason="Evicted", message="why")
    gone = event(f"{CLUSTER}-worker2", "Preempted", "for another")
    kinds = {one.pod: one.kind for one in found(serve, head(), worker, events=[gone])}
    assert kinds == {f"{CLUSTER}-worker1": Kind.EVICTED, f"{CLUSTER}-worker2": Kind.PREEMPTED}


def test_events_that_may_not_be_read(serve: Serve) -> None:
    world = serve(World(pods=[head(phase="Failed", reason="Evicted", message="why")], refuses={EVENTS: 403}))
    assert [one.kind for one in reasons("here", "default", CLUSTER)] == [Kind.EVICTED]
    world.pods = []
    with pytest.raises(NoAnswer, match="you may not list events in namespace default"):
        reasons("here", "default", CLUSTER)
    world.refuses = {PODS: 403}
    with pytest.raises(NoAnswer, match="you may not list pods in namespace default"):
        reasons("here", "default", CLUSTER)


HOSTILE = "\x1b[2J\r\n\u202e" + "what\tis this\n" * 80_000


@pytest.mark.parametrize(
    "pods",
    [
        [head(phase="Failed", reason="Evicted", message=HOSTILE)],
        [head(phase="Failed", reason=HOSTILE)],
        [head(phase="Pending", conditions=scheduled("False", reason=HOSTILE, message=HOSTILE))],
        [head(conditions=disrupted(HOSTILE, HOSTILE))],
        [head(containerStatuses=[container({"waiting": {"reason": HOSTILE, "message": HOSTILE}})])],
        [head(containerStatuses=[container({"terminated": {"reason": HOSTILE, "exitCode": HOSTILE}})])],
        [head(containerStatuses=[container(OOM, name=HOSTILE)])],
        [pod(HOSTILE, "a", cluster=CLUSTER, phase="Failed")],
        [],
    ],
)
def test_hostile_text_is_one_short_line(pods: list[dict[str, Any]], serve: Serve) -> None:
    troubles = found(serve, *pods, events=[event(HEAD, "Failed", HOSTILE)])
    assert troubles
    for one in troubles:
        assert one.sentence.isprintable() and one.pod.isprintable()
        assert len(one.sentence) <= 300 and len(one.pod) <= 80


@pytest.mark.parametrize(
    "status",
    [
        {"conditions": "text", "containerStatuses": 3},
        {"conditions": [None, 3, {"type": {}}], "containerStatuses": [None, {"state": 3}]},
        {"reason": {"a": 1}, "message": ["b"]},
        {"containerStatuses": [{"state": {"waiting": {"reason": ["x"], "message": {}}}}]},
    ],
)
def test_odd_answers_break_nothing(status: dict[str, Any], serve: Serve) -> None:
    odd = event(HEAD, "Failed", "why") | {"lastTimestamp": "yesterday", "type": ["Warning"], "reason": {}}
    nameless = {"involvedObject": {"kind": "Pod", "name": 7}}
    found(serve, head(**status), {"metadata": {"labels": {"skypilot-cluster-name": CLUSTER}}}, events=[odd, nameless])
