"""What was promoted from an incumbent that is no longer one: put on top of the new one, in a real repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from controller.clock import VirtualClock
from controller.edits import read_knobs
from controller.journal import ConfirmationPlanned, Journal, reading
from controller.keep import claim_of
from controller.rebase import rebased
from controller.records import Candidate, Experiment, Factor, Knobs, Label, Proposal, Role, Tier, Verdict
from controller.study import Study
from controller.wave import advance
from tests.foreign import git, refs, workspace
from tests.studies import Answer, Answers, factors, finish, open_in, wave_of

BRANCH = "autoresearch/mar5"

BODY = """\
RATE = 0.5
WIDTH = 4
SHAPE = "flat"


def warm(step):
    return step / 10


def cool(step):
    return 1 - step


def loss(step):
    return RATE * WIDTH * warm(step) * cool(step)


print(SHAPE, loss(1))
"""
QUADRATIC = BODY.replace("step / 10", "(step / 10) ** 2")


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    opened = open_in(workspace(tmp_path / "foreign", {"train.py": BODY, "program.md": "# Research\n"}))
    yield opened
    opened.journal.close()


def edit(text: str) -> Proposal:
    return Proposal("edit", "another way is better", (), edit=text)


def bowl(knobs: Knobs, experiment: Experiment) -> float:
    """Better with RATE near 0.3 and more WIDTH."""
    rate, width = cast(float, knobs.get("RATE", 0.5)), cast(int, knobs.get("WIDTH", 4))
    return 1 + (rate - 0.3) ** 2 + 0.1 / width + experiment.seed % 7 / 1e4


async def overtaken(study: Study, ours: Proposal, theirs: Proposal, answer: Answer = bowl) -> tuple[str, Answers]:
    """A wave of `ours` that has been screened, while a wave of `theirs` has given the study a new incumbent."""
    first = await wave_of(study, theirs)
    second = await wave_of(study, ours)
    answers = Answers(study, answer)
    answers.run([one.experiment for one in reading.results_of(study.journal, "mar5", wave=second)])
    before = study.incumbent.id
    finish(study, first, Answers(study, lambda knobs, one: 2.0 - (one.candidate != "c0000") + one.seed % 7 / 1e4))
    assert study.incumbent.id != before, "theirs was kept"
    return second, answers


def cells(study: Study, wave: str) -> list[str]:
    found = reading.results_of(study.journal, "mar5", wave=wave)
    return [one.experiment.candidate for one in found if one.experiment.role is Role.CELL]


def put_on_top(study: Study, wave: str) -> tuple[Candidate, ...]:
    return rebased(study, reading.wave(study.journal, "mar5", wave), cells(study, wave), VirtualClock())


def source(study: Study, candidate: Candidate) -> str:
    return study.workspace.source(candidate.commit)


async def test_a_knob_s_change_is_made_to_the_new_incumbent(study: Study) -> None:
    wave, _ = await overtaken(study, factors(RATE=(0.3,)), factors(WIDTH=(8,)))
    (old,) = cells(study, wave)
    (new,) = put_on_top(study, wave)
    assert source(study, new) == BODY.replace("RATE = 0.5", "RATE = 0.3").replace("WIDTH = 4", "WIDTH = 8")
    assert (new.origin, new.knobs, new.parent) == (old, {"RATE": 0.3}, study.tip)
    assert git(study.workspace.root, "rev-parse", f"{new.commit}^") == study.tip
    assert git(study.workspace.root, "rev-parse", f"refs/autoresearch/mar5/{new.id}") == new.commit
    assert new.proposal == reading.candidate(study.journal, "mar5", old).proposal
    assert git(study.workspace.root, "status", "--porcelain") == ""


async def test_a_knob_that_the_new_incumbent_has_otherwise_too_gets_the_candidate_s_value(study: Study) -> None:
    wave, _ = await overtaken(study, factors(RATE=(0.3,)), factors(RATE=(0.4,), WIDTH=(8,)))
    (new,) = put_on_top(study, wave)
    assert read_knobs(source(study, new)) == {"RATE": 0.3, "WIDTH": 8, "SHAPE": "flat"}


async def test_a_knob_s_change_follows_its_knob_to_wherever_an_edit_has_put_it(study: Study) -> None:
    moved = "# from here on all is new\n" + BODY.replace("RATE = 0.5\n", "").replace('"flat"\n', '"flat"\nRATE = 0.5\n')
    wave, _ = await overtaken(study, factors(RATE=(0.3,)), edit(moved.replace("step / 10", "step / 20")))
    (new,) = put_on_top(study, wave)
    assert source(study, new) == moved.replace("step / 10", "step / 20").replace("RATE = 0.5", "RATE = 0.3")


async def test_an_edit_is_merged_with_what_the_new_incumbent_has_changed_elsewhere(study: Study) -> None:
    theirs = BODY.replace("1 - step", "1 - step ** 2")
    wave, _ = await overtaken(study, edit(QUADRATIC), edit(theirs))
    (new,) = put_on_top(study, wave)
    assert source(study, new) == QUADRATIC.replace("1 - step", "1 - step ** 2")
    assert new.knobs == {}


async def test_an_edit_with_factors_keeps_both(study: Study) -> None:
    ours = Proposal("both", "both are better", (Factor("RATE", (0.3,)),), edit=QUADRATIC)
    wave, _ = await overtaken(study, ours, factors(WIDTH=(8,)))
    (new,) = put_on_top(study, wave)
    assert source(study, new) == QUADRATIC.replace("RATE = 0.5", "RATE = 0.3").replace("WIDTH = 4", "WIDTH = 8")
    assert new.knobs == {"RATE": 0.3}


async def test_an_edit_s_own_new_knob_comes_with_it(study: Study) -> None:
    ours = Proposal("extra", "one more", (Factor("RATE", (0.3,)),), edit=BODY.replace('"flat"', '"flat"\nEXTRA = 2'))
    wave, _ = await overtaken(study, ours, factors(WIDTH=(8,)))
    (new,) = put_on_top(study, wave)
    assert read_knobs(source(study, new)) == {"RATE": 0.3, "WIDTH": 8, "SHAPE": "flat", "EXTRA": 2}
    assert new.knobs == {"RATE": 0.3, "EXTRA": 2}


async def test_a_knob_that_an_edit_makes_another_kind_of_value_is_merged_as_text(study: Study) -> None:
    ours = BODY.replace('SHAPE = "flat"', 'SHAPE = ("flat", "steep")')
    wave, _ = await overtaken(study, edit(ours), factors(RATE=(0.3,)))
    (new,) = put_on_top(study, wave)
    assert source(study, new) == ours.replace("RATE = 0.5", "RATE = 0.3")


async def test_edits_of_the_same_lines_are_left_out_and_the_others_are_not(study: Study) -> None:
    theirs = BODY.replace("step / 10", "step / 30")
    both = [edit(QUADRATIC), factors(RATE=(0.3,))]
    first = await wave_of(study, edit(theirs))
    second = await wave_of(study, *both)
    finish(study, first, Answers(study, lambda knobs, one: 2.0 - (one.candidate != "c0000") + one.seed % 7 / 1e4))
    (new,) = put_on_top(study, second)
    assert source(study, new) == theirs.replace("RATE = 0.5", "RATE = 0.3")


async def test_a_knob_that_the_new_incumbent_has_done_away_with_leaves_its_candidates_out(study: Study) -> None:
    wave, _ = await overtaken(study, factors(RATE=(0.3,)), edit(BODY.replace("RATE", "SPEED")))
    assert put_on_top(study, wave) == ()


async def test_what_would_change_nothing_was_tried_or_comes_twice_is_left_out(study: Study) -> None:
    """The new incumbent is RATE 0.3 with WIDTH 8; RATE 0.4 with WIDTH 8 was tried beside it."""
    first = await wave_of(study, factors(RATE=(0.3, 0.4), WIDTH=(8,)))
    second = await wave_of(study, factors(RATE=(0.3, 0.4, 0.2)), factors(RATE=(0.2,), WIDTH=(8, 16)))
    names = {str(reading.candidate(study.journal, "mar5", one).knobs): one for one in cells(study, second)}
    assert len(names) == 5, "RATE 0.2 with WIDTH 8 is what RATE 0.2 would become"

    def answer(knobs: Knobs, one: Experiment) -> float:
        return (1.0 if knobs["RATE"] == 0.3 else 2.0) + one.seed % 7 / 1e4

    finish(study, first, Answers(study, answer))
    assert study.incumbent.knobs == {"RATE": 0.3, "WIDTH": 8}
    found = put_on_top(study, second)
    assert {one.origin: (one.knobs, read_knobs(source(study, one))) for one in found} == {
        names["{'RATE': 0.2, 'WIDTH': 8}"]: ({"RATE": 0.2}, {"RATE": 0.2, "WIDTH": 8, "SHAPE": "flat"}),
        names["{'RATE': 0.2, 'WIDTH': 16}"]: (
            {"RATE": 0.2, "WIDTH": 16},
            {"RATE": 0.2, "WIDTH": 16, "SHAPE": "flat"},
        ),
    }


async def test_nothing_to_put_anywhere_is_nothing(study: Study) -> None:
    wave, _ = await overtaken(study, factors(RATE=(0.3,)), factors(WIDTH=(8,)))
    before = refs(study.workspace.root)
    assert rebased(study, reading.wave(study.journal, "mar5", wave), [], VirtualClock()) == ()
    assert refs(study.workspace.root) == before


async def test_made_again_they_are_the_same_commits(study: Study) -> None:
    ours = Proposal("both", "both are better", (Factor("RATE", (0.3, 0.2)),), edit=QUADRATIC)
    wave, _ = await overtaken(study, ours, factors(WIDTH=(8,)))
    once = put_on_top(study, wave)
    before = refs(study.workspace.root)
    assert len(once) == 2 and put_on_top(study, wave) == once
    assert refs(study.workspace.root) == before


async def test_bytes_that_are_no_text_and_other_line_ends_survive_a_merge(tmp_path: Path) -> None:
    body = BODY.replace("\n", "\r\n").encode() + b'NAME = "caf\xc3\xa9"\r\n'
    study = open_in(workspace(tmp_path / "foreign", {"train.py": body, "program.md": "# Research\n"}))
    base = study.workspace.source(study.tip)
    wave, _ = await overtaken(
        study, edit(base.replace("step / 10", "step / 20")), edit(base.replace("1 - step", "2 - step"))
    )
    (new,) = put_on_top(study, wave)
    made = git(study.workspace.root, "cat-file", "blob", f"{new.commit}:train.py").encode(errors="surrogateescape")
    assert made == body.replace(b"step / 10", b"step / 20").replace(b"1 - step", b"2 - step").removesuffix(b"\n")
    study.journal.close()


# The wave goes on with them


async def test_the_wave_is_confirmed_beside_the_new_incumbent_and_a_keep_goes_on_from_it(study: Study) -> None:
    root = study.workspace.root
    wave, answers = await overtaken(study, factors(RATE=(0.3, 0.9)), factors(WIDTH=(8,)))
    overtaker, screened = study.incumbent, len(answers.ran)
    finish(study, wave, answers)
    confirmed = answers.ran[screened:]
    assert {one.tier for one in confirmed} == {Tier.CONFIRMATION}
    assert {one.candidate for one in confirmed if one.role is Role.CONTROL} == {overtaker.id}
    (arm,) = {one.candidate for one in confirmed if one.role is Role.CONFIRMATION}
    winner = study.incumbent
    assert (winner.id, winner.knobs) == (arm, {"RATE": 0.3}) and winner.origin in cells(study, wave)
    assert reading.against(study.journal, "mar5", wave) == overtaker.id
    assert git(root, "rev-parse", BRANCH) == study.tip
    assert git(root, "rev-list", "--count", f"main..{BRANCH}") == "2", "one commit after the other"
    assert read_knobs(git(root, "show", f"{BRANCH}:train.py")) == {"RATE": 0.3, "WIDTH": 8, "SHAPE": "flat"}
    claim = claim_of(git(root, "log", "-1", "--format=%B", BRANCH))
    assert claim is not None and claim.candidate == arm
    (decision,) = reading.decisions(study.journal, "mar5", wave=wave)
    assert decision.verdict is Verdict.KEEP and "RATE=0.3" in decision.sentence


async def test_a_wave_of_which_nothing_can_be_put_on_the_new_incumbent_ends_without_a_confirmation(
    study: Study,
) -> None:
    wave, answers = await overtaken(study, factors(RATE=(0.3,)), edit(BODY.replace("RATE", "SPEED")))
    tip, ran = study.tip, len(answers.ran)
    finish(study, wave, answers)
    assert len(answers.ran) == ran and study.tip == tip
    assert reading.waves(study.journal, "mar5", ended=True) == ["w01", "w02"]


async def test_a_candidate_that_failed_beside_the_new_incumbent_is_not_kept(study: Study) -> None:
    def answer(knobs: Knobs, one: Experiment) -> float | Label:
        return Label.CRASH if one.role is Role.CONFIRMATION else bowl(knobs, one)

    wave, answers = await overtaken(study, factors(RATE=(0.3,)), factors(WIDTH=(8,)), answer)
    tip = study.tip
    finish(study, wave, answers)
    (decision,) = reading.decisions(study.journal, "mar5", wave=wave)
    assert decision.verdict is Verdict.DISCARD and study.tip == tip


class Cut(Exception):
    """The power went."""


async def test_a_controller_cut_off_after_it_made_them_makes_the_same_ones_later(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave, _ = await overtaken(study, factors(RATE=(0.3,)), factors(WIDTH=(8,)))
    found = reading.wave(study.journal, "mar5", wave)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", lambda *_: (_ for _ in ()).throw(Cut))
        with pytest.raises(Cut):
            advance(study, found, VirtualClock())
    before = refs(study.workspace.root)
    clock = VirtualClock()
    clock.leap(3600)
    study.journal.close()
    later = open_in(study.workspace.root)
    advance(later, found, clock)
    (event,) = [
        one for _, _, one in later.journal.events("mar5") if isinstance(one, ConfirmationPlanned) and one.wave == wave
    ]
    (candidate,) = event.candidates
    assert reading.candidate(later.journal, "mar5", candidate.id) == candidate
    assert git(later.workspace.root, "rev-parse", f"refs/autoresearch/mar5/{candidate.id}") == candidate.commit
    assert len(refs(later.workspace.root).splitlines()) == len(before.splitlines())
    later.journal.close()


async def test_a_wave_that_promotes_nothing_ends_beside_an_incumbent_that_it_never_ran(tmp_path: Path) -> None:
    files = {"train.py": BODY, "program.md": "---\nsimplicity: 0.0001\n---\n"}
    study = open_in(workspace(tmp_path / "priced", files))
    wave, answers = await overtaken(study, factors(RATE=(0.9,)), factors(WIDTH=(8,)))
    finish(study, wave, answers)
    assert (
        reading.wave_state(study.journal, "mar5", wave) == "ended"
        and reading.decisions(study.journal, "mar5", wave=wave) == []
    )
    study.journal.close()
