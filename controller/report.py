"""What a wave and a study come to, in words, tables and JSON. Reads the journal; changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from controller.history import past_wave, refused_by_gates
from controller.journal import Journal, reading
from controller.journal.export import results
from controller.journal.reading import Result
from controller.naming import MOST, called
from controller.occupancy import Occupancy, Span, occupancy
from controller.proposers.lessons import design_effects
from controller.records import Label, Role, Tier, UserError, Verdict
from controller.stats import Effects, Term, pooled
from controller.text import clip, describe, one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def wave_tables(journal: Journal, tag: str, wave: str, slots: int) -> list[RenderableType]:
    """The tables a wave ends with: screening, main effects, confirmation, use of the slots."""
    from rich.text import Text

    runs = reading.results_of(journal, tag, wave=wave)
    shown: list[RenderableType] = [_screening(journal, tag, wave)]
    effects = wave_effects(journal, tag, wave)
    if effects.estimated:
        shown.append(_effects(effects, reading.study_of(journal, tag).metric, runs))
    confirmed = [one for one in runs if one.experiment.tier is Tier.CONFIRMATION]
    if confirmed:
        shown.append(_confirmation(journal, tag, wave, confirmed))
    used = wave_occupancy(journal, tag, wave, slots)
    if used is not None:
        shown.append(
            Text(f"slots occupied {used.busy:.1%} of the time until the queue ran dry, training {used.training:.1%}")
        )
    return shown


def conclusion(journal: Journal, tag: str, wave: str) -> str:
    """The decision of a wave in one sentence."""
    decisions = reading.decisions(journal, tag, wave=wave)
    kept = next((decision for decision in decisions if decision.verdict is Verdict.KEEP), None)
    if kept is not None:
        return kept.sentence
    if decisions:
        sign = 1 if reading.study_of(journal, tag).minimize else -1
        best = min(decisions, key=lambda one: sign * one.change if one.change is not None else float("inf"))
        return f"nothing is kept; nearest was: {best.sentence}"
    screened = [one for one in reading.results_of(journal, tag, wave=wave) if one.experiment.role is Role.CELL]
    scored = sum(one.score is not None for one in screened)
    refused = refused_by_gates(journal, tag, wave, Tier.SCREENING)
    if refused:
        name, why = next(iter(refused.items()))
        by_gates = f"{len(refused)} of {scored} scored candidates failed a gate in screening ({name}: {why})"
        return f"nothing is kept: {by_gates}, and none of the others was better than the controls"
    called_off = sum(one.status == Label.CANCELLED for one in screened)
    cut = f"; {called_off} of {len(screened)} were called off" if called_off else ""
    if not scored:
        return f"nothing is kept: no candidate gave a score{cut}"
    which = "the one scored candidate was not" if scored == 1 else f"none of {scored} scored candidates was"
    return f"nothing is kept: {which} better than the controls in screening{cut}"


def wave_json(journal: Journal, tag: str, wave: str, slots: int) -> dict[str, Any]:
    """A wave as one object: its decisions, effects, experiments, commit and use of the slots."""
    effects = wave_effects(journal, tag, wave)
    used = wave_occupancy(journal, tag, wave, slots)
    kept = next((row for row in reading.kept(journal, tag) if row[0] == wave), None)
    experiments = [row for row in results(journal, tag) if row["wave"] == wave]
    return {
        "study": tag,
        "wave": wave,
        "self_reported": any(row["self_reported"] for row in experiments),
        "conclusion": conclusion(journal, tag, wave),
        "kept": kept[1] if kept else None,
        "commit": kept[2] if kept else None,
        "decisions": [asdict(decision) for decision in reading.decisions(journal, tag, wave=wave)],
        "gates": list(reading.study_of(journal, tag).settings.get("gates", ())),
        "refused": [
            {"candidate": candidate, "tier": tier, "reason": reason}
            for tier in Tier
            for candidate, reason in refused_by_gates(journal, tag, wave, tier).items()
        ],
        "effects": [
            {"effect": effect.term.description, "estimate": effect.estimate, "low": effect.low, "high": effect.high}
            for effect in effects.estimated
        ],
        "busy_share": used.busy if used else None,
        "training_share": used.training if used else None,
        "experiments": experiments,
    }


def results_table(journal: Journal, tag: str) -> Table:
    """Every experiment, a line each."""
    metric = reading.study_of(journal, tag).metric
    table = _table(f"Study {tag}", "experiment", "candidate", "knobs", "role", "seed", "cluster", "status", metric)
    for row in results(journal, tag):
        score = row["metrics"].get(metric)
        _add(
            table,
            row["experiment"],
            row["candidate"],
            _what(journal, tag, row),
            row["role"],
            str(row["seed"]),
            row["cluster"] or "",
            row["status"],
            f"{score:.6f}" + (" (self-reported)" if row["self_reported"] else "") if score is not None else "—",
        )
    return table


def _what(journal: Journal, tag: str, row: Mapping[str, Any]) -> str:
    """All knobs of an experiment's wave, as it had them; of an edit first what that was called."""
    proposed = reading.proposed(journal, tag, row["proposal"]) if row["proposal"] else None
    name = [clip(proposed.name, MOST)] if proposed is not None and proposed.edited else []
    return ": ".join(filter(None, [*name, describe(row["knobs"])]))


