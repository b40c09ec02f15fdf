"""Experiments and what came of them: results, metrics, curves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from controller.journal.store import Journal
from controller.records import (
    Experiment,
    Role,
    Tier,
)


@dataclass(frozen=True, slots=True)
class Result:
    """An experiment with what came of it; `status` is queued, running, done or a failure label."""

    experiment: Experiment
    status: str
    score: float | None
    accelerator: str | None
    cluster: str | None
    attempts: int
    reason: str
    hashes: Mapping[str, str]
    budget: str
    self_reported: bool
    started: float | None = None


def results_of(journal: Journal, tag: str, *, wave: str | None = None, name: str | None = None) -> list[Result]:
    """Experiments with their results in planned order: all, those of one wave, or the one called `name`."""
    query = (
        "SELECT experiment, wave, candidate, role, tier, seed, replicate, status, score, accelerator, cluster,"
        " attempts, reason, hashes, budget, self_reported, started"
        " FROM experiments WHERE study = ?"
    )
    arguments = [tag]
    for column, value in (("wave", wave), ("experiment", name)):
        if value is not None:
            query += f" AND {column} = ?"
            arguments.append(value)
    return [
        Result(
            experiment=Experiment(row[0], row[1], row[2], Role(row[3]), Tier(row[4]), row[5], row[6]),
            status=row[7],
            score=row[8],
            accelerator=row[9],
            cluster=row[10],
            attempts=row[11],
            reason=row[12],
            hashes=json.loads(row[13]),
            budget=row[14],
            self_reported=bool(row[15]),
            started=row[16],
        )
        for row in journal.db.execute(f"{query} ORDER BY number", arguments)
    ]


def latest(
    journal: Journal, tag: str, limit: int, *, wave: str = "", candidate: str = "", status: str = ""
) -> list[str]:
    """The latest experiments of this wave, of this candidate and with this status, where given; the last one first.

    The status `failed` is every label.
    """
    query = "SELECT experiment FROM experiments WHERE study = ?"
    arguments: list[str | int] = [tag]
    for column, value in (("wave", wave), ("candidate", candidate), ("status", "" if status == "failed" else status)):
        if value:
            query += f" AND {column} = ?"
            arguments.append(value)
    if status == "failed":
        query += " AND status NOT IN ('queued', 'running', 'done')"
    return [name for (name,) in journal.db.execute(f"{query} ORDER BY number DESC LIMIT ?", (*arguments, limit))]


def metrics(journal: Journal, tag: str, experiment: str) -> dict[str, float]:
    """All that was measured in the experiment."""
    query = "SELECT metrics FROM experiments WHERE study = ? AND experiment = ?"
    row = journal.db.execute(query, (tag, experiment)).fetchone()
    return json.loads(row[0]) if row else {}


def curve(journal: Journal, tag: str, experiment: str) -> tuple[tuple[float, float], ...]:
    """The experiment's curve, as far as it was heard of."""
    query = "SELECT curve FROM experiments WHERE study = ? AND experiment = ?"
    row = journal.db.execute(query, (tag, experiment)).fetchone()
    return tuple((point, loss) for point, loss in json.loads(row[0])) if row else ()


def control_curves(journal: Journal, tag: str) -> list[tuple[str, str, tuple[tuple[float, float], ...]]]:
    """(candidate, accelerator, curve) of every control that has a score and a curve, in planned order."""
    query = (
        "SELECT candidate, accelerator, curve FROM experiments WHERE study = ? AND role = ? AND score IS NOT NULL"
        " AND curve != '[]' ORDER BY number"
    )
    return [
        (candidate, accelerator, tuple((point, loss) for point, loss in json.loads(curve)))
        for candidate, accelerator, curve in journal.db.execute(query, (tag, Role.CONTROL))
    ]


def replicates(journal: Journal, tag: str, name: str) -> list[float]:
    """Scores of a candidate's runs as a control, like with like: of one tier, on one accelerator.

    Of confirmation where there are any, and where most of them ran.
    """
    query = (
        "SELECT tier, accelerator, score FROM experiments WHERE study = ? AND candidate = ? AND role = ?"
        " AND score IS NOT NULL ORDER BY number"
    )
    groups: dict[tuple[bool, str], list[float]] = {}
    for tier, accelerator, score in journal.db.execute(query, (tag, name, Role.CONTROL)):
        groups.setdefault((tier == Tier.CONFIRMATION, accelerator), []).append(score)
    return max(groups.items(), key=lambda group: (group[0][0], len(group[1])), default=(None, []))[1]
