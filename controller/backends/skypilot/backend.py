"""GPU clusters wherever SkyPilot reaches: Kubernetes, Slurm, any cloud.

A cluster is a SkyPilot cluster, an attempt a job on it, of the attempt's name, in a directory of its own. The next is
queued before the one before it is over, so that the cluster itself goes on with it a second later. What becomes of
jobs is heard from their logs, one stream a cluster, and asked for only where those are silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.backends.protocol import (
    Awaited,
    BackendEvent,
    Bundle,
    Ended,
    Fleet,
    Progressed,
    Started,
    Unreachable,
    Vanished,
)
from controller.backends.skypilot.following import Finish, asked, follow
from controller.backends.skypilot.parcel import command, forgotten, packed
from controller.backends.skypilot.provisioning import Plan, Provisioner
from controller.backends.skypilot.sdk import Gone, Job, Record, Refused, Sdk
from controller.backends.skypilot.stream import Line
from controller.backends.skypilot.trouble import Inquiry, Trouble, of_pods
from controller.clock import Clock
from controller.records import Attempt, Cluster, Label

log = logging.getLogger(__name__)

DISCARDED = "discarded"
LOG = "log.txt"


@dataclass
class _Flight:
    """An attempt on a cluster, submitted or adopted."""

    attempt: str
    cluster: str
    job: int
    started: bool = False
    fraction: float = -1.0


class SkyPilot:
    """The clusters of one workspace through SkyPilot. `directory` is the controller's own folder in it."""

    name = "skypilot"
    capacity = 10_000

    def __init__(
        self,
        sdk: Sdk,
        plan: Plan,
        directory: Path,
        clock: Clock,
        prices: Mapping[str, float],
        inquire: Inquiry = of_pods,
    ) -> None:
        self.prices = prices
        self._inquire = inquire
        self.idle_seconds = plan.idle_minutes * 60.0
        self._sdk = sdk
        self._clock = clock
        self._attempts = directory / "attempts"
        self._scratch = directory / "parcels"
        self._told: asyncio.Queue[BackendEvent | Unreachable] = asyncio.Queue()
        self._fleet = Provisioner(
            sdk,
            plan,
            directory,
            clock,
            set_aside=lambda name, why: self._tell(Vanished(name, why)),
            troubled=self._told.put_nowait,
            awaited=lambda why: self._tell(Awaited(why)),
            inquire=inquire,
        )
        self._records: dict[str, Record] = {}
        self._flights: dict[str, _Flight] = {}
        self._over: set[str] = set()
        self._doubtful: set[str] = set()
        self._queues: dict[str, list[_Flight]] = defaultdict(list)
        self._workers: dict[str, asyncio.Task[None]] = {}

    async def acquire(self, fleet: Fleet) -> AsyncIterator[Cluster]:
        try:
            async for record in self._fleet.bring(fleet):
                self._records[record.name] = record
                yield self._fleet.seen(record)
        except Gone as error:
            raise Unreachable(str(error)) from None

    async def up(self, study: str) -> list[Cluster]:
        return await self._fleet.up(study)

    async def submit(self, cluster: str, attempt: Attempt, bundle: Bundle) -> None:
        if attempt.id in self._flights or attempt.id in self._over:
            return
        try:
            number = await self._number_of(cluster, attempt) if attempt.id in self._doubtful else None
            if number is None:
                number = await asked(self._sdk, cluster, self._queue(cluster, attempt, bundle))
        except Unreachable:
            self._doubtful.add(attempt.id)
            raise
        except Refused as error:
            self._over.add(attempt.id)
            self._tell(Ended(attempt.id, None, f"SkyPilot refused it: {error}"))
            return
        except Gone as error:
            self._over.add(attempt.id)
            self._tell(Ended(attempt.id, None, f"its cluster is gone: {error}"))
            await self._lost(cluster, str(error))
            return
        self._doubtful.discard(attempt.id)
        self._fly(_Flight(attempt.id, cluster, number))

    async def events(self) -> AsyncIterator[BackendEvent]:
        while True:
            told = await self._told.get()
            if isinstance(told, Unreachable):
                raise told
            yield told

    async def discard(self, attempt: str) -> None:
        forgotten(self._scratch, attempt)
        directory = self._attempts / attempt
        if directory.is_dir() or attempt in self._over:
            directory.mkdir(parents=True, exist_ok=True)  # It may have ended before it wrote a line.
            (directory / DISCARDED).touch()

    async def log(self, attempt: str, tail: int | None = None) -> str:
        path = self._attempts / attempt / LOG
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return text if tail is None else "".join(text.splitlines(keepends=True)[-tail:])

    async def cancel(self, attempt: str) -> None:
        flight = self._flights.get(attempt)
        if flight is None:
            return
        try:
            await asked(self._sdk, flight.cluster, self._sdk.cancel(flight.cluster, flight.job))
        except Gone as error:
            await self._lost(flight.cluster, str(error))
            return
        except Refused as error:
            log.warning("job can't be cancelled", extra={"attempt": attempt, "reason": str(error)})
            return
        queue = self._queues[flight.cluster]
        if flight in queue[1:]:  # nobody follows it yet
            queue.remove(flight)
            self._end(flight, Finish(None, "CANCELLED"))

    async def owned(self, study: str) -> set[str]:
        mine = await self._fleet.mine()
        await self._settled(mine)
        adopted = await asyncio.gather(*(self._adopt(record, study) for record in mine.values() if record.is_up))
        # What has ended since it was adopted waits to be collected like the others.
        flying = {flight.attempt for flight in self._flights.values() if _study_of(flight.attempt) == study}
        return flying.union(*adopted)

    async def release(self, clusters: Iterable[str]) -> None:
        names = list(clusters)
        for name in names:
            if worker := self._workers.pop(name, None):
                worker.cancel()
        await self._fleet.take_down(names)
        for name in names:
            self._records.pop(name, None)
            for flight in self._queues.pop(name, []):
                self._end(flight, Finish(None, "CANCELLED"))

    # Submitting

    async def _queue(self, cluster: str, attempt: Attempt, bundle: Bundle) -> int:
        record = self._records.get(cluster)
        if record is None:
            mine = await self._fleet.mine()
            if cluster not in mine:
                raise Gone("there is no such cluster of this workspace")
            record = self._records[cluster] = mine[cluster]
        recipe = self._fleet.plan.recipe
        # All that the cluster has, so that jobs wait for each other.
        whole = {"accelerators": {record.named: record.count}} if record.count else {"cpus": f"{record.cpus:g}"}
        with packed(self._scratch, attempt, bundle, self._fleet.job(bundle.job)) as root:
            task = {
                "name": attempt.id,
                "run": command(attempt.id, bundle, self.idle_seconds),
                "workdir": str(root),
                "resources": whole,
                "envs": dict(recipe.environment),
                "num_nodes": recipe.nodes,
            }
            return await self._sdk.submit(self._sdk.task(task), cluster)

    async def _number_of(self, cluster: str, attempt: Attempt) -> int | None:
        """The job of an attempt whose submission was not answered; None where it did not come to be."""
        await self._settled([cluster])
        jobs = await asked(self._sdk, cluster, self._sdk.jobs(cluster))
        return next((job.number for job in jobs if job.name == attempt.id), None)

    async def _settled(self, clusters: Iterable[str]) -> None:
        """Return once the server has done all that it was asked to submit to `clusters`, by whomever."""
        names = set(clusters)
        while not names.isdisjoint(await self._sdk.in_flight("exec")):
            await self._clock.sleep(0.5)

    # Following

    def _fly(self, flight: _Flight) -> None:
        self._flights[flight.attempt] = flight
        self._queues[flight.cluster].append(flight)
        self._queues[flight.cluster].sort(key=lambda one: one.job)
        worker = self._workers.get(flight.cluster)
        if worker is None or worker.done():
            task = asyncio.ensure_future(self._work(flight.cluster))
            self._workers[flight.cluster] = task
            task.add_done_callback(lambda done: self._worked(flight.cluster, done))

    def _worked(self, cluster: str, task: asyncio.Task[None]) -> None:
        if self._workers.get(cluster) is task:
            del self._workers[cluster]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("following a cluster failed", exc_info=error, extra={"cluster": cluster})
            self._told.put_nowait(Unreachable(f"{cluster} can't be followed: {error}"))

    async def _work(self, cluster: str) -> None:
        """Follow the attempts of a cluster, one after another."""
        while queue := self._queues.get(cluster):
            flight = queue[0]
            path = self._attempts / flight.attempt / LOG
            try:
                finish = await follow(
                    self._sdk,
                    self._clock,
                    cluster,
                    flight.job,
                    path,
                    lambda line, flight=flight: self._hear(flight, line),  # type: ignore[misc]
                    self._told.put_nowait,
                )
            except Gone as error:
                await self._lost(cluster, str(error))
                return
            trouble = None
            if finish.report is None and finish.state != "CANCELLED" and (record := self._records.get(cluster)):
                trouble = await self._inquire(record)
            if flight in queue:
                queue.remove(flight)
            self._end(flight, finish, trouble)

    def _hear(self, flight: _Flight, line: Line) -> None:
        if flight.attempt not in self._flights or line.setup:
            return
        if not flight.started:
            flight.started = True
            self._tell(Started(flight.attempt))
        told = line.progress or {}
        fraction, loss = told.get("progress"), told.get("loss")
        if isinstance(fraction, (int, float)) and fraction != flight.fraction:
            flight.fraction = float(fraction)
            self._tell(Progressed(flight.attempt, flight.fraction, loss if isinstance(loss, float) else None))

    def _end(self, flight: _Flight, finish: Finish, trouble: Trouble | None = None) -> None:
        if self._flights.pop(flight.attempt, None) is None:
            return
        self._over.add(flight.attempt)
        if finish.report is None and finish.state == "CANCELLED":
            told = {"attempt": flight.attempt, "status": "cancelled", "reason": "ended by the controller"}
            self._tell(Ended(flight.attempt, told))
        elif finish.report is not None:
            self._tell(Ended(flight.attempt, finish.report))
        else:
            trouble = trouble or Trouble(finish.reason, Label.LOST)
            self._tell(Ended(flight.attempt, None, trouble.sentence, trouble.label))

    async def _lost(self, cluster: str, reason: str) -> None:
        """A cluster is gone that nobody gave back: so are its attempts."""
        if (worker := self._workers.pop(cluster, None)) and worker is not asyncio.current_task():
            worker.cancel()
        record = self._records.pop(cluster, None)
        known = record is not None or cluster in self._queues
        trouble = await self._inquire(record) if record is not None else None
        trouble = trouble or Trouble(reason, Label.LOST)
        for flight in self._queues.pop(cluster, []):
            if self._flights.pop(flight.attempt, None) is not None:
                self._over.add(flight.attempt)
                self._tell(Ended(flight.attempt, None, f"its cluster is gone: {trouble.sentence}", trouble.label))
        if known:
            self._tell(Vanished(cluster, trouble.sentence))
        # What may be left of it costs money.
        with contextlib.suppress(Unreachable, Refused):
            await self._fleet.take_down([cluster])

    # Adopting

    async def _adopt(self, record: Record, study: str) -> set[str]:
        """Take up what is on a cluster of `study`, and has not been discarded."""
        try:
            jobs = await asked(self._sdk, record.name, self._sdk.jobs(record.name))
        except Gone as error:
            await self._lost(record.name, str(error))
            return set()
        self._records.setdefault(record.name, record)
        found = set()
        for job in _first_of_each(jobs):
            if _study_of(job.name) == study and not (self._attempts / job.name / DISCARDED).exists():
                found.add(job.name)
                if job.name not in self._flights and job.name not in self._over:
                    self._fly(_Flight(job.name, record.name, job.number))
        return found

    def _tell(self, event: BackendEvent) -> None:
        self._told.put_nowait(event)


def _study_of(attempt: str) -> str | None:
    """The study of an attempt's id, `<study>.<experiment>.<number>`; None for jobs of other names."""
    study, *others = attempt.rsplit(".", 2)
    return study if len(others) == 2 else None


def _first_of_each(jobs: Iterable[Job]) -> list[Job]:
    """Jobs, but of those with one name the first: a later one of that name was submitted twice, and did nothing."""
    found: dict[str, Any] = {}
    for job in jobs:
        found.setdefault(job.name, job)
    return list(found.values())
