"""The GPUs of a context: on which nodes, of which type, how many are free, and what keeps SkyPilot from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.k8s.client import SECONDS, Context, NoAnswer, Server, bounded, connected, part, parts, texts
from controller.k8s.labels import Format, format_of, is_slice

GPU = "nvidia.com/gpu"
_EVICTABLE = "cw-hpc-verification"
"""CoreWeave's tests of idle GPUs run in this namespace, and give way to any other pod."""
_SAID_OTHERWISE = ("node.kubernetes.io/unschedulable", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""Taints of what a node's own fields say."""
_NAMES = 3
"""Nodes that a sentence names."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node with GPUs. `used` is None where it can't be known; `closed` says why no further pod gets there."""

    name: str
    gpus: int
    used: int | None = 0
    closed: str = ""

    @property
    def free(self) -> int:
        """GPUs that a further pod could have; at most so many, where `used` is not known."""
        return 0 if self.closed else max(0, self.gpus - (self.used or 0))


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """The nodes with one label. `accelerator` is SkyPilot's name for what they have; empty where it knows none."""

    accelerator: str
    label: str
    nodes: tuple[Node, ...]

    @property
    def gpus(self) -> int:
        """GPUs that are there, in use or not."""
        return sum(node.gpus for node in self.nodes)

    @property
    def used(self) -> int | None:
        """GPUs that pods hold; None where that can't be known."""
        used = [node.used for node in self.nodes if node.used is not None]
        return sum(used) if len(used) == len(self.nodes) else None

    @property
    def free(self) -> int:
        """GPUs that further pods could have; at most so many, where `used` is not known."""
        return sum(node.free for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Quota:
    """What a namespace allows its pods together."""

    name: str
    hard: int
    used: int

    @property
    def left(self) -> int:
        """GPUs that it still allows."""
        return max(0, self.hard - self.used)


@dataclass(frozen=True, slots=True)
class ContextReport:
    """What a context has, and what is wrong with it, one sentence each.

    `groups` are in the order in which SkyPilot looks at them. `usable` is False where it would get nothing there,
    whatever is free.
    """

    context: Context
    groups: tuple[NodeGroup, ...] = ()
    quota: Quota | None = None
    problems: tuple[str, ...] = ()
    usable: bool = True

    @property
    def exact(self) -> bool:
        """Whether it is known what is in use."""
        return all(group.used is not None for group in self.groups)


def read_context(context: Context, tolerations: Sequence[Any] = (), seconds: float = SECONDS) -> ContextReport:
    """What `context` has. Never raises: what can't be known is one of its problems.

    `tolerations` are those that pods get beside the ones every pod gets.
    """
    try:
        with connected(context.name, seconds) as server:
            nodes = server.nodes()
            return _report(context, server, nodes, tolerations)
    except NoAnswer as error:
        return ContextReport(context, problems=(str(error),), usable=False)


def _report(context: Context, server: Server, nodes: list[Any], tolerations: Sequence[Any]) -> ContextReport:
    problems: list[str] = []
    usable = True
    with_gpus = [node for node in nodes if _gpus(node, "allocatable") or _gpus(node, "capacity")]
    if not with_gpus:
        have = f"none of the {len(nodes)} nodes offers" if nodes else "there are no nodes, so none offers"
        sentence = f"{have} {GPU}: add nodes with GPUs, or install NVIDIA's device plugin (or GPU operator) on them"
        return ContextReport(context, problems=(sentence,), usable=False)
    used: Counter[str] | None = None
    try:
        used = _in_use(server.pods())
    except NoAnswer as error:
        problems.append(f"what is in use is not known, as {error}")
    quota = None
    try:
        quota = _tightest(server.quotas(context.namespace))
    except NoAnswer as error:
        problems.append(f"whether a quota binds is not known, as {error}")
    try:
        if not server.may_create_pods(context.namespace):
            usable = False
            problems.append(
                f"you may not create pods in namespace {context.namespace}:"
                " ask whoever runs the cluster for that permission, or choose another namespace"
            )
    except NoAnswer:
        pass  # Whoever may not ask this may still be allowed to do it.
    kind = format_of(texts(node, "metadata", "labels") for node in nodes)
    labelled = _labelled(with_gpus, kind)
    groups = tuple(
        NodeGroup(accelerator, label, tuple(_node(node, used, tolerations) for node in members))
        for (accelerator, label), members in labelled.items()
    )
    refused = _refused(nodes, kind)
    problems += refused
    problems += _unlabelled(context, groups, kind)
    problems += _closed(groups)
    problems += _withdrawn(with_gpus)
    problems += _sliced(groups)
    return ContextReport(context, groups, quota, tuple(problems), usable and not refused)


def _gpus(node: Any, of: str) -> int:
    return _count(part(node, "status", of, GPU))


def _count(quantity: Any) -> int:
    try:
        return max(0, int(quantity or 0))
    except (TypeError, ValueError, OverflowError):
        return 0


def _name(node: Any) -> str:
    return bounded(part(node, "metadata", "name"), 80)


def _node(node: Any, used: Mapping[str, int] | None, tolerations: Sequence[Any]) -> Node:
    name = str(part(node, "metadata", "name"))
    in_use = None if used is None else used.get(name, 0)
    return Node(_name(node), _gpus(node, "allocatable"), in_use, _closure(node, tolerations))


def _closure(node: Any, tolerations: Sequence[Any]) -> str:
    """Why no further pod gets to `node`; empty where one would."""
    if part(node, "spec", "unschedulable"):
        return "cordoned"
    conditions = parts(node, "status", "conditions")
    if not any(part(one, "type") == "Ready" and part(one, "status") == "True" for one in conditions):
        return "not ready"
    for taint in parts(node, "spec", "taints"):
        if _keeps_out(taint) and not any(_tolerates(one, taint) for one in tolerations):
            value = part(taint, "value")
            shown = f"{part(taint, 'key')}{f'={value}' if value else ''}:{part(taint, 'effect')}"
            return f"tainted {bounded(shown, 100)}"
    return ""


def _keeps_out(taint: Any) -> bool:
    # A pod that asks for GPUs tolerates the taint named after them: the API server sees to it, or its provider does.
    key = part(taint, "key")
    return part(taint, "effect") in ("NoSchedule", "NoExecute") and key != GPU and key not in _SAID_OTHERWISE


def _tolerates(toleration: Any, taint: Any) -> bool:
    if part(toleration, "effect") not in (None, "", part(taint, "effect")):
        return False
    exists = bool(part(toleration, "operator") == "Exists")
    if not part(toleration, "key"):
        return exists
    if part(toleration, "key") != part(taint, "key"):
        return False
    return exists or _written(part(toleration, "value")) == _written(part(taint, "value"))


def _written(value: Any) -> str:
    """A taint's value as the API has it: YAML reads `true` and `1` as something else than text."""
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _in_use(pods: Iterable[Any]) -> Counter[str]:
    """GPUs that pods hold, by the name of their node."""
    used: Counter[str] = Counter()
    for pod in pods:
        over = part(pod, "status", "phase") in ("Succeeded", "Failed")
        node = part(pod, "spec", "nodeName")
        if isinstance(node, str) and not over and part(pod, "metadata", "namespace") != _EVICTABLE:
            used[node] += _requested(pod)
    return used


def _requested(pod: Any) -> int:
    """GPUs that a pod is given: enough for its containers together, and for each one that prepares them."""
    main = sum(_request(one) for one in parts(pod, "spec", "containers"))
    first = [_request(one) for one in parts(pod, "spec", "initContainers")]
    return max([main, *first])


def _request(container: Any) -> int:
    # A limit without a request is a request of as much.
    given = part(container, "resources", "requests", GPU)
    return _count(part(container, "resources", "limits", GPU) if given is None else given)


def _tightest(quotas: Iterable[Any]) -> Quota | None:
    """Of the quotas that bind SkyPilot's pods the one that leaves least."""
    found = []
    for quota in quotas:
        # SkyPilot's pods ask for CPUs and have no deadline.
        scopes = {str(one) for one in parts(quota, "spec", "scopes")}
        hard = part(quota, "status", "hard", f"requests.{GPU}")
        if hard is None or part(quota, "spec", "scopeSelector") or not scopes <= {"NotTerminating", "NotBestEffort"}:
            continue
        found.append(Quota(_name(quota), _count(hard), _count(part(quota, "status", "used", f"requests.{GPU}"))))
    return min(found, key=lambda quota: quota.left, default=None)


def _labelled(nodes: Iterable[Any], kind: Format | None) -> dict[tuple[str, str], list[Any]]:
    """Nodes by accelerator and label, both empty where SkyPilot reads no label of theirs."""
    found: dict[tuple[str, str], list[Any]] = {}
    for node in nodes:
        label = kind.of(texts(node, "metadata", "labels")) if kind else None
        key = (bounded(kind.accelerator(label[1]), 60), bounded("=".join(label), 150)) if kind and label else ("", "")
        found.setdefault(key, []).append(node)
    return found


def _refused(nodes: Iterable[Any], kind: Format | None) -> list[str]:
    """That a label has a value for which SkyPilot refuses the whole context."""
    if kind is None:
        return []
    labels = ((node, kind.of(texts(node, "metadata", "labels"))) for node in nodes)
    wrong = [(_name(node), *label) for node, label in labels if label and not kind.valid(label[1])]
    if not wrong:
        return []
    name, key, value = wrong[0]
    return [
        f"SkyPilot refuses this context, as {key}={bounded(value, 60)} on {name} {kind.rule}:"
        f" correct it with `kubectl label --overwrite node {name} {key}=…`"
    ]


def _unlabelled(context: Context, groups: Iterable[NodeGroup], kind: Format | None) -> list[str]:
    nodes = [node for group in groups if not group.label for node in group.nodes]
    if not nodes:
        return []
    has = "has" if len(nodes) == 1 else "have"
    label = f"the label {kind.keys[0]}, by which it goes here" if kind else "a label that it knows"
    return [
        f"SkyPilot can't tell which GPUs {_counted(nodes)} {has}, for want of {label}:"
        f" run `python -m sky.utils.kubernetes.gpu_labeler --context {bounded(context.name, 100)}`"
    ]


_REMEDIES = {
    "cordoned": "`kubectl uncordon NODE` opens one again",
    "not ready": "`kubectl describe node NODE` says why",
    "tainted": "if you may use them, tolerate that under kubernetes.pod_config.spec.tolerations in ~/.sky/config.yaml",
}


def _closed(groups: Iterable[NodeGroup]) -> list[str]:
    closed: dict[str, list[Node]] = {}
    for group in groups:
        for node in group.nodes:
            if node.closed:
                closed.setdefault(node.closed, []).append(node)
    found = []
    for why, nodes in closed.items():
        remedy = next(text for begins, text in _REMEDIES.items() if why.startswith(begins))
        gpus = sum(node.gpus for node in nodes)
        verb = "is" if len(nodes) == 1 else "are"
        found.append(f"{_counted(nodes)} {verb} {why}, so none of {gpus} GPUs there is free: {remedy}")
    return found


def _withdrawn(nodes: Iterable[Any]) -> list[str]:
    broken = [(node, _gpus(node, "capacity") - _gpus(node, "allocatable")) for node in nodes]
    broken = [(node, count) for node, count in broken if count > 0]
    if not broken:
        return []
    names = _listed([_name(node) for node, _ in broken])
    count = sum(count for _, count in broken)
    what = "1 GPU is" if count == 1 else f"{count} GPUs are"
    return [f"{what} out of service on {names}: `kubectl describe node NODE`, and the node's own log, say more"]


def _sliced(groups: Iterable[NodeGroup]) -> list[str]:
    return [
        f"what {_counted(group.nodes)} labelled {group.label} offer are slices of GPUs, which SkyPilot takes for whole"
        f" {group.accelerator}: keep them out with kubernetes.allowed_nodes in ~/.sky/config.yaml, as their runs"
        " don't compare with others"
        for group in groups
        if is_slice(group.label)
    ]


def _counted(nodes: Sequence[Node]) -> str:
    count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    return f"{count} ({_listed([node.name for node in nodes])})"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more
