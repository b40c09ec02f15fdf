"""The journal's experiments as rows for people and machines: the contract of `autoresearch results`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any

from controller.journal.store import Journal
from controller.text import describe, one_line

COLUMNS = (
    *("experiment", "wave", "proposal", "candidate", "commit", "parent", "role", "tier", "accelerator", "cluster"),
    *("seed", "replicate", "status", "val_bpb", "metrics", "knobs", "hypothesis", "attempts", "started", "finished"),
    *("seconds", "reason", "self_reported", "unsandboxed"),
)
"""The keys of one row, in order. Names are stable."""

_QUERY = """
SELECT e.experiment, e.wave, c.proposal, e.candidate, c.commit_id, c.parent, e.role, e.tier, e.accelerator, e.cluster,
       e.seed, e.replicate, e.status, e.metrics,
       CASE e.tier WHEN 'confirmation' THEN w.against_base ELSE w.base END, c.knobs, coalesce(p.hypothesis, ''),
       e.attempts,
       strftime('%Y-%m-%dT%H:%M:%SZ', e.started, 'unixepoch'), strftime('%Y-%m-%dT%H:%M:%SZ', e.finished, 'unixepoch'),
       round(e.finished - e.started, 3), e.reason, e.self_reported, e.unsandboxed,
       e.candidate = CASE e.tier WHEN 'confirmation' THEN w.against ELSE w.incumbent END
FROM experiments e
JOIN waves w ON w.study = e.study AND w.wave = e.wave
JOIN candidates c ON c.study = e.study AND c.candidate = e.candidate
LEFT JOIN proposals p ON p.study = c.study AND p.proposal = c.proposal
WHERE e.study = :study AND (:experiment IS NULL OR e.experiment = :experiment) AND (:wave IS NULL OR e.wave = :wave)
ORDER BY e.number
"""


def results(
    journal: Journal, tag: str, experiment: str | None = None, *, wave: str | None = None
) -> list[dict[str, Any]]:
    """One row an experiment, in the order they were planned: of all the study, of one wave, or one alone.

    `knobs` holds every factor of the wave and every other knob that differs from the incumbent, with the value this
    experiment ran with; a missing score is None, never 0; `started` and `finished` are UTC.
    """
    rows = []
    for row in journal.db.execute(_QUERY, {"study": tag, "experiment": experiment, "wave": wave}):
        metrics = json.loads(row[13])
        score = metrics.get("val_bpb") if row[12] == "done" else None
        knobs = json.loads(row[14])
        if not row[24]:
            knobs |= json.loads(row[15])
        values = (*row[:13], score, metrics, knobs, *row[16:22], bool(row[22]), bool(row[23]))
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


UPSTREAM_COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")


def upstream_rows(journal: Journal, tag: str) -> list[tuple[str, str, str, str, str]]:
    """The five columns of upstream's results.tsv: finished experiments only, a crash as zeros, keep or discard.

    The file format knows no missing score, so here, and only here, a crash reads 0.000000.
    """
    query = "SELECT baseline, NULL FROM studies WHERE study = ? UNION SELECT kept, commit_id FROM waves WHERE study = ?"
    kept = dict(journal.db.execute(query, (tag, tag)).fetchall())
    (metric,) = journal.db.execute("SELECT metric FROM studies WHERE study = ?", (tag,)).fetchone() or ("",)
    rows = []
    for row in results(journal, tag):
        if row["status"] in ("queued", "running"):
            continue
        description = row["hypothesis"] or row["role"]
        if row["knobs"]:
            description += f" ({describe(row['knobs'])})"
        status = "crash" if row["status"] != "done" else "keep" if row["candidate"] in kept else "discard"
        memory = row["metrics"].get("peak_vram_mb", 0.0) / 1024 if row["status"] == "done" else 0.0
        if row["self_reported"]:
            description += " (self-reported)"
        score = f"{row['metrics'].get(metric, 0.0):.6f}"
        commit = kept.get(row["candidate"]) or row["commit"]
        rows.append((commit[:7], score, f"{memory:.1f}", status, one_line(description)))
    return rows


def to_json(journal: Journal, tag: str) -> str:
    """The rows as one JSON list, a row a line: what `results` gives, put together from the JSON that the tables hold.

    With 100,000 rows, taking that apart only to write it again would cost most of the time.
    """
    row_format = "{{" + ", ".join(f'"{column}": {{}}' for column in COLUMNS) + "}}"
    lines = []
    for row in journal.db.execute(_QUERY, (tag, None, None)):
        metrics, base, own, scored = row[13], row[14], row[15], row[12] == "done" and '"val_bpb"' in row[13]
        if own == "{}" or row[24]:
            knobs = base
        elif base == "{}":
            knobs = own
        else:
            knobs = json.dumps(json.loads(base) | json.loads(own))
        score = json.loads(metrics)["val_bpb"] if scored else None
        literals = [
            encode_basestring_ascii(value) if value.__class__ is str else "null" if value is None else repr(value)
            for value in (*row[:13], score, *row[16:22])
        ]
        flags = ("true" if flag else "false" for flag in row[22:24])
        lines.append(row_format.format(*literals[:14], metrics, knobs, *literals[14:], *flags))
    return "[\n" + ",\n".join(lines) + "\n]"


def to_csv(journal: Journal, tag: str) -> str:
    """The rows as comma-separated values with a heading; metrics and knobs are JSON."""
    rows = (
        [json.dumps(value) if isinstance(value, dict) else value for value in row.values()]
        for row in results(journal, tag)
    )
    return _separated(COLUMNS, rows, ",")


def to_tsv(journal: Journal, tag: str) -> str:
    """Upstream's results.tsv."""
    return _separated(UPSTREAM_COLUMNS, upstream_rows(journal, tag), "\t")


def _separated(heading: Sequence[str], rows: Iterable[Sequence[Any]], delimiter: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return text.getvalue()
