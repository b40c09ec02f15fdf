"""Promoted candidates put on top of an incumbent that is newer than the one they were proposed against.

While a wave is screened, an earlier one may give the study a new incumbent. What was promoted from the older one is
neither lost nor taken on trust: its change is made to the new incumbent's file, and that is what is confirmed, beside
the new incumbent.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from controller.clock import Clock
from controller.edits import SourceError, model_digest, read_knobs, refusal, set_knobs
from controller.journal import reading
from controller.keep import untrailered
from controller.records import Candidate, Knobs, Tier, UserError, Wave
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
        text = _on_top(base, workspace.source(old.commit), tip, old.knobs)
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


def changed_knobs(text: str, incumbent: str) -> Knobs:
    """The knobs of `text` that the incumbent's file lacks or has otherwise."""
    present = read_knobs(incumbent)
    return {
        knob: value
        for knob, value in read_knobs(text).items()
        if knob not in present or repr(present[knob]) != repr(value)
    }


def _on_top(base: str, changed: str, tip: str, knobs: Knobs) -> str | None:
    """What made `base` into `changed`, done to `tip`; None where that can't be."""
    present = read_knobs(base)
    own = {knob: value for knob, value in knobs.items() if knob in present}
    try:
        if len(own) == len(knobs) and set_knobs(base, own) == changed:
            return set_knobs(tip, own)
        # Knobs stand close together: as text, the change of one would be in conflict with that of its neighbour.
        before = {knob: present[knob] for knob in own}
        base, changed = set_knobs(base, before), set_knobs(changed, before)
    except (SourceError, UserError, ValueError):
        own = {}  # The tip no longer has them, or they hold another kind of value.
    merged = _merged(base, changed, tip)
    try:
        return None if merged is None else set_knobs(merged, own)
    except (SourceError, UserError, ValueError):
        return None


def _merged(base: str, changed: str, tip: str) -> str | None:
    """What made `base` into `changed`, done to the text of `tip`; None where lines of both were changed."""
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch, name) for name in ("tip", "base", "changed")]
        for file, text in zip(files, (tip, base, changed), strict=True):
            file.write_bytes(text.encode("utf-8", errors="surrogateescape"))
        # With `-p` the merge goes to the output, and no repository is asked.
        done = subprocess.run(
            ["git", "merge-file", "-p", "--quiet", *map(str, files)], cwd=scratch, capture_output=True, check=False
        )
    return done.stdout.decode("utf-8", errors="surrogateescape") if done.returncode == 0 else None
