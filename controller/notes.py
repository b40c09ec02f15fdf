"""Notes: what a person hints at and what agents have learnt, in short lines that proposers are shown until retired."""

from __future__ import annotations

from controller.journal import Event, NoteAdded, NoteRetired, reading
from controller.proposers import Notetaker, Proposer
from controller.records import Author
from controller.study import Study
from controller.text import clip

MOST_CHARACTERS = 500
MOST_OF_AGENTS = 20
"""Open notes that agents may have: a further one retires the oldest."""


def add_note(study: Study, text: str, by: Author, hint: str = "") -> str | None:
    """Record a note, cut to `MOST_CHARACTERS`; its id. None where it says nothing, or what an open one of `by` says.

    `hint` is the file by which a person left it.
    """
    journal, tag = study.journal, study.tag
    line = clip(text, MOST_CHARACTERS)
    mine = [note for note in reading.notes(journal, tag) if note.by == by]
    if not line or any(note.text == line for note in mine):
        return None
    name = reading.next_note(journal, tag)
    events: list[Event] = [NoteAdded(name, line, by, hint)]
    if by == "agent":
        too_many = mine[: max(0, len(mine) + 1 - MOST_OF_AGENTS)]
        events += [NoteRetired(note.id, f"more than {MOST_OF_AGENTS} were open") for note in too_many]
    journal.record(tag, *events)
    return name


def retire_note(study: Study, name: str, reason: str) -> bool:
    """Record that a note is shown no longer; False where no open note is called `name`."""
    journal, tag = study.journal, study.tag
    if all(note.id != name for note in reading.notes(journal, tag)):
        return False
    journal.record(tag, NoteRetired(name, clip(reason, MOST_CHARACTERS)))
    return True


def take_jottings(study: Study, proposer: Proposer) -> None:
    """Record what a proposer that takes notes wants noted. It may retire its own, never a person's."""
    if not isinstance(proposer, Notetaker):
        return
    for jotting in proposer.jottings():
        own = {note.id for note in reading.notes(study.journal, study.tag) if note.by == "agent"}
        if jotting.retires in own:
            retire_note(study, jotting.retires, jotting.reason)
        if jotting.text:
            add_note(study, jotting.text, "agent")
