"""How a study stands: the contract of `autoresearch status`. Imports little, because it must answer at once."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from controller.journal import Journal, reading
from controller.records import Verdict


def study_json(journal: Journal, tag: str, running: bool) -> dict[str, Any]:
    """A study as one object: the contract of `autoresearch status --json`."""
    study = reading.study_of(journal, tag)
    counts = reading.counts(journal, tag)
    unfinished = reading.unfinished_wave(journal, tag)
    return {
        "study": tag,
        "branch": study.branch,
        "tip": study.tip,
        "incumbent": _standing(journal, study, study.incumbent),
        "baseline": _standing(journal, study, study.baseline),
        "budget": study.settings.get("budget", {}),
        "counts": counts,
        "clusters": [{"cluster": name, "accelerator": what} for name, what in reading.clusters(journal, tag)],
        "health": {
            "controller_running": running,
            "unfinished_wave": unfinished[0].id if unfinished else None,
            "self_reported": reading.any_self_reported(journal, tag),
            "unsandboxed": reading.any_unsandboxed(journal, tag),
        },
    }


def study_lines(journal: Journal, tag: str, running: bool) -> list[str]:
    """A study in a few lines that a person reads in ten seconds."""
    state = study_json(journal, tag, running)
    study = reading.study_of(journal, tag)
    baseline, incumbent, counts = state["baseline"], state["incumbent"], state["counts"]
    lines = [f"study {tag} on branch {study.branch}: {'running now' if running else 'not running'}"]
    if study.incumbent == study.baseline:
        lines.append("nothing has been kept yet")
    else:
        decision = next(one for one in reversed(reading.decisions(journal, tag)) if one.verdict is Verdict.KEEP)
        lines.append(f"last: {decision.sentence}")
    for name, standing in (("baseline", baseline), ("incumbent", incumbent)):
        score = f"{standing['score']:.6f}" if standing["score"] is not None else "not measured yet"
        lines.append(f"{name:<10} {standing['candidate']} {standing['commit'][:10]}  {study.metric} {score}")
    total = sum(counts.values())
    spelled = ", ".join(f"{number} {status}" for status, number in counts.items())
    waves = len(reading.waves(journal, tag))
    lines.append(f"{total} experiments in {waves} wave{'s' * (waves != 1)}" + (f": {spelled}" if spelled else ""))
    if state["health"]["unfinished_wave"] and not running:
        lines.append(f"wave {state['health']['unfinished_wave']} is unfinished; `autoresearch wave` goes on with it")
    if state["health"]["self_reported"]:
        lines.append("scores are self-reported: this workspace has no evaluator of ours")
    elif state["health"]["unsandboxed"]:
        lines.append(
            "trainers ran unsandboxed, as this system allows for nothing better; `autoresearch logs ID` says why"
        )
    return lines


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
