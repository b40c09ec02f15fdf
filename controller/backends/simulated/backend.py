"""One controller's view of a simulated world, as a backend like any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from controller.backends.protocol import BackendEvent, Bundle, Fleet, Unreachable
from controller.backends.simulated.world import Site, World
from controller.clock import Clock
from controller.records import Attempt, Cluster


class Simulated:
    """The simulated backend. `world` may have been others' before, and will be others' after this controller."""

    name = "simulated"
    capacity = 1_000_000

    def __init__(self, world: World, clock: Clock) -> None:
        self.world = world
        self.idle_seconds = world.scenario.seconds.idle
        self.prices: Mapping[str, float] = dict(world.scenario.prices)
        self._clock = clock
        world.follow(clock)
        world.look()
        world.inbox.clear()  # told to a controller that is no more
        self._known: set[str] = set()
        self._wake = asyncio.Event()

    async def acquire(self, fleet: Fleet) -> AsyncIterator[Cluster]:
        world = self.world
        self._ask(lambda: world.want(fleet.study, fleet.clusters))
        coming = sorted(world.up(fleet.study), key=lambda site: site.up_at)[: fleet.clusters]
        for site in coming:
            if world.time < site.up_at:
                await self._clock.sleep(site.up_at - world.time)
                world.look()
            if site.gone_at is None:
                yield self._seen(site)

    async def up(self, study: str) -> list[Cluster]:
        self._ask()
        return [self._seen(site) for site in self.world.up(study)]

    async def submit(self, cluster: str, attempt: Attempt, bundle: Bundle) -> None:
        self._known.add(attempt.id)
        self._ask(lambda: self.world.submit(cluster, attempt, bundle), attempt.id)
        await self._clock.sleep(self.world.scenario.seconds.submit)

    async def events(self) -> AsyncIterator[BackendEvent]:
        loop = asyncio.get_running_loop()
        while True:
            self._ask()
            while self.world.inbox:
                yield self.world.inbox.popleft()
            self._wake.clear()
            due = self.world.next_at
            timer = loop.call_later(due - self.world.time, self._wake.set) if due is not None else None
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def discard(self, attempt: str) -> None:
        self._ask()
        self.world.discard(attempt)
        self._known.discard(attempt)

    async def log(self, attempt: str, tail: int | None = None) -> str:
        flight = self.world.flights.get(attempt)
        text = flight.log if flight is not None else ""
        return text if tail is None else "".join(text.splitlines(keepends=True)[-tail:])

    async def cancel(self, attempt: str) -> None:
        self._ask()
        await self._clock.sleep(self.world.scenario.seconds.cancel)
        self._ask(lambda: self.world.cancel(attempt), attempt)

    async def owned(self, study: str) -> set[str]:
        self._ask()
        found = self.world.owned(study)
        for name in sorted(found - self._known):
            self.world.remind(name)
        self._known |= found
        self._wake.set()
        return found

    async def release(self, clusters: Iterable[str]) -> None:
        names = list(clusters)
        self._ask()
        await self._clock.sleep(self.world.scenario.seconds.release)
        self._ask(lambda: self.world.release(names), " ".join(names))

    def _seen(self, site: Site) -> Cluster:
        return Cluster(site.name, site.accelerator, self.world.time - site.billed_from)

    def _ask(self, what: Callable[[], object] | None = None, about: str = "") -> None:
        """Do `what` in the world as it is now. In an outage it may be done or not, and the answer is lost."""
        world = self.world
        world.look()
        out = world.unreachable
        if what is not None and not (out and world.truth.draw("heard", about, world.time) < 0.5):
            what()
            self._wake.set()
        if out:
            raise Unreachable("the simulated backend answers nothing for a while")
