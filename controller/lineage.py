"""What a study has come to, as agents are shown it: built from the journal, of one size however long the study.

A wave is read once it has ended, and then remembered (`memory`); what each further wave costs does not grow with those
before it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import unified_diff
from statistics import fmean

from controller.history import past_wave, refused_by_gates
from controller.journal import reading
from controller.journal.reading import Proposed, Result
from controller.memory import Memory, Story
from controller.promotion import changes_in_screening
from controller.proposers.lessons import design_effects
from controller.proposers.priority import ranked
from controller.proposers.protocol import Crash, Effect, Lineage, PastWave, Prediction, RecentWave, Step, Tried
from controller.records import (
    CANDIDATE_FAILURES,
    Candidate,
    Decision,
    Knobs,
    Label,
    Refusal,
    Role,
    Tier,
    UserError,
    Verdict,
)
from controller.stats import Noise
from controller.study import Study
from controller.text import clip, describe, printable

NAME, WHAT, REASON, DIFF = 80, 160, 200, 1600
"""Characters of what others wrote, by what it says."""
CELLS_OF_WAVE = 8
"""Cells of one of the latest waves, the best and some of the others."""
MOST_LEVELS = 64
"""Levels of all factors of a design whose effects are estimated: of more there is no telling apart, only a list."""
EFFECTS, OPEN, UNTESTED, NEAR, REFUSED = 20, 24, 40, 12, 8
REPAIRABLE = frozenset({Label.CRASH, Label.NO_SCORE, Label.OUT_OF_MEMORY})
"""Failures that say nothing of an edit's idea."""


def lineage(study: Study, present: Knobs) -> Lineage:
    """What the study has come to; `present` are the incumbent's knobs."""
    journal, tag, now = study.journal, study.tag, study.now
    for name in reading.waves(journal, tag, ended=True, after=study.memory.floor):
        number = reading.wave(journal, tag, name).number
        if number not in study.memory.above:
            study.memory.take(_story(study, name, study.memory), minimize=now.minimize)
            study.memory.ended(number)
    memory = study.memory.copy()
    for wave, state in reading.open_waves(journal, tag):
        told = _begun(study, wave.id) if state == "screening" else _story(study, wave.id, memory)
        memory.take(told, minimize=now.minimize)
    sign = 1 if now.minimize else -1
    near = sorted(
        (tried for found in memory.near.values() for tried in found),
        key=lambda one: (sign * (one.measured or 0.0), one.candidate),
    )
    effects = [
        effect
        for found in memory.terms.values()
        for effect in found
        if all(knob in present and repr(present[knob]) == repr(value) for knob, value in effect.at.items())
    ]
    resolved = sorted((one for one in effects if one.resolved), key=lambda one: -abs(one.change))
    answered = {tuple(one.at) for one in resolved}
    totals = reading.totals(journal, tag)
    return Lineage(
        metric=now.metric,
        minimize=now.minimize,
        noise=memory.noise.sigma if memory.noise else None,
        incumbent=now.incumbent,
        score=memory.steps[-1].score if memory.steps else memory.control,
        waves=totals["waves"],
        experiments=totals["experiments"],
        steps=memory.steps,
        earlier=memory.earlier,
        gained=memory.gained,
        counts=dict(sorted(memory.counts.items())),
        near=tuple(near[:NEAR]),
        recent=memory.recent,
        effects=tuple(resolved[:EFFECTS]),
        open=tuple([one for one in effects if tuple(one.at) not in answered][-OPEN:]),
        untested=tuple(knob for knob in ranked(present) if (knob, repr(present[knob])) not in memory.varied)[:UNTESTED],
        failures=tuple(memory.failures[label] for label in sorted(memory.failures)),
        refused=_clipped(reading.latest_refusals(journal, tag, REFUSED)),
        refusals=reading.refusals_by_label(journal, tag),
        records=tuple(memory.records[name] for name in sorted(memory.records)),
        crashes=tuple(memory.crashes.values()),
        notes=tuple(reading.notes(journal, tag)),
    )


def _begun(study: Study, name: str) -> Story:
    """A wave of which no score is known yet."""
    journal, tag = study.journal, study.tag
    return Story(
        name,
        reading.wave(journal, tag, name).proposer,
        frozenset(one.repairs for one in reading.proposals(journal, tag, name).values() if one.repairs),
    )


def _clipped(refusals: Sequence[Refusal]) -> tuple[Refusal, ...]:
    return tuple(
        Refusal(clip(one.name, WHAT), clip(one.hypothesis, REASON), clip(one.reason, REASON), one.label)
        for one in refusals
    )


