"""SkyPilot's SDK as coroutines: the few calls we make, each on a thread of its own, and what their errors mean.

What SkyPilot raises is sorted by what can be done about it: Unreachable (ask again), Silent (the server answers, the
cluster doesn't: look whether it is still there), Gone (it isn't), Refused (asking again is in vain, and why).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

from controller.accelerators import canonical
from controller.backends.protocol import Unreachable
from controller.text import one_line

CALLS_AT_ONCE = 4
"""More threads than this make one API server drop connections."""
LAUNCHES_AT_ONCE = 8
REASON_CHARACTERS = 300

_AWAY = frozenset(
    {
        "ApiServerConnectionError",
        "ClusterStatusFetchingError",
        "ConcurrentWorkerExhaustedError",
        "ExecutionPoolFullError",
        "ExecutionRetryableError",
        "RequestCancelled",
        "RequestInterruptedError",
        "ServerTemporarilyUnavailableError",
    }
)
_SILENT = frozenset(
    {"CommandError", "FetchClusterInfoError", "NetworkError", "SkyletInternalError", "SkyletUnavailableError"}
)
_GONE = frozenset({"ClusterDoesNotExist", "ClusterNotUpError"})

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

T = TypeVar("T")


class Silent(Unreachable):
    """The server answers, but the cluster doesn't answer the server."""


class Gone(Exception):
    """There is no such cluster, or none that is up."""


class Refused(Exception):
    """SkyPilot won't do it. `lacking` says that it is for want of resources, which there may be later."""

    def __init__(self, reason: str, lacking: bool = False) -> None:
        super().__init__(reason)
        self.lacking = lacking


@dataclass(frozen=True, slots=True)
class Record:
    """A cluster as SkyPilot knows it. `accelerator` is what it really got, "CPU" for none; `since` in Unix seconds.

    `named` is what SkyPilot calls that accelerator, where it has another name for it.
    `infra` is where it is, as SkyPilot writes it (`kubernetes/my-context`), `on_cloud` its name there; `why` the last
    thing that SkyPilot had to say about it, as long as it is not up.
    """

    name: str
    is_up: bool
    accelerator: str
    count: float
    since: float
    labels: Mapping[str, str] = field(default_factory=dict)
    infra: str = ""
    on_cloud: str = ""
    cpus: float = 1.0
    dollars_an_hour: float = 0.0
    owner: str = ""
    why: str = ""
    named: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A job on a cluster: SkyPilot's number, its name, and its state as SkyPilot writes it (`RUNNING`, …)."""

    number: int
    name: str
    state: str

    @property
    def is_over(self) -> bool:
        """Whether its state changes no more."""
        return is_over(self.state)


def is_over(state: str) -> bool:
    """Whether a job in `state` has ended."""
    return state in ("SUCCEEDED", "FAILED", "FAILED_SETUP", "FAILED_DRIVER", "CANCELLED")


