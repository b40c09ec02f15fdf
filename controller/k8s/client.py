"""Asking a Kubernetes API server through the official client: bounded in time, and failing with one sentence.

Answers are kept as the JSON they came in. The client's own models would refuse a whole list for one odd object in it,
and take seconds for the pods of a large cluster.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import get_ident
from typing import Any

from controller.text import one_line

SECONDS = 5.0
"""How long a connection, and each wait for more of an answer, may take."""
PAGE = 500
PAGES = 400
"""Objects asked for at once, and how often: more than any cluster has, so that no server can keep us for ever."""
SAID = 300
"""Characters that are shown of a text which others wrote."""


class NoAnswer(Exception):
    """What was asked of Kubernetes can't be known now; the message is one sentence with why, and what to do."""


@dataclass(frozen=True, slots=True)
class Context:
    """A context of the kubeconfig, and the namespace that pods get in it."""

    name: str
    namespace: str = "default"
    current: bool = False


def part(found: Any, *path: str) -> Any:
    """What lies at `path` in an answer; None where any step of it is missing."""
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def parts(found: Any, *path: str) -> list[Any]:
    """The list that lies at `path` in an answer; empty where there is none."""
    inner = part(found, *path)
    return inner if isinstance(inner, list) else []


def texts(found: Any, *path: str) -> dict[str, str]:
    """The strings by their names, such as labels, that lie at `path` in an answer; empty where there are none."""
    inner = part(found, *path)
    return {str(name): str(value) for name, value in inner.items()} if isinstance(inner, dict) else {}


def bounded(text: object, most: int = SAID) -> str:
    """A text that others wrote, on one line of at most `most` characters; empty for None."""
    said = one_line(str("" if text is None else text)[: 20 * most])
    return said if len(said) <= most else f"{said[: most - 1]}…"


def contexts() -> list[Context]:
    """The contexts of the kubeconfig. Raises NoAnswer where there is none that SkyPilot could use."""
    from kubernetes.config import list_kube_config_contexts  # type: ignore[import-untyped,unused-ignore]

    files = _kubeconfig()
    if not any(Path(file).expanduser().exists() for file in files.split(os.pathsep) if file):
        raise NoAnswer(f"there is no kubeconfig at {bounded(files)}: put your cluster's there, or set KUBECONFIG to it")
    try:
        found, current = list_kube_config_contexts(files)
    except _unusable() as error:
        raise NoAnswer(_of_kubeconfig(files, error)) from None
    names = [(one, str(part(one, "name"))) for one in found]
    return [
        Context(name, str(part(one, "context", "namespace") or "default"), name == part(current, "name"))
        for one, name in names
    ]