def details(journal: Journal, tag: str, name: str) -> dict[str, Any]:
    """All that is known of one experiment, candidate or wave. Raises UserError where there is none of that name."""
    for row in results(journal, tag, name):
        attempts = [
            {"attempt": attempt.id, "cluster": attempt.cluster, **reading.ending(journal, tag, attempt.id)}
            for attempt in reading.attempts(journal, tag, experiment=name)
        ]
        return {**row, "attempts": attempts}
    if name in reading.waves(journal, tag):
        wave = reading.wave(journal, tag, name)
        decisions = [asdict(decision) for decision in reading.decisions(journal, tag, wave=name)]
        refusals = [asdict(refusal) for refusal in reading.refusals(journal, tag, name)]
        return {**asdict(wave), "decisions": decisions, "refusals": refusals}
    try:
        candidate = reading.candidate(journal, tag, name)
    except KeyError:
        raise UserError(f"study {tag} has no experiment, candidate or wave {name}") from None
    mine = [row["experiment"] for row in results(journal, tag) if row["candidate"] == name]
    verdicts = [one.sentence for one in reading.decisions(journal, tag) if one.candidate == name]
    return {**asdict(candidate), "experiments": mine, "decisions": verdicts}


def wave_effects(journal: Journal, tag: str, wave: str) -> Effects:
    """Main effects and interactions on the metric, design by design, from the wave's screening.

    Those of an edited design are its knobs' on top of the edit, and named so.
    """
    past = past_wave(journal, tag, wave)
    noise = pooled([past.controls])
    found = []
    for proposal, design in zip(reading.factors(journal, tag, wave), past.designs, strict=True):
        effects = design_effects(design, past, noise)
        found.append(_on_top(proposal, effects) if design.edited else effects)
    return Effects(
        tuple(effect for effects in found for effect in effects.estimated),
        tuple(term for effects in found for term in effects.not_estimable),
    )


def _on_top(proposal: str, effects: Effects) -> Effects:
    """The effects of a proposal that edits the file, so named."""

    def named(term: Term) -> Term:
        *others, last = term.knobs
        return replace(term, knobs=(*others, f"{last} (with the edit of {proposal})"))

    return Effects(
        tuple(replace(effect, term=named(effect.term)) for effect in effects.estimated),
        tuple(map(named, effects.not_estimable)),
    )


def wave_occupancy(journal: Journal, tag: str, wave: str, slots: int) -> Occupancy | None:
    """How busy the slots were in a wave that one controller ran through."""
    phases: dict[str, list[Span]] = defaultdict(list)
    for tier, started, ended, training in reading.attempt_spans(journal, tag, wave):
        phases[tier].append(Span(started, ended, training))
    return occupancy(list(phases.values()), slots)


