"""SkyPilot as far as the controller uses it, on this machine: clusters are directories, their jobs run for real.

`World` is what outlives a controller, the server and the clusters, with a switch for everything that was seen to go
wrong between the two; `Sky` stands where the module `sky` would, one for each controller.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import io
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.processes import PATIENCE_SECONDS, alive_in

GRACE_SECONDS = 5.0
"""How long a job that is cancelled may take to end before it is killed."""
CPUS = 4.0
GPU_HOUR_DOLLARS = 2.0
KEYS = frozenset({"name", "resources", "workdir", "setup", "run", "envs", "secrets", "num_nodes", "file_mounts"})
RESOURCES = frozenset(
    {"accelerators", "any_of", "ordered", "cpus", "memory", "infra", "cloud", "region", "zone", "labels", "use_spot"}
    | {"autostop", "disk_size", "image_id", "instance_type"}
)

CYAN, GREEN, RED, DIM, RESET = (f"\x1b[{code}m" for code in (36, 32, 31, 2, 0))
WAITING = f"{DIM}├── {RESET}{DIM}Waiting for task resources on 1 node.{RESET}\n"
BEGUN = f"{DIM}└── {RESET}Job started. Streaming logs... {DIM}(Ctrl-C to exit log streaming; not the job){RESET}\n"


class ClusterDoesNotExist(ValueError):
    """As of sky.exceptions."""


class ClusterNotUpError(Exception):
    """As of sky.exceptions."""


class CommandError(Exception):
    """As of sky.exceptions: a node does not answer."""


class ResourcesUnavailableError(Exception):
    """As of sky.exceptions."""


class ResourcesMismatchError(Exception):
    """As of sky.exceptions."""


class NotSupportedError(Exception):
    """As of sky.exceptions."""


class RequestCancelled(Exception):
    """As of sky.exceptions."""


class ApiServerConnectionError(RuntimeError):
    """As of sky.exceptions."""


class ChunkedEncodingError(OSError):
    """As of requests.exceptions: the connection broke."""


class StatusRefreshMode(Enum):
    """As of sky."""

    NONE = "NONE"
    AUTO = "AUTO"
    FORCE = "FORCE"


class ClusterStatus(Enum):
    """As of sky."""

    INIT = "INIT"
    UP = "UP"
    STOPPED = "STOPPED"


class JobStatus(Enum):
    """As of sky."""

    INIT = "INIT"
    PENDING = "PENDING"
    SETTING_UP = "SETTING_UP"
    RUNNING = "RUNNING"
    FAILED_DRIVER = "FAILED_DRIVER"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    FAILED_SETUP = "FAILED_SETUP"
    CANCELLED = "CANCELLED"

    def is_terminal(self) -> bool:
        """Whether it changes no more."""
        return self not in (JobStatus.INIT, JobStatus.PENDING, JobStatus.SETTING_UP, JobStatus.RUNNING)


class When(Enum):
    """At which point a call fails."""

    BEFORE = "nothing is done"
    UNHEARD = "the request is made, but nobody is told its id"
    AFTER = "it is done, but nobody is told"
    INSTEAD = "the server says so instead of doing it"


class Task:
    """As of sky: a task that makes sense to SkyPilot."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.name = config.get("name")

    @staticmethod
    def from_yaml_config(config: dict[str, Any]) -> Task:
        """Raises ValueError as the real one does."""
        config = copy.deepcopy(config)
        resources = config.get("resources", {})
        alternatives = [*(resources.get("any_of") or ()), *(resources.get("ordered") or ())]
        unknown = [
            *(config.keys() - KEYS),
            *(key for one in (resources, *alternatives) for key in one.keys() - RESOURCES),
        ]
        if unknown:
            raise ValueError(
                f"Invalid task YAML: Additional properties are not allowed ({unknown[0]!r} was unexpected)"
            )
        texts = [config.get(key, "") for key in ("workdir", "setup", "run")]
        texts += [text for key in ("envs", "secrets") for one in config.get(key, {}).items() for text in one]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("Invalid task YAML: not of type 'string'")
        return Task(config)

    def validate_name(self) -> None:
        """Raises ValueError as the real one does, which looks at names no earlier than this."""
        if self.name is not None and not re.fullmatch("[a-zA-Z0-9]+(?:[._-]{1,2}[a-zA-Z0-9]+)*", self.name):
            raise ValueError(f"Invalid task name {self.name}.")


