"""The search: waves without a barrier between them, on one scheduler, until something says stop.

While one wave trains the next is proposed, knowing what is pending, so that its cells are queued before clusters run
dry. Waves are confirmed one after another, because each may change the incumbent: what was screened against an older
one is put on top of the new one before it is confirmed (`rebase`).

`wave` is one turn of this search, `run` as many as the budget allows.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from math import ceil
from statistics import fmean
from typing import Any

from controller.backends import Backend, Bundle
from controller.budget import Caps, Ledger
from controller.bundles import bundler
from controller.clock import Clock
from controller.edits import same_schedule
from controller.journal import ProposalsRefused, ProposerAnswered, ProposerAsked, RunStarted, RunStopped, reading
from controller.notes import take_jottings
from controller.proposers import Proposer
from controller.proposers.prices import Tokens
from controller.proposers.protocol import Frugal, Hasty, Metered
from controller.proposers.submissions import Submissions
from controller.pruning import Curve, hopeless
from controller.records import (
    AutoresearchError,
    Experiment,
    Interrupted,
    NothingNew,
    NothingRan,
    Outcome,
    Role,
    Tier,
    Value,
    Wave,
)
from controller.scheduler import Observer, Scheduler
from controller.steering import Steering
from controller.study import Study
from controller.text import clip
from controller.wave import Design, Request, advance, begin, design, pointless

log = logging.getLogger(__name__)

CELLS = 12
"""Cells a proposer is asked for at least: enough for a screen of eleven factors."""
AHEAD = 1.5
"""The next wave is proposed when what waits to be screened is less than so many runs for each cluster."""
FAILED_CALLS = 5
"""Answers a proposer may fail to give, one after another, before the search goes on without it."""
CALL_PAUSE_SECONDS = 30.0
"""How long is waited after the first of them; twice as long after each further one."""
CURVES = 32
"""Curves of an incumbent's controls, the latest, that a run is compared with; more would not tell more."""
EARLIER = 3
"""Earlier incumbents, the latest, whose controls' curves say how far curves spread."""
FAILURES_TOLD = 5
"""Failures of the infrastructure in a row that are worth waking somebody for."""
INTERRUPTED = "interrupted; everything finished so far is kept, and the same command goes on from here"


