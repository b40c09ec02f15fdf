"""The simulated backend does what every backend does. What only this one does is tested in simulated/."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from controller.backends import Backend
from controller.backends.simulated import Simulated, Truth, World
from controller.clock import RealClock
from tests.backends.conformance import BackendConformance
from tests.backends.simulated.stage import calm, plays

AT_ONCE = {
    "found": 0, "boot": [0, 0], "submit": 0, "queued": 0, "fresh": [0, 0], "cancel": 0, "release": 0, "idle": 3600,
}  # fmt: skip
"""Seconds of a world in which nothing takes time."""


class TestConformance(BackendConformance):
    @pytest.fixture
    def world(self) -> World:
        return World(Truth(calm(seconds=AT_ONCE), 0, ""), behaviour=plays)

    @pytest.fixture
    def backend(self, world: World) -> Backend:
        return Simulated(world, RealClock())

    @pytest.fixture
    def successor(self, world: World) -> Callable[[], Backend]:
        return lambda: Simulated(world, RealClock())

    @pytest.fixture
    def alive(self, world: World) -> Callable[[], object]:
        return world.alive

    @pytest.fixture
    def settle(self, world: World) -> Callable[[], Awaitable[None]]:
        async def until_nothing_runs() -> None:
            while world.alive():
                await asyncio.sleep(0)
                world.look()

        return until_nothing_runs
