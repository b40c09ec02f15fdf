"""What a study's waves add up to, in a size that does not grow with them: each is taken in once, when it has ended.

The same waves in the same order always give the same memory, so a controller that was restarted remembers what the one
before it did. What is kept of each wave is measured by what was known by then: it is never written anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from statistics import fmean

from controller.proposers.protocol import Crash, Effect, Failure, Prediction, RecentWave, Record, Step, Tried
from controller.stats import Noise, combine, pooled

STEPS = 12
"""Keeps that are dropped at once: so many to twice as many are remembered, and most of the time one is only added."""
RECENT = 3
NEAR = 12
"""Near misses of each incumbent."""
INCUMBENTS = 3
"""Incumbents, the latest, whose near misses are remembered: what nearly beat an older one may be part of this one."""
TERMS, TERMS_OF_KNOBS = 400, 4
FAILURES = 2
PREDICTIONS = 6
CRASHES = 6
REPAIRED = 50


@dataclass(frozen=True, slots=True)
class Story:
    """What happened in one wave, as far as it is over.

    `statuses` count its screened cells by how they ended, `varied` holds knobs with the values around which they were,
    `repairs` the candidates whose crashes it was to repair. `recent` is None while it is being screened.
    """

    wave: str
    proposer: str
    repairs: frozenset[str]
    recent: RecentWave | None = None
    controls: tuple[float, ...] = ()
    statuses: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[Tried, ...] = ()
    near: tuple[Tried, ...] = ()
    effects: tuple[Effect, ...] = ()
    varied: frozenset[tuple[str, str]] = frozenset()
    predictions: tuple[Prediction, ...] = ()
    unscored: int = 0
    crashes: tuple[Crash, ...] = ()
    step: Step | None = None


@dataclass
class Memory:
    """All that is remembered; `floor` and `above` say of which waves, by number: all up to it, and these."""

    floor: int = 0
    above: set[int] = field(default_factory=set)
    noise: Noise | None = None
    control: float | None = None
    """The mean of the latest wave's controls."""
    steps: tuple[Step, ...] = ()
    earlier: int = 0
    gained: float = 0.0
    incumbents: tuple[str, ...] = ()
    counts: Counter[str] = field(default_factory=Counter)
    recent: tuple[RecentWave, ...] = ()
    near: dict[str, tuple[Tried, ...]] = field(default_factory=dict)
    terms: dict[tuple[str, ...], tuple[Effect, ...]] = field(default_factory=dict)
    varied: dict[tuple[str, str], None] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    crashes: dict[str, Crash] = field(default_factory=dict)
    repaired: tuple[str, ...] = ()
    """Candidates whose crash somebody set out to repair: a wave may end before the one whose crash it repairs."""

    def copy(self) -> Memory:
        """One that may take in more without changing this one."""
        mine = {one.name: getattr(self, one.name) for one in fields(self)}
        return Memory(**{name: value.copy() if hasattr(value, "copy") else value for name, value in mine.items()})

    def noise_with(self, controls: tuple[float, ...]) -> Noise | None:
        """The standard deviation of one run, by all controls up to these."""
        return combine(self.noise, pooled([controls]))

    def ended(self, number: int) -> None:
        """Wave `number` has been taken in for good."""
        self.above.add(number)
        while self.floor + 1 in self.above:
            self.floor += 1
            self.above.remove(self.floor)

    def take(self, story: Story, *, minimize: bool) -> None:
        """Take in a wave, or as much of it as there is yet."""
        if story.recent is None:
            self._crashed(story)
            return
        self.noise = self.noise_with(story.controls)
        self.control = fmean(story.controls) if story.controls else self.control
        self.counts.update(story.statuses)
        self.recent = (*self.recent, story.recent)[-RECENT:]
        self.incumbents = self.incumbents or (story.recent.against,)
        self._add_step(story.step)
        self._add_near(story.near, minimize)
        self._add_terms(story)
        for tried in story.failures:
            known = self.failures.get(tried.end, Failure(tried.end, 0, ()))
            others = tuple(one for one in known.latest if one.reason != tried.reason)
            self.failures[tried.end] = Failure(tried.end, known.count + 1, (*others, tried)[-FAILURES:])
        self._add_predictions(story)
        self._crashed(story)

    def _add_step(self, step: Step | None) -> None:
        if step is None:
            return
        self.steps = (*self.steps, step)
        self.gained += step.change or 0.0
        if len(self.steps) >= 2 * STEPS:
            self.steps, self.earlier = self.steps[STEPS:], self.earlier + STEPS
        self.incumbents = (*self.incumbents, step.candidate)[-INCUMBENTS:]

    def _add_near(self, near: tuple[Tried, ...], minimize: bool) -> None:
        sign = 1 if minimize else -1
        for tried in near:
            found = (*self.near.get(tried.against, ()), tried)
            best = sorted(found, key=lambda one: (sign * (one.measured or 0.0), one.candidate))
            self.near[tried.against] = tuple(best[:NEAR])
        self.near = {name: self.near[name] for name in self.incumbents if name in self.near}

    def _add_terms(self, story: Story) -> None:
        for effect in story.effects:
            key = tuple(effect.at)
            others = tuple(one for one in self.terms.pop(key, ()) if one.what != effect.what)
            self.terms[key] = (*others, effect)[-TERMS_OF_KNOBS:]
        for knob in sorted(story.varied):
            self.varied.pop(knob, None)
            self.varied[knob] = None
        for known in (self.terms, self.varied):
            while len(known) > TERMS:
                del known[next(iter(known))]  # type: ignore[arg-type]

    def _add_predictions(self, story: Story) -> None:
        if not story.predictions and not story.unscored:
            return
        record = self.records.get(story.proposer, Record(story.proposer))
        intervals = [one.held for one in story.predictions if one.held is not None]
        self.records[story.proposer] = replace(
            record,
            predictions=record.predictions + len(story.predictions),
            right=record.right + sum(one.right for one in story.predictions),
            intervals=record.intervals + len(intervals),
            held=record.held + sum(intervals),
            unscored=record.unscored + story.unscored,
            latest=(*record.latest, *story.predictions)[-PREDICTIONS:],
        )

    def _crashed(self, story: Story) -> None:
        before = {name: found for name in sorted(story.repairs) if (found := self.crashes.pop(name, None))}
        self.repaired = (*self.repaired, *sorted(story.repairs))[-REPAIRED:]
        for crash in story.crashes:
            tries = before[crash.repairs].tries + 1 if crash.repairs in before else int(bool(crash.repairs))
            if crash.candidate not in self.repaired:
                self.crashes[crash.candidate] = replace(crash, tries=tries)
        while len(self.crashes) > CRASHES:
            del self.crashes[next(iter(self.crashes))]
