"""What a person reads in the morning, in ten seconds: what was improved, by how much and how sure, what it cost, what
failed, what to look at. Reads the journal; imports little, because `status` begins with it.
"""

from __future__ import annotations

from math import hypot
from statistics import fmean

from controller.budget import billed
from controller.journal import DIRECTORY, Journal, reading
from controller.records import Decision, Label, Verdict
from controller.text import one_line

WIDTH = 10
SHOWN_LABELS = 4


def summary_lines(journal: Journal, tag: str, running: bool) -> list[str]:
    """The summary of a study, a line an answer."""
    study = reading.study_of(journal, tag)
    lines = [_head(journal, study, running), *_improved(journal, study), _cost(journal, study, running)]
    lines += _failed(journal, tag)
    lines.append(f"{'look at':<{WIDTH}} {', '.join(_look_at(journal, study))}")
    return lines


def _head(journal: Journal, study: reading.Study, running: bool) -> str:
    totals = reading.totals(journal, study.tag)
    waves, experiments = totals["waves"], totals["experiments"]
    head = f"study {study.tag} on branch {study.branch}: {waves} wave{'s' * (waves != 1)}, {experiments} experiments"
    run = reading.last_run(journal, study.tag)
    if running:
        return f"{head}; running now"
    if run is None or run.stopped is None:
        return f"{head}; not running" + (
            "" if run is None else ": the last run was cut off, and goes on when asked again"
        )
    return f"{head}; not running: {one_line(run.reason)}"


def _improved(journal: Journal, study: reading.Study) -> list[str]:
    decisions = reading.decisions(journal, study.tag)
    kept = [decision for decision in decisions if decision.verdict is Verdict.KEEP and decision.change is not None]
    if not kept:
        sign = 1 if study.minimize else -1
        near = _nearest([one for one in decisions if sign * (one.change or 0.0) < 0], study)
        said = f"{'improved':<{WIDTH}} nothing yet" + (f"; nearest: {near.sentence}" if near else "")
        return [said]
    change = sum(decision.change or 0.0 for decision in kept)
    # Each keep is measured against the one before it, with runs of its own.
    half = hypot(*(((one.high or 0.0) - (one.low or 0.0)) / 2 for one in kept))
    best = fmean(kept[-1].scores)
    total = f"{len(kept)} keep{'s' * (len(kept) != 1)}, {change:+.6f} in all (± {half:.6f} at 95 %)"
    return [
        f"{'improved':<{WIDTH}} {study.metric} to {best:.6f}: {total}",
        f"{'last':<{WIDTH}} {kept[-1].sentence}",
    ]


def _nearest(decisions: list[Decision], study: reading.Study) -> Decision | None:
    known = [decision for decision in decisions if decision.change is not None]
    sign = 1 if study.minimize else -1
    return min(known, key=lambda one: sign * (one.change or 0.0), default=None)


def _cost(journal: Journal, study: reading.Study, running: bool) -> str:
    spent = spending(journal, study, running)
    caps = caps_of(journal, study)
    shown = []
    for name, unit in (("gpu_hours", "GPU-hours"), ("usd", "dollars"), ("llm_usd", "dollars for language models")):
        amount, cap = spent[name], caps.get(name)
        if amount or cap is not None:
            shown.append(f"{amount:.2f}" + (f" of {cap:g}" if cap is not None else "") + f" {unit}")
    return f"{'cost':<{WIDTH}} {', '.join(shown) or 'nothing yet'}"


def spending(journal: Journal, study: reading.Study, running: bool) -> dict[str, float]:
    """What the study has spent so far, by the budget's names."""
    prices = {**_known_prices(journal, study.tag), **study.settings.get("prices", {})}
    now = journal.now() if running else reading.last_at(journal, study.tag)
    amount = billed(reading.leases(journal, study.tag), prices, now)
    return {"gpu_hours": amount.gpu_hours, "usd": amount.usd, "llm_usd": reading.llm_usd(journal, study.tag)}


def caps_of(journal: Journal, study: reading.Study) -> dict[str, float]:
    """The caps that the last run had, or that the front matter gives, by the budget's names."""
    run = reading.last_run(journal, study.tag)
    found = run.asked.get("caps") if run is not None else None
    given = {name: cap for name, cap in study.settings.get("budget", {}).items() if cap is not None}
    return {**given, **(found or {})}


def _known_prices(journal: Journal, tag: str) -> dict[str, float]:
    run = reading.last_run(journal, tag)
    return dict(run.asked.get("prices", {})) if run is not None else {}


def _failed(journal: Journal, tag: str) -> list[str]:
    counts = reading.counts(journal, tag)
    labels = {status: number for status, number in counts.items() if status in set(Label) and status != Label.PRUNED}
    shown = [f"{number} {status}" for status, number in list(labels.items())[:SHOWN_LABELS]]
    if len(labels) > SHOWN_LABELS:
        shown.append(f"{sum(list(labels.values())[SHOWN_LABELS:])} otherwise")
    if counts.get(Label.PRUNED):
        shown.append(f"{counts[Label.PRUNED]} ended early as hopeless")
    retried, lost = reading.infrastructure(journal, tag)
    if retried:
        shown.append(f"{retried} attempt{'s' * (retried != 1)} lost to the infrastructure and made again")
    if lost:
        shown.append(f"{lost} cluster{'s' * (lost != 1)} lost or replaced")
    return [f"{'failed':<{WIDTH}} {', '.join(shown)}"] if shown else []


def _look_at(journal: Journal, study: reading.Study) -> list[str]:
    root = journal.path.parent.parent
    command = f"autoresearch -C {root}" if root.parent.name == DIRECTORY else "autoresearch"
    found = [f"`{command} plot`"]
    kept = reading.kept(journal, study.tag)
    if kept:
        found.append(f"`{command} diff {kept[-1][1]}`")
    near = _nearest(
        [one for one in reading.decisions(journal, study.tag) if one.verdict is Verdict.INCONCLUSIVE], study
    )
    if near is not None:
        found.append(f"`{command} show {near.candidate}`, which came nearest without being sure")
    failed = reading.last_failure(journal, study.tag)
    if failed is not None:
        found.append(f"`{command} logs {failed}`, the last failure")
    return found