@dataclass(eq=False)
class Job:
    """A job on a cluster. `lines` is its log, without what SkyPilot says at its end."""

    number: int
    task: Mapping[str, Any]
    needs: float
    setup: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)
    status: JobStatus = JobStatus.PENDING
    lines: list[str] = field(default_factory=lambda: [WAITING])
    readings: int = 0
    ending: bool = False
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What its task is called."""
        return str(self.task.get("name") or "sky-cmd")

    @property
    def pids(self) -> list[int]:
        """Its processes that have not been waited for: the ids of others may be somebody else's by now."""
        return [process.pid for process in self.processes if process.returncode is None]


@dataclass(eq=False)
class Machines:
    """A cluster. `directory` has a home for each of its machines."""

    name: str
    directory: Path
    resources: Mapping[str, Any]
    accelerator: str
    count: float
    nodes: int
    infra: tuple[str, ...]
    status: ClusterStatus = ClusterStatus.INIT
    owner: str = "me"
    labels: Mapping[str, str] = field(default_factory=dict)
    idle_minutes: int | None = None
    goes_down: bool = False
    jobs: list[Job] = field(default_factory=list)
    launched_at: float = field(default_factory=time.time)
    why: str = ""
    lost: str = ""
    """How a lost one is noticed: its streams `break`, or fall `silent`."""
    stuck: bool = False
    """Whether it starts nothing any more."""
    busy: threading.RLock = field(default_factory=threading.RLock)

    @property
    def homes(self) -> list[Path]:
        """The home of each of its machines."""
        return [self.directory / f"machine-{number}" for number in range(self.nodes)]

    @property
    def workdirs(self) -> list[Path]:
        """Where each machine has the working directories of all jobs."""
        return [home / "sky_workdir" for home in self.homes]


@dataclass(eq=False)
class Request:
    """What the server was asked."""

    id: str
    call: str
    cluster: str | None
    done: bool = False
    cancelled: bool = False
    forgotten: bool = False
    result: Any = None
    error: BaseException | None = None
    answer: Exception | None = None
    """What is said in place of its answer."""


@dataclass
class Fault:
    """The next `left` calls fail with `error`."""

    error: Exception
    when: When
    left: int


@dataclass
class Cut:
    """What becomes of a stream once it has given a line with `after` in it: it `breaks`, `ends`, or falls `silent`."""

    after: str
    how: str
    times: int = 1
    """How many streams of those that are asked for."""


@dataclass(frozen=True)
class Launch:
    """How a cluster was asked for."""

    name: str
    config: Mapping[str, Any]
    idle_minutes: int | None
    down: bool


