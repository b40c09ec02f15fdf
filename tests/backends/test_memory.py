"""The backend that tests of schedulers use is a backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from controller.backends import Backend
from controller.clock import RealClock
from tests.backends.conformance import BackendConformance
from tests.backends.memory import Memory, World


class TestConformance(BackendConformance):
    @pytest.fixture
    def world(self) -> World:
        return World()

    @pytest.fixture
    def backend(self, world: World) -> Backend:
        return Memory(world, RealClock())

    @pytest.fixture
    def successor(self, world: World) -> Callable[[], Backend]:
        return lambda: Memory(world, RealClock())

    @pytest.fixture
    def alive(self, world: World) -> Callable[[], object]:
        return lambda: world.running

    @pytest.fixture
    def settle(self, world: World) -> Callable[[], Awaitable[None]]:
        async def all_of_them() -> None:
            await asyncio.gather(*world.running.values())

        return all_of_them
