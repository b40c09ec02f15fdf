"""1,000 nights in which everything goes wrong: what must hold in the morning, whatever happened.

    python bench/faults.py [--nights N] [--first SEED] [--json]

Each night has a seed of its own: how many clusters, how large the budget, how often what fails, and when the controller
is killed, as by SIGKILL, three times on average, to be started again minutes or hours later. Reported: nights in which
an invariant did not hold (and which), and the real seconds a night took.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from nights import TAG, Ideas, Night, Nobody, make_workspace

from controller.backends import BackendEvent, Bundle, Fleet
from controller.backends.simulated import Simulated, load
from controller.budget import Caps
from controller.journal import Event, Journal, reading
from controller.records import Attempt, Cluster, NothingRan, Verdict
from controller.search import Order, Outside, Search
from controller.study import open_study
from controller.workspace import open_directory

SMALL = "tiers: {screening: {seeds: 1}, confirmation: {seeds: 2, promote: 2}}\n"


class Killed(BaseException):
    """The controller is no more: nothing it would still do has any effect."""


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for one night, in memory where there is such a place: nothing of it has to outlast a power cut."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="autoresearch-night-", dir=memory if memory.is_dir() else None)


@dataclass
class Life:
    """A controller's life: after `records` records (or just before the last of them) or `until`, it is over."""

    records: int | None = None
    before: bool = False
    until: float | None = None
    recorded: int = 0
    over: bool = False

    def check(self, now: float) -> None:
        if self.over or (self.until is not None and now >= self.until):
            self.over = True
            raise Killed


class MortalJournal(Journal):
    """A journal whose controller may be killed at any record."""

    life: Life

    def record(self, study: str, *events: Event) -> None:
        life = self.life
        life.check(self._clock.monotonic())
        life.recorded += 1
        last = life.recorded == life.records
        if last and life.before:
            life.over = True
            raise Killed
        super().record(study, *events)
        if last:
            life.over = True
            raise Killed


class MortalBackend(Simulated):
    """A backend that hears nothing of a dead controller."""

    life: Life
    submitted: set[str]

    def _check(self) -> None:
        self.life.check(self._clock.monotonic())

    async def acquire(self, fleet: Fleet) -> AsyncIterator[Cluster]:
        self._check()
        async for cluster in super().acquire(fleet):
            self._check()
            yield cluster

    async def up(self, study: str) -> list[Cluster]:
        self._check()
        return await super().up(study)

    async def submit(self, cluster: str, attempt: Attempt, bundle: Bundle) -> None:
        self._check()
        self.submitted.add(attempt.id)
        await super().submit(cluster, attempt, bundle)

    async def events(self) -> AsyncIterator[BackendEvent]:
        async for event in super().events():
            self._check()
            yield event

    async def discard(self, attempt: str) -> None:
        self._check()
        await super().discard(attempt)

    async def cancel(self, attempt: str) -> None:
        self._check()
        await super().cancel(attempt)

    async def owned(self, study: str) -> set[str]:
        self._check()
        return await super().owned(study)

    async def release(self, clusters: Iterable[str]) -> None:
        self._check()
        await super().release(clusters)


@dataclass
class Trial:
    """A night with the lives of its controllers."""

    night: Night
    order: Order
    lives: list[Life] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    incumbents: list[str] = field(default_factory=list)
    submitted: set[str] = field(default_factory=set)
    attempts: int = 0

    def live(self, life: Life) -> bool:
        """One controller's life; whether it came to an end of its own."""
        self.lives.append(life)
        night = self.night
        journal = MortalJournal.open(open_directory(night.workspace), night.clock, durable=False)
        journal.life = life
        backend = MortalBackend(night.world, night.clock)
        night.alive = True
        backend.life, backend.submitted = life, self.submitted
        try:
            outside = Outside(backend, Ideas(night.clock, 1000 * night.seed + len(self.lives)), Nobody())
            search = Search(open_study(night.workspace, journal, TAG), self.order, outside, night.clock)
            self.stops.append(night.clock.run(search.run()).why)
        except Killed:
            return False
        except NothingRan:
            self.stops.append("nothing")
            return False
        finally:
            self.incumbents.append(reading.study_of(journal, TAG).incumbent if reading.study(journal, TAG) else "")
            night.alive = False
            self.attempts = reading.totals(journal, TAG)["attempts"]
            journal.close()
        return True