class World:
    """A SkyPilot server with its clusters, in `directory`.

    stock: how many clusters each accelerator suffices for; None for any number of any. infra: where clusters are that
    don't say.
    """

    def __init__(
        self, directory: Path, stock: Mapping[str, int] | None = None, infra: tuple[str, ...] = ("Kubernetes", "there")
    ) -> None:
        self.directory = directory
        self.stock = stock
        self.infra = infra
        self.clusters: dict[str, Machines] = {}
        self.requests: dict[str, Request] = {}
        self.calls: Counter[str] = Counter()
        self.launches: list[Launch] = []
        self.executed: list[tuple[str, Mapping[str, Any]]] = []
        """Each job that was submitted after its cluster was launched: cluster and task."""
        self.downs: list[str] = []
        """Clusters that were taken down, or should have been."""
        self.price_list: dict[str, list[Any]] = {}
        self.enabled: list[str] = [infra[0]]
        self.faults: dict[str, list[Fault]] = {}
        self.cuts: list[Cut] = []
        self.twice = False
        """Whether each submission is made twice."""
        self.praises = False
        """Whether every job is said to have succeeded."""
        self.labels_late = False
        """Whether a cluster carries no label before it is up."""
        self.lingers = False
        """Whether a lost cluster is still listed once it was looked at: as broken."""
        self.on_made: Callable[[Machines], None] = lambda machines: None
        """Is called with each cluster before it is listed."""
        self.closed = False
        self._held: set[str] = set()
        self._waiting: Counter[str] = Counter()
        self._made_so_far = itertools.count(1)
        self._launching: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._state = threading.Condition(threading.RLock())
        self._threads: list[threading.Thread] = []

    # What a test makes happen

    def fail(self, call: str, error: Exception | None = None, when: When = When.BEFORE, times: int = 1) -> None:
        """The next `times` calls of `call` fail; by a connection that breaks, if nothing else is said."""
        error = error or ChunkedEncodingError("Connection broken: RemoteDisconnected")
        self.faults.setdefault(call, []).append(Fault(error, when, times))

    def hold(self, place: str) -> None:
        """Requests wait at `place` from now on: what they are called, or `provision`, once a cluster is listed."""
        with self._state:
            self._held.add(place)

    def let_go(self, place: str) -> None:
        """They go on."""
        with self._state:
            self._held.discard(place)
            self._state.notify_all()

    def held(self, place: str) -> int:
        """How many wait there."""
        return self._waiting[place]

    def lose(self, cluster: str, how: str) -> None:
        """A cluster's machine dies. Streams `break`, `end` or fall `silent`; it is listed until somebody looks."""
        found = self.clusters[cluster]
        with self._state:
            found.lost = how
            self._state.notify_all()
        self._stop(found)

    def forget_jobs(self, cluster: str) -> None:
        """A cluster knows nothing of its jobs any more; they end."""
        found = self.clusters[cluster]
        with self._state:
            jobs, found.jobs = found.jobs, []
            for job in jobs:
                job.ending = True
            self._state.notify_all()
        _end(pid for job in jobs for pid in job.pids)

    def forget_requests(self) -> None:
        """The server is started anew: it knows nothing of what it was asked before, though it is done."""
        with self._state:
            for request in self.requests.values():
                request.forgotten = True
            self._state.notify_all()

    def kill(self, cluster: str, number: int) -> None:
        """A job's processes are killed by somebody."""
        _end(self.clusters[cluster].jobs[number - 1].pids, at_once=True)

    def unstick(self, cluster: str) -> None:
        """A cluster starts jobs again."""
        with self._state:
            self.clusters[cluster].stuck = False
            self._start_next(self.clusters[cluster])

    def somebodys(self, name: str, up: bool = True, labels: Mapping[str, str] | None = None) -> Machines:
        """Somebody else's cluster."""
        there = self.made(name, {"labels": dict(labels or {})}, "H100", 1)
        there.status = ClusterStatus.UP if up else ClusterStatus.INIT
        there.owner = "somebody"
        return there

    def job(self, cluster: str, name: str) -> Job:
        """The last job of that name."""
        return [job for job in self.clusters[cluster].jobs if job.name == name][-1]

    def close(self) -> None:
        """End everything."""
        with self._state:
            self.closed = True
            self._state.notify_all()
        for cluster in list(self.clusters.values()):
            self._stop(cluster)
        _end(alive_in(self.directory))
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    # The server

    def ask(self, call: str, cluster: str | None, work: Callable[[Request], Any]) -> str:
        """Make a request; returns its id."""
        with self._state:
            self.calls[call] += 1
            fault = self._fault(call)
            if fault and fault.when is When.BEFORE:
                raise fault.error
            request = Request(uuid.uuid4().hex, call, cluster)
            if fault and fault.when is When.AFTER:
                request.answer = fault.error
            self.requests[request.id] = request

        def serve() -> None:
            try:
                self._pass(call, request)
                if fault and fault.when is When.INSTEAD:
                    raise fault.error
                request.result = work(request)
            except BaseException as error:
                request.error = error
            with self._state:
                request.done = True
                self._state.notify_all()

        self._spawn(serve)
        if fault and fault.when is When.UNHEARD:
            raise fault.error
        return request.id

    def answer(self, request_id: str) -> Any:
        """What a request came to."""
        request = self.requests[request_id]
        with self._state:
            self._state.wait_for(lambda: request.done or request.cancelled or request.forgotten or self.closed)
            if request.forgotten:
                raise RuntimeError(f"Failed to get request {request_id}: 404 not found")
            if request.cancelled or not request.done:
                raise RequestCancelled(f"Current {request.call!r} request ({request_id}) is cancelled")
            if request.answer is not None:
                raise request.answer
            if request.error is not None:
                raise request.error
            return request.result

    def unfinished(self) -> list[Any]:
        """The requests that the server works on."""
        with self._state:
            fault = self._fault("api_status")
            if fault:
                raise fault.error
            self.calls["api_status"] += 1
            return [
                SimpleNamespace(request_id=one.id, name=f"sky.{one.call}", cluster_name=one.cluster, status="RUNNING")
                for one in self.requests.values()
                if not (one.done or one.cancelled or one.forgotten)
            ]

    def give_up(self, requests: Iterable[str]) -> list[str]:
        """Have requests cancelled."""
        found = [self.requests[one] for one in requests]
        with self._state:
            for request in found:
                request.cancelled = not request.done
            self._state.notify_all()
        return [request.id for request in found]

    def _fault(self, call: str) -> Fault | None:
        for fault in self.faults.get(call, ()):
            if fault.left:
                fault.left -= 1
                return fault
        return None

    def _pass(self, place: str, request: Request) -> None:
        with self._state:
            self._waiting[place] += 1
            self._state.wait_for(lambda: place not in self._held or request.cancelled or self.closed)
            self._waiting[place] -= 1
            if request.cancelled or self.closed:
                raise RequestCancelled(request.id)

    def _spawn(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True, name="double")
        self._threads.append(thread)
        thread.start()

    # Clusters

    def launch(self, request: Request, task: Task, launch: Launch) -> tuple[int, Any]:
        """Have a cluster, new or not, and a job on it that sets it up first."""
        self.launches.append(launch)
        with self._state:
            lock = self._launching[launch.name]
        with lock:
            there = self.clusters.get(launch.name)
            if there is None or there.status is not ClusterStatus.UP:
                there = self._provision(request, task, launch)
            with there.busy:
                return self._submit(there, task, launching=True), self._handle(there)

    def _provision(self, request: Request, task: Task, launch: Launch) -> Machines:
        with self._state:
            choice = self._chosen(task)
            if launch.idle_minutes is not None and self._place(choice)[0] == "Slurm":
                raise NotSupportedError("Autostop is not supported on Slurm without Pyxis.")
            (accelerator, count), *_ = [*choice["accelerators"].items(), ("CPU", 0)]
            nodes = int(task.config.get("num_nodes", 1))
            there = self.made(launch.name, choice, accelerator, float(count or 0), nodes)
            there.idle_minutes, there.goes_down = launch.idle_minutes, launch.down
        self._pass("provision", request)
        with self._state:
            if self.clusters.get(launch.name) is not there:
                raise RequestCancelled(request.id)
            there.status = ClusterStatus.UP
        return there

    def execute(self, cluster: str, task: Task) -> tuple[int, Any]:
        """Queue a job, or two."""
        there = self._reached(cluster)
        with there.busy:
            for name, count in _needs(task).items():
                if name.lower() != there.accelerator.lower() or count > there.count:
                    raise ResourcesMismatchError(f"{name}:{count:g} does not match {there.accelerator}:{there.count:g}")
            self.executed.append((cluster, task.config))
            numbers = [self._submit(there, task, launching=False) for _ in range(2 if self.twice else 1)]
            return numbers[-1], self._handle(there)

    def status(self, names: list[str] | None, refresh: StatusRefreshMode) -> list[dict[str, Any]]:
        """The clusters as they are listed."""
        with self._state:
            found = [one for one in self.clusters.values() if names is None or one.name in names]
            if refresh is StatusRefreshMode.FORCE:
                for one in [one for one in found if one.lost]:
                    one.status, one.why = ClusterStatus.INIT, "the node was terminated"
                    if not self.lingers:
                        del self.clusters[one.name]
                        found.remove(one)
            return [
                {
                    "name": one.name,
                    "status": one.status,
                    "launched_at": int(one.launched_at),
                    "handle": self._handle(one),
                    "user_name": one.owner,
                    "init_status_reason": one.why or None,
                    "last_event": None,
                }
                for one in found
            ]

    def take_down(self, cluster: str) -> None:
        """End a cluster, and what was asked for it."""
        self.downs.append(cluster)
        with self._state:
            there = self.clusters.get(cluster)
            if there is None:
                raise ClusterDoesNotExist(f"Cluster {cluster!r} does not exist.")
            for request in self.requests.values():
                if request.cluster == cluster and request.call in ("launch", "exec") and not request.done:
                    request.cancelled = True
            del self.clusters[cluster]
            self._state.notify_all()
        self._stop(there)

    def jobs(self, cluster: str) -> list[Any]:
        """A cluster's jobs, the last first."""
        there = self._reached(cluster)
        with self._state:
            return [
                SimpleNamespace(job_id=one.number, job_name=one.name, status=one.status) for one in there.jobs[::-1]
            ]

    def job_status(self, cluster: str, numbers: list[int]) -> dict[int, JobStatus | None]:
        """The status of jobs; None for those there are none of."""
        there = self._reached(cluster)
        with self._state:
            known = {job.number: job.status for job in there.jobs}
            return {number: known.get(number) for number in numbers}

    def cancel(self, cluster: str, numbers: list[int]) -> None:
        """End jobs."""
        there = self._reached(cluster)
        with self._state:
            jobs = [job for job in there.jobs if job.number in numbers and not job.status.is_terminal()]
            for job in jobs:
                job.ending = True
                if job.status is JobStatus.PENDING:
                    job.status = JobStatus.CANCELLED
            self._start_next(there)
            self._state.notify_all()
        _end(pid for job in jobs for pid in job.pids)
        with self._state:
            self._state.wait_for(lambda: all(job.status.is_terminal() for job in jobs), PATIENCE_SECONDS)

    def autostop(self, cluster: str, idle_minutes: int, down: bool) -> None:
        """Have a cluster stop by itself, or go down."""
        there = self._reached(cluster)
        if there.infra[0] == "Slurm":
            raise NotSupportedError("Autostop is not supported on Slurm without Pyxis.")
        there.idle_minutes, there.goes_down = idle_minutes, down

    def stream(self, cluster: str, number: int, follow: bool) -> Iterator[str | None]:
        """A job's log from its first line, and on while it runs."""
        yield None
        with self._state:
            there = self.clusters.get(cluster)
            job = next((job for job in there.jobs if job.number == number), None) if there else None
        if there is None or job is None:
            yield f"Job {number} not found (see `sky queue`).\n"
            return
        cut = next(iter(self.cuts), None)
        if cut:
            cut.times -= 1
            self.cuts = [one for one in self.cuts if one.times]
        job.readings += 1
        if job.readings == 1:
            yield "INFO: Waiting 1s for the logs to be written...\n"
        for place in itertools.count():
            is_cut = cut is not None and place > 0 and cut.after in job.lines[place - 1]
            how = cut.how if cut and is_cut else self._next_line(there, job, place, follow)
            if how == "silent":
                with self._state:
                    self._state.wait_for(lambda: self.closed)
            if how == "break":
                raise ChunkedEncodingError("Response ended prematurely")
            if how == "over":
                rest = "".join(job.lines[place:])
                yield f"{rest}{RESET}{GREEN}✓ Job finished (status: {job.status.value}).{RESET}{RESET}\n"
            if how:
                return
            yield job.lines[place]

    def _next_line(self, there: Machines, job: Job, place: int, follow: bool) -> str:
        """Wait until a log has a line more; else, why it has none."""
        with self._state:
            self._state.wait_for(
                lambda: self.closed or there.lost or _has(job, place) or job.status.is_terminal() or not follow
            )
            if self.closed or there.lost:
                return "end" if self.closed else there.lost
            if _has(job, place):
                return ""
            return "over" if job.status.is_terminal() else "end"

    def made(self, name: str, choice: Mapping[str, Any], accelerator: str, count: float, nodes: int = 1) -> Machines:
        """A cluster that is listed from now on, but not up."""
        directory = self.directory / f"{name}.{next(self._made_so_far)}"
        there = Machines(name, directory, choice, accelerator, count, nodes, self._place(choice))
        there.labels = choice.get("labels") or {}
        for home in there.homes:
            (home / "sky_workdir").mkdir(parents=True)
            (home / "bin").mkdir()
            if count:
                smi = home / "bin/nvidia-smi"
                smi.write_text(
                    f"#!/bin/sh\ncase $* in\n*=name*) echo NVIDIA {accelerator};;\n*=driver*) echo 550.54;;\nesac\n"
                )
                smi.chmod(0o755)
        self.on_made(there)
        self.clusters[name] = there
        return there

    def _place(self, choice: Mapping[str, Any]) -> tuple[str, ...]:
        asked = choice.get("infra") or choice.get("cloud")
        if not asked:
            return self.infra
        cloud, *region = str(asked).split("/", 1)
        return ({"aws": "AWS", "gcp": "GCP", "k8s": "Kubernetes"}.get(cloud.lower(), cloud.capitalize()), *region)

    def _chosen(self, task: Task) -> Mapping[str, Any]:
        """The first of a task's alternatives that is to be had. Raises ResourcesUnavailableError."""
        resources = task.config.get("resources", {})
        taken = Counter(one.accelerator for one in self.clusters.values())
        for one in resources.get("any_of") or resources.get("ordered") or [resources]:
            wanted = one.get("accelerators") or {}
            if isinstance(wanted, str):
                name, _, count = wanted.partition(":")
                wanted = {name: float(count or 1)}
            if self.stock is None or all(taken[name] < self.stock.get(name, 0) for name in wanted):
                return {**one, "accelerators": wanted}
        raise ResourcesUnavailableError("Failed to acquire resources in all zones: no node has so many of them.")

    def _handle(self, there: Machines) -> Any:
        late = self.labels_late and there.status is not ClusterStatus.UP
        return SimpleNamespace(
            cluster_name=there.name,
            cluster_name_on_cloud=f"{there.name}-1a2b",
            launched_nodes=there.nodes,
            launched_resources=SimpleNamespace(
                accelerators={there.accelerator: there.count} if there.count else None,
                labels=None if late or not there.labels else dict(there.labels),
                cloud=there.infra[0],
                region=there.infra[1] if there.infra[1:] else None,
                cpus=f"{CPUS:g}+",
                get_cost=lambda seconds: GPU_HOUR_DOLLARS * there.count * seconds / 3600,
            ),
        )

    def _reached(self, cluster: str) -> Machines:
        with self._state:
            there = self.clusters.get(cluster)
            if there is None:
                raise ClusterDoesNotExist(f"Cluster {cluster!r} does not exist.")
            if there.status is not ClusterStatus.UP:
                raise ClusterNotUpError(f"Cluster {cluster!r} is not up.")
            if there.lost:
                raise CommandError("Command failed with return code 255: ssh: connect to host: No route to host")
            return there

    # Jobs

    def _submit(self, there: Machines, task: Task, launching: bool) -> int:
        if workdir := task.config.get("workdir"):
            for one in there.workdirs:
                _synchronise(Path(workdir), one)
        with self._state:
            needs = max(_needs(task).values(), default=0.0) if not launching else there.count
            job = Job(len(there.jobs) + 1, task.config, needs)
            job.secrets = task.config.get("secrets", {})
            job.setup = task.config.get("setup", "") if launching else ""
            there.jobs.append(job)
            self._start_next(there)
            return job.number

    def _start_next(self, there: Machines) -> None:
        """Start what can be, in the order in which it was submitted."""
        for job in there.jobs:
            if job.status is JobStatus.PENDING:
                active = (JobStatus.SETTING_UP, JobStatus.RUNNING)
                used = sum(one.needs for one in there.jobs if one.status in active)
                if there.stuck or there.lost or self.closed or used + job.needs > there.count:
                    return
                job.status = JobStatus.SETTING_UP if job.setup else JobStatus.RUNNING
                self._spawn(lambda job=job: self._play(there, job))  # type: ignore[misc]

    def _play(self, there: Machines, job: Job) -> None:
        codes: list[int] = []
        status = JobStatus.SUCCEEDED
        self._log(job, BEGUN)
        if job.setup:
            codes = self._run(there, job, job.setup, setup=True)
            if any(codes):
                status = JobStatus.FAILED_SETUP
                self._log(job, f"ERROR: {RED}Job {job.number}'s setup failed with return code list: {codes}{RESET}\n")
        if not any(codes):
            job.status = JobStatus.RUNNING
            codes = self._run(there, job, job.task.get("run", ""), setup=False)
            status = JobStatus.SUCCEEDED if self.praises or not any(codes) else JobStatus.FAILED
        with self._state:
            job.status = JobStatus.CANCELLED if job.ending else status
            self._start_next(there)
            self._state.notify_all()

    def _run(self, there: Machines, job: Job, script: str, setup: bool) -> list[int]:
        """Run `script` on each machine; returns the exit codes."""
        with self._state:
            if job.ending:
                return []
            processes = [
                subprocess.Popen(
                    ["bash", "-c", script],
                    cwd=there.workdirs[rank],
                    env=self._environment(there, job, rank),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                for rank in range(there.nodes)
            ]
            job.processes += processes
        readers = [
            threading.Thread(target=self._read, args=(there, job, process, rank, setup), daemon=True)
            for rank, process in enumerate(processes)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        return [process.wait() for process in processes]

    def _read(self, there: Machines, job: Job, process: subprocess.Popen[bytes], rank: int, setup: bool) -> None:
        address = f", ip=10.0.0.{rank + 1}" if rank else ""
        if setup:
            who = f"setup pid={process.pid}{address}"
        elif there.nodes == 1:
            who = f"{job.name}, pid={process.pid}"
        else:
            who = f"{f'worker{rank}' if rank else 'head'}, rank={rank}, pid={process.pid}{address}"
        assert process.stdout is not None
        with io.TextIOWrapper(process.stdout, encoding="utf-8", errors="replace", newline="") as lines:
            for line in lines:  # or parts of one, each of which ends as it did
                if not job.ending and not there.lost:
                    self._log(job, f"{CYAN}({who}){RESET} {line}")

    def _log(self, job: Job, line: str) -> None:
        with self._state:
            if not _is_whole(job.lines[-1]):  # what nobody has ended is gone on with
                line = job.lines.pop() + line
            job.lines += line.splitlines(keepends=True)
            self._state.notify_all()

    def _environment(self, there: Machines, job: Job, rank: int) -> dict[str, str]:
        home = there.homes[rank]
        slurm = {"SLURM_JOB_ID": "4711", "SLURM_JOB_PARTITION": "main"} if there.infra[0] == "Slurm" else {}
        return {
            "HOME": str(home),
            "PATH": f"{home}/bin:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "SKYPILOT_NODE_RANK": str(rank),
            "SKYPILOT_NUM_NODES": str(there.nodes),
            "SKYPILOT_TASK_ID": f"sky-managed-{job.number}",
            "SKYPILOT_NUM_GPUS_PER_NODE": f"{there.count:g}",
            **slurm,
            **job.task.get("envs", {}),
            **job.secrets,
        }

    def _stop(self, there: Machines) -> None:
        """End all that runs on a cluster."""
        with self._state:
            for job in there.jobs:
                job.ending = True
                if job.status is JobStatus.PENDING:
                    job.status = JobStatus.CANCELLED
            pids = [pid for job in there.jobs for pid in job.pids]
        _end(pids, at_once=True)
        while left := alive_in(there.directory):  # who was born as its parent died, and is nobody's child
            _end(left, at_once=True)


class Sky:
    """Stands where the module `sky` would. What it takes and gives is what SkyPilot 0.14.1's does."""

    StatusRefreshMode = StatusRefreshMode
    Task = Task

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = SimpleNamespace(sdk=self)

    def launch(
        self,
        task: Task,
        cluster_name: str | None = None,
        retry_until_up: bool = False,
        idle_minutes_to_autostop: int | None = None,
        down: bool = False,
    ) -> str:
        """Have a cluster with a first job."""
        task.validate_name()
        assert cluster_name and re.fullmatch("[a-zA-Z]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?", cluster_name)
        asked = Launch(cluster_name, task.config, idle_minutes_to_autostop, down)
        return self.world.ask("launch", cluster_name, lambda request: self.world.launch(request, task, asked))

    def exec(self, task: Task, cluster_name: str | None = None) -> str:
        """Queue a job."""
        task.validate_name()
        assert cluster_name
        return self.world.ask("exec", cluster_name, lambda _: self.world.execute(cluster_name, task))

    def get(self, request_id: str) -> Any:
        """What a request came to."""
        return self.world.answer(request_id)

    def status(
        self, cluster_names: list[str] | None = None, refresh: StatusRefreshMode = StatusRefreshMode.NONE
    ) -> str:
        """The clusters."""
        return self.world.ask("status", None, lambda _: self.world.status(cluster_names, refresh))

    def queue(self, cluster_name: str) -> str:
        """A cluster's jobs."""
        return self.world.ask("queue", cluster_name, lambda _: self.world.jobs(cluster_name))

    def job_status(self, cluster_name: str, job_ids: list[int] | None = None) -> str:
        """How jobs are."""
        assert job_ids
        return self.world.ask("job_status", cluster_name, lambda _: self.world.job_status(cluster_name, job_ids))

    def tail_logs(
        self, cluster_name: str, job_id: int | None, follow: bool, tail: int = 0, *, preload_content: bool = True
    ) -> Iterator[str | None]:
        """A job's log, line by line."""
        assert job_id is not None and tail == 0 and not preload_content, "what else it can do is not made here"
        self.world.calls["tail_logs"] += 1
        if fault := self.world._fault("tail_logs"):
            raise fault.error
        return self.world.stream(cluster_name, job_id, follow)

    def cancel(self, cluster_name: str, job_ids: list[int] | None = None) -> str:
        """End jobs."""
        assert job_ids
        return self.world.ask("cancel", cluster_name, lambda _: self.world.cancel(cluster_name, job_ids))

    def down(self, cluster_name: str) -> str:
        """Take a cluster down."""
        return self.world.ask("down", cluster_name, lambda _: self.world.take_down(cluster_name))

    def autostop(self, cluster_name: str, idle_minutes: int, wait_for: Any = None, down: bool = False) -> str:
        """Have a cluster end by itself."""
        return self.world.ask("autostop", cluster_name, lambda _: self.world.autostop(cluster_name, idle_minutes, down))

    def api_status(self, request_ids: list[str] | None = None, all_status: bool = False) -> list[Any]:
        """The requests that are worked on."""
        assert request_ids is None and not all_status
        return self.world.unfinished()

    def api_cancel(self, request_ids: list[str]) -> str:
        """Have requests given up."""
        return self.world.ask("api_cancel", None, lambda _: self.world.give_up(request_ids))

    def enabled_clouds(self) -> str:
        """The infras there are."""
        return self.world.ask("enabled_clouds", None, lambda _: list(self.world.enabled))

    def list_accelerators(self, gpus_only: bool = True, clouds: list[str] | None = None) -> str:
        """Accelerators with their prices."""
        return self.world.ask("list_accelerators", None, lambda _: dict(self.world.price_list))


def _has(job: Job, place: int) -> bool:
    """Whether a job's log has a whole line there."""
    return place < len(job.lines) and _is_whole(job.lines[place])


def _is_whole(line: str) -> bool:
    return line.endswith(("\n", "\r"))


def _needs(task: Task) -> dict[str, float]:
    """The accelerators that a job waits for. For CPUs none does."""
    asked = task.config.get("resources", {}).get("accelerators") or {}
    return {name: float(count) for name, count in asked.items()}


def _synchronise(source: Path, target: Path) -> None:
    """Copy as SkyPilot does: what has the size and the second of what is there is the same. Deletes nothing."""
    if not source.is_dir():
        raise ValueError(f"{source} does not exist.")
    ignored = source / ".skyignore"
    patterns = ignored.read_text().split() if ignored.exists() else []
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if any(fnmatch.fnmatch(part, pattern) for part in relative.parts for pattern in patterns):
            continue
        if path.is_dir():
            (target / relative).mkdir(parents=True, exist_ok=True)
            continue
        there, here = target / relative, path.stat()
        if there.exists() and (there.stat().st_size, int(there.stat().st_mtime)) == (here.st_size, int(here.st_mtime)):
            continue
        partial = there.with_name(f".{there.name}.partial")
        shutil.copy2(path, partial)
        partial.replace(there)


def _end(roots: Iterable[int], at_once: bool = False) -> None:
    """End processes, all below them, and all of their sessions, as SkyPilot does: they may clean up for a moment.

    Who was born meanwhile is found by looking again, until there is nobody.
    """
    sessions = list(roots)
    told: set[int] = set()
    deadline = time.monotonic() + (0.0 if at_once else GRACE_SECONDS)
    while family := _family(sessions, told):
        late = time.monotonic() >= deadline
        for pid in family if late else [pid for pid in family if pid not in told]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        told.update(family)
        time.sleep(0.002)


def _family(sessions: Iterable[int], told: Iterable[int]) -> list[int]:
    """Who lives of these sessions, below them, and of those who were told to end already; parents first."""
    parents: dict[int, int] = {}
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent, _, session = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:4]
            if state != b"Z":
                parents[int(entry.name)] = int(parent)
                if int(session) in sessions:
                    members.append(int(entry.name))
    found = dict.fromkeys(pid for pid in (*sessions, *members, *told) if pid in parents)
    while more := [pid for pid, parent in parents.items() if parent in found and pid not in found]:
        found.update(dict.fromkeys(more))
    return [pid for pid in found if pid != os.getpid()]
