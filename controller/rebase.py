"""Promoted candidates put on top of an incumbent that is newer than the one they were proposed against.

While a wave is screened, an earlier one may give the study a new incumbent. What was promoted from the older one is
neither lost nor taken on trust: its change is made to the new incumbent's file, and that is what is confirmed, beside
the new incumbent.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.clock import Clock
from controller.edits import model_digest, refusal
from controller.edits.transplant import changed_knobs, transplanted
from controller.journal import reading
from controller.keep import untrailered
from controller.records import Candidate, Tier, Wave
from controller.repo import Draft
from controller.study import Study
from controller.text import describe


def rebased(study: Study, wave: Wave, arms: Sequence[str], clock: Clock) -> tuple[Candidate, ...]:
    """The candidates called `arms`, of `wave`, as new candidates on the study's tip.

    One that can't be put there, that would change nothing or that was tried already is left out. A candidate that was
    made before, by a controller that died before it could say so, is made again as the same commit.
    """
    journal, tag, workspace = study.journal, study.tag, study.workspace
    tip = workspace.source(study.tip)
    base = workspace.source(reading.candidate(journal, tag, arms[0]).parent) if arms else ""
    models = reading.KnownModels(journal, tag)
    tiers = [workspace.settings.accelerators(tier) for tier in Tier]
    found: list[tuple[Candidate, str]] = []
    for arm in arms:
        old = reading.candidate(journal, tag, arm)
        text = transplanted(base, workspace.source(old.commit), tip)
        if text is None or refusal(text, tip, {}, tiers) is not None:
            continue
        digest = model_digest(text)
        # Its own model has been screened, which is why it is here.
        if digest in models and digest != old.model:
            continue
        models.claim(digest, arm)
        found.append((Candidate("", "", study.tip, changed_knobs(text, tip), digest, old.proposal, arm), text))
    first = reading.totals(journal, tag)["candidates"]
    names = [f"c{number:04d}" for number in range(first, first + len(found))]
    drafts = []
    for name, (candidate, text) in zip(names, found, strict=True):
        message = f"{name}: {untrailered(describe(candidate.knobs) or 'an edit')}\n\n{candidate.origin} on a new base\n"
        drafts.append(Draft({workspace.edit: text}, message, f"refs/autoresearch/{tag}/{name}"))
    commits = workspace.repository.commit_edits(study.tip, drafts, clock.now()) if drafts else []
    return tuple(
        Candidate(name, commit, one.parent, one.knobs, one.model, one.proposal, one.origin)
        for name, commit, (one, _) in zip(names, commits, found, strict=True)
    )
