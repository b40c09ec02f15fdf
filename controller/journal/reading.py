"""What the journal's tables say. Nothing here writes; every function is one query or two."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controller.journal.store import Journal
from controller.records import (
    Attempt,
    Candidate,
    Decision,
    Design,
    Experiment,
    Factor,
    Knobs,
    Label,
    Note,
    Objection,
    Refusal,
    Role,
    Tier,
    Value,
    Verdict,
    Wave,
)


@dataclass(frozen=True, slots=True)
class Study:
    """A study as it stands: `baseline` and `incumbent` are candidate ids, `tip` the commit its branch should be at."""

    tag: str
    started: float
    branch: str
    metric: str
    minimize: bool
    settings: Mapping[str, Any]
    baseline: str
    incumbent: str
    tip: str


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


def tags(journal: Journal) -> list[str]:
    """The studies in the journal, the latest last."""
    return [tag for (tag,) in journal.db.execute("SELECT study FROM studies ORDER BY started, rowid")]


def study(journal: Journal, tag: str) -> Study | None:
    """The study called `tag`."""
    columns = "study, started, branch, metric, minimize, settings, baseline, incumbent, tip"
    row = journal.db.execute(f"SELECT {columns} FROM studies WHERE study = ?", (tag,)).fetchone()
    if row is None:
        return None
    tag, started, branch, metric, minimize, settings, baseline, incumbent, tip = row
    return Study(tag, started, branch, metric, bool(minimize), json.loads(settings), baseline, incumbent, tip)


def study_of(journal: Journal, tag: str) -> Study:
    """The study called `tag`. Raises KeyError."""
    found = study(journal, tag)
    if found is None:
        raise KeyError(tag)
    return found


def counts(journal: Journal, tag: str) -> dict[str, int]:
    """Experiments by status."""
    query = "SELECT status, count(*) FROM experiments WHERE study = ? GROUP BY status ORDER BY 2 DESC"
    return dict(journal.db.execute(query, (tag,)).fetchall())


def totals(journal: Journal, tag: str) -> dict[str, int]:
    """How many waves, proposals, candidates, experiments and attempts the study has had."""
    found = dict(journal.db.execute("SELECT what, total FROM tallies WHERE study = ?", (tag,)).fetchall())
    return {what: found.get(what, 0) for what in ("waves", "proposals", "candidates", "experiments", "attempts")}


_CANDIDATES = "SELECT candidate, commit_id, parent, knobs, model, proposal, origin FROM candidates WHERE study = ?"


def candidate(journal: Journal, tag: str, name: str) -> Candidate:
    """One candidate by id. Raises KeyError."""
    row = journal.db.execute(f"{_CANDIDATES} AND candidate = ?", (tag, name)).fetchone()
    if row is None:
        raise KeyError(name)
    return _candidate(row)


def candidates(journal: Journal, tag: str, wave: str) -> dict[str, Candidate]:
    """Every candidate that an experiment of `wave` runs, the incumbent among them, by id."""
    query = f"{_CANDIDATES} AND candidate IN (SELECT candidate FROM experiments WHERE study = ? AND wave = ?)"
    return {row[0]: _candidate(row) for row in journal.db.execute(query, (tag, tag, wave))}


def _candidate(row: tuple[Any, ...]) -> Candidate:
    return Candidate(row[0], row[1], row[2], knobs(row[3]), row[4], row[5], row[6])


class KnownModels(Mapping[str, str]):
    """The digest of every model tried in the study, or about to be, with the first candidate that was it.

    What the infrastructure kept from running, or what was called off, has not been tried. Asks the journal for each
    digest by itself, as there may be a hundred thousand. What is `claimed` counts as tried too.
    """

    _UNKNOWN = tuple(label.value for label in Label if label.infrastructure or label is Label.CANCELLED)
    _TRIED = (
        "FROM candidates c WHERE study = ? AND NOT EXISTS (SELECT 1 FROM experiments e WHERE e.study = c.study"
        f" AND e.candidate = c.candidate AND e.role != '{Role.CONTROL}'"
        f" AND e.status IN ({', '.join('?' * len(_UNKNOWN))}))"
    )

    def __init__(self, journal: Journal, tag: str) -> None:
        self._journal = journal
        self._tag = tag
        self._claims: dict[str, str] = {}

    def claim(self, digest: str, by: str) -> None:
        """Hold the model of `digest` to be tried by `by`."""
        self._claims[digest] = by

    def __getitem__(self, digest: str) -> str:
        if digest in self._claims:
            return self._claims[digest]
        query = f"SELECT min(candidate) {self._TRIED} AND model = ?"
        (found,) = self._journal.db.execute(query, (self._tag, *self._UNKNOWN, digest)).fetchone()
        if found is None:
            raise KeyError(digest)
        return str(found)

    def __iter__(self) -> Iterator[str]:
        yield from self._claims
        for (model,) in self._journal.db.execute(f"SELECT DISTINCT model {self._TRIED}", (self._tag, *self._UNKNOWN)):
            if model not in self._claims:
                yield model

    def __len__(self) -> int:
        return sum(1 for _ in self)


def open_waves(journal: Journal, tag: str) -> list[tuple[Wave, str]]:
    """The waves that have not ended, oldest first, each with its state (screening, confirming, decided)."""
    query = "SELECT wave, state FROM waves WHERE study = ? AND state != 'ended' ORDER BY number"
    return [(wave(journal, tag, name), state) for name, state in journal.db.execute(query, (tag,)).fetchall()]


def unfinished_wave(journal: Journal, tag: str) -> tuple[Wave, str] | None:
    """The oldest wave that has not ended, with its state."""
    return next(iter(open_waves(journal, tag)), None)


def wave(journal: Journal, tag: str, name: str) -> Wave:
    """One wave by id. Raises KeyError."""
    columns = "wave, number, seed, incumbent, proposer, request, base"
    query = f"SELECT {columns} FROM waves WHERE study = ? AND wave = ?"
    row = journal.db.execute(query, (tag, name)).fetchone()
    if row is None:
        raise KeyError(name)
    name, number, seed, incumbent, proposer, request, base = row
    return Wave(name, number, seed, incumbent, proposer, knobs(request), knobs(base))


def wave_state(journal: Journal, tag: str, name: str) -> str:
    """Where a wave stands: screening, confirming, decided or ended."""
    row = journal.db.execute("SELECT state FROM waves WHERE study = ? AND wave = ?", (tag, name)).fetchone()
    return str(row[0])


def against(journal: Journal, tag: str, name: str) -> str:
    """The candidate beside which a wave's confirmation runs: its incumbent, or the one that has taken its place."""
    row = journal.db.execute("SELECT against FROM waves WHERE study = ? AND wave = ?", (tag, name)).fetchone()
    return str(row[0])


