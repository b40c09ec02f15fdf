"""What a person writes while a study runs, and what agents note: taken up once, recorded, told of in a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from controller import hints
from controller.journal import NoteAdded, NoteRetired, ProgramChanged, reading
from controller.notes import MOST_CHARACTERS, MOST_OF_AGENTS, add_note, retire_note, take_jottings
from controller.proposers import Context, Jotting
from controller.records import Note, Proposal
from controller.steering import Steering, difference
from controller.study import Study
from tests.foreign import PROGRAM, git, workspace
from tests.studies import Says, open_in


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    opened = open_in(workspace(tmp_path / "foreign"))
    yield opened
    opened.journal.close()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def steering(study: Study, said: list[str]) -> Steering:
    return Steering(study, said.append)


def write(study: Study, text: str) -> None:
    (study.workspace.root / "program.md").write_text(text)


def recorded(study: Study, kind: type) -> list[object]:
    return [event for _, _, event in study.journal.events(study.tag) if isinstance(event, kind)]


def test_a_study_begins_with_what_program_md_says_and_hears_of_it_when_that_changes(
    study: Study, steering: Steering, said: list[str]
) -> None:
    assert recorded(study, ProgramChanged) == [ProgramChanged(PROGRAM.strip())]
    steering.heed()
    assert said == []
    write(study, PROGRAM.replace("number", "score") + "\nThink harder.\nAnd longer.\n")
    for _ in range(3):
        steering.heed()
    assert said == ["program.md has changed: 4 lines added, 1 removed; the next wave is proposed by it"]
    assert reading.program(study.journal, study.tag).endswith("Make the score smaller.\n\nThink harder.\nAnd longer.")
    ((_, changed),) = reading.program_changes(study.journal, study.tag)
    assert changed == "4 lines added, 1 removed"


def test_front_matter_is_not_told_to_proposers_and_white_space_at_the_ends_is_no_change(
    study: Study, steering: Steering, said: list[str]
) -> None:
    write(study, f"---\nbudget: {{hours: 2}}\n---\n\n{PROGRAM}\n\n")
    steering.heed()
    assert said == ["program.md has another budget, which counts from the next run on"]
    assert len(recorded(study, ProgramChanged)) == 1


def test_where_there_is_no_program_md_the_committed_one_holds(
    study: Study, steering: Steering, said: list[str]
) -> None:
    (study.workspace.root / "program.md").unlink()
    steering.heed()
    assert said == []
    git(study.workspace.root, "rm", "--quiet", "--cached", "program.md")
    git(study.workspace.root, "commit", "--quiet", "-m", "no program")
    steering.heed()
    assert said == [], "the study's own commit still has it"


def test_settings_that_a_study_keeps_are_complained_of_once_and_the_prose_is_taken_up(
    study: Study, steering: Steering, said: list[str]
) -> None:
    write(study, f"---\nmin_effect: 0.5\nprices: {{CPU: 1}}\n---\n{PROGRAM}Another line.\n")
    for _ in range(3):
        steering.heed()
    assert said == [
        "program.md now has other settings (min_effect: 0.0005 before, 0.5 now), and this study keeps those that it was"
        " begun with: set them back, or begin a new study with --tag",
        "program.md has another prices, which counts from the next run on",
        "program.md has changed: 1 line added; the next wave is proposed by it",
    ]
    assert study.now.settings["min_effect"] == 0.0005
    write(study, f"{PROGRAM}Another line.\n")
    steering.heed()
    assert len(said) == 3
    write(study, f"---\nmin_effect: 0.5\n---\n{PROGRAM}Another line.\n")
    steering.heed()
    assert len(said) == 4, "it was set back in between"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"---\nmin_effect: 0.5\nno end", "the front matter is not closed"),
        (b"---\nnonsense: 1\n---\nAnother text.", "unknown key nonsense"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_a_program_md_that_cannot_be_read_changes_nothing_and_is_complained_of_once(
    study: Study, steering: Steering, said: list[str], text: bytes, why: str
) -> None:
    (study.workspace.root / "program.md").write_bytes(text)
    for _ in range(2):
        steering.heed()
    (sentence,) = said
    assert why in sentence and sentence.endswith("until then the study goes on with what program.md said before")
    assert len(recorded(study, ProgramChanged)) == 1
    write(study, "Anew.")
    steering.heed()
    assert said[1].startswith("program.md has changed: 1 line added, 3 removed;")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("", "a", "1 line added"),
        ("a\nb", "", "2 lines removed"),
        ("a\nb", "a\nc", "1 line added, 1 removed"),
        ("a", "b\nc\nd", "3 lines added, 1 removed"),
        ("a\nb\nc", "c", "2 lines removed"),
    ],
)
def test_a_difference_is_said_in_lines(before: str, after: str, words: str) -> None:
    assert difference(before, after) == words


def test_hints_are_taken_up_once_in_the_order_in_which_they_were_left(
    study: Study, steering: Steering, said: list[str]
) -> None:
    directory = study.workspace.directory
    hints.leave(directory, study.tag, 2.0, text="the second")
    hints.leave(directory, study.tag, 1.0, text="the first")
    hints.leave(directory, "another", 1.0, text="not ours")
    hints.leave(directory, study.tag, 3.0, retires="n0001")
    hints.leave(directory, study.tag, 4.0, retires="n0009")
    steering.heed()
    assert said == ["hint n0001 is taken up: the first", "hint n0002 is taken up: the second", "note n0001 is retired"]
    assert reading.notes(study.journal, study.tag) == [Note("n0002", "the second", "person")]
    steering.heed()
    assert len(said) == 3 and hints.waiting(directory, study.tag) == []
    assert [hint.text for hint in hints.waiting(directory, "another")] == ["not ours"]


def test_a_controller_that_dies_between_record_and_removal_takes_no_hint_up_twice(
    study: Study, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hints.leave(study.workspace.directory, study.tag, 1.0, text="once")

    def died(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(hints, "remove", died)
        with pytest.raises(KeyboardInterrupt):
            Steering(study, said.append).heed()
    assert len(hints.waiting(study.workspace.directory, study.tag)) == 1
    retire_note(study, "n0001", "by a person")
    Steering(study, said.append).heed()
    assert len(recorded(study, NoteAdded)) == 1 and hints.waiting(study.workspace.directory, study.tag) == []
    assert reading.notes(study.journal, study.tag) == [], "neither does it come back when it was retired meanwhile"


def test_files_that_are_no_hints_are_left_alone(study: Study, steering: Steering, said: list[str]) -> None:
    folder = study.workspace.directory / hints.FOLDER
    folder.mkdir()
    bad = ["", "[]", "{}", '{"text": "no more"}', "null", "[" * 5000, '{"text": "' + "x" * 20_000 + '", "retires": ""}']
    for number, content in enumerate(bad):
        (folder / f"{study.tag}.{number}.json").write_text(content)
    (folder / f"{study.tag}.draft").write_text("half")
    steering.heed()
    assert said == [] and len(list(folder.iterdir())) == len(bad) + 1


def test_a_hint_is_one_line_and_bounded_however_it_was_left(study: Study, steering: Steering) -> None:
    hints.leave(study.workspace.directory, study.tag, 1.0, text="a\x1b[31m\nb " + "c" * 2000)
    hints.leave(study.workspace.directory, study.tag, 2.0, text=" \n ")
    steering.heed()
    (note,) = reading.notes(study.journal, study.tag)
    assert note.text.startswith("a [31m b cc") and len(note.text) == MOST_CHARACTERS and note.text.endswith("…")


def test_agents_have_so_many_open_notes_and_no_more(study: Study) -> None:
    assert add_note(study, "a hint", "person") == "n0001"
    for number in range(MOST_OF_AGENTS + 5):
        assert add_note(study, f"lesson {number}", "agent") == f"n{number + 2:04d}"
    assert add_note(study, "lesson 24", "agent") is None, "it says so already"
    found = reading.notes(study.journal, study.tag)
    assert [note.text for note in found] == ["a hint", *(f"lesson {number}" for number in range(5, 25))]
    retired = reading.notes(study.journal, study.tag, open_only=False)[1]
    assert retired.retired == "more than 20 were open"
    assert not retire_note(study, "n0002", "again") and not retire_note(study, "n9999", "never was")


class Taker(Says):
    """Says nothing, and wants this noted."""

    def __init__(self, *jottings: Jotting) -> None:
        super().__init__()
        self._jottings = jottings

    def jottings(self) -> Sequence[Jotting]:
        said, self._jottings = self._jottings, ()
        return said

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        return []


def test_an_agent_retires_its_own_notes_and_nobody_else_s(study: Study) -> None:
    add_note(study, "a hint", "person")
    add_note(study, "a lesson", "agent")
    taker = Taker(Jotting("a better lesson", "n0002", "it was noise"), Jotting(retires="n0001"), Jotting(text="  "))
    take_jottings(study, taker)
    assert [(note.id, note.text) for note in reading.notes(study.journal, study.tag)] == [
        ("n0001", "a hint"),
        ("n0003", "a better lesson"),
    ]
    assert recorded(study, NoteRetired) == [NoteRetired("n0002", "it was noise")]
    before = list(study.journal.events())
    take_jottings(study, taker)
    take_jottings(study, Says())
    assert list(study.journal.events()) == before
