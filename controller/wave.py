"""One wave, from proposals to its end: designed, screened, confirmed, decided, committed.

Every step begins from what the journal says and ends with one event, so that a wave cut off anywhere goes on from
there: `advance` does the same for a new wave and for one that an earlier controller left.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controller import designs
from controller.clock import Clock
from controller.edits import SourceError, model_digest, read_knobs, refusal, set_knobs
from controller.edits.size import code_lines
from controller.history import earlier_blocks, history, pending, refused_by_gates
from controller.journal import (
    ConfirmationPlanned,
    Journal,
    WaveDecided,
    WaveDesigned,
    WaveEnded,
    export,
    reading,
)
from controller.keep import commit_winner, untrailered
from controller.lineage import lineage
from controller.naming import called
from controller.promotion import Rules, blocks, decide, promoted
from controller.proposers import Context, Person, Proposer
from controller.proposers.protocol import Choosy
from controller.rebase import rebased
from controller.records import (
    CANDIDATE_FAILURES,
    Candidate,
    Experiment,
    Knobs,
    Label,
    NothingNew,
    NothingRan,
    Objection,
    Proposal,
    Refusal,
    Role,
    Tier,
    UserError,
    Value,
    Verdict,
    Wave,
)
from controller.repo import Draft
from controller.settings import MOST_SEEDS
from controller.study import Study
from controller.text import describe

SEEDS_PER_WAVE = 1000
HOPELESS = 2
"""Controls that fail, while none has scored, before the rest of a wave is called off."""
FIRST_CONFIRMATION_SEED = MOST_SEEDS + 1
"""Within a wave's seeds: screening counts from 1, confirmation from here, so that no seed serves both."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a wave is to be: asked for by `asked` (by which a resumed command knows its own), from `seed`."""

    asked: Mapping[str, Value]
    seed: int
    clusters: int
    room: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of factor levels: the knobs in which it differs from the incumbent, and the whole file."""

    proposal: str
    knobs: Knobs
    source: str
    model: str


@dataclass(frozen=True, slots=True)
class Design:
    """A wave on paper: nothing of it is in git or the journal yet."""

    proposals: Mapping[str, Proposal]
    cells: tuple[Cell, ...]
    refusals: tuple[Refusal, ...]
    base: Knobs
    incumbent: str
    tip: str


def context_of(study: Study, seed: int = 0) -> Context:
    """What a proposer may know of the study as it is now."""
    now = study.now
    source = study.workspace.source(now.tip)
    return Context(
        source=source,
        minimize=now.minimize,
        min_effect=study.workspace.settings.min_effect,
        models=reading.KnownModels(study.journal, study.tag),
        history=history(study),
        seed=seed,
        pending=pending(study),
        lineage=lineage(study, read_knobs(source)),
        program=reading.program(study.journal, study.tag),
        gates=tuple(now.settings.get("gates", ())),
        edit=study.workspace.edit,
        evaluated=study.workspace.evaluated(now.tip),
        simplicity=study.workspace.settings.simplicity,
    )


async def design(study: Study, proposer: Proposer, request: Request) -> Design:
    """Ask `proposer` for proposals and combine their levels into cells; what must not run is refused with its reason.

    Raises NothingNew where nothing is left to try, UserError where nothing of what a person asked for may run.
    """
    now, context = study.now, context_of(study, request.seed)
    source, incumbent = context.source, read_knobs(context.source)
    tried = reading.KnownModels(study.journal, study.tag)
    proposals = await proposer.propose(context, request.room)
    first = reading.totals(study.journal, study.tag)["proposals"] + 1
    named = {f"p{number:04d}": proposal for number, proposal in enumerate(proposals, first)}
    cells: list[Cell] = []
    refusals = list(proposer.refusals()) if isinstance(proposer, Choosy) else []
    tiers = [study.workspace.settings.accelerators(tier) for tier in Tier]
    for name, proposal in named.items():
        try:
            found = _cells_of(name, proposal, source, incumbent)
        except (UserError, ValueError) as error:  # its edit doesn't parse, or lacks a knob that it wants to set
            label = Objection.SYNTAX if isinstance(error, SourceError) else Objection.EDIT
            refusals.append(Refusal(proposal.name, proposal.hypothesis, str(error), label, proposal.submission))
            continue
        for cell in found:
            objected = refusal(cell.source, source, tried, tiers)
            if objected is None:
                tried.claim(cell.model, "another cell of this wave")
                cells.append(cell)
            elif cell.model != model_digest(source):  # the cell that is the incumbent runs as its control
                label, reason = objected
                which = f"{proposal.name}: {describe(cell.knobs)}"
                refusals.append(Refusal(which, proposal.hypothesis, reason, label, proposal.submission))
    if not cells:
        if not refusals:
            raise NothingNew(f"{proposer.name} proposed nothing that is new")
        why = refusals[0].reason
        if proposer.name == Person.name:
            raise UserError(f"nothing of this can run, {refusals[0].name}: {why}")
        raise NothingNew(f"{proposer.name} proposed nothing that can run: {why}", refusals)
    factors = {factor.knob for proposal in proposals for factor in proposal.factors}
    base = {knob: incumbent[knob] for knob in incumbent if knob in factors}
    return Design(named, tuple(cells), tuple(refusals), base, now.incumbent, now.tip)


def _cells_of(name: str, proposal: Proposal, source: str, incumbent: Knobs) -> list[Cell]:
    edited = source if proposal.edit is None else proposal.edit
    found = []
    for levels in designs.cells(proposal.design, proposal.factors, incumbent):
        text = set_knobs(edited, levels)
        # As text, because that is what becomes of a knob: 1, 1.0 and True are equal, but not the same edit.
        knobs = {
            knob: value
            for knob, value in read_knobs(text).items()
            if knob not in incumbent or repr(incumbent[knob]) != repr(value)
        }
        found.append(Cell(name, knobs, text, model_digest(text)))
    return found


def begin(study: Study, proposer: Proposer, request: Request, designed: Design, clock: Clock) -> Wave:
    """Make the candidates of a design and record the wave."""
    settings, tag = study.workspace.settings, study.tag
    totals = reading.totals(study.journal, tag)
    number = totals["waves"] + 1
    wave = Wave(
        id=f"w{number:02d}",
        number=number,
        seed=request.seed,
        incumbent=designed.incumbent,
        proposer=proposer.name,
        request=request.asked,
        base=designed.base,
    )
    ids = [f"c{totals['candidates'] + offset:04d}" for offset in range(len(designed.cells))]
    drafts = [
        _draft(study, name, cell, designed.proposals[cell.proposal])
        for name, cell in zip(ids, designed.cells, strict=True)
    ]
    commits = study.workspace.repository.commit_edits(designed.tip, drafts, clock.now())
    candidates = [
        Candidate(name, commit, designed.tip, cell.knobs, cell.model, cell.proposal)
        for name, commit, cell in zip(ids, commits, designed.cells, strict=True)
    ]
    seeds = range(settings.seeds(Tier.SCREENING))
    cells = [(candidate.id, Role.CELL, seed) for candidate in candidates for seed in seeds]
    controls = [(wave.incumbent, Role.CONTROL, seed) for seed in range(designs.controls_for(len(cells)))]
    rng = random.Random(f"{request.seed}:{wave.id}:order")
    order = designs.arrange(cells, controls, request.clusters, rng)
    first = totals["experiments"] + 1
    experiments = tuple(
        Experiment(f"e{first + place:04d}", wave.id, candidate, role, Tier.SCREENING, _seed(wave, 1 + seed), 1 + seed)
        for place, (candidate, role, seed) in enumerate(order)
    )
    event = WaveDesigned(wave, designed.proposals, designed.refusals, tuple(candidates), experiments)
    study.journal.record(tag, event)
    return wave


def _draft(study: Study, name: str, cell: Cell, proposal: Proposal) -> Draft:
    message = f"{name}: {untrailered(describe(cell.knobs) or proposal.name)}\n\n{untrailered(proposal.hypothesis)}\n"
    return Draft({study.workspace.edit: cell.source}, message, f"refs/autoresearch/{study.tag}/{name}")


def advance(study: Study, wave: Wave, clock: Clock) -> list[Experiment] | None:
    """Take `wave`, of which nothing is left to run, one step on.

    Returns what is to be run next, perhaps nothing; None once the wave has ended. Raises NothingRan where its controls
    gave no score at all.
    """
    match reading.wave_state(study.journal, study.tag, wave.id):
        case "screening":
            return _plan_confirmation(study, wave, clock)
        case "confirming":
            _decide(study, wave)
            return []
        case "decided":
            _end(study, wave)
    return None


def pointless(study: Study, wave: Wave) -> str | None:
    """Why what waits of a wave's screening need not run: its controls fail, and none has scored."""
    results = reading.results_of(study.journal, study.tag, wave=wave.id)
    controls = [result for result in results if result.experiment.role is Role.CONTROL]
    failed = sum(control.status in CANDIDATE_FAILURES for control in controls)
    if any(control.score is not None for control in controls) or failed < min(HOPELESS, len(controls)):
        return None
    return "the incumbent itself gives no score, so that there is nothing to compare with"