class Sdk:
    """SkyPilot, as far as we need it. `sky` is the module, or a double of it."""

    def __init__(self, sky: Any) -> None:
        self.sky = sky
        self.calls = 0
        self._calling = asyncio.Semaphore(CALLS_AT_ONCE)
        self._launches: dict[str, Any] = {}
        self._launching = asyncio.Semaphore(LAUNCHES_AT_ONCE)

    async def clusters(self, names: Iterable[str] | None = None, *, afresh: bool = False) -> list[Record]:
        """What is there, up or coming up; `afresh`: after asking the infrastructure, which takes seconds."""
        modes = self.sky.StatusRefreshMode
        wanted = None if names is None else list(names)
        found = await self._call(
            lambda: self.sky.status(wanted, refresh=modes.FORCE if afresh else modes.NONE),
        )
        return [_record(one) for one in found]

    def task(self, config: dict[str, Any]) -> Any:
        """A task of SkyPilot's. Raises Refused where it makes no sense to it."""
        try:
            task = self.sky.Task.from_yaml_config(config)
            task.validate_name()
        except Exception as error:
            raise Refused(_reason(error)) from None
        finally:
            _show_tracebacks()
        return task

    async def launch(self, task: Any, name: str, idle_minutes: int | None) -> int:
        """Have a cluster up; returns the number of the task's job, which may be waiting or running still.

        idle_minutes: after how long without work it takes itself down; None where the infra can't.
        """

        def ask() -> Any:
            request = self.sky.launch(
                task, cluster_name=name, idle_minutes_to_autostop=idle_minutes, down=idle_minutes is not None
            )
            self._launches[name] = request
            return request

        async with self._launching:
            try:
                number, _ = await self._call(ask, limited=False)
            finally:
                self._launches.pop(name, None)
        return int(number)

    async def autodown(self, cluster: str, idle_minutes: int) -> None:
        """Have a cluster take itself down after so long without work."""
        await self._call(lambda: self.sky.autostop(cluster, idle_minutes, down=True))

    async def submit(self, task: Any, cluster: str) -> int:
        """Queue a job; returns its number."""
        number, _ = await self._call(lambda: self.sky.exec(task, cluster_name=cluster))
        return int(number)

    async def jobs(self, cluster: str) -> list[Job]:
        """All jobs of a cluster, the oldest first."""
        found = await self._call(lambda: self.sky.queue(cluster))
        jobs = [Job(int(one.job_id), str(one.job_name), _state(one.status)) for one in found]
        return sorted(jobs, key=lambda job: job.number)

    async def state(self, cluster: str, job: int) -> str | None:
        """The state of a job; None where the cluster knows of none with that number."""
        found = await self._call(lambda: self.sky.job_status(cluster, job_ids=[job]))
        # An API server answers with numbers as text where they went through JSON.
        status = found.get(job, found.get(str(job)))
        return None if status is None else _state(status)

    async def cancel(self, cluster: str, job: int) -> None:
        """End a job; nothing where it is over."""
        await self._call(lambda: self.sky.cancel(cluster, job_ids=[job]))

    async def down(self, cluster: str) -> None:
        """Take a cluster down; nothing where there is none."""
        try:
            await self._call(lambda: self.sky.down(cluster))
        except Gone:
            return

    async def in_flight(self, call: str) -> set[str]:
        """The clusters that the server is still busy with a request of, to `launch` or to `exec`, by whomever."""
        found = await self._thread(lambda: self.sky.api_status(all_status=False), self._calling)
        return {str(one.cluster_name or "") for one in found if str(one.name).rpartition(".")[2] == call}

    async def give_up(self, name: str) -> None:
        """Have the server stop launching a cluster, if it is this program that has asked for it."""
        if (request := self._launches.get(name)) is not None:
            await self._call(lambda: self.sky.api_cancel([request]))

    async def follow(self, cluster: str, job: int, hear: Callable[[str], None]) -> None:
        """Hand each line of a job's log to `hear`, from the first, as it comes, until there are no more.

        There may be none for now only: whether the job is over, its state says. `hear` is called on another thread,
        which does nothing else meanwhile, and raises where nobody listens any more.
        """

        def read() -> None:
            # As an iterator: SkyPilot's own printing would open a terminal for a line that asks for it.
            for line in self.sky.tail_logs(cluster, job, follow=True, tail=0, preload_content=False):
                if line is not None:
                    hear(line)

        self.calls += 1
        await self._thread(read)

    async def infras(self) -> list[str]:
        """The infras that SkyPilot has access to."""
        return [str(one) for one in await self._call(lambda: self.sky.client.sdk.enabled_clouds())]

    async def prices(self, accelerators: Iterable[str], clouds: list[str] | None) -> dict[str, float]:
        """Dollars for an hour of one of each, on demand, where it is cheapest; those without a price are left out."""
        found: Mapping[str, Any] = await self._call(
            lambda: self.sky.client.sdk.list_accelerators(gpus_only=True, clouds=clouds)
        )
        cheapest: dict[str, float] = {}
        for name in accelerators:
            each = [
                one.price / one.accelerator_count
                for one in found.get(name, ())
                if one.accelerator_count and one.price is not None and one.price > 0
            ]
            if each:
                cheapest[name] = min(each)
        return cheapest

    async def _call(self, request: Callable[[], Any], limited: bool = True) -> Any:
        """What a request comes to: it is made, and its answer is waited for, on one thread."""
        self.calls += 1
        return await self._thread(lambda: self.sky.get(request()), self._calling if limited else None)

    async def _thread(self, work: Callable[[], T], limit: asyncio.Semaphore | None = None) -> T:
        if limit is None:
            return await _on_thread(lambda: _sorted(work))
        async with limit:
            return await _on_thread(lambda: _sorted(work))


