"""How a person, or the system, ends a search that runs: what each signal asks of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from controller.search import Search, Stop

STOP = signal.SIGUSR1
"""What `autoresearch stop` sends."""
STOP_NOW = signal.SIGTERM
"""What `autoresearch stop --now` sends, and a polite kill."""
ASKED = Stop("asked", "somebody asked it to stop; the same command goes on from here")


@contextmanager
def heeded(search: Search, say: Callable[[str], None]) -> Iterator[None]:
    """Within this context, in the running event loop, signals stop `search`.

    The first Ctrl-C lets what runs come to its end, the second ends it; a polite kill and a closed terminal end it at
    once. Whatever was finished is kept, and the study can go on.
    """
    loop = asyncio.get_running_loop()

    def ctrl_c() -> None:
        if search.scheduler.draining:
            search.interrupt(now=True)
            say("ending what runs")
            return
        running = sum(one.started is not None for one in search.scheduler.running.values())
        search.interrupt()
        if running:
            minutes = search.ledger.worst_seconds / 60
            which = "1 attempt that runs" if running == 1 else f"{running} attempts that run"
            say(f"finishing {which}, which takes {minutes:.0f} minutes at most; Ctrl-C again ends them at once")

    def asked() -> None:
        say("asked to stop: finishing what runs")
        search.stop(ASKED)

    handlers = {
        signal.SIGINT: ctrl_c,
        STOP: asked,
        STOP_NOW: lambda: search.interrupt(now=True),
        signal.SIGHUP: lambda: search.interrupt(now=True),
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
