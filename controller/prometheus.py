"""How a study stands as Prometheus metrics, made of the object of `status --json`; served to this machine alone.

All are gauges with the label `study`:

    autoresearch_experiments{status}              how many
    autoresearch_clusters{accelerator}            how many the study has used
    autoresearch_incumbent_score                  in the metric's unit; absent until it is measured, like the baseline's
    autoresearch_baseline_score
    autoresearch_controller_running               1 or 0
    autoresearch_budget_spent{unit}, autoresearch_budget_cap{unit}
    autoresearch_health{check}                    each number of `health`; true is 1, false 0
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from controller.records import UserError
from controller.text import one_line

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

HOST = "127.0.0.1"

CLIENT_SECONDS = 5.0
"""How long a client may keep the server waiting for what it asks."""

POLL_SECONDS = 0.1
"""How soon the server notices that it shall end."""

log = logging.getLogger(__name__)


def exposition(state: Mapping[str, Any]) -> str:
    """`state`, the object of `status --json`, in Prometheus' text format. What is missing or null has no sample."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collected(_gauges(state)))
    return generate_latest(registry).decode()


class _Collected:
    """What the library asks of a collector."""

    def __init__(self, gauges: list[GaugeMetricFamily]) -> None:
        self._gauges = gauges

    def collect(self) -> list[GaugeMetricFamily]:
        return self._gauges


def _gauges(state: Mapping[str, Any]) -> list[GaugeMetricFamily]:
    from prometheus_client.core import GaugeMetricFamily

    study = one_line(str(state["study"]))
    health = state.get("health") or {}
    budget = state.get("budget") or {}
    accelerators = Counter(str(cluster["accelerator"]) for cluster in state.get("clusters") or ())

    def gauge(name: str, says: str, label: str, values: Mapping[str, Any] | None) -> GaugeMetricFamily:
        """One sample a number in `values`; `label` names what its keys are, where there is more than one sample."""
        made = GaugeMetricFamily(f"autoresearch_{name}", says, labels=["study", *([label] if label else [])])
        for key, value in (values or {}).items():
            if isinstance(value, bool | int | float):
                made.add_metric([study, *([one_line(str(key))] if label else [])], float(value))
        return made

    return [
        gauge("experiments", "Experiments by status.", "status", state.get("counts")),
        gauge("clusters", "Clusters the study has used, by accelerator.", "accelerator", accelerators),
        gauge("incumbent_score", "Mean score of the incumbent's confirmation.", "", _score(state, "incumbent")),
        gauge("baseline_score", "Mean score of the baseline's runs.", "", _score(state, "baseline")),
        gauge(
            "controller_running",
            "Whether a controller works on the study.",
            "",
            {"": health.get("controller_running")},
        ),
        gauge("budget_spent", "What has been spent, by unit.", "unit", budget.get("spent")),
        gauge("budget_cap", "What may be spent, by unit.", "unit", budget.get("caps")),
        gauge("health", "Numbers of the controller's health; true is 1.", "check", health),
    ]


def _score(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"": (state.get(name) or {}).get("score")}


@contextmanager
def serve(port: int, read: Callable[[], Mapping[str, Any]]) -> Iterator[int]:
    """Serve `/metrics` on this machine's own address while the context lasts, and yield the port.

    Port 0 takes any that is free. Each scrape calls `read` for the object of `status --json`: in a thread that is not
    the caller's, and in another each time, but never twice at once and never after the context has ended. Where it
    raises, the scrape is answered with 500. Raises UserError where the port can't be had.
    """
    try:
        server = _Server(port, read)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "is in use" if taken else "can't be opened"
        raise UserError(f"port {port} {why}, so metrics can't be served there; choose another, or 0 for any") from None
    thread = Thread(
        target=server.serve_forever, kwargs={"poll_interval": POLL_SECONDS}, name="autoresearch-metrics", daemon=True
    )
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.end()
        thread.join()


class _Server(ThreadingTCPServer):
    """Answers each client in a thread of its own, so that one that stalls holds up neither the others nor the end."""

    # Not http.server's: that one looks up the machine's name, which may take a name server's time.

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, read: Callable[[], Mapping[str, Any]]) -> None:
        self._read = read
        self._reading = Lock()
        self._ended = False
        super().__init__((HOST, port), _Handler)

    def metrics(self) -> bytes | None:
        """What a scrape gets; None where it can't be read."""
        with self._reading:
            if self._ended:
                return None
            try:
                return exposition(self._read()).encode()
            except Exception as error:
                log.warning("metrics could not be read", extra={"error": f"{type(error).__name__}: {error}"})
                return None

    def end(self) -> None:
        """Take no more clients, and wait for the one that is reading."""
        self.shutdown()
        self.server_close()
        with self._reading:
            self._ended = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away or stalled: nobody's concern."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_SECONDS
    server_version = "autoresearch"
    sys_version = ""

    def do_GET(self) -> None:
        from prometheus_client import CONTENT_TYPE_LATEST

        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, "text/plain; charset=utf-8", b"see /metrics\n")
        elif (body := self.server.metrics()) is None:
            self._answer(500, "text/plain; charset=utf-8", b"how the study stands can't be read now\n")
        else:
            self._answer(200, CONTENT_TYPE_LATEST, body)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""
