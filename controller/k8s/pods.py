"""Why the pods of a cluster don't run: from their status, and from their events, which outlive them for an hour."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from controller.k8s.client import SECONDS, NoAnswer, bounded, connected, part, parts

LABEL = "skypilot-cluster-name"
"""What SkyPilot's pods carry, with the name of their cluster on the cloud."""


class Kind(StrEnum):
    """What befell a pod."""

    PENDING = "pending"
    EVICTED = "evicted"
    OOM_KILLED = "oom_killed"
    PREEMPTED = "preempted"
    """It had to give way to other work, or its node was taken away."""
    FAILED_PULL = "failed_pull"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class PodTrouble:
    """What befell `pod`; the sentence begins with its name, and quotes what Kubernetes says."""

    pod: str
    kind: Kind
    sentence: str


_EVENTS = {
    "Evicted": Kind.EVICTED,
    "Preempted": Kind.PREEMPTED,
    "Preempting": Kind.PREEMPTED,
    "TaintManagerEviction": Kind.PREEMPTED,
}
"""Events after which there is no more of a pod."""
_PULLS = (
    *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"),
    *("RegistryUnavailable", "SignatureValidationFailed"),
)
_STARTING = ("ContainerCreating", "PodInitializing")
_SHUT_DOWN = ("Preempted", "Preempting", "Shutdown", "NodeShutdown", "Terminated", "NodeLost")
"""Reasons of a pod's status where its node, or its place on it, was taken away."""
_EVICTIONS = ("EvictionByEvictionAPI", "TerminationByKubelet")
"""Reasons of a disruption that is not for the sake of another pod: a drained node, a node short of something."""
_DO = {
    Kind.PENDING: "is pending",
    Kind.EVICTED: "was evicted",
    Kind.OOM_KILLED: "ran out of memory",
    Kind.PREEMPTED: "was preempted",
    Kind.FAILED_PULL: "can't get its image",
}


def reasons(context: str, namespace: str, cluster: str, seconds: float = SECONDS) -> list[PodTrouble]:
    """Why pods of `cluster`, its name on the cloud, are not running; empty where all run, and nothing is known of more.

    Raises NoAnswer where the API server can't be asked.
    """
    with connected(context, seconds) as server:
        pods = server.pods_of(namespace, f"{LABEL}={cluster}")
        try:
            events = server.events_of_pods(namespace)
        except NoAnswer:
            if not pods:
                raise
            events = []  # Most is in their status.
    return troubles(cluster, pods, events)


def troubles(cluster: str, pods: Sequence[Any], events: Sequence[Any]) -> list[PodTrouble]:
    """What befell the pods of `cluster`: `pods` are those that are there, `events` those of any pods around. Pure."""
    of_name: dict[str, list[Any]] = {}
    ours = re.compile(rf"{re.escape(cluster)}-(head|worker\d+|deployment-.+)")
    for event in sorted(events, key=_at):
        name = part(event, "involvedObject", "name")
        if isinstance(name, str) and ours.fullmatch(name):
            of_name.setdefault(name, []).append(event)
    found = []
    for pod in pods:
        name, uid = str(part(pod, "metadata", "name")), part(pod, "metadata", "uid")
        # A pod that was made anew has the name of the one before it, whose events are still there.
        own = [event for event in of_name.pop(name, []) if part(event, "involvedObject", "uid") in (uid, None)]
        found.append(_trouble(name, _of_status(pod, own)))
    for name, own in of_name.items():
        last = part(own[-1], "involvedObject", "uid")
        found.append(_trouble(name, _of_gone([one for one in own if part(one, "involvedObject", "uid") == last])))
    return [one for one in found if one]


_Found = tuple[Kind, str, Any]
"""What befell a pod, how to say so where its kind does not, and what Kubernetes says of it."""


def _trouble(name: str, found: _Found | None) -> PodTrouble | None:
    if found is None:
        return None
    kind, words, message = found
    said = bounded(message)
    sentence = f"pod {bounded(name, 80)} {words or _DO[kind]}{': ' if said else ''}{said}"
    return PodTrouble(bounded(name, 80), kind, bounded(sentence))


def _of_status(pod: Any, events: Sequence[Any]) -> _Found | None:
    reason, message = part(pod, "status", "reason"), part(pod, "status", "message")
    if reason == "Evicted":
        return Kind.EVICTED, "", message
    for condition in parts(pod, "status", "conditions"):
        if part(condition, "type") in ("DisruptionTarget", "TerminationTarget") and part(condition, "status") == "True":
            why = part(condition, "reason")
            kind = Kind.EVICTED if why in _EVICTIONS else Kind.PREEMPTED
            return kind, "", f"{why}: {part(condition, 'message') or message or ''}".removesuffix(": ")
    if reason in _SHUT_DOWN:
        return Kind.PREEMPTED, "", message or reason
    # The node says so in an event first.
    return _of_decisive(events) or _of_containers(pod) or _of_phase(pod, events)


