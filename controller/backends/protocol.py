"""What the scheduler asks of whatever runs attempts, and what it hears back: one protocol for every backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from controller.records import Attempt, Cluster, Label


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
    """What to have up: so many clusters of `study`, each set up with the files of `setup` before it counts as up."""

    clusters: int
    setup: Bundle
    study: str = ""


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
    """An attempt is over. `report` is the harness's result, or None with what is known as `reason`.

    `label` is what became of it, where its backend knows that without a report; else it is held to be lost.
    """

    attempt: str
    report: Mapping[str, Any] | None
    reason: str = ""
    label: Label = Label.LOST


@dataclass(frozen=True, slots=True)
class Vanished:
    """A cluster is no more, and nobody asked for that: preempted, broken, or shut down as it idled.

    Each attempt that was on it ends as well, with an `Ended` of its own, before this or after.
    """

    cluster: str
    reason: str


@dataclass(frozen=True, slots=True)
class Awaited:
    """Clusters that were asked for are not there yet, and why, as far as is known; "": none is waited for any more."""

    reason: str


BackendEvent = Started | Progressed | Ended | Vanished | Awaited


class Unreachable(Exception):
    """The backend gives no answer now, and may later. Whether it did what it was asked is not known."""


class Backend(Protocol):
    """Runs attempts on clusters. Every backend passes tests/backends/conformance.py.

    Each coroutine may raise Unreachable; asked again, it does no more than it would have done the first time.
    """

    name: str
    capacity: int
    """How many attempts can run at once, whatever the number of clusters."""
    idle_seconds: float
    """After how long without work a cluster shuts itself down, should nobody be there to do it; 0: idling is free."""
    prices: Mapping[str, float]
    """Dollars for an hour of an accelerator, as far as it knows."""

    def acquire(self, fleet: Fleet) -> AsyncIterator[Cluster]:
        """Have so many clusters up: those that are, then the others as they come up, set up and ready.

        Fewer where some, or all, can't be had now. Raises NothingRan where asking again would be in vain.
        """

    async def up(self, study: str) -> list[Cluster]:
        """The clusters of `study` that are up or coming up, whoever acquired them."""

    async def submit(self, cluster: str, attempt: Attempt, bundle: Bundle) -> None:
        """Have `attempt` run on `cluster`, perhaps behind one that is running. Again with the same id: no effect."""

    def events(self) -> AsyncIterator[BackendEvent]:
        """What happens to clusters and to all attempts, submitted or adopted, until the iterator is closed."""

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