def _plan_confirmation(study: Study, wave: Wave, clock: Clock) -> list[Experiment]:
    settings, now = study.workspace.settings, study.now
    results = reading.results_of(study.journal, study.tag, wave=wave.id)
    controls = [result for result in results if result.experiment.role is Role.CONTROL]
    if not any(result.score is not None for result in controls):
        study.journal.record(study.tag, WaveDecided(wave.id, ()), WaveEnded(wave.id))
        if all(result.status == Label.CANCELLED for result in controls):
            return []
        why = next((f"{result.status}, {result.reason}" for result in controls), "no control")
        raise NothingRan(f"the incumbent itself gave no score ({why}); see `autoresearch logs {_first(controls)}`")
    refused = refused_by_gates(study.journal, study.tag, wave.id, Tier.SCREENING)
    arms = promoted(results, wave.incumbent, now.minimize, settings.tiers.confirmation.promote, refused)
    moved = rebased(study, wave, arms, clock) if now.incumbent != wave.incumbent else ()
    arms = [candidate.id for candidate in moved] if now.incumbent != wave.incumbent else arms
    experiments: list[Experiment] = []
    rng = random.Random(f"{wave.seed}:{wave.id}:confirmation")
    first = reading.totals(study.journal, study.tag)["experiments"] + 1
    for replicate in range(settings.seeds(Tier.CONFIRMATION) if arms else 0):
        # A block is one seed: all arms close together in time, in random order.
        block = [(arm, Role.CONFIRMATION) for arm in arms] + [(now.incumbent, Role.CONTROL)]
        rng.shuffle(block)
        for candidate, role in block:
            seed = _seed(wave, FIRST_CONFIRMATION_SEED + replicate)
            name = f"e{first + len(experiments):04d}"
            experiments.append(
                Experiment(name, wave.id, candidate, role, Tier.CONFIRMATION, seed, 1 + replicate),
            )
    present = read_knobs(study.workspace.source(now.tip))
    base = {knob: present[knob] for knob in wave.base if knob in present}
    event = ConfirmationPlanned(wave.id, now.incumbent, base, tuple(experiments), tuple(moved))
    study.journal.record(study.tag, event)
    return experiments


