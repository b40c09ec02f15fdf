"""What each kind of event does to the tables. Pure in the event: the time is the one recorded with it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from functools import singledispatch
from typing import Any

from controller.journal.events import (
    AttemptEnded,
    AttemptPruned,
    AttemptStarted,
    AttemptSubmitted,
    ClusterGone,
    ClustersAsked,
    ClustersAwaited,
    ClusterSeen,
    ConfirmationPlanned,
    ExperimentAbandoned,
    NoteAdded,
    NoteRetired,
    ProgramChanged,
    ProposalsRefused,
    ProposerAnswered,
    ProposerAsked,
    RunStarted,
    RunStopped,
    SettingsChanged,
    StudyStarted,
    WaveDecided,
    WaveDesigned,
    WaveEnded,
)
from controller.records import Candidate, Experiment, Label, Refusal


def insert(db: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    """Insert `rows`, which all have the same columns; containers become JSON."""
    if not rows:
        return
    columns = list(rows[0])
    marks = ", ".join("?" * len(columns))
    db.executemany(
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})",
        [[_plain(row[column]) for column in columns] for row in rows],
    )


def _tally(db: sqlite3.Connection, study: str, what: str, more: int) -> None:
    """Count what can become too many to be counted anew for each wave."""
    db.execute(
        "INSERT INTO tallies VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET total = total + excluded.total",
        (study, what, more),
    )


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, float, str)) else json.dumps(value)


@singledispatch
def apply(event: object, db: sqlite3.Connection, study: str, at: float) -> None:
    """Update the tables of `db` by one event of `study` that happened at `at` (Unix seconds)."""
    raise TypeError(f"no event: {event!r}")


@apply.register
def _(event: StudyStarted, db: sqlite3.Connection, study: str, at: float) -> None:
    _add_candidates(db, study, [event.baseline])
    row = {
        "study": study,
        "started": at,
        "branch": event.branch,
        "metric": event.metric,
        "minimize": int(event.minimize),
        "settings": dict(event.settings),
        "baseline": event.baseline.id,
        "incumbent": event.baseline.id,
        "tip": event.baseline.commit,
    }
    insert(db, "studies", [row])


@apply.register
def _(event: SettingsChanged, db: sqlite3.Connection, study: str, at: float) -> None:
    db.execute("UPDATE studies SET settings = ? WHERE study = ?", (json.dumps(dict(event.settings)), study))


@apply.register
def _(event: ProgramChanged, db: sqlite3.Connection, study: str, at: float) -> None:
    number = _next(db, "programs", study)
    row = {"study": study, "number": number, "at": at, "text": event.text, "changed": event.changed}
    insert(db, "programs", [row])


@apply.register
def _(event: NoteAdded, db: sqlite3.Connection, study: str, at: float) -> None:
    row = {
        "study": study,
        "number": _next(db, "notes", study),
        "note": event.note,
        "at": at,
        "text": event.text,
        "author": event.by,
        "hint": event.hint,
    }
    insert(db, "notes", [row])


@apply.register
def _(event: NoteRetired, db: sqlite3.Connection, study: str, at: float) -> None:
    db.execute(
        "UPDATE notes SET retired = ? WHERE study = ? AND note = ? AND retired IS NULL",
        (event.reason, study, event.note),
    )


@apply.register
def _(event: WaveDesigned, db: sqlite3.Connection, study: str, at: float) -> None:
    wave = event.wave
    row = {
        "study": study,
        "wave": wave.id,
        "number": wave.number,
        "seed": wave.seed,
        "incumbent": wave.incumbent,
        "against": wave.incumbent,
        "proposer": wave.proposer,
        "request": dict(wave.request),
        "base": dict(wave.base),
        "against_base": dict(wave.base),
        "state": "screening",
        "started": at,
    }
    insert(db, "waves", [row])
    _tally(db, study, "waves", 1)
    _tally(db, study, "proposals", len(event.proposals))
    proposals = [
        {
            "study": study,
            "proposal": name,
            "wave": wave.id,
            "name": proposal.name,
            "hypothesis": proposal.hypothesis,
            "factors": {factor.knob: factor.levels for factor in proposal.factors},
            "design": proposal.design.value,
            "edited": int(proposal.edit is not None),
            "predicted": proposal.predicted,
            "low": proposal.low,
            "high": proposal.high,
            "falsified_by": proposal.falsified_by,
            "repairs": proposal.repairs,
            "submission": proposal.submission,
        }
        for name, proposal in event.proposals.items()
    ]
    insert(db, "proposals", proposals)
    _add_refusals(db, study, wave.id, event.refusals)
    _add_candidates(db, study, list(event.candidates))
    _add_experiments(db, study, list(event.experiments))


@apply.register
def _(event: ProposalsRefused, db: sqlite3.Connection, study: str, at: float) -> None:
    _add_refusals(db, study, "", event.refusals)


def _add_refusals(db: sqlite3.Connection, study: str, wave: str, refusals: Sequence[Refusal]) -> None:
    insert(db, "refusals", [{"study": study, "wave": wave, **asdict(refusal)} for refusal in refusals])


def _add_candidates(db: sqlite3.Connection, study: str, candidates: list[Candidate]) -> None:
    rows = [
        {
            "study": study,
            "candidate": candidate.id,
            "commit_id": candidate.commit,
            "parent": candidate.parent,
            "knobs": dict(candidate.knobs),
            "model": candidate.model,
            "proposal": candidate.proposal,
            "origin": candidate.origin,
        }
        for candidate in candidates
    ]
    insert(db, "candidates", rows)
    _tally(db, study, "candidates", len(rows))


def _add_experiments(db: sqlite3.Connection, study: str, experiments: list[Experiment]) -> None:
    first = _next(db, "experiments", study)
    rows = [
        {
            "study": study,
            "number": number,
            "experiment": experiment.id,
            "wave": experiment.wave,
            "candidate": experiment.candidate,
            "role": experiment.role.value,
            "tier": experiment.tier.value,
            "seed": experiment.seed,
            "replicate": experiment.replicate,
            "status": "queued",
        }
        for number, experiment in enumerate(experiments, first)
    ]
    insert(db, "experiments", rows)
    _tally(db, study, "experiments", len(rows))


@apply.register
def _(event: RunStarted, db: sqlite3.Connection, study: str, at: float) -> None:
    db.execute(
        "INSERT INTO runs (study, number, started, asked) VALUES (?, ?, ?, ?)",
        (study, _next(db, "runs", study), at, json.dumps(dict(event.asked))),
    )


@apply.register
def _(event: RunStopped, db: sqlite3.Connection, study: str, at: float) -> None:
    last = "SELECT max(number) FROM runs WHERE study = ?"
    db.execute(
        f"UPDATE runs SET stopped = ?, why = ?, reason = ? WHERE study = ? AND number = ({last})",
        (at, event.why, event.reason, study, study),
    )


def _next(db: sqlite3.Connection, table: str, study: str) -> int:
    (number,) = db.execute(f"SELECT coalesce(max(number), 0) + 1 FROM {table} WHERE study = ?", (study,)).fetchone()
    return int(number)


@apply.register
def _(event: ConfirmationPlanned, db: sqlite3.Connection, study: str, at: float) -> None:
    _add_candidates(db, study, list(event.candidates))
    _add_experiments(db, study, list(event.experiments))
    db.execute(
        "UPDATE waves SET state = 'confirming', against = ?, against_base = ? WHERE study = ? AND wave = ?",
        (event.against, json.dumps(dict(event.base)), study, event.wave),
    )


@apply.register
def _(event: ClustersAsked, db: sqlite3.Connection, study: str, at: float) -> None:
    db.execute("UPDATE studies SET arriving = ?, awaited = '' WHERE study = ?", (event.clusters, study))


@apply.register
def _(event: ClustersAwaited, db: sqlite3.Connection, study: str, at: float) -> None:
    db.execute("UPDATE studies SET awaited = ? WHERE study = ?", (event.reason, study))


@apply.register
def _(event: ClusterSeen, db: sqlite3.Connection, study: str, at: float) -> None:
    cluster = event.cluster
    # Seen again by a later controller: it has been billed all the while, perhaps for longer than our clock thinks.
    again = "UPDATE leases SET since = min(since, ?) WHERE study = ? AND cluster = ? AND until IS NULL"
    if not db.execute(again, (event.since, study, cluster.name)).rowcount:
        db.execute(
            "INSERT INTO leases (study, number, cluster, accelerator, since) VALUES (?, ?, ?, ?, ?)",
            (study, _next(db, "leases", study), cluster.name, cluster.accelerator, event.since),
        )
        db.execute("UPDATE studies SET arriving = max(0, arriving - 1) WHERE study = ?", (study,))


@apply.register
def _(event: ClusterGone, db: sqlite3.Connection, study: str, at: float) -> None:
    db.execute(
        "UPDATE leases SET until = max(since, ?), reason = ? WHERE study = ? AND cluster = ? AND until IS NULL",
        (event.until, event.reason, study, event.cluster),
    )


@apply.register
def _(event: ProposerAsked, db: sqlite3.Connection, study: str, at: float) -> None:
    db.execute("INSERT INTO calls (study, call, usd_at_most) VALUES (?, ?, ?)", (study, event.call, event.usd_at_most))


@apply.register
def _(event: ProposerAnswered, db: sqlite3.Connection, study: str, at: float) -> None:
    db.execute("UPDATE calls SET usd = ? WHERE study = ? AND call = ?", (event.usd, study, event.call))


@apply.register
def _(event: AttemptSubmitted, db: sqlite3.Connection, study: str, at: float) -> None:
    attempt = event.attempt
    row = {
        "study": study,
        "attempt": attempt.id,
        "experiment": attempt.experiment,
        "cluster": attempt.cluster,
        "nonce": attempt.nonce,
        "submitted": at,
    }
    insert(db, "attempts", [row])
    _tally(db, study, "attempts", 1)
    db.execute(
        "UPDATE experiments SET cluster = ?, attempts = attempts + 1, reason = '' WHERE study = ? AND experiment = ?",
        (attempt.cluster, study, attempt.experiment),
    )


@apply.register
def _(event: AttemptStarted, db: sqlite3.Connection, study: str, at: float) -> None:
    # Of one that is adopted it is said again.
    first = "coalesce(started, ?)"
    db.execute(f"UPDATE attempts SET started = {first} WHERE study = ? AND attempt = ?", (at, study, event.attempt))
    db.execute(
        f"UPDATE experiments SET status = 'running', started = {first} WHERE study = ? AND experiment = ?",
        (at, study, _experiment_of(db, study, event.attempt)),
    )


def _experiment_of(db: sqlite3.Connection, study: str, attempt: str) -> str:
    query = "SELECT experiment FROM attempts WHERE study = ? AND attempt = ?"
    row = db.execute(query, (study, attempt)).fetchone()
    if row is None:
        raise KeyError(attempt)
    return str(row[0])


@apply.register
def _(event: AttemptPruned, db: sqlite3.Connection, study: str, at: float) -> None:
    db.execute("UPDATE attempts SET pruned = ? WHERE study = ? AND attempt = ?", (event.reason, study, event.attempt))


@apply.register
def _(event: AttemptEnded, db: sqlite3.Connection, study: str, at: float) -> None:
    outcome = event.outcome
    db.execute(
        "UPDATE attempts SET ended = ?, label = ?, reason = ?, timings = ? WHERE study = ? AND attempt = ?",
        (at, outcome.label, outcome.reason, json.dumps(dict(outcome.timings)), study, event.attempt),
    )
    experiment = _experiment_of(db, study, event.attempt)
    if outcome.label is not None and (outcome.label.infrastructure or outcome.label is Label.CANCELLED):
        db.execute(
            "UPDATE experiments SET status = 'queued', started = NULL, reason = ? WHERE study = ? AND experiment = ?",
            (outcome.reason, study, experiment),
        )
        return
    (metric,) = db.execute("SELECT metric FROM studies WHERE study = ?", (study,)).fetchone()
    db.execute(
        "UPDATE experiments SET status = ?, reason = ?, accelerator = ?, finished = ?, score = ?, metrics = ?,"
        " hashes = ?, budget = ?, self_reported = ?, unsandboxed = ?, curve = ? WHERE study = ? AND experiment = ?",
        (
            outcome.label or "done",
            outcome.reason,
            outcome.accelerator or None,
            at,
            outcome.metrics.get(metric) if outcome.label is None else None,
            json.dumps(dict(outcome.metrics)),
            json.dumps(dict(outcome.hashes)),
            outcome.budget,
            int(outcome.self_reported),
            int(outcome.unsandboxed),
            json.dumps(outcome.curve),
            study,
            experiment,
        ),
    )


@apply.register
def _(event: ExperimentAbandoned, db: sqlite3.Connection, study: str, at: float) -> None:
    db.execute(
        "UPDATE experiments SET status = ?, reason = ?, finished = ? WHERE study = ? AND experiment = ?",
        (event.label.value, event.reason, at, study, event.experiment),
    )


@apply.register
def _(event: WaveDecided, db: sqlite3.Connection, study: str, at: float) -> None:
    rows = [
        {
            "study": study,
            "wave": decision.wave,
            "candidate": decision.candidate,
            "at": at,
            "verdict": decision.verdict.value,
            "change": decision.change,
            "low": decision.low,
            "high": decision.high,
            "body": asdict(decision),
        }
        for decision in event.decisions
    ]
    insert(db, "decisions", rows)
    db.execute("UPDATE waves SET state = 'decided' WHERE study = ? AND wave = ?", (study, event.wave))


@apply.register
def _(event: WaveEnded, db: sqlite3.Connection, study: str, at: float) -> None:
    db.execute(
        "UPDATE waves SET state = 'ended', ended = ?, kept = ?, commit_id = ? WHERE study = ? AND wave = ?",
        (at, event.incumbent, event.commit, study, event.wave),
    )
    if event.incumbent is not None:
        db.execute(
            "UPDATE studies SET incumbent = ?, tip = ? WHERE study = ?",
            (event.incumbent, event.commit, study),
        )
