"""One job, from its submission to its end: heard of by its log, line by line, and asked after where that is silent.

Neither SkyPilot's word nor its silence is taken for the end of a job. A job that SkyPilot calls a success may have
crashed, so what counts is the harness's result in its log; a stream may break while the job goes on, so it is taken up
again; and a cluster that is lost is called up for as long as nobody looks, so somebody does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from controller.backends.protocol import Unreachable
from controller.backends.skypilot.sdk import Gone, Refused, Sdk, Silent, is_over
from controller.backends.skypilot.stream import Line, Listener
from controller.clock import Clock

T = TypeVar("T")

SILENCE_SECONDS = 60.0
"""How long nothing is heard of a job before SkyPilot is asked what has become of it: a call takes it two seconds."""
LEAST_PAUSE, MOST_PAUSE = 1.0, 15.0
"""Seconds between two attempts to take up a log that broke."""
READINGS = 3
"""How often the log of a job that is over is read for its result."""


@dataclass(frozen=True, slots=True)
class Finish:
    """How a job ended: with the harness's report, or without one, in SkyPilot's last `state` of it."""

    report: Mapping[str, Any] | None
    state: str = ""
    said: str = ""
    """The last line that it wrote."""

    @property
    def reason(self) -> str:
        """Why there is no report."""
        if not self.state:
            return "its cluster knows nothing of its job"
        return f"its job ended as {self.state} without a result{': ' if self.said else ''}{self.said[:200]}"


async def follow(
    sdk: Sdk,
    clock: Clock,
    cluster: str,
    job: int,
    log: Path,
    hear: Callable[[Line], None],
    troubled: Callable[[Unreachable], None],
) -> Finish:
    """Follow a job to its end; its log is kept in `log`, and each of its lines handed to `hear`.

    `troubled` is told whenever the server can't be reached; that is waited out. Raises Gone once the cluster is.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Mapping[str, Any]] = loop.create_future()
    heard_at, said = loop.time(), ""

    def take(line: Line) -> None:
        nonlocal heard_at, said
        heard_at = loop.time()
        if line.text.strip() and line.progress is None:
            said = line.text.strip()
        hear(line)
        if line.result is not None and not line.setup and not result.done():
            result.set_result(line.result)

    def pass_on(line: Line) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody listens any more
            loop.call_soon_threadsafe(take, line)

    listener = Listener(log, pass_on)
    reading: asyncio.Task[None] | None = None
    readings, pause = 0, LEAST_PAUSE
    try:
        while True:
            if reading is None:
                reading = asyncio.ensure_future(sdk.follow(cluster, job, listener.reader()))
            either: set[asyncio.Future[Any]] = {reading, result}
            await asyncio.wait(either, timeout=SILENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return Finish(result.result())
            if not reading.done() and loop.time() - heard_at < SILENCE_SECONDS:
                pause = LEAST_PAUSE
                continue
            whole = listener.whole
            try:
                state = await asked(sdk, cluster, sdk.state(cluster, job))
            except Gone:
                raise
            except Silent:
                state = "UNKNOWN"
            except (Unreachable, Refused) as error:
                troubled(error if isinstance(error, Unreachable) else Unreachable(str(error)))
                state = "UNKNOWN"
            if result.done():  # while we asked
                return Finish(result.result())
            if state is None:
                return Finish(None)
            if is_over(state):
                readings += 1
                if whole or readings >= READINGS:
                    return Finish(None, state, said)
            if reading.done() or is_over(state):
                reading.cancel()
                reading = None
                await clock.sleep(pause)
                pause = min(2 * pause, MOST_PAUSE)
            heard_at = loop.time()
    finally:
        listener.close()
        if reading is not None:
            reading.cancel()


async def asked(sdk: Sdk, cluster: str, question: Awaitable[T]) -> T:
    """What a cluster answers. Where it is silent, SkyPilot has to look whether it is there. Raises Gone where it isn't.

    Nobody else looks: SkyPilot says that a lost cluster is up for as long as it is not made to ask.
    """
    try:
        return await question
    except Silent as error:
        try:
            found = await sdk.clusters([cluster], afresh=True)
        except (Unreachable, Refused):
            raise error from None
        if not any(one.is_up for one in found):
            why = next((one.why for one in found if one.why), "") or f"it is there no more ({error})"
            raise Gone(why) from None
        raise