@dataclass(frozen=True)
class Server:
    """The API server of one context. What it is asked for raises NoAnswer where it can't be had."""

    context: str
    host: str
    core: Any
    authorization: Any
    seconds: float = SECONDS
    said: list[str] = field(default_factory=list)
    """What the kubeconfig's credential plugin complained of."""

    def nodes(self) -> list[Any]:
        """Every node."""
        return self._items("nodes", self.core.list_node)

    def pods(self) -> list[Any]:
        """Every pod, of whatever namespace, that may hold something of its node."""
        alive = "status.phase!=Succeeded,status.phase!=Failed"
        return self._items("pods in all namespaces", self.core.list_pod_for_all_namespaces, field_selector=alive)

    def pods_of(self, namespace: str, label: str) -> list[Any]:
        """The pods of `namespace` with `label`."""
        what = f"pods in namespace {namespace}"
        return self._items(what, self.core.list_namespaced_pod, namespace, label_selector=label)

    def events_of_pods(self, namespace: str) -> list[Any]:
        """What is remembered of the pods of `namespace`, also of those that are gone: an hour, as a rule."""
        what = f"events in namespace {namespace}"
        ofpods = "involvedObject.kind=Pod"
        return self._items(what, self.core.list_namespaced_event, namespace, field_selector=ofpods)

    def quotas(self, namespace: str) -> list[Any]:
        """The resource quotas of `namespace`."""
        what = f"resourcequotas in namespace {namespace}"
        return self._items(what, self.core.list_namespaced_resource_quota, namespace)

    def may_create_pods(self, namespace: str) -> bool:
        """Whether the server would let us create pods in `namespace`."""
        asked = {"namespace": namespace, "verb": "create", "resource": "pods"}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        create = self.authorization.create_self_subject_access_review
        return part(self._ask("create", "selfsubjectaccessreviews", create, body), "status", "allowed") is not False

    def _items(self, what: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
        found: list[Any] = []
        more = None
        for _ in range(PAGES):
            answer = self._ask("list", what, call, *arguments, **options, limit=PAGE, _continue=more)
            if not isinstance(part(answer, "items"), list | None) or not isinstance(answer, dict):
                raise NoAnswer(self._strange)
            found += parts(answer, "items")
            more = part(answer, "metadata", "continue")
            if not more:
                return found
        raise NoAnswer(f"{self.host} does not come to the end of its {what}: see what `kubectl get` makes of them")

    def _ask(self, verb: str, what: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        from kubernetes.client import ApiException  # type: ignore[import-untyped,unused-ignore]
        from urllib3.exceptions import HTTPError

        # One number would have to be an int, and would be ignored otherwise.
        bounds = (self.seconds, self.seconds)
        try:
            response = call(*arguments, **options, _preload_content=False, _request_timeout=bounds)
            return json.loads(response.data)
        except ApiException as error:
            raise NoAnswer(self._refused(error, verb, what)) from None
        except (HTTPError, OSError) as error:
            raise NoAnswer(self._unreachable(_why(error, self.seconds))) from None
        except (ValueError, RecursionError):
            raise NoAnswer(self._strange) from None

    @property
    def _strange(self) -> str:
        return f"{self.host} answers, but not as Kubernetes' API does: correct the server of context {self.context}"

    def _unreachable(self, why: str) -> str:
        return (
            f"{self.host} can't be reached ({why}):"
            f" check the network or VPN, and the server of context {self.context} in the kubeconfig"
        )

    def _refused(self, error: Any, verb: str, what: str) -> str:
        if not error.status:  # TLS failed, before anything was asked
            return self._unreachable(bounded(str(error.reason).partition("\n")[2], 150))
        said = bounded(_message(error), 200)
        because = f" ({said})" if said else ""
        if error.status == 401:
            plugin = f"; its credential plugin says: {bounded(self.said[-1], 200)}" if self.said else ""
            return (
                f"{self.host} does not accept the credentials of context {self.context}:"
                f" log in again, or correct its user in the kubeconfig{plugin}"
            )
        if error.status == 403:
            return f"you may not {verb} {what}{because}: ask whoever runs the cluster for that permission"
        return f"{self.host} answered {error.status} when asked to {verb} {what}{because}: try again later"


@contextmanager
def connected(context: str, seconds: float = SECONDS) -> Iterator[Server]:
    """The API server of `context`, with the credentials of the kubeconfig. Raises NoAnswer where that can't be used."""
    import urllib3
    from kubernetes import client, config  # type: ignore[import-untyped,unused-ignore]

    # Whoever writes `insecure-skip-tls-verify` into a kubeconfig knows; SkyPilot is as silent.
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    settings = client.Configuration()
    settings.retries = False  # else three more tries, each as long
    files = _kubeconfig()
    with _heard() as said:
        try:
            api = config.new_client_from_config(files, context, client_configuration=settings)
        except _unusable() as error:
            raise NoAnswer(_of_kubeconfig(files, error)) from None
    try:
        if not _is_address(settings.host):
            raise NoAnswer(
                f"the server of context {bounded(context, 100)}, {bounded(settings.host, 100)!r}, is no address:"
                f" correct it in the kubeconfig {bounded(files)}"
            )
        core, authorization = client.CoreV1Api(api), client.AuthorizationV1Api(api)
        yield Server(bounded(context, 100), bounded(settings.host, 100), core, authorization, seconds, said)
    finally:
        api.rest_client.pool_manager.clear()
        api.close()


def _is_address(url: str) -> bool:
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    try:
        parsed = parse_url(url)
    except LocationParseError:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def _kubeconfig() -> str:
    # The client reads the variable only once, when it is imported.
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def _unusable() -> tuple[type[Exception], ...]:
    """What the client raises for a kubeconfig that is broken in one way or another."""
    from kubernetes.config import ConfigException
    from yaml import YAMLError

    return (ConfigException, YAMLError, OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError)


def _of_kubeconfig(files: str, error: Exception) -> str:
    name, said = bounded(files), bounded(error, 200)
    if "Expected key current-context" in said:
        return (
            f"the kubeconfig {name} has no current context, and without one SkyPilot uses none of it:"
            " choose one with `kubectl config use-context NAME`"
        )
    return f"the kubeconfig {name} can't be used: {said}; `kubectl config view` shows what is in it"


def _message(error: Any) -> object:
    """What the server says about its refusal: a Status object, as a rule."""
    try:
        return part(json.loads(error.body), "message")
    except (ValueError, TypeError, RecursionError):
        return error.reason


def _why(error: Exception, seconds: float) -> str:
    from urllib3.exceptions import TimeoutError as TimedOut

    if isinstance(error, TimedOut) and "timed out" in str(error):
        return f"no answer within {seconds:g} seconds"
    # HTTPConnection(host='127.0.0.1', port=1): Failed to establish a new connection: [Errno 111] Connection refused
    return bounded(str(error).rpartition(": ")[2] or type(error).__name__, 150)


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What this thread writes to the root logger meanwhile.

    The client says there, and nowhere else, why a credential plugin failed, and then asks without credentials. Without
    a handler the message would go to standard error.
    """
    ear = _Ear()
    root = logging.getLogger()
    root.addHandler(ear)
    try:
        yield ear.said
    finally:
        root.removeHandler(ear)


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []
        self._thread = get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.said.append(record.getMessage())
