"""How a person steers a study that runs: program.md is read again before each wave, and hints are taken up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from difflib import SequenceMatcher

from controller import hints
from controller.journal import ProgramChanged, reading
from controller.notes import add_note, retire_note
from controller.records import UserError
from controller.settings import CHANGEABLE, Settings, parse, prose
from controller.study import Study, frozen_changes
from controller.workspace import PROGRAM, read_program

log = logging.getLogger(__name__)


class Steering:
    """Takes up, for one controller, what a person has written since the last wave; `say` tells of it in a line."""

    def __init__(self, study: Study, say: Callable[[str], None]) -> None:
        self._study = study
        self._say = say
        self._complained: list[str] = []

    def heed(self) -> None:
        """Record what is new in program.md, and the hints that wait."""
        self._complained = [*self._read_program()]
        self._take_up_hints()

    def _read_program(self) -> list[str]:
        """What of program.md can't be heeded; said when it was not said before."""
        workspace = self._study.workspace
        try:
            text = read_program(workspace.repository, workspace.head, workspace.root / PROGRAM)
            complaints = self._not_heeded(parse(text))
        except (OSError, UserError) as error:
            complaint = f"{_said(error)}; until then the study goes on with what {PROGRAM} said before"
            self._complain([complaint])
            return [complaint]
        self._complain(complaints)
        changed = self._record(prose(text))
        if changed is not None:
            self._tell(f"{PROGRAM} has changed: {changed}; the next wave is proposed by it")
        return complaints

    def _not_heeded(self, settings: Settings) -> list[str]:
        found = []
        if changed := frozen_changes(self._study.now, settings):
            found.append(
                f"{PROGRAM} now has other settings ({', '.join(changed)}), and this study keeps those that it was begun"
                " with: set them back, or begin a new study with --tag"
            )
        begun, now = self._study.workspace.settings.recorded(), settings.recorded()
        if later := [name for name in sorted(CHANGEABLE) if begun[name] != now[name]]:
            found.append(f"{PROGRAM} has another {' and '.join(later)}, which counts from the next run on")
        return found

    def _record(self, text: str) -> str | None:
        """Record the prose of program.md where it differs from what is recorded; returns how."""
        journal, tag = self._study.journal, self._study.tag
        before = reading.program(journal, tag)
        if text == before:
            return None
        changed = difference(before, text)
        journal.record(tag, ProgramChanged(text, changed))
        return changed

    def _take_up_hints(self) -> None:
        directory, journal, tag = self._study.workspace.directory, self._study.journal, self._study.tag
        for hint in hints.waiting(directory, tag):
            # One that is in the journal already was taken up by a controller that died before it removed the file.
            if hint.retires:
                if retire_note(self._study, hint.retires, "by a person"):
                    self._tell(f"note {hint.retires} is retired")
            elif reading.note_of_hint(journal, tag, hint.name) is None:
                name = add_note(self._study, hint.text, "person", hint.name)
                if name is not None:
                    self._tell(f"hint {name} is taken up: {reading.notes(journal, tag)[-1].text}")
            hints.remove(directory, hint)

    def _complain(self, complaints: list[str]) -> None:
        for complaint in complaints:
            if complaint not in self._complained:
                self._say(complaint)
                log.warning("program.md is not heeded", extra={"reason": complaint})

    def _tell(self, line: str) -> None:
        self._say(line)
        log.info("steered", extra={"what": line})


def difference(before: str, after: str) -> str:
    """By how many lines two texts differ: `3 lines added, 1 removed`."""
    old, new = before.splitlines(), after.splitlines()
    added = removed = 0
    for what, start, end, begin, stop in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what != "equal":
            removed += end - start
            added += stop - begin
    counts = [(added, "added"), (removed, "removed")]
    found = [f"{number} {verb}" for number, verb in counts if number]
    first = added or removed
    return ", ".join(found).replace(" ", f" line{'s' * (first != 1)} ", 1) if found else "its line breaks"


def _said(error: OSError | UserError) -> str:
    return (
        str(error) if isinstance(error, UserError) else f"{PROGRAM} can't be read ({error.strerror}); make it readable"
    )
