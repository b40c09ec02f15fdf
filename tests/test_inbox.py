"""What is handed in from outside: checked at once, taken up once, made anew where the incumbent has changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.agents import answer
from controller.clock import VirtualClock
from controller.edits import read_knobs
from controller.inbox import FOLDER, Inbox, hand_in, waiting, withdraw
from controller.journal import ProposalsRefused, reading
from controller.proposers.submissions import Submissions
from controller.records import NothingNew, UserError
from controller.study import Study
from controller.wave import Request, begin, design
from tests.foreign import TRAIN, workspace
from tests.studies import Answers, factors, finish, open_in, wave_of

CLOCK = VirtualClock()
EDIT = TRAIN.replace('SHAPE = "flat"', 'SHAPE = "round"')


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    found = open_in(workspace(tmp_path / "workspace"))
    yield found
    found.journal.close()


def idea(name: str = "an idea", **more: Any) -> dict[str, Any]:
    return {"name": name, "hypothesis": f"{name} is better", **more}


def left(study: Study) -> list[str]:
    return waiting(study.workspace.directory, study.tag)


async def take_up(study: Study, room: int = 12) -> str:
    proposer = Submissions(Inbox(lambda: study), CLOCK)
    request = Request({"proposer": "submissions"}, 0, 2, room)
    return begin(study, proposer, request, await design(study, proposer, request), CLOCK).id


async def test_what_was_handed_in_is_the_next_wave_and_its_letter_goes_once_that_is_recorded(study: Study) -> None:
    before = list(study.journal.events())
    name, vetted = hand_in(study, idea(edit=EDIT, factors={"WIDTH": [4, 8]}, predicted=-0.1), CLOCK)
    assert len(vetted.models) == 2 and left(study) == [name]
    assert answer(study.journal, study.tag, name)["state"] == "waiting"
    assert list(study.journal.events()) == before, "whoever hands in records nothing"
    wave = await take_up(study)
    told = answer(study.journal, study.tag, name)
    assert (told["state"], told["wave"], told["name"], told["left"]) == ("screening", wave, "an idea", 5)
    assert [cell["knobs"] for cell in told["cells"]] == [{"SHAPE": "round"}, {"WIDTH": 8, "SHAPE": "round"}]
    assert left(study) == [name], "until its controller looks for the next one"
    assert not Inbox(lambda: study).any and left(study) == []


async def test_everything_that_waits_makes_one_wave_as_far_as_there_is_room(study: Study) -> None:
    names = [hand_in(study, idea(f"w{width}", factors={"WIDTH": [width, width + 1]}), CLOCK)[0] for width in (10, 20)]
    late, _ = hand_in(study, idea("w30", factors={"WIDTH": [30, 31, 32]}), CLOCK)
    await take_up(study, room=5)
    assert {answer(study.journal, study.tag, name)["state"] for name in names} == {"screening"}
    assert answer(study.journal, study.tag, late)["state"] == "waiting"
    big, _ = hand_in(study, idea("many", factors={"WIDTH": list(range(100, 120))}), CLOCK)
    await take_up(study, room=2)
    await take_up(study, room=2)
    assert answer(study.journal, study.tag, big)["state"] == "screening", "the first runs whatever its size"


async def test_an_edit_is_made_anew_where_the_incumbent_has_changed_since(study: Study) -> None:
    name, _ = hand_in(study, idea(edit=EDIT), CLOCK)
    answers = Answers(study, lambda knobs, one: 1.0 - knobs["WIDTH"] / 100 + one.seed % 7 / 1e6)  # type: ignore[operator]
    finish(study, await wave_of(study, factors(WIDTH=[8])), answers)
    assert study.now.incumbent != study.now.baseline
    await take_up(study)
    (cell,) = answer(study.journal, study.tag, name)["cells"]
    source = study.workspace.source(reading.candidate(study.journal, study.tag, cell["candidate"]).commit)
    knobs = read_knobs(source)
    assert (knobs["SHAPE"], knobs["WIDTH"]) == ("round", 8)


async def test_what_is_refused_by_then_is_recorded_with_its_reason_though_there_is_no_wave(study: Study) -> None:
    one, _ = hand_in(study, idea("one", factors={"WIDTH": [8]}), CLOCK)
    await take_up(study)
    study_again = idea("two", factors={"WIDTH": [8]})
    with pytest.raises(UserError, match=r"refused \(duplicate\): .*c0001"):
        hand_in(study, study_again, CLOCK)
    assert left(study) == [one]
    folder = study.workspace.directory / FOLDER
    (letter,) = folder.iterdir()
    said = json.loads(letter.read_text())
    (folder / f"{study.tag}.9.json").write_text(json.dumps({**said, "id": "stwo"}))
    with pytest.raises(NothingNew) as caught:
        await take_up(study)
    study.journal.record(study.tag, ProposalsRefused(caught.value.refusals))
    told = answer(study.journal, study.tag, "stwo")
    assert told["state"] == "refused" and "duplicate" in told["reason"] and "c0001" in told["reason"]
    assert not Inbox(lambda: study).any
    assert [refusal.label for refusal in reading.latest_refusals(study.journal, study.tag, 5)] == ["duplicate"]


async def test_what_waits_already_is_not_handed_in_again(study: Study) -> None:
    name, _ = hand_in(study, idea(factors={"WIDTH": [8]}), CLOCK)
    with pytest.raises(UserError, match=rf"refused \(duplicate\): .*the same model as submission {name}, which waits"):
        hand_in(study, idea("again", factors={"WIDTH": [8]}), CLOCK)
    withdraw(study.workspace.directory, study.tag, name)
    assert left(study) == []
    hand_in(study, idea("again", factors={"WIDTH": [8]}), CLOCK)


def test_more_cells_than_any_fleet_has_room_for_are_refused(study: Study) -> None:
    with pytest.raises(UserError, match="it has 100 cells, and 96 are the most"):
        hand_in(study, idea(factors={"WIDTH": list(range(10, 110))}), CLOCK)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"factors": {"WIDHT": [1]}}, "did you mean WIDTH"),
        ({"edit": TRAIN}, "changes nothing"),
        ({"edit": "<<<<<<< SEARCH\nnowhere\n=======\n1\n>>>>>>> REPLACE"}, "SEARCH"),
        ({"edit": "def broken(:"}, "refused"),
        ({"factors": {"WIDTH": [-1]}}, "WIDTH must be positive"),
        ({"factors": {"WIDTH": [10**400]}}, "refused"),
        ({}, "changes nothing"),
    ],
)
def test_what_can_not_run_is_refused_at_once_and_leaves_nothing(study: Study, wrong: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        hand_in(study, idea(**wrong), CLOCK)
    assert left(study) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"id": 1, "for": "c0000", "idea": {}, "models": []}', "[" * 100_000]
)
def test_files_that_are_no_letters_are_left_alone(study: Study, text: str) -> None:
    folder = study.workspace.directory / FOLDER
    folder.mkdir()
    (folder / f"{study.tag}.1.json").write_text(text)
    assert not Inbox(lambda: study).any and left(study) == []
    assert (folder / f"{study.tag}.1.json").exists()


def test_nobody_knows_of_what_was_not_handed_in(study: Study) -> None:
    with pytest.raises(UserError, match="study mar5 has no submission snothing"):
        answer(study.journal, study.tag, "snothing")
