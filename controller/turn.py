"""One turn of the search: take up what was left, then one wave from proposal to decision, on clusters of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass

from controller.backends import Backend, Fleet
from controller.bundles import bundler
from controller.clock import Clock
from controller.journal import reading
from controller.proposers.protocol import Proposer
from controller.scheduler import Observer, Scheduler
from controller.study import Study
from controller.wave import Request, begin, design, finish

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a polite kill, and a terminal that was closed."""


@dataclass(frozen=True)
class Turn:
    """What a turn needs: where it runs, who proposes, who watches. `say` takes one line for the user."""

    study: Study
    backend: Backend
    proposer: Proposer
    request: Request
    observer: Observer
    say: Callable[[str], None]


async def take(turn: Turn, clock: Clock) -> list[str]:
    """Run the turn; returns the ids of the waves it brought to their end, the one that was asked for last.

    A wave that was cut off is finished first; where it is the one asked for, that is all. Raises Interrupted after
    Ctrl-C, with everything finished so far in the journal and no process left.
    """
    study, request = turn.study, turn.request
    scheduler = Scheduler(study.tag, study.workspace.settings, study.journal, turn.backend, clock)
    scheduler.observer = turn.observer
    bundle = bundler(study.workspace)
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, scheduler.stopping.set)
    fleet = Fleet(request.clusters, bundle(study.tip, request.seed))
    ended: list[str] = []
    try:
        await scheduler.adopt()
        unfinished = reading.unfinished_wave(study.journal, study.tag)
        if unfinished is not None:
            wave = unfinished[0]
            turn.say(f"finishing wave {wave.id}, which was cut off while {unfinished[1]}")
            await _acquire(turn, scheduler, fleet)
            ended.append(wave.id)
            await finish(study, wave, scheduler, bundle)
            if dict(wave.request) == dict(request.asked):
                return ended
        designed = await design(study, turn.proposer, request)
        if not scheduler.clusters:
            await _acquire(turn, scheduler, fleet)
        wave = begin(study, turn.proposer, request, designed, clock)
        turn.say(f"wave {wave.id}: {len(designed.cells)} candidates proposed by {wave.proposer}")
        await finish(study, wave, scheduler, bundle)
        return [*ended, wave.id]
    finally:
        await scheduler.close()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


async def _acquire(turn: Turn, scheduler: Scheduler, fleet: Fleet) -> None:
    turn.say(f"bringing up {fleet.clusters} {turn.backend.name} clusters and preparing their data")
    await scheduler.acquire(fleet)
