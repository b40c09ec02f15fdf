"""What is done beside the rest, because it takes time, or asks a backend that may not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from controller.backends import Unreachable
from controller.clock import Clock

PATIENCE_SECONDS = 60.0
"""The longest pause between two questions to a backend that does not answer."""
FAREWELL_SECONDS = 600.0
"""How long the end of a run waits for a backend that does not answer."""

T = TypeVar("T")


class Errands:
    """Tasks that nobody waits for. `failed` is called when one of them raises."""

    def __init__(self, clock: Clock, failed: Callable[[], None]) -> None:
        self.failure: BaseException | None = None
        """What the first that failed has raised."""
        self._clock = clock
        self._failed = failed
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Have `work` done from now on."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def patiently(self, call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """What `call` returns, asked again with growing pauses as long as the backend can't be reached."""
        try:
            return await call(*arguments)
        except Unreachable:
            pass
        from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unreachable),
            wait=wait_exponential(multiplier=2, max=PATIENCE_SECONDS),
            sleep=self._clock.sleep,
        )
        return await retrying(call, *arguments)

    async def end(self) -> None:
        """Cancel what is not done yet."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = self.failure or error
            self._failed()