def _of_decisive(events: Sequence[Any]) -> _Found | None:
    for event in reversed(events):
        kind, message = _EVENTS.get(str(part(event, "reason"))), part(event, "message")
        if kind and not str(message).startswith("Cancelling deletion"):
            return kind, "", message
    return None


def _of_containers(pod: Any) -> _Found | None:
    containers = [
        one for names in ("initContainerStatuses", "containerStatuses") for one in parts(pod, "status", names)
    ]
    for one in containers:
        for when in ("state", "lastState"):
            ended = part(one, when, "terminated")
            if part(ended, "reason") == "OOMKilled":
                return Kind.OOM_KILLED, "", f"container {part(one, 'name')} was OOMKilled"
    for one in containers:
        waiting = bounded(part(one, "state", "waiting", "reason"), 60)
        message = part(one, "state", "waiting", "message")
        if waiting in _PULLS:
            return Kind.FAILED_PULL, "", message or waiting
        if waiting and waiting not in _STARTING:
            return Kind.OTHER, f"does not start ({waiting})", message
    for one in containers:
        ended = part(one, "state", "terminated")
        if ended and part(ended, "exitCode") != 0:
            why = bounded(part(ended, "reason"), 60)
            words = f"ended with exit code {bounded(part(ended, 'exitCode'), 20)}{f' ({why})' if why else ''}"
            return Kind.OTHER, words, part(ended, "message")
    return None


def _of_phase(pod: Any, events: Sequence[Any]) -> _Found | None:
    phase, reason = part(pod, "status", "phase"), part(pod, "status", "reason")
    message = part(pod, "status", "message")
    if phase == "Pending":
        return Kind.PENDING, "", _awaited(pod, events)
    if phase == "Failed" or reason:
        return Kind.OTHER, "failed", message or reason
    if phase == "Unknown":
        return Kind.OTHER, "is on a node that can't be reached", message
    return None


def _awaited(pod: Any, events: Sequence[Any]) -> Any:
    """What a pending pod waits for."""
    for condition in parts(pod, "status", "conditions"):
        if part(condition, "type") == "PodScheduled" and part(condition, "status") == "False":
            refused = [part(one, "message") for one in events if part(one, "reason") == "FailedScheduling"]
            return part(condition, "message") or (refused[-1] if refused else part(condition, "reason"))
    recent = _recent(events)
    said = [one for one in recent if part(one, "type") == "Warning" or part(one, "reason") == "Pulling"] or recent
    if said:
        return part(said[-1], "message") or part(said[-1], "reason")
    return "its containers are being created" if part(pod, "spec", "nodeName") else "it has no node yet"


def _of_gone(events: Sequence[Any]) -> _Found:
    """What the events of a pod that is no more say of its end."""
    found = _of_decisive(events)
    if found:
        return found
    recent = _recent(events)
    warnings = [one for one in recent if part(one, "type") == "Warning"]
    if warnings:
        reason, message = str(part(warnings[-1], "reason")), part(warnings[-1], "message")
        if reason == "FailedScheduling":
            return Kind.PENDING, "is gone, and never had a node", message
        if reason in ("Failed", "BackOff", *_PULLS) and "image" in str(message):
            return Kind.FAILED_PULL, "", message
        return Kind.OTHER, "is gone, after", f"{reason}: {message or ''}".removesuffix(": ")
    last = events[-1]
    return Kind.OTHER, "is gone, and last", f"{part(last, 'reason')}: {part(last, 'message') or ''}".removesuffix(": ")


def _recent(events: Sequence[Any]) -> list[Any]:
    """Events since the pod was given its node, or began to run: what kept it from that is over."""
    steps = [number for number, one in enumerate(events) if part(one, "reason") in ("Scheduled", "Started")]
    return list(events[max(steps, default=-1) + 1 :])


def _at(event: Mapping[str, Any]) -> datetime:
    """When an event was last seen; the beginning of time where it does not say."""
    known = (
        part(event, "series", "lastObservedTime"),
        part(event, "lastTimestamp"),
        part(event, "eventTime"),
        part(event, "metadata", "creationTimestamp"),
    )
    try:
        at = datetime.fromisoformat(str(next(time for time in known if time)))
    except (StopIteration, ValueError):
        return datetime.min.replace(tzinfo=UTC)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
