"""The SkyPilot backend does all that every backend does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controller.backends import Backend
from controller.backends.skypilot import SkyPilot
from tests.backends.conformance import BackendConformance
from tests.backends.skypilot.staging import Opener, die


class TestConformance(BackendConformance):
    @pytest.fixture
    def backend(self, open_backend: Opener) -> Backend:
        return open_backend()

    @pytest.fixture
    def successor(self, open_backend: Opener, backend: SkyPilot) -> Callable[[], Backend]:
        before = [backend]

        def after_it() -> Backend:
            die(before[-1])
            before.append(open_backend())
            return before[-1]

        return after_it