def waves(journal: Journal, tag: str, *, ended: bool = False, after: int = 0) -> list[str]:
    """The study's waves: all in the order of their numbers, or those that have ended in the order in which they did.

    Only those whose number is larger than `after`.
    """
    query = "SELECT wave FROM waves WHERE study = ? AND number > ?"
    query += " AND state = 'ended' ORDER BY ended, number" if ended else " ORDER BY number"
    return [name for (name,) in journal.db.execute(query, (tag, after))]


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


def attempts(journal: Journal, tag: str, *, experiment: str | None = None, open_only: bool = False) -> list[Attempt]:
    """Attempts in the order they were submitted."""
    query = "SELECT attempt, experiment, cluster, nonce FROM attempts WHERE study = ?"
    arguments = [tag]
    if experiment is not None:
        query += " AND experiment = ?"
        arguments.append(experiment)
    if open_only:
        query += " AND ended IS NULL"
    return [Attempt(*row) for row in journal.db.execute(f"{query} ORDER BY submitted, attempt", arguments)]


def infrastructure_failures(journal: Journal, tag: str, experiment: str) -> int:
    """How many attempts at `experiment` the infrastructure has failed."""
    query = "SELECT label FROM attempts WHERE study = ? AND experiment = ? AND label IS NOT NULL"
    return sum(Label(label).infrastructure for (label,) in journal.db.execute(query, (tag, experiment)))


def infrastructure(journal: Journal, tag: str) -> tuple[int, int]:
    """How many attempts the infrastructure has failed, and how many clusters were lost or replaced."""
    labels = [label.value for label in Label if label.infrastructure]
    query = f"SELECT count(*) FROM attempts WHERE study = ? AND label IN ({', '.join('?' * len(labels))})"
    (attempts,) = journal.db.execute(query, (tag, *labels)).fetchone()
    query = "SELECT count(*) FROM leases WHERE study = ? AND until IS NOT NULL AND NOT (reason IN ('released', 'idle')"
    query += " OR reason LIKE 'it went while %' OR reason LIKE 'it shut itself down%')"
    (clusters,) = journal.db.execute(query, (tag,)).fetchone()
    return attempts, clusters


