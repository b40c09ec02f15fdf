"""What became of a submission, as far as it has come. Reads the journal; changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from controller.inbox import waiting
from controller.journal import Journal, reading
from controller.journal.reading import Result
from controller.naming import called
from controller.promotion import changes_in_screening
from controller.proposers.brief import harmless
from controller.records import Candidate, Decision, Role, UserError
from controller.report import conclusion
from controller.text import clip

REASON = 600
"""Characters of why something failed or was refused."""
OVER = frozenset({"ended", "refused"})
"""The states of a submission of which nothing more will come."""


def answer(journal: Journal, tag: str, name: str) -> dict[str, Any]:
    """What became of submission `name`: its `state` and, once there are, its wave, its cells and what was decided.

    The state is `waiting`, `refused` with a `reason`, or its wave's: `screening`, `confirming`, `decided`, `ended`.
    Of the wave `left` experiments have still to end. A cell's `change` is that in screening, candidate minus controls,
    and `confirmed` that in confirmation, with its interval, where it came to one; a `reason` tells what of the
    submission was refused, or how a cell failed. Raises UserError where nobody knows of such a submission.
    """
    proposed, refused = reading.submitted(journal, tag, name)
    found: dict[str, Any] = {"submission": name, "study": tag}
    reasons = [harmless(f"{one.label}: {clip(one.reason, REASON)}") for one in refused]
    if proposed is None:
        if not reasons and name not in waiting(journal.path.parent, tag):
            raise UserError(f"study {tag} has no submission {name[:80]}; see what `autoresearch submit` said")
        return {**found, "state": "refused" if reasons else "waiting", "reason": "; ".join(reasons)}
    state = reading.wave_state(journal, tag, proposed.wave)
    ended = state == "ended"
    kept = next((row for row in reading.kept(journal, tag) if row[0] == proposed.wave), None)
    return {
        **found,
        "state": state,
        "reason": "; ".join(reasons),
        "wave": proposed.wave,
        "proposal": proposed.id,
        "name": proposed.name,
        "left": _left(journal, tag, proposed.wave),
        "cells": _cells(journal, tag, proposed),
        "conclusion": conclusion(journal, tag, proposed.wave) if ended else None,
        "kept": kept[1] if kept else None,
        "commit": kept[2] if kept else None,
    }


def _left(journal: Journal, tag: str, wave: str) -> int:
    """How many of the wave's experiments have still to end."""
    results = reading.results_of(journal, tag, wave=wave)
    return sum(result.status in ("queued", "running") for result in results)


def _cells(journal: Journal, tag: str, proposed: reading.Proposed) -> list[dict[str, Any]]:
    results = reading.results_of(journal, tag, wave=proposed.wave)
    changes = changes_in_screening(results, reading.wave(journal, tag, proposed.wave).incumbent)
    candidates = reading.candidates(journal, tag, proposed.wave)
    # What was confirmed may be the cell that was screened on top of a newer incumbent.
    decisions = {
        candidates[one.candidate].origin or one.candidate: one
        for one in reading.decisions(journal, tag, wave=proposed.wave)
    }
    return [
        _cell(journal, tag, candidate, results, changes.get(candidate.id), decisions.get(candidate.id))
        for candidate in candidates.values()
        if candidate.proposal == proposed.id and not candidate.origin
    ]


def _cell(
    journal: Journal,
    tag: str,
    candidate: Candidate,
    results: Sequence[Result],
    change: float | None,
    decision: Decision | None,
) -> dict[str, Any]:
    runs = [one for one in results if one.experiment.candidate == candidate.id and one.experiment.role is Role.CELL]
    scores = [one.score for one in runs if one.score is not None]
    worst = max(runs, key=lambda run: run.status not in ("done", "queued", "running"))
    return {
        "candidate": candidate.id,
        "what": called(journal, tag, candidate),
        "knobs": dict(candidate.knobs),
        "status": worst.status,
        "reason": harmless(clip(worst.reason, REASON)),
        "score": fmean(scores) if scores else None,
        "change": change,
        "confirmed": decision.change if decision else None,
        "low": decision.low if decision else None,
        "high": decision.high if decision else None,
        "verdict": decision.verdict.value if decision else None,
    }
