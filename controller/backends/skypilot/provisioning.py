"""Clusters, from being asked for to being given back: launched, set up, held against the others, and taken down.

A cluster counts as up once its canary, the baseline run briefly, has come to what it came to on the others. One that
differs is taken down before an experiment has seen it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import floor
from pathlib import Path
from typing import Any, TypeVar

from controller.backends.protocol import Fleet, Unreachable
from controller.backends.skypilot.claims import LABEL, Claim, Claims, cluster_name, free_numbers, is_of
from controller.backends.skypilot.following import asked, follow
from controller.backends.skypilot.parcel import command, forgotten, keep, packed
from controller.backends.skypilot.recipe import ANY, Recipe, for_fleet
from controller.backends.skypilot.sdk import Gone, Record, Refused, Sdk
from controller.backends.skypilot.trouble import Inquiry
from controller.canary import Canary, difference
from controller.clock import Clock
from controller.records import Attempt, Cluster, NothingRan

log = logging.getLogger(__name__)

IDLE_MINUTES = 10
"""After how long without work a cluster takes itself down, unless experiment.yaml says otherwise."""
CANARY = "canary"
CANARY_SHARE = 0.1
"""Of the budget, that a new cluster trains the baseline for before it counts: enough to tell its speed and score."""
SETUP_SECONDS = 3600.0
"""How long a set-up may take on Slurm, before the cluster ends should nobody be there any more."""
LOOK_SECONDS = 15.0
"""How often is looked why clusters are not up yet."""
REASONS = 3
"""Reasons of which is told at a time."""
PAUSE_SECONDS = 2.0
"""How long to wait before a server that could not be reached, or that is still launching, is asked again."""

T = TypeVar("T")


class SetAside(Exception):
    """A cluster that came up is not to be used, and why."""


@dataclass(frozen=True)
class Plan:
    """What clusters are to be: the recipe, where, and how many of which accelerator, if that is said by name."""

    recipe: Recipe
    infra: str = ANY
    fleet: Mapping[str, int] | None = None
    metric: str = "val_bpb"
    infras: tuple[str, ...] = ()
    """What SkyPilot has access to."""

    @property
    def idle_minutes(self) -> int:
        """After how long without work a cluster goes."""
        return self.recipe.idle_minutes or IDLE_MINUTES

    def choices(self, accelerator: str | None) -> list[dict[str, Any]]:
        """The resources of a cluster, with `accelerator` where one is named."""
        return (
            self.recipe.choices(self.infra) if accelerator is None else for_fleet(self.recipe, accelerator, self.infra)
        )

    def lacking(self, clusters: int, there: Iterable[str]) -> list[str | None]:
        """The accelerators to ask for, to have so many clusters beside those that are `there`; None for any."""
        there = list(there)
        missing = max(0, clusters - len(there))
        if not self.fleet:
            return [None] * missing
        short = Counter(shares(self.fleet, clusters))
        short.subtract(there)
        wanted = [name for name, count in short.most_common() for _ in range(max(0, count))]
        return [*wanted[:missing]]

    @property
    def may_be_slurm(self) -> bool:
        """Whether a cluster may come to be on Slurm, which can't shut itself down by SkyPilot's means."""
        choices = self.choices(None)
        places = {str(one.get("infra") or one.get("cloud") or "").partition("/")[0].lower() for one in choices}
        return "slurm" in places or ("" in places and "slurm" in {one.lower() for one in self.infras})


def shares(fleet: Mapping[str, int], clusters: int) -> dict[str, int]:
    """So many clusters divided as `fleet` is, at least one of each where there are enough, the rest by largest parts.

    Source: Hamilton's method of largest remainders.
    """
    total = sum(fleet.values())
    if clusters >= total:
        return dict(fleet)
    exact = {name: count * clusters / total for name, count in fleet.items()}
    least = 1 if clusters >= len(fleet) else 0
    found = {name: max(least, floor(share)) for name, share in exact.items()}
    while sum(found.values()) > clusters:
        largest = max(found, key=lambda name: found[name] - exact[name] + (found[name] > least) * 1e6)
        found[largest] -= 1
    while sum(found.values()) < clusters:
        found[max(found, key=lambda name: exact[name] - found[name])] += 1
    return found


def _canary_of(claim: Claim) -> str:
    """What the canary of a cluster is called: files of an earlier cluster of its name may still be there (on Slurm)."""
    return f"{claim.name}-{CANARY}-{claim.nonce[:8]}"


class Provisioner:
    """The clusters of one workspace."""

    def __init__(
        self,
        sdk: Sdk,
        plan: Plan,
        directory: Path,
        clock: Clock,
        set_aside: Callable[[str, str], None],
        troubled: Callable[[Unreachable], None],
        awaited: Callable[[str], None],
        inquire: Inquiry,
    ) -> None:
        self.plan = plan
        self.claims = Claims(directory / "clusters", clock)
        self.idle_seconds = plan.idle_minutes * 60.0
        self._scratch = directory / "parcels"
        self._sdk = sdk
        self._clock = clock
        self._set_aside = set_aside
        self._troubled = troubled
        self._awaited = awaited
        self._inquire = inquire
        self._launching: set[str] = set()
        self._unwanted: set[str] = set()
        """Of those that are being launched, the ones that have been given back."""
        self._leaving: set[str] = set()

    async def mine(self, study: str | None = None) -> dict[str, Record]:
        """This workspace's clusters, up or coming up, by name; those of `study` only, where it is given."""
        records = await self._sdk.clusters()
        return {
            one.name: one
            for one in records
            if self.claims.owns(one) and one.name not in self._leaving and (study is None or is_of(one.name, study))
        }

    async def up(self, study: str) -> list[Cluster]:
        """The clusters of `study`, up or coming up."""
        there = [self.seen(one) for one in (await self.mine(study)).values()]
        names = {cluster.name for cluster in there}
        # SkyPilot lists none before it has begun with it.
        return there + [Cluster(name, "") for name in sorted(self._launching - names) if is_of(name, study)]

    def seen(self, record: Record) -> Cluster:
        """A cluster as the scheduler is told of it."""
        return Cluster(record.name, record.accelerator, max(0.0, self._clock.now() - record.since))

    async def bring(self, fleet: Fleet) -> AsyncIterator[Record]:
        """Have so many clusters: those that are ready, then the others as they get ready.

        Fewer where some can't be had now. Raises NothingRan where asking again is in vain.
        """
        mine = await self._patiently(lambda: self.mine(fleet.study))
        ready = [one for one in mine.values() if one.is_up and self._passed(one.name)]
        for one in ready[: fleet.clusters]:
            yield one
        missing = fleet.clusters - len(ready)
        if missing <= 0:
            return
        halfway = [one for one in mine.values() if one not in ready][:missing]
        everybodys = await self._patiently(self._sdk.clusters)
        names = free_numbers(fleet.study, {one.name for one in everybodys} | self._leaving)
        there = [one.accelerator for one in (*ready, *halfway)]
        coming = [self._resumed(one, fleet) for one in halfway]
        for number, accelerator in zip(names, self.plan.lacking(fleet.clusters, there), strict=False):
            coming.append(self._launched(cluster_name(fleet.study, number), accelerator, fleet))
        tasks = [asyncio.ensure_future(one) for one in coming]
        watching = asyncio.ensure_future(self._tell_of_waiting(fleet.study))
        refusals: list[Refused] = []
        try:
            for task in asyncio.as_completed(tasks):
                try:
                    yield await task
                except SetAside as why:
                    log.warning("cluster is set aside", extra={"reason": str(why)})
                except Gone as why:
                    log.warning("cluster went as it came up", extra={"reason": str(why)})
                except Refused as refusal:
                    log.warning("cluster could not be had", extra={"reason": str(refusal)})
                    refusals.append(refusal)
        finally:
            for left in (*tasks, watching):
                left.cancel()
        self._awaited(str(refusals[0]) if refusals else "")
        if refusals and len(refusals) == len(tasks) and not ready and not any(one.lacking for one in refusals):
            raise NothingRan(f"SkyPilot refuses to launch: {refusals[0]}")

    async def _tell_of_waiting(self, study: str) -> None:
        """Say, for as long as clusters come up, why they have not."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            try:
                coming = [one for one in (await self.mine(study)).values() if not one.is_up]
            except (Unreachable, Refused):
                continue
            troubles = [await self._inquire(one) for one in coming]
            why = Counter(
                trouble.sentence if trouble else one.why or "it is being made"
                for one, trouble in zip(coming, troubles, strict=True)
            )
            told = "; ".join(f"{count} coming up: {reason}" for reason, count in why.most_common(REASONS))
            if told:
                self._awaited(told)

    async def take_down(self, names: Iterable[str]) -> None:
        """Give clusters back that are this workspace's, whatever state they are in."""
        names = set(names)
        launching = names & self._launching
        self._unwanted |= launching
        for name in launching:
            await self._sdk.give_up(name)
        mine = await self.mine()
        for name in names - launching - mine.keys():
            self.claims.drop(name)  # It is gone by itself.
        await asyncio.gather(*(self._down(name) for name in names & mine.keys()))

    async def _down(self, name: str) -> None:
        self._leaving.add(name)
        try:
            await self._sdk.down(name)
            if (claim := self.claims.get(name)) is not None:
                forgotten(self._scratch, _canary_of(claim))
            self.claims.drop(name)
        finally:
            self._leaving.discard(name)

    def _passed(self, name: str) -> bool:
        claim = self.claims.get(name)
        return claim is not None and claim.passed

    async def _launched(self, name: str, accelerator: str | None, fleet: Fleet) -> Record:
        """A new cluster, ready. Raises Refused, Gone or SetAside."""
        claim = Claim(name, fleet.study, self._clock.token())
        canary = Attempt(_canary_of(claim), CANARY, name, claim.nonce)
        self.claims.put(claim)
        self._launching.add(name)
        may_be_slurm = self.plan.may_be_slurm
        try:
            with packed(self._scratch, canary, fleet.setup, self.additions(fleet), setup=True) as root:
                task = self._task(accelerator, canary.id, fleet, root)
                job = await self._launch(task, name, None if may_be_slurm else self.plan.idle_minutes)
        except Refused as refusal:
            # What there may be of it costs money, and is good for nothing.
            await self._patiently(lambda: self.take_down([name]))
            raise Refused(f"{name}: {refusal}", refusal.lacking) from None
        finally:
            self._launching.discard(name)
            self._unwanted.discard(name)
        record = await self._record(name)
        if not self.claims.owns(record):
            # Somebody else has had the same idea for a name at the same time.
            self.claims.drop(name)
            await self._patiently(lambda: self._sdk.cancel(name, job))
            raise Gone(f"{name} is not this workspace's")
        if may_be_slurm and not record.infra.startswith("slurm"):
            await self._patiently(lambda: self._sdk.autodown(name, self.plan.idle_minutes))
        return await self._ready(record, job, fleet)

    async def _launch(self, task: Any, name: str, idle_minutes: int | None) -> int:
        """The number of a new cluster's canary, though the server be away meanwhile. Raises Refused or Gone."""
        while True:
            try:
                job: int | None = await self._sdk.launch(task, name, idle_minutes)
            except Unreachable as error:
                self._troubled(error)
                await self._clock.sleep(PAUSE_SECONDS)
                job = await self._patiently(lambda: self._canary_on(name))
            if name in self._unwanted:
                await self._patiently(lambda: self.take_down([name]))
                raise Gone(f"{name} was given back before it was up")
            if job is not None:
                return job

    async def _canary_on(self, name: str) -> int | None:
        """The number of a cluster's canary, once the server is done with launching it; None where there is none."""
        while name in await self._sdk.in_flight("launch"):
            await self._clock.sleep(PAUSE_SECONDS)
        try:
            jobs = await asked(self._sdk, name, self._sdk.jobs(name))
        except Gone:
            return None
        return max((job.number for job in jobs if job.name == CANARY), default=None)

    async def _resumed(self, record: Record, fleet: Fleet) -> Record:
        """A cluster that an earlier controller asked for, ready; one that is not to be made sense of is given back."""
        name = record.name
        job = await self._patiently(lambda: self._canary_on(name))
        if job is not None and self.claims.get(name) is not None:
            return await self._ready(await self._record(name), job, fleet)
        await self._patiently(lambda: self._down(name))
        raise Gone(f"{name} was left half made by an earlier controller")

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What a question comes to, asked until the server can be reached: others come up meanwhile."""
        while True:
            try:
                return await ask()
            except Unreachable as error:
                self._troubled(error)
            await self._clock.sleep(PAUSE_SECONDS)

    async def _ready(self, record: Record, job: int, fleet: Fleet) -> Record:
        """`record`, once its set-up and its canary have come to what they should."""
        name = record.name
        finish = await follow(
            self._sdk, self._clock, name, job, self.claims.log(name), lambda line: None, self._troubled
        )
        claim = self.claims.get(name)
        report = dict(finish.report or {})
        if finish.state == "FAILED_SETUP":
            why: str | None = f"its set-up failed: {finish.said[:200]}"
        elif finish.report is None:
            why = f"its canary gave no result: {finish.reason}"
        elif claim is None or report.get("nonce") != claim.nonce:
            why = "its canary's result is another's"
        else:
            canary = Canary(name, record.accelerator, report)
            why = difference(canary, self.claims.canaries(fleet.study), self.plan.metric)
        if why is not None:
            await self._patiently(lambda: self._down(name))
            self._set_aside(name, f"set aside: {why}")
            raise SetAside(f"{name}: {why}")
        assert claim is not None
        self.claims.remember(fleet.study, canary)
        self.claims.put(replace(claim, passed=True))
        forgotten(self._scratch, _canary_of(claim))
        return record

    async def _record(self, name: str) -> Record:
        for record in await self._patiently(lambda: self._sdk.clusters([name])):
            return record
        raise Gone(f"{name} is not there any more")

    def additions(self, fleet: Fleet) -> dict[str, Any]:
        """What a canary's job says beside an experiment's."""
        return {**self.job(fleet.setup.job), "share": CANARY_SHARE, "survey": True}

    def job(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a job on these clusters says beside what the bundle's does."""
        told: dict[str, Any] = {"telling": True, "environment": dict(self.plan.recipe.environment)}
        return told if asked["evaluated"] else {**told, "run": self.plan.recipe.run}

    def _task(self, accelerator: str | None, canary: str, fleet: Fleet, root: Path) -> Any:
        choices = [
            {**one, "labels": {**(one.get("labels") or {}), LABEL: self.claims.owner}}
            for one in self.plan.choices(accelerator)
        ]
        try:
            self._sdk.task({"name": f"{fleet.study}.e0001.1", "run": "true"})
        except Refused:
            raise Refused(f"it takes no jobs of a study called {fleet.study}; choose another --tag") from None
        recipe = self.plan.recipe
        setup = f"{keep(canary, SETUP_SECONDS)} || true\n{recipe.setup}" if self.plan.may_be_slurm else recipe.setup
        config = recipe.task(
            choices,
            name=CANARY,
            setup=setup,
            run=command(canary, fleet.setup, self.idle_seconds),
            secrets=dict(recipe.secrets),
            workdir=str(root),
        )
        try:
            return self._sdk.task(config)
        except Refused as error:
            raise Refused(f"experiment.yaml is not a task of SkyPilot's: {error}") from None