def last_failure(journal: Journal, tag: str) -> str | None:
    """The experiment that failed last, by its own fault."""
    query = "SELECT finished, experiment FROM experiments WHERE study = ? AND status = ? ORDER BY finished DESC LIMIT 1"
    labels = [label for label in Label if not label.infrastructure and label not in (Label.CANCELLED, Label.PRUNED)]
    found = [row for label in labels for row in journal.db.execute(query, (tag, label.value))]
    return max(found)[1] if found else None


def decisions(journal: Journal, tag: str, *, wave: str | None = None, candidate: str | None = None) -> list[Decision]:
    """Decisions, oldest first: all, those of a wave, or those about a candidate."""
    query = "SELECT body FROM decisions WHERE study = ?"
    arguments = [tag]
    for column, value in (("wave", wave), ("candidate", candidate)):
        if value is not None:
            query += f" AND {column} = ?"
            arguments.append(value)
    found = []
    for (body,) in journal.db.execute(f"{query} ORDER BY at, wave, candidate", arguments):
        fields = json.loads(body)
        fields["verdict"] = Verdict(fields["verdict"])
        for name in ("seeds", "scores", "control_scores"):
            fields[name] = tuple(fields[name])
        found.append(Decision(**fields))
    return found


def decided_at(journal: Journal, tag: str, wave: str) -> float:
    """When `wave` was decided, in Unix seconds."""
    query = "SELECT max(at) FROM decisions WHERE study = ? AND wave = ?"
    return float(journal.db.execute(query, (tag, wave)).fetchone()[0])


def factors(journal: Journal, tag: str, wave: str) -> dict[str, tuple[Factor, ...]]:
    """The factors of each proposal of `wave`, by proposal id."""
    query = "SELECT proposal, factors FROM proposals WHERE study = ? AND wave = ? ORDER BY proposal"
    return {proposal: _factors(text) for proposal, text in journal.db.execute(query, (tag, wave))}


def edited(journal: Journal, tag: str, wave: str) -> frozenset[str]:
    """The proposals of `wave` that edit the file, by id."""
    query = "SELECT proposal FROM proposals WHERE study = ? AND wave = ? AND edited = 1"
    return frozenset(row[0] for row in journal.db.execute(query, (tag, wave)))


def _factors(text: str) -> tuple[Factor, ...]:
    return tuple(Factor(knob, tuple(map(_tuples, levels))) for knob, levels in json.loads(text).items())


@dataclass(frozen=True, slots=True)
class Proposed:
    """A proposal as the tables have it; of an edit they know that there was one, its text is its candidates'."""

    id: str
    wave: str
    name: str
    hypothesis: str
    factors: tuple[Factor, ...]
    design: Design
    edited: bool
    predicted: float | None
    low: float | None
    high: float | None
    falsified_by: str
    repairs: str


def proposals(journal: Journal, tag: str, wave: str) -> dict[str, Proposed]:
    """The proposals of `wave`, by id."""
    query = (
        "SELECT proposal, wave, name, hypothesis, factors, design, edited, predicted, low, high, falsified_by, repairs"
        " FROM proposals WHERE study = ? AND wave = ? ORDER BY proposal"
    )
    found = {}
    for name, of, said, hypothesis, levels, design, edited, *rest in journal.db.execute(query, (tag, wave)):
        found[name] = Proposed(name, of, said, hypothesis, _factors(levels), Design(design), bool(edited), *rest)
    return found


def proposed(journal: Journal, tag: str, name: str) -> Proposed | None:
    """One proposal by id."""
    query = "SELECT wave FROM proposals WHERE study = ? AND proposal = ?"
    row = journal.db.execute(query, (tag, name)).fetchone()
    return proposals(journal, tag, row[0])[name] if row else None


def attempt_spans(journal: Journal, tag: str, wave: str) -> list[tuple[str, float, float, float]]:
    """(tier, started, ended, seconds of training) of each attempt that ran in `wave`; times in Unix seconds."""
    query = (
        "SELECT e.tier, a.started, a.ended, coalesce(json_extract(a.timings, '$.training'), 0) FROM attempts a"
        " JOIN experiments e ON e.study = a.study AND e.experiment = a.experiment"
        " WHERE a.study = ? AND e.wave = ? AND a.started IS NOT NULL AND a.ended IS NOT NULL"
    )
    return [tuple(row) for row in journal.db.execute(query, (tag, wave))]


@dataclass(frozen=True, slots=True)
class Lease:
    """A time a cluster was up: billed from `since` until `until` (None: it still is), in Unix seconds."""

    cluster: str
    accelerator: str
    since: float
    until: float | None
    reason: str