def _story(study: Study, name: str, memory: Memory) -> Story:
    """A wave whose screening is over, measured by what is known with it."""
    minimize = study.now.minimize
    sign = 1 if minimize else -1
    past = study.ended_waves.get(name) or past_wave(study.journal, study.tag, name)
    noise = memory.noise_with(past.controls)
    wave = _Wave(study, name)
    tried = wave.tried(noise)
    of_proposal: dict[str, list[Tried]] = defaultdict(list)
    for one in tried:
        of_proposal[wave.candidates[one.candidate].proposal].append(one)
    foretold = [
        _prediction(proposed, of_proposal[of], minimize)
        for of, proposed in wave.proposals.items()
        if wave.ended and proposed.predicted is not None and of in of_proposal
    ]
    keep = next((one for one in wave.decisions.values() if one.verdict is Verdict.KEEP), None)
    return replace(
        _begun(study, name),
        recent=RecentWave(
            wave=name,
            proposer=reading.wave(study.journal, study.tag, name).proposer,
            against=wave.incumbent,
            cells=len(tried),
            scored=sum(one.change is not None for one in tried),
            better=sum(one.change is not None and sign * one.change < 0 for one in tried),
            tried=_some(tried, sign),
            kept=keep.candidate if keep else None,
            ended=wave.ended,
        ),
        controls=past.controls,
        statuses=Counter(_worst(runs).status for runs in wave.cells.values()),
        failures=tuple(one for one in tried if one.end in CANDIDATE_FAILURES and one.end != Label.PRUNED),
        near=tuple(one for one in tried if wave.is_near(one, sign)),
        effects=tuple(_effects(past, noise, study.workspace.settings.min_effect)),
        varied=frozenset(
            (factor.knob, repr(past.base[factor.knob]))
            for design in past.designs
            for factor in design.factors
            if design.of_incumbent and factor.knob in past.base
        ),
        predictions=tuple(one for one in foretold if one is not None),
        unscored=foretold.count(None),
        crashes=tuple(_crashes(of_proposal, wave, study.workspace.source)),
        step=_step(keep, wave) if keep and wave.ended else None,
    )


class _Wave:
    """What the journal has of a wave."""

    def __init__(self, study: Study, name: str) -> None:
        journal, tag = study.journal, study.tag
        self.name = name
        self.ended = reading.wave_state(journal, tag, name) == "ended"
        self.incumbent = reading.wave(journal, tag, name).incumbent
        self.proposals = reading.proposals(journal, tag, name)
        self.candidates = reading.candidates(journal, tag, name)
        # What was confirmed may be the cell that was screened on top of a newer incumbent.
        self.decisions = {self._cell(one.candidate): one for one in reading.decisions(journal, tag, wave=name)}
        self.cells: dict[str, list[Result]] = defaultdict(list)
        results = reading.results_of(journal, tag, wave=name)
        for run in results:
            if run.experiment.role is Role.CELL:
                self.cells[run.experiment.candidate].append(run)
        confirmed = [one.experiment.candidate for one in results if one.experiment.role is Role.CONFIRMATION]
        self._confirmed = {self._cell(candidate) for candidate in confirmed}
        self._changes = changes_in_screening(results, self.incumbent)
        self._against = reading.against(journal, tag, name)
        self._refused = refused_by_gates(journal, tag, name, Tier.SCREENING)

    def _cell(self, candidate: str) -> str:
        return self.candidates[candidate].origin or candidate

    def tried(self, noise: Noise | None) -> list[Tried]:
        """Every cell of it."""
        return [self._tried(cell, noise.sigma if noise else 0.0) for cell in self.cells]

    def _tried(self, cell: str, sigma: float) -> Tried:
        candidate, decision = self.candidates[cell], self.decisions.get(cell)
        change, worst = self._changes.get(cell), _worst(self.cells[cell])
        if decision is not None:
            end, reason = decision.verdict.value, _reason(decision, self.candidates[decision.candidate])
        elif worst.status != "done":
            end, reason = worst.status, worst.reason
        elif cell in self._refused:
            end, reason = "gate", self._refused[cell]
        elif cell in self._confirmed and not self.ended:
            end, reason = "open", "it is being confirmed"
        else:
            end, reason = "screened", ""
        proposed = self.proposals.get(candidate.proposal)
        confirmed = decision.change if decision else None
        return Tried(
            candidate=cell,
            wave=self.name,
            against=self.incumbent if confirmed is None else self._against,
            name=clip(proposed.name, NAME) if proposed else "",
            what=_what(candidate, proposed),
            change=change,
            sigmas=change / sigma if change is not None and sigma else None,
            confirmed=confirmed,
            end=end,
            reason=clip(reason, REASON),
        )

    def is_near(self, tried: Tried, sign: int) -> bool:
        """Whether a cell was better than what it was measured against, and might be worth another look."""
        decision = self.decisions.get(tried.candidate)
        if tried.measured is None or sign * tried.measured >= 0 or tried.end in {"open", *Label}:
            return False
        if decision is None:
            return True
        # One that failed when it was confirmed has no change there; one that looked ahead has none that counts.
        looked_ahead = tried.reason.startswith(Label.LEAK)
        return decision.verdict is not Verdict.KEEP and tried.confirmed is not None and not looked_ahead