def _decide(study: Study, wave: Wave) -> None:
    now = study.now
    against = reading.against(study.journal, study.tag, wave.id)
    results = reading.results_of(study.journal, study.tag, wave=wave.id)
    refused = refused_by_gates(study.journal, study.tag, wave.id, Tier.CONFIRMATION)
    refused |= foreseeing(study.journal, study.tag, wave.id)
    settings = study.workspace.settings
    rules = Rules(
        now.metric,
        now.minimize,
        settings.min_effect,
        names(study, wave),
        refused,
        settings.simplicity,
        _lines_more(study, wave, against) if settings.simplicity else {},
    )
    decisions = decide(wave.id, results, earlier_blocks(study, wave), against, rules)
    study.journal.record(study.tag, WaveDecided(wave.id, tuple(decisions)))


def _lines_more(study: Study, wave: Wave, against: str) -> dict[str, float]:
    """How much more code each candidate of `wave` has than the one `against` which it was confirmed."""
    source = study.workspace.source
    # Where nothing was promoted, a newer incumbent has run in another wave only.
    size = code_lines(source(reading.candidate(study.journal, study.tag, against).commit))
    candidates = reading.candidates(study.journal, study.tag, wave.id)
    return {name: code_lines(source(one.commit)) - size for name, one in candidates.items()}


def foreseeing(journal: Journal, tag: str, wave: str) -> dict[str, str]:
    """The candidates of `wave` whose runs prove together that they look ahead, and how strongly.

    What bets on drawn tokens have gained in each run multiplies, so its logarithms add up, and the same bound holds.
    """
    from controller.harness.probes import EVIDENCE

    together: dict[str, float] = defaultdict(float)
    for row in export.results(journal, tag, wave=wave):
        together[row["candidate"]] += row["metrics"].get("leak_evidence", 0.0)
    return {
        candidate: f"leak, its runs together foresee tokens that were drawn at random (evidence {evidence:.0f} nats)"
        for candidate, evidence in together.items()
        if evidence > EVIDENCE
    }


def _end(study: Study, wave: Wave) -> None:
    kept = [
        decision
        for decision in reading.decisions(study.journal, study.tag, wave=wave.id)
        if decision.verdict is Verdict.KEEP
    ]
    if not kept:
        study.journal.record(study.tag, WaveEnded(wave.id))
        return
    against = reading.against(study.journal, study.tag, wave.id)
    here = blocks(reading.results_of(study.journal, study.tag, wave=wave.id), against)
    commit = commit_winner(study, wave, kept[0], earlier_blocks(study, wave), here)
    study.journal.record(study.tag, WaveEnded(wave.id, kept[0].candidate, commit))


def names(study: Study, wave: Wave) -> dict[str, str]:
    """What to call each candidate of `wave` in a sentence: its id, and what it is."""
    found = {}
    incumbents = {wave.incumbent, reading.against(study.journal, study.tag, wave.id)}
    for result in reading.results_of(study.journal, study.tag, wave=wave.id):
        candidate = reading.candidate(study.journal, study.tag, result.experiment.candidate)
        what = "the incumbent" if candidate.id in incumbents else called(study.journal, study.tag, candidate)
        found[candidate.id] = f"{candidate.id} ({what})"
    return found


def _seed(wave: Wave, number: int) -> int:
    return (wave.seed * 100 + wave.number) * SEEDS_PER_WAVE + number


def _first(results: Sequence[reading.Result]) -> str:
    return results[0].experiment.id if results else "ID"