def leases(journal: Journal, tag: str, *, open_only: bool = False) -> list[Lease]:
    """The times that clusters were up, oldest first."""
    query = "SELECT cluster, accelerator, since, until, reason FROM leases WHERE study = ?"
    query += " AND until IS NULL" if open_only else ""
    return [Lease(*row) for row in journal.db.execute(f"{query} ORDER BY number", (tag,))]


def arriving(journal: Journal, tag: str) -> int:
    """How many clusters were asked for and have not been seen yet."""
    row = journal.db.execute("SELECT arriving FROM studies WHERE study = ?", (tag,)).fetchone()
    return int(row[0]) if row else 0


def awaited(journal: Journal, tag: str) -> str:
    """Why clusters that were asked for are not there yet; "" where nothing is known, or none is waited for."""
    row = journal.db.execute("SELECT awaited FROM studies WHERE study = ?", (tag,)).fetchone()
    return str(row[0]) if row else ""


def clusters(journal: Journal, tag: str) -> list[tuple[str, str]]:
    """(cluster, accelerator) of every cluster seen."""
    query = "SELECT cluster, accelerator FROM leases WHERE study = ? GROUP BY cluster HAVING number = max(number)"
    return [tuple(row) for row in journal.db.execute(f"{query} ORDER BY cluster", (tag,))]


@dataclass(frozen=True, slots=True)
class Run:
    """A controller's run of the study: what was asked of it, and how it ended, if it came to an orderly end."""

    number: int
    started: float
    asked: Mapping[str, Any]
    stopped: float | None
    why: str | None
    reason: str


def last_run(journal: Journal, tag: str) -> Run | None:
    """The latest run of the study."""
    query = "SELECT number, started, asked, stopped, why, reason FROM runs WHERE study = ? ORDER BY number DESC LIMIT 1"
    row = journal.db.execute(query, (tag,)).fetchone()
    return None if row is None else Run(row[0], row[1], json.loads(row[2]), *row[3:])


def llm_usd(journal: Journal, tag: str) -> float:
    """What proposers have cost; a call whose cost is not known counts as the most it may cost."""
    query = "SELECT coalesce(sum(coalesce(usd, usd_at_most)), 0.0) FROM calls WHERE study = ?"
    return float(journal.db.execute(query, (tag,)).fetchone()[0])


def calls(journal: Journal, tag: str) -> int:
    """How often a proposer was asked."""
    return int(journal.db.execute("SELECT count(*) FROM calls WHERE study = ?", (tag,)).fetchone()[0])


def last_at(journal: Journal, tag: str) -> float:
    """When the study's last event was recorded, in Unix seconds; 0 where there is none."""
    query = "SELECT at FROM events WHERE study = ? ORDER BY seq DESC LIMIT 1"
    row = journal.db.execute(query, (tag,)).fetchone()
    return float(row[0]) if row else 0.0


def pruned(journal: Journal, tag: str, attempt: str) -> str | None:
    """Why an attempt was to be ended early; None where it was not."""
    row = journal.db.execute("SELECT pruned FROM attempts WHERE study = ? AND attempt = ?", (tag, attempt)).fetchone()
    return row[0] if row else None


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


def any_self_reported(journal: Journal, tag: str) -> bool:
    """Whether any of the study's scores is the trainer's own word."""
    query = "SELECT EXISTS (SELECT 1 FROM experiments WHERE study = ? AND self_reported = 1)"
    return bool(journal.db.execute(query, (tag,)).fetchone()[0])


def any_unsandboxed(journal: Journal, tag: str) -> bool:
    """Whether any of the study's trainers ran without a sandbox."""
    query = "SELECT EXISTS (SELECT 1 FROM experiments WHERE study = ? AND unsandboxed = 1)"
    return bool(journal.db.execute(query, (tag,)).fetchone()[0])


def ending(journal: Journal, tag: str, attempt: str) -> dict[str, Any]:
    """How an attempt ended: label (None for a measurement, or while it runs), reason, timings."""
    query = "SELECT label, reason, timings FROM attempts WHERE study = ? AND attempt = ?"
    label, reason, timings = journal.db.execute(query, (tag, attempt)).fetchone()
    return {"label": label, "reason": reason, "timings": json.loads(timings)}


_REFUSALS = "SELECT name, hypothesis, reason, label, submission FROM refusals WHERE study = ?"


def refusals(journal: Journal, tag: str, wave: str) -> list[Refusal]:
    """Proposals of a wave, and cells of them, that never became experiments, and why."""
    query = f"{_REFUSALS} AND wave = ? ORDER BY rowid"
    return [_refusal(*row) for row in journal.db.execute(query, (tag, wave))]