def _by_whom(runs: Iterable[Result]) -> str:
    return " (self-reported)" if any(run.self_reported for run in runs) else ""


def _screening(journal: Journal, tag: str, wave: str) -> Table:
    study = reading.study_of(journal, tag)
    past = reading.wave(journal, tag, wave)
    runs: dict[str, list[Result]] = defaultdict(list)
    for result in reading.results_of(journal, tag, wave=wave):
        if result.experiment.tier is Tier.SCREENING:
            runs[result.experiment.candidate].append(result)
    controls = [run.score for run in runs.get(past.incumbent, []) if run.score is not None]
    beside = fmean(controls) if controls else None
    gates = study.settings.get("gates", ())
    refused = refused_by_gates(journal, tag, wave, Tier.SCREENING)
    title = f"Screening, wave {wave}{_by_whom(run for one in runs.values() for run in one)}"
    headings = ("candidate", "knobs", study.metric, "against controls", "status", *(["gates"] if gates else []))
    table = _table(title, *headings)
    sign = 1 if study.minimize else -1

    def rank(item: tuple[str, list[Result]]) -> float:
        scores = [run.score for run in item[1] if run.score is not None]
        return sign * fmean(scores) if scores else float("inf")

    for name, results_ in sorted(runs.items(), key=rank):
        scores = [run.score for run in results_ if run.score is not None]
        mean = fmean(scores) if scores else None
        control = name == past.incumbent
        spread = f" ± {stdev(scores):.6f}" if len(scores) > 1 else ""
        _add(
            table,
            name,
            f"control × {len(results_)}" if control else called(journal, tag, reading.candidate(journal, tag, name)),
            f"{mean:.6f}{spread}" if mean is not None else "—",
            "" if control or mean is None or beside is None else f"{mean - beside:+.6f}",
            ", ".join(sorted({run.status for run in results_})),
            *([refused.get(name, "" if control or mean is None else "passed")] if gates else []),
        )
    return table


def _effects(effects: Effects, metric: str, runs: Iterable[Result]) -> Table:
    table = _table(f"Effects on {metric}{_by_whom(runs)}", "effect", "estimate", "95% interval")
    mains = [term.name for term in effects.not_estimable if len(term.knobs) == 1]
    if mains:
        table.caption, table.caption_justify = f"not to be told apart in this wave: {', '.join(mains)}", "left"
    for effect in sorted(effects.estimated, key=lambda one: -abs(one.estimate)):
        interval = f"{effect.low:+.6f} to {effect.high:+.6f}" if effect.low is not None else "—"
        _add(table, one_line(effect.term.description), f"{effect.estimate:+.6f}", interval)
    return table


def _confirmation(journal: Journal, tag: str, wave: str, runs: Sequence[Result]) -> Table:
    metric = reading.study_of(journal, tag).metric
    table = _table(f"Confirmation{_by_whom(runs)}", "candidate", metric, "control", "change", "95% interval", "verdict")
    refused = refused_by_gates(journal, tag, wave, Tier.CONFIRMATION)
    if refused:
        why = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        table.caption, table.caption_justify = f"refused by a gate: {why}", "left"
    for decision in reading.decisions(journal, tag, wave=wave):
        known = decision.change is not None
        interval = f"{decision.low:+.6f} to {decision.high:+.6f}" if decision.low is not None else "—"
        _add(
            table,
            decision.candidate,
            f"{fmean(decision.scores):.6f}" if known else "—",
            f"{fmean(decision.control_scores):.6f}" if known else "—",
            f"{decision.change:+.6f}" if known else "—",
            interval,
            decision.verdict.value,
        )
    return table


def _table(title: str, *headings: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", justify="left" if number < 2 else "right")
    return table


def _add(table: Table, *cells: str) -> None:
    """A row; as texts, because rich would read `[...]` in a string as markup."""
    from rich.text import Text

    table.add_row(*map(Text, cells))
