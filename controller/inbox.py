"""Where submissions wait: what `autoresearch submit` leaves, until the controller has recorded what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from controller import letters
from controller.clock import Clock
from controller.journal import reading
from controller.letters import Letter
from controller.proposers.submissions import Submission
from controller.proposers.vetting import Objected, Vetted, read, vet
from controller.records import Tier, UserError
from controller.study import Study
from controller.wave import context_of

FOLDER = "submissions"
MOST_BYTES = 8_000_000
MOST_CELLS = 96
"""Of one submission: eight waves of a small fleet."""


def hand_in(study: Study, idea: Mapping[str, Any], clock: Clock) -> tuple[str, Vetted]:
    """Leave an idea, as `vetting.read` takes it, for the controller; its id, and what of it would run as things stand.

    Writes nothing into the journal. Raises UserError with the reason where nothing of it would run.
    """
    context = context_of(study)
    tiers = [study.workspace.settings.accelerators(tier) for tier in Tier]
    taken = {
        model: f"submission {letter.said['id']}, which waits"
        for letter in _letters(study.workspace.directory, study.tag)
        for model in letter.said["models"]
    }
    try:
        vetted = vet(read(idea, context), context, taken, tiers)
    except Objected as error:
        raise UserError(f"refused ({error.label}): {error}") from None
    if len(vetted.models) > MOST_CELLS:
        raise UserError(
            f"refused: it has {len(vetted.models)} cells, and {MOST_CELLS} are the most; use fewer levels, or the"
            " design `screen` or `sweep`"
        )
    name = f"s{clock.token()[:8]}"
    # The whole file, which means the same whatever the incumbent is by then.
    edit = {} if vetted.proposal.edit is None else {"edit": vetted.proposal.edit}
    said = {"id": name, "for": study.now.incumbent, "idea": {**idea, **edit}, "models": vetted.models}
    letters.leave(study.workspace.directory / FOLDER, study.tag, clock.now(), said)
    return name, vetted


def withdraw(directory: Path, tag: str, name: str) -> None:
    """Take back the submission called `name`. Raises UserError where it does not wait any more."""
    for letter in _letters(directory, tag):
        if letter.said["id"] == name:
            letters.remove(directory / FOLDER, letter.name)
            return
    raise UserError(f"{name[:80]} does not wait, so that it can't be withdrawn; see `autoresearch wait {name[:80]}`")


def waiting(directory: Path, tag: str) -> list[str]:
    """What the submissions are called that have not been taken up yet, as far as their letters tell."""
    return [letter.said["id"] for letter in _letters(directory, tag)]


class Inbox:
    """The submissions that wait for a study, to be asked by its controller only; it need not be open before that."""

    def __init__(self, study: Callable[[], Study]) -> None:
        self._opened = study

    @property
    def any(self) -> bool:
        """Whether some wait."""
        return next(self._waiting(), None) is not None

    def submissions(self) -> list[Submission]:
        """Those that wait, oldest first."""
        study, found = self._opened(), []
        for letter in self._waiting():
            candidate = reading.candidate(study.journal, study.tag, letter.said["for"])
            source = study.workspace.source(candidate.commit)
            found.append(Submission(letter.said["id"], letter.said["idea"], source))
        return found

    def _waiting(self) -> Iterator[Letter]:
        """The letters of which the journal knows nothing; those that it knows are removed."""
        study = self._opened()
        directory, journal, tag = study.workspace.directory, study.journal, study.tag
        for letter in _letters(directory, tag):
            proposed, refused = reading.submitted(journal, tag, letter.said["id"])
            if proposed is None and not refused:
                yield letter
            else:
                letters.remove(directory / FOLDER, letter.name)


def _letters(directory: Path, tag: str) -> Iterator[Letter]:
    for letter in letters.waiting(directory / FOLDER, tag, MOST_BYTES):
        said = letter.said
        shape = {"id": str, "for": str, "idea": dict, "models": list}
        if all(isinstance(said.get(key), kind) for key, kind in shape.items()):
            yield letter