def latest_refusals(journal: Journal, tag: str, most: int) -> list[Refusal]:
    """The latest proposals and cells that were refused, those of calls that gave no wave too, oldest first."""
    query = f"{_REFUSALS} ORDER BY rowid DESC LIMIT ?"
    return [_refusal(*row) for row in journal.db.execute(query, (tag, most))][::-1]


def refusals_by_label(journal: Journal, tag: str) -> dict[str, int]:
    """How many were refused for each label."""
    query = "SELECT label, count(*) FROM refusals WHERE study = ? GROUP BY label ORDER BY label"
    return dict(journal.db.execute(query, (tag,)).fetchall())


def submitted(journal: Journal, tag: str, submission: str) -> tuple[Proposed | None, list[Refusal]]:
    """What became of a submission: the proposal, where it was taken up, and what of it was refused."""
    row = journal.db.execute(
        "SELECT proposal FROM proposals WHERE study = ? AND submission = ? AND submission != ''", (tag, submission)
    ).fetchone()
    query = f"{_REFUSALS} AND submission = ? AND submission != '' ORDER BY rowid"
    refused = [_refusal(*one) for one in journal.db.execute(query, (tag, submission))]
    return (proposed(journal, tag, row[0]) if row else None), refused


def submissions(journal: Journal, tag: str) -> list[tuple[str, str, bool]]:
    """(submission, wave, whether that has ended) of all that were taken up, oldest first."""
    query = (
        "SELECT submission, wave, state = 'ended' FROM proposals JOIN waves USING (study, wave)"
        " WHERE study = ? AND submission != '' ORDER BY number, proposal"
    )
    return [(name, wave, bool(ended)) for name, wave, ended in journal.db.execute(query, (tag,))]


def _refusal(name: str, hypothesis: str, reason: str, label: str, submission: str) -> Refusal:
    return Refusal(name, hypothesis, reason, Objection(label), submission)


def hypotheses(journal: Journal, tag: str, *, wave: str | None = None) -> dict[str, tuple[str, str]]:
    """Name and hypothesis of each proposal, by proposal id."""
    query = "SELECT proposal, name, hypothesis FROM proposals WHERE study = ? AND (? IS NULL OR wave = ?)"
    return {row[0]: (row[1], row[2]) for row in journal.db.execute(query, (tag, wave, wave))}


def notes(journal: Journal, tag: str, *, open_only: bool = True) -> list[Note]:
    """The study's notes, oldest first."""
    query = "SELECT note, text, author, retired FROM notes WHERE study = ?"
    query += " AND retired IS NULL" if open_only else ""
    return [Note(*row) for row in journal.db.execute(f"{query} ORDER BY number", (tag,))]


def next_note(journal: Journal, tag: str) -> str:
    """The id that the study's next note will have."""
    query = "SELECT coalesce(max(number), 0) + 1 FROM notes WHERE study = ?"
    return f"n{journal.db.execute(query, (tag,)).fetchone()[0]:04d}"


def note_of_hint(journal: Journal, tag: str, hint: str) -> str | None:
    """The note that a person's hint, the file of this name, has become."""
    query = "SELECT note FROM notes WHERE study = ? AND hint = ? AND hint != ''"
    row = journal.db.execute(query, (tag, hint)).fetchone()
    return str(row[0]) if row else None


def program(journal: Journal, tag: str) -> str:
    """What program.md tells proposers, as last recorded."""
    query = "SELECT text FROM programs WHERE study = ? ORDER BY number DESC LIMIT 1"
    row = journal.db.execute(query, (tag,)).fetchone()
    return str(row[0]) if row else ""


def program_changes(journal: Journal, tag: str) -> list[tuple[float, str]]:
    """(Unix seconds, what changed) of each time that program.md told proposers something new, oldest first."""
    query = "SELECT at, changed FROM programs WHERE study = ? AND number > 1 ORDER BY number"
    return [tuple(row) for row in journal.db.execute(query, (tag,))]


def kept(journal: Journal, tag: str) -> list[tuple[str, str, str, float]]:
    """(wave, candidate, commit on the branch, Unix seconds) of every kept winner, oldest first."""
    query = "SELECT wave, kept, commit_id, ended FROM waves WHERE study = ? AND kept IS NOT NULL ORDER BY ended, number"
    return [tuple(row) for row in journal.db.execute(query, (tag,))]


def knobs(text: str) -> Knobs:
    """Knobs from their JSON, in which a tuple is a list."""
    return {name: _tuples(value) for name, value in json.loads(text).items()}


def _tuples(value: Any) -> Value:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
