"""How a study stands: the contract of `autoresearch status`. Imports little, because it must answer at once."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from controller.journal import Journal, reading
from controller.records import Verdict
from controller.summary import caps_of, spending, summary_lines
from controller.text import one_line

OWN_DOING = frozenset({"released", "idle", "the budget"})
"""Reasons for which a cluster was given back that nobody needs to look into."""
GONE_SHOWN = 3
"""Clusters that were lost, the last ones, of which the lines tell."""


def study_json(journal: Journal, tag: str, running: bool) -> dict[str, Any]:
    """A study as one object: the contract of `autoresearch status --json`."""
    study = reading.study_of(journal, tag)
    counts = reading.counts(journal, tag)
    unfinished = reading.open_waves(journal, tag)
    run = reading.last_run(journal, tag)
    failed, lost = reading.infrastructure(journal, tag)
    return {
        "study": tag,
        "branch": study.branch,
        "tip": study.tip,
        "incumbent": _standing(journal, study, study.incumbent),
        "baseline": _standing(journal, study, study.baseline),
        "budget": {
            **study.settings.get("budget", {}),
            "caps": caps_of(journal, study),
            "spent": spending(journal, study, running),
        },
        "counts": counts,
        "clusters": _clusters(journal, tag),
        "run": run
        and {
            "started": run.started,
            "stopped": run.stopped,
            "why": run.why,
            "reason": run.reason,
            "asked": dict(run.asked),
        },
        "health": {
            "controller_running": running,
            "unfinished_wave": unfinished[0][0].id if unfinished else None,
            "open_waves": len(unfinished),
            "clusters_awaited": reading.awaited(journal, tag) if running else "",
            "clusters_up": len(reading.leases(journal, tag, open_only=True)) if running else 0,
            "attempts_in_flight": len(reading.attempts(journal, tag, open_only=True)) if running else 0,
            "experiments_waiting": counts.get("queued", 0),
            "seconds_since_last_event": round(max(0.0, journal.now() - reading.last_at(journal, tag)), 3),
            "infrastructure_failures": failed,
            "clusters_lost": lost,
            "self_reported": reading.any_self_reported(journal, tag),
            "unsandboxed": reading.any_unsandboxed(journal, tag),
        },
    }


def study_lines(journal: Journal, tag: str, running: bool) -> list[str]:
    """A study in a few lines: the summary, then where it stands."""
    state = study_json(journal, tag, running)
    study = reading.study_of(journal, tag)
    lines = summary_lines(journal, tag, running)
    for name in ("baseline", "incumbent"):
        standing = state[name]
        score = f"{standing['score']:.6f}" if standing["score"] is not None else "not measured yet"
        lines.append(f"{name:<10} {standing['candidate']} {standing['commit'][:10]}  {study.metric} {score}")
    counts = ", ".join(f"{number} {status}" for status, number in state["counts"].items())
    if counts:
        lines.append(f"{'counts':<10} {counts}")
    if state["health"]["clusters_awaited"]:
        lines.append(f"{'awaited':<10} {one_line(state['health']['clusters_awaited'])}")
    lost = [row for row in state["clusters"] if row["gone"] and row["gone"] not in OWN_DOING]
    lines += [f"{'gone':<10} {row['cluster']}: {one_line(row['gone'])}" for row in lost[-GONE_SHOWN:]]
    if state["health"]["unfinished_wave"] and not running:
        lines.append(
            f"wave {state['health']['unfinished_wave']} is unfinished; `autoresearch run` or `wave` goes on with it"
        )
    if state["health"]["self_reported"]:
        lines.append("scores are self-reported: this workspace has no evaluator of ours")
    elif state["health"]["unsandboxed"]:
        lines.append(
            "trainers ran unsandboxed, as this system allows for nothing better; `autoresearch logs ID` says why"
        )
    return lines


def _clusters(journal: Journal, tag: str) -> list[dict[str, Any]]:
    """Every cluster that was seen: its accelerator, and why it is gone (None while it is up)."""
    last = {lease.cluster: lease for lease in reading.leases(journal, tag)}
    return [
        {
            "cluster": name,
            "accelerator": lease.accelerator,
            "gone": None if lease.until is None else lease.reason,
        }
        for name, lease in sorted(last.items())
    ]


def _standing(journal: Journal, study: reading.Study, name: str) -> dict[str, Any]:
    """A candidate with the mean of the runs that confirmed it; the baseline with that of its runs as a control."""
    candidate = reading.candidate(journal, study.tag, name)
    kept = next((row for row in reading.kept(journal, study.tag) if row[1] == name), None)
    decision = next(
        (one for one in reading.decisions(journal, study.tag) if one.candidate == name and one.verdict is Verdict.KEEP),
        None,
    )
    scores = decision.scores if decision else tuple(reading.replicates(journal, study.tag, name))
    return {
        "candidate": name,
        "commit": kept[2] if kept else candidate.commit,
        "score": fmean(scores) if scores else None,
        "runs": len(scores),
        "change": decision.change if decision else None,
        "low": decision.low if decision else None,
        "high": decision.high if decision else None,
        "knobs": dict(candidate.knobs),
    }