def broken(trial: Trial) -> list[str]:
    """The invariants that do not hold once the last controller has come to an end of its own."""
    night, found = trial.night, []
    journal = Journal.read(night.workspace.directory, night.clock)
    assert journal is not None
    world, cap = night.world, trial.order.caps.gpu_hours
    world.look()

    def expect(holds: bool, what: str) -> None:
        if not holds:
            found.append(what)

    # Nothing lost: what is not over waits for a later run with more of a budget, and for nothing else.
    counts = reading.counts(journal, TAG)
    left = counts.get("queued", 0) + counts.get("running", 0)
    expect(not left or trial.stops[-1] in ("budget", "target", "plateau"), f"{left} experiments lost")
    expect(not reading.attempts(journal, TAG, open_only=True), "attempts left open in the journal")
    for (name,) in journal.db.execute("SELECT attempt FROM attempts WHERE study = ?", (TAG,)):
        never = name not in trial.submitted
        expect(not never or _ending(journal, name) in ("cancelled", "lost"), f"{name} has an outcome and never was")
    # Nothing twice: of each experiment one attempt counts, and no attempt runs that the journal doesn't know.
    query = "SELECT experiment FROM attempts WHERE study = ? AND ended IS NOT NULL AND label IS NULL"
    scored = Counter(name for (name,) in journal.db.execute(query, (TAG,)))
    expect(all(number == 1 for number in scored.values()), "an experiment was measured twice")
    known = {name for (name,) in journal.db.execute("SELECT attempt FROM attempts WHERE study = ?", (TAG,))}
    expect(trial.submitted <= known, "there are attempts that the journal doesn't know")
    expect(all(row[0] == row[1] for row in journal.db.execute(_SCORES, (TAG,))), "a score without its attempt")
    # No cap exceeded, and what was billed is known.
    billed = sum(world.use().billed.values())
    told = sum((one.until or one.since) - one.since for one in reading.leases(journal, TAG)) / 3600
    expect(cap is None or billed <= cap + 1e-6, f"{billed:.3f} of {cap} GPU-hours were billed")
    expect(told >= billed * 0.999, f"{billed:.3f} GPU-hours were billed, {told:.3f} are known of")
    # No orphan.
    expect(not world.alive(), f"{len(world.alive())} attempts are left alive")
    expect(not world.sites, f"{len(world.sites)} clusters are left up")
    # The incumbent never gets worse: every keep excludes it, each on top of the one before.
    study = reading.study_of(journal, TAG)
    for decision in reading.decisions(journal, TAG):
        expect(decision.verdict is not Verdict.KEEP or (decision.high or 0) < 0, f"{decision.candidate} is not better")
    kept = ["c0000", *(candidate for _, candidate, _, _ in reading.kept(journal, TAG))]
    expect(study.incumbent == kept[-1], "the incumbent is not the last that was kept")
    expect(all(name in kept for name in trial.incumbents if name), "an incumbent that was never kept")
    expect(night.workspace.repository.resolve(f"refs/heads/{study.branch}") == study.tip, "the branch is elsewhere")
    commits = [night.workspace.head, *(commit for _, _, commit, _ in reading.kept(journal, TAG))]
    for old, new in pairwise(commits):
        expect(night.workspace.repository.resolve(f"{new}^") == old, "a keep is not on top of the one before it")
    journal.close()
    return found


_SCORES = (
    "SELECT e.score IS NOT NULL, EXISTS (SELECT 1 FROM attempts a WHERE a.study = e.study"
    " AND a.experiment = e.experiment AND a.ended IS NOT NULL AND a.label IS NULL) FROM experiments e WHERE e.study = ?"
)


def _ending(journal: Journal, attempt: str) -> str | None:
    label = reading.ending(journal, TAG, attempt)["label"]
    return str(label) if label is not None else None


def fault_night(root: Path, seed: int) -> Trial:
    """One night with everything drawn from its seed, lived through to its end."""
    draw = random.Random(f"{seed}:fault night")
    scenario = load().with_faults(draw.choice([0, 1, 3, 10, 30]))
    clusters = draw.choice([2, 4, 8, 16])
    hours = draw.choice([2, 4, 8])
    cap = round(draw.uniform(0.5, 1.2) * clusters * hours + 1, 2)
    night = Night(make_workspace(root, SMALL), scenario, seed)
    asked = Order({"proposer": "ideas"}, 0, clusters, caps=Caps(hours, cap), plateau=draw.choice([3, 12, None]))
    trial = Trial(night, asked)
    for _ in range(40):
        life = Life()
        if draw.random() < 0.75 and len(trial.lives) < 12:
            if draw.random() < 0.5:
                life = Life(records=1 + int(draw.expovariate(1 / 200)), before=draw.random() < 0.5)
            else:
                life = Life(until=night.clock.monotonic() + draw.expovariate(1 / 5000))
        if trial.live(life):
            break
        night.clock.leap(draw.choice([1, 60, 600, 4000, 20000]) * draw.random())
    return trial


def main() -> None:
    parser = argparse.ArgumentParser(description="Nights in which everything goes wrong.")
    parser.add_argument("--nights", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failed: dict[int, list[str]] = {}
    seconds, killed, attempts = [], 0, 0
    for seed in range(arguments.first, arguments.first + arguments.nights):
        begun = time.perf_counter()
        with scratch() as folder:
            trial = fault_night(Path(folder, "workspace"), seed)
            found = broken(trial)
        seconds.append(time.perf_counter() - begun)
        killed += len(trial.lives) - 1
        attempts += trial.attempts
        if found:
            failed[seed] = found
            if not arguments.json:
                print(f"night {seed}: {'; '.join(found)}")
    result: dict[str, Any] = {
        "nights": arguments.nights,
        "nights_with_a_broken_invariant": len(failed),
        "broken": failed,
        "kills": killed,
        "attempts": attempts,
        "seconds_a_night": round(sum(seconds) / len(seconds), 2),
        "slowest_night_seconds": round(max(seconds), 2),
    }
    print(json.dumps(result) if arguments.json else "\n".join(f"{name:<32} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
