"""What a study has learnt so far, as its proposers and its later confirmations may see it."""

from __future__ import annotations

from collections.abc import Sequence

from controller.journal import Journal, reading
from controller.promotion import Block, blocks
from controller.proposers.protocol import Observation, PastDesign, PastWave
from controller.records import Role, Tier, Wave
from controller.study import Study


def earlier_blocks(study: Study, wave: Wave) -> list[Block]:
    """The confirmation blocks of the study's waves before `wave`."""
    found: list[Block] = []
    for name in reading.waves(study.journal, study.tag):
        before = reading.wave(study.journal, study.tag, name)
        if before.number < wave.number:
            found += blocks(reading.results_of(study.journal, study.tag, wave=name), before.incumbent)
    return found


def history(study: Study) -> tuple[PastWave, ...]:
    """The study's waves as a proposer may see them."""
    return tuple(past_wave(study.journal, study.tag, name) for name in reading.waves(study.journal, study.tag))


def past_wave(journal: Journal, tag: str, name: str) -> PastWave:
    """One wave's screening: its designs and its controls. Raises KeyError."""
    wave = reading.wave(journal, tag, name)
    cells: dict[str, list[float | None]] = {}
    controls: list[float] = []
    for result in reading.results_of(journal, tag, wave=name):
        if result.experiment.tier is not Tier.SCREENING:
            continue
        if result.experiment.role is Role.CELL:
            cells.setdefault(result.experiment.candidate, []).append(result.score)
        elif result.score is not None:
            controls.append(result.score)
    observations: dict[str, list[Observation]] = {}
    for tried, scores in cells.items():
        candidate = reading.candidate(journal, tag, tried)
        observation = Observation({**wave.base, **candidate.knobs}, _mean(scores))
        observations.setdefault(candidate.proposal, []).append(observation)
    designs = tuple(
        PastDesign(factors, tuple(observations.get(proposal, ())))
        for proposal, factors in reading.factors(journal, tag, name).items()
    )
    kept = any(row[0] == name for row in reading.kept(journal, tag))
    return PastWave(wave.id, wave.base, designs, tuple(controls), kept, tuple(reading.refusals(journal, tag, name)))


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None