def _worst(runs: Sequence[Result]) -> Result:
    """The run that says most of what is wrong with a cell: its first failure, or else one without a score."""
    return min(runs, key=lambda run: (run.status not in CANDIDATE_FAILURES, run.score is not None))


def _what(candidate: Candidate, proposed: Proposed | None) -> str:
    knobs = describe(candidate.knobs)
    if proposed is None or not (proposed.edited or not knobs):
        return clip(knobs, WHAT)
    return clip(f"edit, {knobs}" if knobs else "edit", WHAT)


def _reason(decision: Decision, candidate: Candidate) -> str:
    """What a decision's sentence says after its verdict and whom it is about."""
    about = f"({describe(candidate.knobs) or 'an edit'}): "
    return decision.sentence.partition(about)[2] or decision.sentence


def _some(tried: Sequence[Tried], sign: int) -> tuple[Tried, ...]:
    """The best cells of a wave, and then some of those without a score, whose labels are findings too."""
    scored = sorted((one for one in tried if one.measured is not None), key=lambda one: sign * (one.measured or 0.0))
    others = [one for one in tried if one.measured is None][: CELLS_OF_WAVE // 2]
    return (*scored[: CELLS_OF_WAVE - len(others)], *others)


def _step(keep: Decision, wave: _Wave) -> Step:
    candidate = wave.candidates[keep.candidate]
    proposed = wave.proposals.get(candidate.proposal)
    return Step(
        wave=keep.wave,
        candidate=keep.candidate,
        name=clip(proposed.name, NAME) if proposed else "",
        what=_what(candidate, proposed),
        change=keep.change,
        low=keep.low,
        high=keep.high,
        score=fmean(keep.scores) if keep.scores else None,
    )


def _prediction(proposed: Proposed, cells: Sequence[Tried], minimize: bool) -> Prediction | None:
    """What was predicted of a proposal beside what its best cell came to; None where there is nothing to compare."""
    scored = [one for one in cells if one.measured is not None]
    if proposed.predicted is None or not scored:
        return None
    best = min(scored, key=lambda one: (1 if minimize else -1) * (one.measured or 0.0))
    measured = best.measured or 0.0
    bounded = proposed.low is not None and proposed.high is not None
    return Prediction(
        wave=best.wave,
        name=clip(proposed.name, NAME),
        predicted=proposed.predicted,
        low=proposed.low,
        high=proposed.high,
        measured=measured,
        confirmed=best.confirmed is not None,
        right=proposed.predicted * measured > 0,
        held=(proposed.low or 0.0) <= measured <= (proposed.high or 0.0) if bounded else None,
    )


def _effects(past: PastWave, noise: Noise | None, min_effect: float) -> list[Effect]:
    """The effects of a wave's designs: all of single knobs, and of two together those that were resolved.

    Only of knobs that the incumbent had, and of an edited design only if it was kept: others are of no incumbent.
    """
    found = []
    for design in past.designs:
        if not design.of_incumbent or sum(len(factor.levels) for factor in design.factors) > MOST_LEVELS:
            continue
        for one in design_effects(design, past, noise).estimated:
            if any(knob not in past.base for knob in one.term.knobs):
                continue
            known = one.low is not None and one.high is not None
            resolved = known and not (one.low or 0.0) <= 0 <= (one.high or 0.0) and abs(one.estimate) >= min_effect
            if resolved or len(one.term.knobs) == 1:
                at = {knob: past.base[knob] for knob in one.term.knobs}
                what = clip(one.term.description, WHAT)
                found.append(Effect(at, what, past.id, one.estimate, one.low, one.high, resolved))
    return found


def _crashes(cells: Mapping[str, Sequence[Tried]], wave: _Wave, source: Callable[[str], str]) -> list[Crash]:
    """The proposals of a wave that came with an edit and of which no cell ran to its end."""
    found = []
    for name, tried in cells.items():
        proposed = wave.proposals.get(name)
        if proposed is None or not proposed.edited or any(one.end not in REPAIRABLE for one in tried):
            continue
        first = tried[0]
        diff = _diff(wave.candidates[first.candidate], source)
        found.append(Crash(first.candidate, first.name, first.end, first.reason, diff, proposed.repairs))
    return found


def _diff(candidate: Candidate, source: Callable[[str], str]) -> str:
    try:
        before, after = source(candidate.parent), source(candidate.commit)
    except UserError:  # The commit is gone: somebody tidied up the repository.
        return ""
    lines = list(unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm=""))[2:]
    text = printable("\n".join(lines))
    return text if len(text) <= DIFF else f"{text[:DIFF]}\n… and more"