def load() -> Any:
    """The module `sky`. Raises ImportError. Takes more than a second."""
    # Research is the user's own: nothing about it is sent to SkyPilot's makers, unless the user says so.
    os.environ.setdefault("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
    import click
    import sky

    # Its launch prints the cluster's name where our JSON goes.
    # What it says, that it starts its server for one, is for people: standard output is for what was asked for.
    for handler in logging.getLogger("sky").handlers:
        if isinstance(handler, logging.StreamHandler) and type(handler).__module__.startswith("sky."):
            handler.setStream(sys.__stderr__)
    sdk: Any = sky.client.sdk
    sdk.click = SimpleNamespace(**{**vars(click), "secho": lambda *said, **how: None})
    return sky


async def _on_thread(work: Callable[[], T]) -> T:
    """What `work` returns. Its thread keeps nobody from ending: a server that never answers is left behind."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(set_it: Callable[[Any], None], what: Any) -> None:
        if not done.cancelled():
            set_it(what)

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            told: tuple[Any, Any] = (done.set_exception, error)
        else:
            told = (done.set_result, result)
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(tell, *told)

    threading.Thread(target=run, daemon=True, name="skypilot").start()
    return await done


def _sorted(work: Callable[[], T]) -> T:
    """What `work` returns; its errors as what can be done about them."""
    try:
        return work()
    except (Unreachable, Gone, Refused):
        raise
    except OSError as error:  # requests' errors are of this kind, too
        raise Unreachable(_reason(error)) from error
    except Exception as error:
        names = {kind.__name__ for kind in type(error).__mro__}
        if names & _GONE:
            raise Gone(_reason(error)) from error
        if names & _SILENT:
            raise Silent(_reason(error)) from error
        # A server that was started anew knows nothing of the requests before.
        if names & _AWAY or "Failed to get request" in str(error) or _is_cut_off(error):
            raise Unreachable(_reason(error)) from error
        raise Refused(_reason(error), lacking="ResourcesUnavailableError" in names) from error
    finally:
        _show_tracebacks()


def _show_tracebacks() -> None:
    """Undo what SkyPilot does to the whole process as it raises an error: it turns tracebacks off, and not on again."""
    if hasattr(sys, "tracebacklimit"):
        del sys.tracebacklimit


def _is_cut_off(error: Exception) -> bool:
    """Whether a connection broke in the middle of an answer."""
    return type(error).__module__.partition(".")[0] in ("urllib3", "http", "aiohttp", "httpx", "httpcore")


def _reason(error: BaseException) -> str:
    """What an error says, in one line; of a command that failed what it wrote, and not its text."""
    wrote = [str(getattr(error, name, None) or "") for name in ("error_msg", "detailed_reason")]
    return _line(" ".join(wrote)) or _line(str(error)) or type(error).__name__


def _line(text: str) -> str:
    return one_line(_COLOUR.sub("", str(text)[: 10 * REASON_CHARACTERS]))[:REASON_CHARACTERS]


def _state(status: Any) -> str:
    return str(getattr(status, "value", status))


def _record(found: Any) -> Record:
    """A cluster as `sky.status` gives it."""
    handle = found["handle"]
    resources = getattr(handle, "launched_resources", None)
    accelerators = dict(getattr(resources, "accelerators", None) or {})
    name, count = next(iter(accelerators.items()), ("CPU", 0))
    nodes = getattr(handle, "launched_nodes", None) or 1
    cloud, region = getattr(resources, "cloud", None), getattr(resources, "region", None)
    place = [*([str(cloud).lower()] if cloud else []), *([str(region)] if region else [])]
    try:
        dollars = float(resources.get_cost(3600)) * nodes if resources is not None else 0.0
    except Exception:  # no price is known for it
        dollars = 0.0
    return Record(
        name=str(found["name"]),
        is_up=_state(found["status"]) == "UP",
        accelerator=canonical(str(name)),
        named=str(name),
        count=float(count),
        since=float(found["launched_at"] or 0),
        labels=dict(getattr(resources, "labels", None) or {}),
        infra="/".join(place),
        on_cloud=str(getattr(handle, "cluster_name_on_cloud", "") or ""),
        cpus=_number(getattr(resources, "cpus", None)),
        dollars_an_hour=dollars,
        owner=str(found.get("user_name") or ""),
        why=_line(found.get("init_status_reason") or found.get("last_event") or ""),
    )


def _number(text: Any) -> float:
    """The number in `4+`; 1 where there is none."""
    try:
        return float(str(text).rstrip("+"))
    except ValueError:
        return 1.0
