"""A Kubernetes API server that isn't one: answers in the API's published form, over real HTTP.

No real cluster was at hand. What is served here was written by hand from the published API (v1, as in Kubernetes 1.35:
Node, Pod, Event, ResourceQuota, Status, SelfSubjectAccessReview, lists with `limit` and `continue`), and says nothing
of how a real server differs from that. The client that asks is the real one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

TOKEN = "the-token"
PRODUCTS = {"H100": "NVIDIA-H100-80GB-HBM3", "H200": "NVIDIA-H200"}
ACCESS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

Object = dict[str, Any]


@dataclass
class World:
    """What the server has. `refuses` holds the status it gives instead of an answer, by the path that is asked for."""

    nodes: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    events: Sequence[Object] = ()
    quotas: Sequence[Object] = ()
    refuses: Mapping[str, int] = field(default_factory=dict)
    may_create_pods: bool = True
    raw: bytes | None = None
    """What it answers instead of JSON."""
    page: int = 1000
    """Objects it gives at once, whatever is asked for."""
    asked: list[str] = field(default_factory=list)
    """Every path it was asked for, with its query."""
    url: str = ""


def node(
    name: str,
    accelerator: str = "H100",
    gpus: int = 8,
    *,
    labels: Mapping[str, str] | None = None,
    ready: str = "True",
    cordoned: bool = False,
    taints: Sequence[Mapping[str, str]] = (),
    broken: int = 0,
) -> Object:
    """A node as GPU feature discovery labels it, unless `labels` says otherwise; `broken` GPUs are out of service."""
    own = {"nvidia.com/gpu.product": PRODUCTS.get(accelerator, accelerator)} if labels is None else labels
    resources = {"cpu": "96", "memory": "2113409Mi", "pods": "110"}
    spec: Object = {"providerID": f"made-up://{name}"}
    if cordoned:
        spec["unschedulable"] = True
        taints = [*taints, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]
    if taints:
        spec["taints"] = [dict(taint) for taint in taints]
    gpu = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    left = {"nvidia.com/gpu": str(gpus - broken)} if gpus else {}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {"kubernetes.io/hostname": name, **own}},
        "spec": spec,
        "status": {
            "capacity": {**resources, **gpu},
            "allocatable": {**resources, **left},
            "conditions": [
                {"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory"},
                {
                    "type": "Ready",
                    "status": ready,
                    "reason": "KubeletReady" if ready == "True" else "NodeStatusUnknown",
                },
            ],
        },
    }


def pod(
    name: str,
    on: str | None = None,
    gpus: int = 0,
    *,
    phase: str = "Running",
    namespace: str = "default",
    cluster: str | None = None,
    uid: str | None = None,
    **status: Any,
) -> Object:
    """A pod on the node `on`, with the label of a SkyPilot cluster where one is given; `status` adds to its status."""
    resources = {"requests": {"cpu": "4", "nvidia.com/gpu": str(gpus)}, "limits": {"nvidia.com/gpu": str(gpus)}}
    labels = {"skypilot-cluster-name": cluster, "parent": "skypilot"} if cluster else {}
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "labels": labels},
        "spec": {
            **({"nodeName": on} if on else {}),
            "restartPolicy": "Never",
            "containers": [{"name": "ray-node", "image": "an/image", "resources": resources if gpus else {}}],
        },
        "status": {"phase": phase, **status},
    }


def event(
    of: str, reason: str, message: str = "", *, kind: str = "Warning", at: int = 0, uid: str | None = None
) -> Object:
    """An event of the pod called `of`, last seen `at` minutes past an hour."""
    seen = f"2025-11-21T23:{at:02d}:00Z"
    involved = {"kind": "Pod", "namespace": "default", "name": of, "uid": uid or f"uid-{of}", "apiVersion": "v1"}
    return {
        "metadata": {"name": f"{of}.{at:016x}", "namespace": "default", "creationTimestamp": "2025-11-21T22:00:00Z"},
        "involvedObject": involved,
        "reason": reason,
        "message": message,
        "type": kind,
        "firstTimestamp": "2025-11-21T22:00:00Z",
        "lastTimestamp": seen,
        "count": 1,
    }


def container(state: Object, last: Object | None = None, name: str = "ray-node") -> Object:
    """The status of a container."""
    return {
        "name": name,
        "ready": False,
        "restartCount": 0,
        "image": "an/image",
        "state": state,
        "lastState": last or {},
    }


def quota(hard: int, used: int, name: str = "gpus", **spec: Any) -> Object:
    """A quota of GPUs."""
    limits = {"requests.nvidia.com/gpu": str(hard)}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"hard": limits, **spec},
        "status": {"hard": limits, "used": {"requests.nvidia.com/gpu": str(used)}},
    }


@contextmanager
def served(world: World) -> Iterator[World]:
    """Serve `world` on this machine; its `url` says where."""

    class Handler(_Handler):
        served = world

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    world.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield world
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kubeconfig(path: Path, servers: Mapping[str, str], *, token: str = TOKEN, user: Object | None = None) -> Path:
    """A kubeconfig with a context for each of `servers`, by name; the first one is the current one."""
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": next(iter(servers), ""),
                "clusters": [{"name": name, "cluster": {"server": url}} for name, url in servers.items()],
                "users": [{"name": "someone", "user": {"token": token} if user is None else user}],
                "contexts": [{"name": name, "context": {"cluster": name, "user": "someone"}} for name in servers],
            }
        )
    )
    return path


class _Handler(BaseHTTPRequestHandler):
    served: World
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        *_, resource = url.path.split("/")
        lists = {
            "nodes": ("Node", self.served.nodes),
            "pods": ("Pod", self.served.pods),
            "events": ("Event", self.served.events),
            "resourcequotas": ("ResourceQuota", self.served.quotas),
        }
        if self._refused(url.path):
            return
        if resource not in lists:
            self._status(404, f"the server could not find the requested resource {resource}")
            return
        kind, objects = lists[resource]
        namespace = url.path.split("/")[-2] if "/namespaces/" in url.path else None
        found = [
            one
            for one in objects
            if (namespace is None or one["metadata"].get("namespace", namespace) == namespace)
            and _selected(one["metadata"].get("labels", {}), query.get("labelSelector", ""))
            and _selected(_fields(one), query.get("fieldSelector", ""))
        ]
        first = int(query.get("continue", "0"))
        last = first + min(int(query.get("limit", "1000")), self.served.page)
        metadata = {"resourceVersion": "10245"}
        if last < len(found):
            metadata |= {"continue": str(last), "remainingItemCount": len(found) - last}
        self._answer(200, {"kind": f"{kind}List", "apiVersion": "v1", "metadata": metadata, "items": found[first:last]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._refused(self.path):
            assert self.path == ACCESS and body["kind"] == "SelfSubjectAccessReview"
            self._answer(201, {**body, "status": {"allowed": self.served.may_create_pods}})

    def _refused(self, path: str) -> bool:
        self.served.asked.append(self.path)
        status = self.served.refuses.get(path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status = 401
        if status is None:
            return False
        resource = path.rpartition("/")[2]
        forbidden = f'{resource} is forbidden: User "someone" cannot list resource "{resource}" in API group ""'
        self._status(status, {401: "Unauthorized", 403: forbidden}.get(status, f"the server says {status}"))
        return True

    def _status(self, status: int, message: str) -> None:
        reason = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}.get(status, "InternalError")
        self._answer(
            status,
            {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": reason,
                "code": status,
            },
        )

    def _answer(self, status: int, body: Object) -> None:
        said = json.dumps(body).encode() if self.served.raw is None else self.served.raw
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a test says what it wants to know."""


def _fields(found: Object) -> dict[str, str]:
    return {
        "status.phase": found.get("status", {}).get("phase", ""),
        "involvedObject.kind": found.get("involvedObject", {}).get("kind", ""),
    }


def _selected(values: Mapping[str, str], selector: str) -> bool:
    for one in filter(None, selector.split(",")):
        name, _, value = one.replace("!=", "=").partition("=")
        if (values.get(name) == value) == ("!=" in one):
            return False
    return True
