"""What a study has learnt so far, as its proposers and its later confirmations may see it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from controller.journal import Journal, export, reading
from controller.journal.reading import Result
from controller.promotion import Block, blocks, gate_failures
from controller.proposers.protocol import Observation, PastDesign, PastWave
from controller.records import CANDIDATE_FAILURES, Label, Role, Tier, Wave
from controller.settings import parse_gate
from controller.study import Study

_SAYS_NOTHING = frozenset(Label) - CANDIDATE_FAILURES
"""Ends of a run that tell nothing of its candidate: it was lost, or called off."""


def earlier_blocks(study: Study, wave: Wave) -> list[Block]:
    """The confirmation blocks of the study's waves that were decided before `wave`."""
    found: list[Block] = []
    for name in reading.waves(study.journal, study.tag, ended=True):
        if name not in study.ended_blocks:
            results = reading.results_of(study.journal, study.tag, wave=name)
            against = reading.against(study.journal, study.tag, name)
            study.ended_blocks[name] = tuple(blocks(results, against))
        if name != wave.id:
            found += study.ended_blocks[name]
    return found


def history(study: Study) -> tuple[PastWave, ...]:
    """The study's waves as a proposer may see them, as far as their screening is over."""
    screening = {wave.id for wave, state in reading.open_waves(study.journal, study.tag) if state == "screening"}
    ended = set(reading.waves(study.journal, study.tag, ended=True))
    found = []
    for name in reading.waves(study.journal, study.tag):
        if name in screening:
            continue
        past = study.ended_waves.get(name) or past_wave(study.journal, study.tag, name)
        if name in ended:
            study.ended_waves[name] = past
        found.append(past)
    return tuple(found)


def pending(study: Study) -> tuple[PastDesign, ...]:
    """What is being screened now: designs of whose cells no score is known yet."""
    found: list[PastDesign] = []
    for wave, state in reading.open_waves(study.journal, study.tag):
        if state == "screening":
            found += past_wave(study.journal, study.tag, wave.id).designs
    return tuple(found)


def past_wave(journal: Journal, tag: str, name: str) -> PastWave:
    """One wave's screening: its designs and its controls. Raises KeyError.

    All scores are as on one accelerator, that of most controls. A cell's score from another is shifted by as much as
    the controls' means there and here are apart, and says nothing where there was no control beside it.
    """
    wave = reading.wave(journal, tag, name)
    screened = [run for run in reading.results_of(journal, tag, wave=name) if run.experiment.tier is Tier.SCREENING]
    controls = [run for run in screened if run.experiment.role is not Role.CELL and run.score is not None]
    cells: dict[str, list[Result]] = defaultdict(list)
    for run in screened:
        if run.experiment.role is Role.CELL and run.status not in _SAYS_NOTHING:
            cells[run.experiment.candidate].append(run)
    beside = _scores(controls)
    main = _commonest(beside or _scores(screened))
    shifts = {accelerator: fmean(beside[main]) - fmean(scores) for accelerator, scores in beside.items()} | {main: 0.0}

    observations: dict[str, list[Observation]] = defaultdict(list)
    for tried, runs in cells.items():
        candidate = reading.candidate(journal, tag, tried)
        comparable = [run for run in runs if run.score is None or run.accelerator in shifts]
        if comparable:
            knobs = {**wave.base, **candidate.knobs}
            observations[candidate.proposal].append(Observation(knobs, _mean(comparable, shifts), _pruned(comparable)))
    edited = reading.edited(journal, tag, name)
    kept = [reading.candidate(journal, tag, row[1]).proposal for row in reading.kept(journal, tag) if row[0] == name]
    designs = tuple(
        PastDesign(factors, tuple(observations.get(proposal, ())), proposal in edited, proposal in kept)
        for proposal, factors in reading.factors(journal, tag, name).items()
    )
    return PastWave(
        wave.id,
        wave.base,
        designs,
        controls=tuple(beside.get(main, ())),
        kept=bool(kept),
        refusals=tuple(reading.refusals(journal, tag, name)),
        minimize=reading.study_of(journal, tag).minimize,
    )


def refused_by_gates(journal: Journal, tag: str, wave: str, tier: Tier) -> dict[str, str]:
    """The candidates of `wave` that fail one of the study's gates in `tier`, and why."""
    gates = [parse_gate(text) for text in reading.study_of(journal, tag).settings.get("gates", ())]
    if not gates:
        return {}
    measured = {row["experiment"]: row["metrics"] for row in export.results(journal, tag, wave=wave)}
    return gate_failures(reading.results_of(journal, tag, wave=wave), measured, gates, tier)


def _scores(runs: Sequence[Result]) -> dict[str | None, list[float]]:
    """The scores there are, by accelerator."""
    found: dict[str | None, list[float]] = {}
    for run in runs:
        if run.score is not None:
            found.setdefault(run.accelerator, []).append(run.score)
    return found


def _commonest(scores: Mapping[str | None, Sequence[float]]) -> str | None:
    """The accelerator with most scores, of several the one that had the first."""
    return max(scores, key=lambda accelerator: len(scores[accelerator]), default=None)


def _mean(runs: Sequence[Result], shifts: Mapping[str | None, float]) -> float | None:
    """The mean score of a cell's runs, as on the wave's accelerator; None where one of them has none."""
    known = [run.score + shifts[run.accelerator] for run in runs if run.score is not None]
    return sum(known) / len(known) if known and len(known) == len(runs) else None


def _pruned(runs: Sequence[Result]) -> bool:
    """Whether a cell was ended early with one of its seeds, and failed with none."""
    ended_early = [run.status == Label.PRUNED for run in runs]
    return any(ended_early) and all(
        ended or run.score is not None for ended, run in zip(ended_early, runs, strict=True)
    )
