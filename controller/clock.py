"""The one place where the controller reads the time, sleeps and draws random numbers.

Everything else is given a clock. `RealClock` is the world's; `VirtualClock` leaps from timer to timer, so that a
simulated night takes seconds and repeats exactly from its seed.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import selectors
import time
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """Time and chance, as everything in the controller sees them."""

    def now(self) -> float:
        """Unix seconds, counted on from when this process began: setting the machine's clock changes nothing."""

    def catch_up(self, at: float) -> None:
        """Count on from the Unix second `at`, should it be earlier now: the machine's clock was set back since."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Let other tasks run for `seconds`."""

    def token(self) -> str:
        """32 hexadecimal digits that nobody can guess."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end under this clock."""


class RealClock:
    """The machine's own clock."""

    def __init__(self) -> None:
        self._epoch = time.time() - _since_boot()

    def now(self) -> float:
        return self._epoch + _since_boot()

    def catch_up(self, at: float) -> None:
        self._epoch += max(0.0, at - self.now())

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def token(self) -> str:
        return secrets.token_hex(16)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(main)


def _since_boot() -> float:
    """Seconds that go on while the machine sleeps, where it knows of such."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class VirtualClock:
    """A clock whose seconds cost nothing: when every task waits for a timer, time leaps to the next one.

    Only for code that waits for nothing but this clock: a task that waits for a real process or socket would be
    overtaken by it. A run in which all tasks wait and no timer is set is reported as the deadlock it is.
    """

    def __init__(self, start: float = 1_800_000_000.0, seed: int = 0) -> None:
        self._start = start
        self._set_by = 0.0
        self._elapsed = 0.0
        self._random = random.Random(seed)

    def now(self) -> float:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    def catch_up(self, at: float) -> None:
        self._start += max(0.0, at - self.now())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def token(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        try:
            with asyncio.Runner(loop_factory=lambda: _VirtualLoop(self)) as runner:
                return runner.run(main)
        finally:
            self._start, self._set_by = self._start + self._set_by, 0.0

    def leap(self, seconds: float) -> None:
        """Move on by `seconds`."""
        self._elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Set the machine's clock forth or back by `seconds`: the next process sees it, as with a real one."""
        self._set_by += seconds


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        self._virtual_clock = clock
        super().__init__(_LeapingSelector(clock))
        # asyncio's own, a nanosecond, is less than a float's step after 97 days: no timer would ever be due.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._virtual_clock.monotonic()


class _LeapingSelector(selectors.DefaultSelector):
    """Instead of waiting for `timeout`, tells the clock that it has passed."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("deadlock: every task waits, and no timer is set")
            self._clock.leap(timeout)
        return ready