@dataclass(frozen=True, slots=True)
class Order:
    """What a search is asked for.

    `asked` makes two requests for a wave the same one. `room` is how many cells a proposer is asked for, None to have
    as many as keep both tiers equally busy. `waves` are the most to begin, `target` the score to stop at, `plateau` the
    waves in a row without a keep to stop after. `overlap` proposes while other waves run.
    """

    asked: Mapping[str, Value]
    seed: int
    clusters: int
    room: int | None = None
    waves: int | None = None
    target: float | None = None
    plateau: int | None = None
    overlap: bool = True
    caps: Caps = field(default_factory=Caps)


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a search ended: in a word (`waves`, `budget`, `target`, `plateau`, `exhausted`, `asked`) and a sentence."""

    why: str
    sentence: str


@dataclass(frozen=True)
class Outside:
    """Where a search runs, who proposes, who watches, who is told: `say` takes a line, `tell` a title and a text.

    What is handed in from outside, to `submissions`, comes first; where these are the proposer too, it is waited for.
    """

    backend: Backend
    proposer: Proposer
    observer: Observer
    say: Callable[[str], None] = lambda line: None
    tell: Callable[[str, str], None] = lambda title, text: None
    submissions: Submissions | None = None


@dataclass
class _Open:
    """A wave that has not ended: where it stands, and how many of its experiments have still to."""

    wave: Wave
    state: str
    left: int


class Search:
    """One controller's run of a study."""

    def __init__(self, study: Study, order: Order, outside: Outside, clock: Clock) -> None:
        self.study = study
        self.order = order
        self.ended: list[str] = []
        """The waves that came to their end in this run."""
        self._outside = outside
        self._clock = clock
        settings = study.workspace.settings
        self._settings = settings
        clock.catch_up(reading.last_at(study.journal, study.tag))
        self._bundler = bundler(study.workspace)
        backend = outside.backend
        self.ledger = Ledger(
            study.journal, study.tag, settings, order.caps, backend.idle_seconds, clock, backend.prices
        )
        self.scheduler = Scheduler(study.tag, settings, study.journal, backend, clock, self.ledger, self._bundle_of)
        self.scheduler.observer = outside.observer
        self.scheduler.hooks.finished = self._finished
        if settings.early_stopping:
            self.scheduler.hooks.hopeless = self._hopeless
        self._open: dict[str, _Open] = {}
        self._begun = 0
        self._sterile = 0
        """Waves in a row, up to now, that gave nothing to keep."""
        self._score: float | None = None
        """The incumbent's, where it has been confirmed."""
        self._asking: asyncio.Task[Design] | None = None
        self._asked = outside.proposer
        """Who is, or was last."""
        self._idles = False
        """Whether nothing was asked yet, as nothing has been handed in."""
        self._calls_failed = 0
        self._exhausted: str | None = None
        self._stop: Stop | None = None
        self._cut = False
        self._commits: dict[str, str] = {}
        self._comparable: dict[str, bool] = {}
        self._curves: dict[tuple[str, str], deque[tuple[tuple[float, float], ...]]]
        self._curves = defaultdict(lambda: deque(maxlen=CURVES))
        self._failures = 0
        self._halves: set[tuple[str, float]] = set()
        self._steering = Steering(study, outside.say)

    async def run(self) -> Stop:
        """Search until something says stop; returns what. Raises Interrupted where `interrupt` was called.

        Whatever happens, the clusters are given back, and what was found is in the journal.
        """
        study = self.study
        self.ledger.check_prices()
        first = self._first_wave()
        if self.order.overlap:
            self._begun = reading.totals(study.journal, study.tag)["waves"] - first
        study.journal.record(study.tag, RunStarted({**self._as_recorded(), "first_wave": first}))
        log.info("run started", extra={"study": study.tag, "asked": json.dumps(self._as_recorded())})
        why = Stop("error", "it ended with an error")
        try:
            why = await self._search()
        except AutoresearchError as error:
            why = Stop("nothing" if isinstance(error, NothingRan) else "error", str(error))
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {clip(str(error), 200)}"
            why = Stop("error", f"it ended with an error of its own ({what}; see .autoresearch/log)")
            log.exception("run failed")
            raise
        finally:
            if self._asking:
                self._asking.cancel()
            await self.scheduler.close()
            study.journal.record(study.tag, RunStopped(why.why, why.sentence))
            log.info("run stopped", extra={"study": study.tag, "why": why.why, "reason": why.sentence})
        if why.why == "interrupted":
            raise Interrupted(INTERRUPTED)
        return why

    def stop(self, why: Stop) -> None:
        """Begin nothing more, and end when what runs has ended."""
        if self._stop is None or why.why == "interrupted":
            self._stop = why
        self.scheduler.drain()

    def interrupt(self, now: bool = False) -> None:
        """The user wants an end: of what is not running yet, or `now` of everything."""
        self.stop(Stop("interrupted", INTERRUPTED))
        if now:
            self.scheduler.cancel()

    async def _search(self) -> Stop:
        study, order = self.study, self.order
        self._curves_so_far()
        self._take_stock()
        await self.scheduler.adopt()
        self._reopen()
        stop = self._no_more_waves()
        if stop is not None and not self._open:
            if stop.why == "budget":
                raise NothingRan(stop.sentence)
            return stop
        # New clusters are held against each other by what the baseline comes to on them, for as long as a study lasts.
        baseline = reading.candidate(study.journal, study.tag, study.now.baseline)
        self.scheduler.begin(self._bundler(baseline.commit, order.seed), order.clusters)
        while True:
            self._advance()
            self._set_aside()
            stop = self._over()
            if stop is not None:
                return stop
            self._ask()
            self._tell_of_budget()
            await self.scheduler.step()

    # Waves

    def _reopen(self) -> None:
        """Take up the waves that an earlier controller left open."""
        journal, tag = self.study.journal, self.study.tag
        accelerators = dict(reading.clusters(journal, tag))
        for wave, state in reading.open_waves(journal, tag):
            queued = []
            for result in reading.results_of(journal, tag, wave=wave.id):
                if result.status in ("queued", "running"):
                    queued.append(result.experiment)
                elif result.cluster and result.accelerator:
                    self.scheduler.waiting.placed(result.experiment, result.cluster, result.accelerator)
            for running in self.scheduler.running.values():
                if running.experiment.wave == wave.id:
                    accelerator = accelerators.get(running.cluster, "")
                    self.scheduler.waiting.placed(running.experiment, running.cluster, accelerator)
            self._open[wave.id] = _Open(wave, state, len(queued))
            self.scheduler.add(queued)
            self._outside.say(f"going on with wave {wave.id}, which was cut off while {state}")
            if not self.order.overlap and dict(wave.request) == dict(self.order.asked):
                self._begun += 1

    def _advance(self) -> None:
        """Take every wave that has nothing left to run as far as it goes."""
        while ready := next((one for one in self._open.values() if not one.left and self._may_advance(one)), None):
            before = self.study.now.incumbent
            more = advance(self.study, ready.wave, self._clock)
            ready.state = reading.wave_state(self.study.journal, self.study.tag, ready.wave.id)
            if ready.state == "ended":
                self._wave_ended(ready.wave, before)
            elif more:
                ready.left = len(more)
                self.scheduler.add(more)

    def _may_advance(self, one: _Open) -> bool:
        """Waves are confirmed one after another, the oldest first of those whose screening is over."""
        return one.state != "screening" or not self._in(("confirming", "decided"))

    def _in(self, states: Collection[str]) -> int:
        """How many open waves are in one of `states`."""
        return sum(one.state in states for one in self._open.values())

    def _wave_ended(self, wave: Wave, before: str) -> None:
        from controller.report import conclusion

        study = self.study
        del self._open[wave.id]
        self.ended.append(wave.id)
        self._exhausted = None
        self._take_stock()
        sentence = conclusion(study.journal, study.tag, wave.id)
        log.info("wave ended", extra={"wave": wave.id, "conclusion": sentence})
        if study.now.incumbent != before:
            self._outside.tell(f"{study.tag}: new best {study.now.incumbent}", sentence)
        if self.order.overlap:
            self._outside.say(f"wave {wave.id}: {sentence}")

    def _finished(self, experiment: Experiment, outcome: Outcome) -> None:
        one = self._open.get(experiment.wave)
        if one is None:
            return
        one.left -= 1
        self._count_failures(outcome)
        if experiment.role is not Role.CONTROL:
            return
        if outcome.label is None and outcome.curve:
            self._curves[experiment.candidate, outcome.accelerator].append(outcome.curve)
        elif outcome.label is not None and (why := pointless(self.study, one.wave)) is not None:
            self._withdraw(one, why)

    def _withdraw(self, one: _Open, why: str) -> None:
        log.info("wave called off", extra={"wave": one.wave.id, "reason": why})
        one.left -= len(self.scheduler.withdraw(one.wave.id, Tier.SCREENING, why))

    def _bundle_of(self, experiment: Experiment) -> Bundle:
        if experiment.candidate not in self._commits:
            found = reading.candidate(self.study.journal, self.study.tag, experiment.candidate)
            self._commits[experiment.candidate] = found.commit
        return self._bundler(self._commits[experiment.candidate], experiment.seed)

    # Proposals

    def _ask(self) -> None:
        """Begin to ask for the next wave when it is time to; begin that wave once its design is there."""
        if self._asking is not None and self._asking.done():
            task, self._asking = self._asking, None
            self._answered(task)
        if self._asking is None and self._stop is None and self._wants_wave():
            self._asked = self._handed_in() or self._outside.proposer
            self._asking = asyncio.ensure_future(self._propose(self._asked))
            self._asking.add_done_callback(lambda _: self.scheduler.wake())
        if self._asking is not None and isinstance(self._asked, Hasty) and self._runs_dry():
            self._asked.hurry()

    def _wants_wave(self) -> bool:
        if self.scheduler.draining or self._no_more_waves() is not None:
            return False
        if self._exhausted and not self._handed_in():
            return False
        if not self.order.overlap:
            return not self._open
        if not self.scheduler.clusters and self._open:
            return False
        waits = self.scheduler.waiting.count(Tier.SCREENING)
        return waits <= AHEAD * max(self.scheduler.serving(Tier.SCREENING), 1) or not self._open

    def _handed_in(self) -> Submissions | None:
        """What was handed in from outside, if anything waits."""
        submissions = self._outside.submissions
        return submissions if submissions is not None and submissions.waiting else None

    def _runs_dry(self) -> bool:
        """Whether clusters have, or will soon have, nothing to screen."""
        return self.scheduler.waiting.count(Tier.SCREENING) < max(self.scheduler.serving(Tier.SCREENING), 1)

    def _no_more_waves(self) -> Stop | None:
        """Why no further wave is to begin; None where one may."""
        order, metric = self.order, self._settings.metric
        sign = 1 if metric.goal == "minimize" else -1
        if order.target is not None and self._score is not None and sign * (self._score - order.target) <= 0:
            return Stop("target", f"{metric.name} {self._score:.6f} has reached the target of {order.target:g}")
        if order.waves is not None and self._begun >= order.waves:
            return Stop("waves", f"{order.waves} wave{'s' * (order.waves != 1)} asked for, and done")
        if order.plateau is not None and self._sterile >= order.plateau:
            return Stop("plateau", f"a plateau: the last {self._sterile} waves gave nothing to keep")
        tiers = self._settings.tiers.confirmation
        refused = self.ledger.refusal_of_wave((tiers.promote + 1) * tiers.seeds)
        if refused is not None:
            return Stop("budget", refused)
        if (refused := self.ledger.refusal_of_call(self._usd_at_most(self._outside.proposer))) is not None:
            return Stop("budget", refused)
        return None

    def _usd_at_most(self, proposer: Proposer) -> float:
        """The most that asking `proposer` now may cost; one that can do without money asks for what there is."""
        if isinstance(proposer, Frugal):
            proposer.afford(lambda usd: self.ledger.refusal_of_call(usd) is None)
        return proposer.usd_at_most

    async def _propose(self, proposer: Proposer) -> Design:
        journal, tag = self.study.journal, self.study.tag
        if self._calls_failed:
            await self._clock.sleep(CALL_PAUSE_SECONDS * 2 ** (self._calls_failed - 1))
        if isinstance(proposer, Submissions) and self.order.overlap:
            self._idles = not proposer.waiting
            if self._idles and not self._open:
                self._outside.say("waiting for ideas: `autoresearch submit` hands one in, `autoresearch stop` ends it")
            await proposer.come()
            self._idles = False
        self._steering.heed()
        call, before = reading.calls(journal, tag) + 1, proposer.usd_spent
        journal.record(tag, ProposerAsked(call, self._usd_at_most(proposer)))
        try:
            return await design(self.study, proposer, self._request())
        except NothingNew as error:
            if error.refusals:
                journal.record(tag, ProposalsRefused(error.refusals))
            raise
        finally:
            model, tokens = proposer.metered() if isinstance(proposer, Metered) else ("", Tokens())
            billed = (tokens.input, tokens.output, tokens.stored, tokens.cached)
            journal.record(tag, ProposerAnswered(call, proposer.usd_spent - before, model, *billed))
            take_jottings(self.study, proposer)

    def _answered(self, task: asyncio.Task[Design]) -> None:
        proposer = self._asked
        try:
            designed = task.result()
        except NothingRan as error:
            if self.order.overlap and isinstance(proposer, Submissions):
                self._outside.say(f"{error}")
                return
            # Perhaps it has ideas again once what is open is known.
            self._exhausted = str(error)
            if not self._open:
                if not self.ended:
                    raise
                self._stop = Stop("exhausted", str(error))
            return
        except AutoresearchError:
            raise
        except Exception as error:
            self._calls_failed += 1
            log.exception("the proposer failed", extra={"proposer": proposer.name})
            if self._calls_failed >= FAILED_CALLS:
                self._exhausted = f"{proposer.name} failed {FAILED_CALLS} times, at last with {type(error).__name__}"
                self._stop = None if self._open else Stop("exhausted", self._exhausted)
            return
        self._calls_failed = 0
        if self.scheduler.draining:
            return
        wave = begin(self.study, proposer, self._request(), designed, self._clock)
        self._begun += 1
        results = reading.results_of(self.study.journal, self.study.tag, wave=wave.id)
        self._open[wave.id] = _Open(wave, "screening", len(results))
        self.scheduler.add(result.experiment for result in results)
        cells = len(designed.cells)
        log.info("wave begun", extra={"wave": wave.id, "proposer": wave.proposer, "candidates": cells})
        handed_in = [one.submission for one in designed.proposals.values() if one.submission]
        which = f" ({', '.join(handed_in)})" if handed_in else ""
        self._outside.say(f"wave {wave.id}: {cells} candidate{'s' * (cells != 1)} proposed by {wave.proposer}{which}")
        for refused in designed.refusals:
            if refused.submission:
                self._outside.say(f"{refused.submission} is refused: {refused.reason}")

    def _request(self) -> Request:
        order = self.order
        return Request(order.asked, order.seed, order.clusters, order.room or self._room())

    def _room(self) -> int:
        """Cells for which screening takes about as long as confirming the wave, with a quarter more for controls.

        As long as earlier waves wait to be confirmed it is more, so that screening does not run ahead of confirmation.
        """
        screening, confirming = self.scheduler.serving(Tier.SCREENING), self.scheduler.serving(Tier.CONFIRMATION)
        tiers = self._settings.tiers.confirmation
        runs = (tiers.promote + 1) * tiers.seeds
        backlog = sum(not one.left for one in self._open.values())
        rounds = ceil(runs / confirming) if confirming else 1
        cells = screening * rounds * 4 / 5 / self._settings.tiers.screening.seeds
        return max(CELLS, round(cells * (1 + backlog)))

    # Stopping

    def _over(self) -> Stop | None:
        """Why the search is over; None while it is not."""
        scheduler = self.scheduler
        stop = self._stop or self._no_more_waves()
        if stop is not None and self._idles and self._asking is not None:
            self._asking.cancel()
            self._asking, self._idles = None, False
        self._wind_down(stop)
        if self.ledger.time_is_up() and not self._cut:
            self._cut = True
            scheduler.cancel()
        if scheduler.draining:
            return (stop or Stop("budget", self.ledger.out_of_time() or "")) if scheduler.idle else None
        if self._asking is not None:
            return None
        if stop is not None and stop.why == "target" and self._open:
            self.stop(stop)
            return None
        if not self._open:
            return stop
        if scheduler.stuck:
            return self._stuck()
        return None

    def _wind_down(self, stop: Stop | None) -> None:
        """Tell the scheduler which tiers may still see work."""
        if stop is None or self._asking is not None:
            self.scheduler.expecting = frozenset(Tier)
        elif self._in(("screening",)):
            self.scheduler.expecting = frozenset({Tier.CONFIRMATION})
        else:
            self.scheduler.expecting = frozenset()

    def _stuck(self) -> Stop | None:
        """The budget lets nothing more be run: what is screened is confirmed if it can be, the rest stays for later."""
        scheduler = self.scheduler
        why = next(iter(scheduler.blocked.values()))
        spent = self.ledger.out_of_time() is None
        waiting = {experiment.wave for experiment in scheduler.waiting if experiment.tier is Tier.SCREENING}
        if spent and waiting and Tier.CONFIRMATION not in scheduler.blocked:
            for name in waiting & self._open.keys():
                self._withdraw(self._open[name], f"called off, as {why}")
            return None
        return Stop("budget", f"{why}; a later run with more of it goes on from here")

    def _set_aside(self) -> None:
        """Keep enough of the budget to confirm what is being screened."""
        tiers = self._settings.tiers.confirmation
        runs = self._in(("screening",)) * (tiers.promote + 1) * tiers.seeds
        self.ledger.set_aside = runs + self.scheduler.waiting.count(Tier.CONFIRMATION)

    def _take_stock(self) -> None:
        journal, study = self.study.journal, self.study.now
        ended = reading.waves(journal, study.tag, ended=True)
        kept = {wave for wave, *_ in reading.kept(journal, study.tag)}
        self._sterile = next((place for place, name in enumerate(reversed(ended)) if name in kept), len(ended))
        last = next(reversed(reading.decisions(journal, study.tag, candidate=study.incumbent)), None)
        self._score = fmean(last.scores) if last else None

    # Early stopping

    def _curves_so_far(self) -> None:
        for candidate, accelerator, curve in reading.control_curves(self.study.journal, self.study.tag):
            self._curves[candidate, accelerator].append(curve)

    def _hopeless(self, experiment: Experiment, accelerator: str, curve: Curve) -> str | None:
        one = self._open.get(experiment.wave)
        if one is None or experiment.role is not Role.CELL:
            return None
        incumbent = one.wave.incumbent
        own = self._curves.get((incumbent, accelerator), ())
        others = [
            curves for (name, where), curves in self._curves.items() if where == accelerator and name != incumbent
        ]
        why = hopeless(curve.points(), [own, *others[-EARLIER:]])
        # Comparing two files takes longer than comparing two curves: most are never compared.
        return why if why is not None and self._same_schedule(experiment.candidate) else None

    def _same_schedule(self, name: str) -> bool:
        if name not in self._comparable:
            candidate = reading.candidate(self.study.journal, self.study.tag, name)
            source = self.study.workspace.source
            self._comparable[name] = same_schedule(source(candidate.commit), source(candidate.parent))
        return self._comparable[name]

    # Telling

    def _tell_of_budget(self) -> None:
        for name, (spent, cap) in self.ledger.used().items():
            for share in (0.5, 0.9, 1.0):
                # The last hundredth is too little for anything: then it counts as spent.
                if spent >= share * cap * 0.99 and (name, share) not in self._halves:
                    self._halves.add((name, share))
                    text = f"{spent:.2f} of {cap:g} {name.replace('_', ' ')} are spent"
                    self._outside.tell(f"{self.study.tag}: {share:.0%} of {name.replace('_', ' ')}", text)

    def _count_failures(self, outcome: Outcome) -> None:
        broken = outcome.label is not None and outcome.label.infrastructure
        self._failures = self._failures + 1 if broken else 0
        if self._failures == FAILURES_TOLD:
            text = f"{FAILURES_TOLD} experiments in a row were given up, the last as {outcome.label}: {outcome.reason}"
            self._outside.tell(f"{self.study.tag}: repeated failures", text)

    def _first_wave(self) -> int:
        """How many waves there were before this run, or before the one that was cut off and that it goes on with."""
        last = reading.last_run(self.study.journal, self.study.tag)
        if last is not None and last.why in (None, "interrupted", "asked") and "first_wave" in last.asked:
            return int(last.asked["first_wave"])
        return reading.totals(self.study.journal, self.study.tag)["waves"]

    def _as_recorded(self) -> dict[str, Any]:
        order = self.order
        caps = {name: value for name, value in asdict(order.caps).items() if value is not None}
        return {
            "infra": self._outside.backend.name,
            "clusters": order.clusters,
            "proposer": self._outside.proposer.name,
            "waves": order.waves,
            "target": order.target,
            "plateau": order.plateau,
            "caps": caps,
            "prices": dict(self._outside.backend.prices),
        }
