"""What the scheduler asks of whatever runs attempts, and what it hears back: one protocol for every backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from controller.records import Attempt, Cluster


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything an attempt needs on its cluster.

    `archive` is the candidate's commit as a tar; `job` what the harness is told (`harness.run.Job`), all but the
    attempt's id and nonce, which come with the attempt.
    """

    archive: bytes
    job: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What to acquire: so many clusters, each set up with the files of `setup` before it counts as up."""

    clusters: int
    setup: Bundle


@dataclass(frozen=True, slots=True)
class Started:
    """An attempt is running."""

    attempt: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """An attempt has spent `fraction` of its budget; its last loss, where it was told."""

    attempt: str
    fraction: float
    loss: float | None


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt is over. `report` is the harness's result, or None with what is known as `reason`."""

    attempt: str
    report: Mapping[str, Any] | None
    reason: str = ""


BackendEvent = Started | Progressed | Ended


class Backend(Protocol):
    """Runs attempts on clusters. Every backend passes tests/backends/conformance.py."""

    name: str
    capacity: int
    """How many attempts can run at once, whatever the number of clusters."""

    def acquire(self, fleet: Fleet) -> AsyncIterator[Cluster]:
        """Clusters as they come up, set up and ready. Raises NothingRan where none can be had."""

    async def submit(self, cluster: str, attempt: Attempt, bundle: Bundle) -> None:
        """Have `attempt` run on `cluster`, perhaps behind one that is running. Again with the same id: no effect."""

    def events(self) -> AsyncIterator[BackendEvent]:
        """What happens to all attempts, submitted or adopted, until the iterator is closed."""

    async def discard(self, attempt: str) -> None:
        """The outcome is recorded: what the attempt left on its cluster may go, its log excepted."""

    async def log(self, attempt: str, tail: int | None = None) -> str:
        """The attempt's log, or its last `tail` lines; empty where there is none."""

    async def cancel(self, attempt: str) -> None:
        """End an attempt and everything it started; its `Ended` follows. Unknown or over: no effect."""

    async def owned(self, study: str) -> set[str]:
        """Attempts of `study` that are alive or wait to be collected; from now on `events` tells of them."""

    async def release(self, clusters: Iterable[str]) -> None:
        """Give clusters back; what still runs on them is ended."""
