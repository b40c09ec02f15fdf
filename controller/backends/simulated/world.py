"""A simulated world: clusters that come and go, attempts that run on them, and what befalls both, in order of time.

It outlives controllers, as a cloud does, and moves only when somebody looks: all that was due until then happens first.
Every draw is made from the world's seed and the name of what it is about, so that the same happens to the same attempt
whatever else goes on.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from math import log
from typing import Any

from controller.backends.protocol import BackendEvent, Bundle, Ended, Progressed, Started, Vanished
from controller.backends.simulated.behaviour import Behaviour, Lifelike, Progress, Result, Run, Step
from controller.backends.simulated.truth import Truth
from controller.clock import Clock
from controller.records import Attempt, Label

HOUR = 3600.0
HARD_LIMIT_SECONDS = 160.0
"""After how long beyond its own time limit a cluster ends what hangs: nobody else may be there to do it."""
EARLY = 1e-6
"""Seconds by which things may happen too soon: times are sums, and a timer may be due a rounding error before them."""


@dataclass(slots=True)
class Use:
    """What clusters were there for so far, in hours of one cluster: the truth, which no controller is told.

    `billed` is by accelerator; `occupied` is the time that an attempt ran, `training` what of it was spent on training.
    """

    billed: dict[str, float] = field(default_factory=dict)
    occupied: float = 0.0
    training: float = 0.0


@dataclass(slots=True)
class Site:
    """A cluster of the simulated world. Times are seconds since its beginning; `machine` is what it is made of."""

    name: str
    study: str
    accelerator: str
    machine: str
    billed_from: float
    up_at: float
    dud: bool = False
    gone_at: float | None = None
    queue: deque[str] = field(default_factory=deque)
    running: str | None = None
    running_since: float = 0.0
    idle_since: float = 0.0


@dataclass(slots=True)
class Flight:
    """An attempt in the simulated world. `ended` is what its end tells, from then on until that is discarded."""

    attempt: Attempt
    bundle: Bundle | None
    cluster: str
    fate: str
    steps: Iterator[Step] | None = None
    started: bool = False
    fraction: float = 0.0
    over: bool = False
    ended: Ended | None = None
    told: bool = False
    log: str = ""
    discarded: bool = False


class World:
    """All there is: `sites` are the clusters there are now, `flights` all attempts that were ever submitted.

    `inbox` holds what is to be told, in order; one controller at a time empties it. `jump` sets that controller's wall
    clock forth or back by so many seconds. `behaviour` is what attempts do, by default what the truth says.
    """

    def __init__(
        self,
        truth: Truth,
        jump: Callable[[float], None] = lambda seconds: None,
        behaviour: Behaviour | None = None,
    ) -> None:
        self.truth = truth
        self.scenario = truth.scenario
        self.time = 0.0
        self.sites: dict[str, Site] = {}
        self.flights: dict[str, Flight] = {}
        self.inbox: deque[BackendEvent] = deque()
        self._jump = jump
        self._behaviour = behaviour or Lifelike(truth)
        self._use = Use()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._requests = count(1)
        self._clock: Clock | None = None
        self._epoch = 0.0
        self._outage_until = 0.0
        self._plan_outage(1)
        self._plan_jump(1)

    # Time

    def follow(self, clock: Clock) -> None:
        """From now on time passes as `clock` says."""
        if clock is not self._clock:
            self._clock, self._epoch = clock, clock.monotonic() - self.time

    def look(self) -> None:
        """Let everything happen that is due."""
        assert self._clock is not None
        self.advance(self._clock.monotonic() - self._epoch)

    def advance(self, now: float) -> None:
        """Let everything happen that is due `now` seconds after the world's beginning."""
        while self._agenda and self._agenda[0][0] <= now + EARLY:
            due, _, happen = heapq.heappop(self._agenda)
            self.time = max(self.time, due)
            happen()
        self.time = max(self.time, now)

    @property
    def next_at(self) -> float | None:
        """When something happens next."""
        return self._agenda[0][0] if self._agenda else None

    @property
    def unreachable(self) -> bool:
        """Whether questions go unanswered now."""
        return self.time < self._outage_until

    def billed_hours(self) -> dict[str, float]:
        """Hours billed so far, by accelerator."""
        return self.use().billed

    def use(self) -> Use:
        """What clusters were there for so far; attempts that still run do not count yet."""
        found = replace(self._use, billed=dict(self._use.billed))
        for site in self.sites.values():
            found.billed[site.accelerator] = found.billed.get(site.accelerator, 0.0) + self._billed(site)
        return found

    # What a backend is asked

    def want(self, study: str, clusters: int) -> None:
        """Ask for what is missing to so many clusters of `study`; some may never come."""
        there = [site.accelerator for site in self.up(study)]
        wanted = self.scenario.fleet_of(clusters)
        missing = [name for name, share in wanted.items() for _ in range(share - there.count(name))]
        for accelerator in missing[: max(0, clusters - len(there))]:
            self._request(study, accelerator)

    def submit(self, cluster: str, attempt: Attempt, bundle: Bundle) -> None:
        """Put `attempt` into the queue of `cluster`; again with the same id: no effect."""
        name = attempt.id
        if name in self.flights:
            return
        site = self.sites.get(cluster)
        flight = self.flights[name] = Flight(attempt, bundle, cluster, self._fate(name, site))
        if site is None or self.time < site.up_at - EARLY:
            self._end(flight, Ended(name, None, "there is no such cluster"))
            return
        site.queue.append(name)
        if site.running is None and len(site.queue) == 1:
            self._after(self._between("fresh", self.scenario.seconds.fresh, name), lambda: self._next(site))

    def cancel(self, attempt: str) -> None:
        """End an attempt. One that hangs may not hear it; of one that is over the end is told, if it wasn't yet."""
        flight = self.flights.get(attempt)
        if flight is None:
            return
        if flight.over:
            if flight.ended is not None and not flight.told:
                self._tell(flight, flight.ended)
        elif flight.fate != "hangs" or not flight.started or self.truth.draw("deaf", attempt) < 0.5:
            self._end(flight, _cancelled(attempt))

    def release(self, clusters: Iterable[str]) -> None:
        """Give clusters back, with all that runs on them."""
        for cluster in clusters:
            if cluster in self.sites:
                self._close(self.sites[cluster], "released", told=False)

    def discard(self, attempt: str) -> None:
        """Forget the report of an attempt that is over."""
        flight = self.flights.get(attempt)
        if flight is not None and flight.over:
            flight.discarded, flight.ended = True, None

    def owned(self, study: str) -> set[str]:
        """Attempts of `study` that have not ended, or were not discarded."""
        found = (name for name, flight in self.flights.items() if not flight.discarded)
        return {name for name in found if name.rsplit(".", 2)[0] == study}

    def remind(self, attempt: str) -> None:
        """Tell again how far an attempt has come."""
        flight = self.flights[attempt]
        if flight.started:
            self.inbox.append(Started(attempt))
        if flight.ended is not None:
            self._tell(flight, flight.ended)

    def up(self, study: str) -> list[Site]:
        """The clusters of `study` that are up or coming up."""
        return [site for site in self.sites.values() if site.study == study]

    def alive(self) -> list[str]:
        """Attempts that wait or run."""
        return [name for name, flight in self.flights.items() if not flight.over]

    # What happens to clusters

    def _request(self, study: str, accelerator: str) -> None:
        number = next(self._requests)
        machine = f"machine {number}"
        if self.truth.draw("never", machine) < self.scenario.faults.never_up:
            return
        name = next(name for one in count(1) if (name := f"{study or 'sim'}-{one:02d}") not in self.sites)
        found = self.time + self.scenario.seconds.found
        site = Site(name, study, accelerator, machine, found, found)
        site.up_at += self._between("boot", self.scenario.seconds.boot, machine)
        site.dud = self.truth.draw("dud", machine) < self.scenario.faults.duds
        self.sites[name] = site
        self._at(site.up_at, lambda: self._idles(site))
        rate = self.scenario.faults.preemptions
        if rate:
            # The time to the first of events at a constant rate.
            hours = -log(self.truth.draw("preempted", machine)) / rate
            self._at(site.up_at + hours * HOUR, lambda: self._lose(site, "preempted"))

    def _idles(self, site: Site) -> None:
        site.idle_since = self.time
        self._after(self.scenario.seconds.idle, lambda: self._look_whether_idle(site))

    def _look_whether_idle(self, site: Site) -> None:
        idle = site.running is None and not site.queue
        if idle and self.time >= site.idle_since + self.scenario.seconds.idle - EARLY:
            self._lose(site, "it shut itself down, as it was idle")

    def _lose(self, site: Site, reason: str) -> None:
        if site.gone_at is None:
            self._close(site, reason, told=True)

    def _close(self, site: Site, reason: str, told: bool) -> None:
        site.gone_at = self.time
        del self.sites[site.name]
        billed = self._use.billed
        billed[site.accelerator] = billed.get(site.accelerator, 0.0) + self._billed(site)
        names = [*([site.running] if site.running else []), *site.queue]
        self._vacate(site)
        for name in names:
            lost = Ended(name, None, f"its cluster is gone: {reason}")
            self._end(self.flights[name], lost if told else _cancelled(name))
        if told:
            self.inbox.append(Vanished(site.name, reason))

    def _billed(self, site: Site) -> float:
        return max(0.0, self.time - site.billed_from) / HOUR

    def _vacate(self, site: Site) -> None:
        """Nothing runs on a cluster any more."""
        if site.running is not None:
            self._use.occupied += (self.time - site.running_since) / HOUR
            site.running = None

    # What happens to attempts

    def _fate(self, attempt: str, site: Site | None) -> str:
        """What befalls an attempt by itself: the name of a fault, or nothing."""
        if site is not None and site.dud:
            return "vanishes"
        draw = self.truth.draw("befalls", attempt)
        for name, share in self.scenario.faults.attempts:
            if draw < share:
                return str(name)
            draw -= share
        return ""

    def _next(self, site: Site) -> None:
        """A cluster begins the next attempt in its queue."""
        if site.gone_at is not None or site.running is not None or not site.queue:
            return
        name = site.running = site.queue.popleft()
        site.running_since = self.time
        flight = self.flights[name]
        flight.started = True
        self.inbox.append(Started(name))
        assert flight.bundle is not None
        seconds = self.scenario.seconds
        if flight.fate == "setup_fails":
            failed = Result(Label.SETUP_FAILED, "its setup failed: simulated")
            self._after(seconds.around / 2, lambda: self._finish(flight, site, failed))
            return
        flight.steps = self._behaviour(
            Run(name, flight.bundle, site.name, site.machine, site.accelerator, self.time),
        )
        moment = (seconds.training + seconds.around) * self.truth.draw("moment", name)
        if flight.fate == "vanishes":
            self._after(moment, lambda: self._end(flight, Ended(name, None, "its harness vanished without a result")))
        elif flight.fate == "hangs":
            self._after(moment, lambda: self._stop(flight))
            limit = float(flight.bundle.job["timeout"]) + HARD_LIMIT_SECONDS
            self._after(limit, lambda: self._end(flight, Ended(name, None, "ended by its cluster, past all limits")))
        self._go_on(flight, site)

    def _go_on(self, flight: Flight, site: Site) -> None:
        """Plan the next step of a run, and take those that follow at once."""
        if flight.steps is None:
            return
        pause, what = next(flight.steps, (None, None))
        if pause is None:
            self._stop(flight)
        elif pause:
            self._after(pause, lambda: self._take(flight, site, what))
        else:
            self._take(flight, site, what)

    def _take(self, flight: Flight, site: Site, what: str | Progress | Result | None) -> None:
        if flight.steps is None:  # it hangs, or was ended meanwhile
            return
        if isinstance(what, Result):
            self._finish(flight, site, what)
            return
        if isinstance(what, Progress):
            flight.fraction = what.fraction
            self.inbox.append(Progressed(flight.attempt.id, what.fraction, what.loss))
        elif what is not None:
            flight.log += f"| {what}\n"
        self._go_on(flight, site)

    def _stop(self, flight: Flight) -> None:
        flight.steps = None

    def _finish(self, flight: Flight, site: Site, result: Result) -> None:
        """A run has come to its result, which is told as far as its fate allows."""
        if flight.over:
            return
        assert flight.bundle is not None
        flight.fraction = 1.0 if result.status == "done" else flight.fraction
        report: Any = {
            "attempt": flight.attempt.id,
            "nonce": flight.attempt.nonce,
            "status": str(result.status),
            "reason": result.reason,
            "metrics": dict(result.metrics),
            "accelerator": site.accelerator,
            "hashes": flight.bundle.job["hashes"],
            "budget": f"{self.scenario.seconds.training:g} s",
            "timings": dict(result.timings),
            "self_reported": False,
            "sandbox": "simulated",
        }
        if flight.fate != "log_cut":
            flight.log += f"{result.status} {result.reason}".rstrip() + "\n"
        if flight.fate == "garbled":
            garbage = (None, "AUTORESEARCH", {**report, "nonce": "0" * 32}, {**report, "status": 7})
            report = garbage[int(self.truth.draw("garbage", flight.attempt.id) * len(garbage))]
        elif flight.fate == "mismatch":
            report["hashes"] = dict.fromkeys(report["hashes"], "0" * 64)
        self._end(flight, Ended(flight.attempt.id, report))

    def _end(self, flight: Flight, ended: Ended) -> None:
        """An attempt is over. Its cluster goes on with the next."""
        if flight.over:
            return
        flight.over, flight.ended, flight.steps, flight.bundle = True, ended, None, None
        self._use.training += flight.fraction * self.scenario.seconds.training / HOUR
        name = flight.attempt.id
        if flight.fate == "late":
            self._after(30 + 270 * self.truth.draw("late", name), lambda: self._tell(flight, ended))
        elif flight.fate != "untold":
            self._tell(flight, ended)
        if flight.fate == "told_twice":
            self._after(5, lambda: self._tell(flight, ended))
        site = self.sites.get(flight.cluster)
        if site is None:
            return
        if site.running == name:
            self._vacate(site)
            self._after(self.scenario.seconds.queued, lambda: self._next(site))
        elif name in site.queue:
            site.queue.remove(name)
        if site.running is None and not site.queue:
            self._idles(site)

    def _tell(self, flight: Flight, ended: Ended) -> None:
        flight.told = True
        self.inbox.append(ended)

    # What happens to the backend and the controller

    def _plan_outage(self, number: int) -> None:
        faults = self.scenario.faults.outages

        def happen() -> None:
            self._outage_until = self.time + self._between("outage lasts", faults.seconds, number)
            self._plan_outage(number + 1)

        self._plan("outage", faults.an_hour, number, happen)

    def _plan_jump(self, number: int) -> None:
        faults = self.scenario.faults.clock_jumps

        def happen() -> None:
            self._jump(faults.seconds * (2 * self.truth.draw("jumps", number) - 1))
            self._plan_jump(number + 1)

        self._plan("jump", faults.an_hour, number, happen)

    def _plan(self, what: str, an_hour: float, number: int, happen: Callable[[], None]) -> None:
        if an_hour:
            self._after(-log(self.truth.draw(what, number)) / an_hour * HOUR, happen)

    def _between(self, what: str, ends: tuple[float, float], name: object) -> float:
        return ends[0] + (ends[1] - ends[0]) * self.truth.draw(what, name)

    def _after(self, seconds: float, happen: Callable[[], None]) -> None:
        self._at(self.time + seconds, happen)

    def _at(self, time: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (time, next(self._order), happen))


def _cancelled(attempt: str) -> Ended:
    return Ended(attempt, {"attempt": attempt, "status": Label.CANCELLED.value, "reason": "cancelled"})
