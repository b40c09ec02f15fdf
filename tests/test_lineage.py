"""What agents are shown of a study: true to the journal, the same after a restart, of one size however long it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import fill

from controller import lineage as module
from controller.clock import VirtualClock
from controller.edits import read_knobs
from controller.history import history
from controller.journal import AttemptEnded, Journal, NoteAdded, WaveDesigned, reading
from controller.lineage import REFUSED, lineage
from controller.memory import CRASHES, INCUMBENTS, NEAR, RECENT, STEPS, Memory, Story
from controller.proposers.protocol import Crash, Lineage, RecentWave, Record, Step, Tried
from controller.records import Experiment, Factor, Knobs, Label, Objection, Proposal, Value
from controller.report import wave_effects
from controller.study import Study
from controller.wave import advance
from controller.workspace import find
from tests.foreign import TRAIN, commit, workspace
from tests.journal.conftest import night
from tests.studies import Answers, factors, finish, open_in, wave_of

Open = Callable[..., Study]


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Open]:
    """Studies in a foreign workspace, with lines of front matter."""
    studies: list[Study] = []

    def opened(front: str = "") -> Study:
        root = workspace(tmp_path / f"foreign{len(studies)}")
        if front:
            commit(root, {"program.md": f"---\n{front}\n---\nResearch.\n"})
        studies.append(open_in(root))
        return studies[-1]

    yield opened
    for study in studies:
        study.journal.close()


def luck(one: Experiment) -> float:
    """What a run's seed and place add: never the same twice, and small."""
    return (one.seed * 7919 + int(one.id[1:]) * 104729) % 97 / 1e5


def bowl(knobs: Knobs, one: Experiment) -> float | Label:
    """The best RATE is 0.3; SHAPE does nothing; a WIDTH of 7 crashes."""
    if knobs["WIDTH"] == 7:
        return Label.CRASH
    rate, width = knobs["RATE"], knobs["WIDTH"]
    assert isinstance(rate, float) and isinstance(width, int)
    return 1 + (rate - 0.3) ** 2 + 0.01 * (width - 4) + luck(one)


def seen(study: Study) -> Lineage:
    return lineage(study, read_knobs(study.workspace.source(study.tip)))


def again(study: Study) -> Lineage:
    """The same study as a controller sees it that was just started."""
    return seen(Study(study.tag, study.workspace, study.journal, study.branch))


async def whole(study: Study, *proposals: Proposal, answer: Callable[[Knobs, Experiment], float | Label] = bowl) -> str:
    wave = await wave_of(study, *proposals)
    finish(study, wave, Answers(study, answer))
    return wave


def cells(found: Lineage) -> dict[str, Tried]:
    return {one.what: one for wave in found.recent for one in wave.tried}


async def test_before_anything_ran_there_is_nothing_but_what_is_open(begun: Open) -> None:
    found = seen(begun())
    assert (found.metric, found.minimize, found.incumbent) == ("val_bpb", True, "c0000")
    assert (found.noise, found.score, found.waves, found.experiments) == (None, None, 0, 0)
    assert found.untested == ("WIDTH", "RATE"), "the most promising first"
    assert not (found.steps or found.near or found.recent or found.effects or found.records or found.notes)


async def test_the_way_to_the_incumbent_and_what_became_of_the_others_is_told(begun: Open) -> None:
    study = begun()
    await whole(study, factors(RATE=(0.1, 0.3, 0.4), WIDTH=(4, 7)))
    found = seen(study)
    (step,) = found.steps
    assert (step.wave, step.candidate, step.name, step.what) == ("w01", found.incumbent, "crossed", "RATE=0.3")
    assert step.change is not None and step.low is not None and step.high is not None and step.score is not None
    assert step.low < step.change < step.high < 0 and step.score == found.score
    assert (found.earlier, found.gained) == (0, step.change)
    told = cells(found)
    crossed = {f"RATE={rate}, WIDTH=7": "crash" for rate in (0.1, 0.3, 0.4)}
    assert {what: one.end for what, one in told.items() if what != "RATE=0.1"} == {
        "RATE=0.3": "keep",
        "RATE=0.4": "discard",
        **crossed,
    }
    assert told["RATE=0.3"].reason.startswith("val_bpb 1.04") and told["RATE=0.4"].reason.endswith("is better still")
    assert found.noise is not None and found.noise > 0
    tried = told["RATE=0.3"]
    assert tried.change is not None and tried.change == pytest.approx(-0.04, abs=0.002)
    assert tried.sigmas == pytest.approx(tried.change / found.noise)
    assert tried.confirmed == step.change
    assert found.counts == {"crash": 3, "done": 3}
    (failure,) = found.failures
    assert (failure.label, failure.count, len(failure.latest)) == ("crash", 3, 1), "they all give the same reason"
    assert failure.latest[0].reason == "as the test has it"
    assert "RATE=0.4" in [one.what for one in found.near] and "RATE=0.3" not in [one.what for one in found.near]
    (recent,) = found.recent
    assert (recent.cells, recent.scored, recent.kept, recent.ended) == (6, 3, step.candidate, True)


async def test_a_controller_that_was_restarted_tells_the_same_and_asking_twice_changes_nothing(begun: Open) -> None:
    study = begun()
    for number, rates in enumerate(((0.1, 0.4), (0.35, 0.2), (0.31, 0.45), (0.29, 0.6))):
        await whole(study, factors(RATE=rates, WIDTH=(4, 5 + number)))
        assert seen(study) == seen(study) == again(study)


async def test_a_wave_that_is_being_confirmed_is_told_of_and_taken_in_when_it_has_ended(begun: Open) -> None:
    study = begun()
    wave = await wave_of(study, replace(factors(RATE=(0.1, 0.3)), predicted=-0.04))
    answers = Answers(study, bowl)
    screened = seen(study)
    assert screened.recent == () and screened.counts == {} and screened.untested == ("WIDTH", "RATE")
    answers.run([one.experiment for one in reading.results_of(study.journal, study.tag, wave=wave)])
    found = reading.wave(study.journal, study.tag, wave)
    more = advance(study, found, VirtualClock())
    confirming = seen(study)
    (recent,) = confirming.recent
    assert (recent.ended, recent.kept, cells(confirming)["RATE=0.3"].end) == (False, None, "open")
    assert confirming.counts == {"done": 2} and confirming.records == () and confirming.steps == ()
    assert study.memory.counts == {}, "it is not remembered yet"
    assert more is not None
    answers.run(more)
    finish(study, wave, answers)
    ended = seen(study)
    assert ended.counts == {"done": 2} and len(ended.recent) == len(ended.steps) == len(ended.records) == 1


async def test_effects_are_told_where_the_incumbent_still_has_the_values_they_were_found_at(begun: Open) -> None:
    study = begun()

    def answer(knobs: Knobs, one: Experiment) -> float | Label:
        width = knobs["WIDTH"]
        assert isinstance(width, int)
        return 1 + 0.01 * width + (0.0001 if knobs["RATE"] == 0.4 else 0) + luck(one)

    await whole(study, factors(RATE=(0.5, 0.4), WIDTH=(4, 5)), answer=answer)
    found = seen(study)
    (effect,) = found.effects
    assert (effect.what, effect.at, effect.wave) == ("WIDTH 4 → 5", {"WIDTH": 4}, "w01")
    assert effect.change == pytest.approx(0.01, abs=0.002) and effect.low is not None and effect.low > 0
    assert [one.what for one in found.open] == ["RATE 0.4 → 0.5"] and not found.open[0].resolved
    assert found.untested == ()
    await whole(study, factors(WIDTH=(2, 3)), answer=answer)
    moved = seen(study)
    assert moved.steps[-1].what == "WIDTH=2"
    assert moved.effects == () and moved.untested == ("WIDTH",), "around 2 nothing is known"
    assert [one.what for one in moved.open] == ["RATE 0.4 → 0.5"]


async def test_effects_on_top_of_an_edit_are_told_with_it_and_of_an_incumbent_that_has_it(begun: Open) -> None:
    text = f"{TRAIN}EXTRA = 1\nprint(EXTRA)\n"
    varied = (Factor("WIDTH", (4, 5)), Factor("EXTRA", (1, 2)))
    edit = Proposal("with more", "more helps", varied, edit=text)

    def answer(gain: float) -> Callable[[Knobs, Experiment], float | Label]:
        """What the edit gains; on top of it, and only there, a WIDTH of 5 is worse by 0.01, an EXTRA of 2 by 0.02."""

        def score(knobs: Knobs, one: Experiment) -> float | Label:
            if "EXTRA" not in knobs:
                return 1 + luck(one)
            return 1 - gain + 0.01 * (knobs["WIDTH"] == 5) + 0.02 * (knobs["EXTRA"] == 2) + luck(one)

        return score

    for gain, expected in ((-0.5, []), (0.5, ["WIDTH 4 → 5"])):
        study = begun()
        wave = await whole(study, edit, answer=answer(gain))
        told = {one.term.description: one.estimate for one in wave_effects(study.journal, study.tag, wave).estimated}
        assert [
            told[f"{knob} (with the edit of p0001) {levels}"]
            for knob, levels in (
                ("WIDTH", "4 → 5"),
                ("EXTRA", "1 → 2"),
            )
        ] == pytest.approx([0.01, 0.02], abs=0.002)
        found = seen(study)
        assert [step.what for step in found.steps] == ["edit, EXTRA=1"] * len(expected)
        assert [one.what for one in found.effects] == expected and found.open == ()
        assert ("WIDTH" in found.untested) == (not expected), "without the edit it was not varied"


async def test_predictions_are_held_against_outcomes_by_who_made_them(begun: Open) -> None:
    study = begun()
    good = replace(factors(RATE=(0.3,)), name="good", predicted=-0.04, low=-0.05, high=-0.03)
    wrong = replace(factors(RATE=(0.9,)), name="wrong", predicted=-0.1, low=-0.2, high=0.0)
    blind = replace(factors(WIDTH=(7,)), name="blind", predicted=-0.1)
    silent = replace(factors(RATE=(0.45,)), name="silent")
    await whole(study, good, wrong, blind, silent)
    (record,) = seen(study).records
    assert replace(record, latest=()) == Record("told", predictions=2, right=1, intervals=2, held=1, unscored=1)
    first, second = record.latest
    assert (first.name, first.right, first.held, first.confirmed) == ("good", True, True, True)
    assert first.measured == seen(study).steps[0].change
    assert (second.name, second.right, second.held) == ("wrong", False, False) and second.measured > 0.1


def edited(knob: str, name: str = "rewritten", repairs: str = "") -> Proposal:
    return Proposal(name, "another way", (), edit=f"{TRAIN}{knob} = 1\nprint({knob})\n", repairs=repairs)


def broken(knobs: Knobs, one: Experiment) -> float | Label:
    return Label.CRASH if "BROKEN" in knobs or "WORSE" in knobs else bowl(knobs, one)


async def test_an_edit_that_crashed_is_told_of_with_its_diff_until_somebody_sets_out_to_repair_it(begun: Open) -> None:
    study = begun()
    await whole(study, edited("BROKEN"), factors(WIDTH=(5,)), answer=broken)
    (crash,) = seen(study).crashes
    said = (crash.candidate, crash.name, crash.label, crash.reason, crash.tries)
    assert said == ("c0001", "rewritten", "crash", "as the test has it", 0)
    assert crash.diff.splitlines()[-2:] == ["+BROKEN = 1", "+print(BROKEN)"]
    assert cells(seen(study))["edit, BROKEN=1"].end == "crash"

    wave = await wave_of(study, edited("WORSE", "mended", repairs="c0001"))
    assert seen(study).crashes == () and again(study).crashes == (), "somebody is at it"
    finish(study, wave, Answers(study, broken))
    (crash,) = seen(study).crashes
    assert (crash.candidate, crash.repairs, crash.tries) == ("c0003", "c0001", 1)
    await whole(study, edited("MENDED", "mended again", repairs="c0003"), answer=broken)
    assert seen(study).crashes == again(study).crashes == ()


async def test_a_crash_whose_commit_is_gone_is_told_of_without_a_diff(begun: Open) -> None:
    study = begun()
    await whole(study, edited("BROKEN"), answer=broken)
    last = next(event for _, _, event in study.journal.events() if isinstance(event, WaveDesigned))
    copy = Journal.open(study.workspace.directory / "copy", VirtualClock())
    for _, tag, event in study.journal.events():
        lost = replace(last, candidates=(replace(last.candidates[0], commit="e" * 40),))
        copy.record(tag, lost if event == last else event)
    (crash,) = seen(Study(study.tag, study.workspace, copy, study.branch)).crashes
    assert crash.diff == ""
    copy.close()


async def test_what_was_refused_is_told_by_its_label_and_its_reason(begun: Open) -> None:
    study = begun()
    await whole(study, factors(RATE=(0.3,), WIDTH=(0, 4)))
    await wave_of(study, factors(RATE=(0.5, 0.2)))
    found = seen(study)
    assert found.refusals == {"assertion": 1, "duplicate": 1}
    first, second = found.refused
    assert (first.label, second.label) == (Objection.ASSERTION, Objection.DUPLICATE)
    assert "WIDTH must be positive" in first.reason and "the same model as c0000" in second.reason


async def test_a_gate_that_refused_a_candidate_is_named(begun: Open) -> None:
    study = begun("gates: [val_bpb >= 1.0005]")

    def answer(knobs: Knobs, one: Experiment) -> float | Label:
        return 0.9 + luck(one) if knobs["RATE"] == 0.3 else 1.01 + luck(one)

    await whole(study, factors(RATE=(0.3, 0.4)), answer=answer)
    found = seen(study)
    told = cells(found)["RATE=0.3"]
    assert told.end == "gate" and told.reason.endswith("is not >= 1.0005")
    assert told in found.near


async def test_what_was_pruned_is_counted_and_no_failure(begun: Open) -> None:
    study = begun()
    pruned: Callable[[Knobs, Experiment], float | Label]
    pruned = lambda knobs, one: Label.PRUNED if knobs["RATE"] == 0.9 else bowl(knobs, one)  # noqa: E731
    await whole(study, factors(RATE=(0.9, 0.45)), answer=pruned)
    found = seen(study)
    assert found.counts == {"done": 1, "pruned": 1} and found.failures == ()
    assert cells(found)["RATE=0.9"].end == "pruned"


def test_a_cell_that_was_confirmed_on_top_of_a_newer_incumbent_is_one_story(tmp_path: Path) -> None:
    found = find(workspace(tmp_path / "foreign"))
    journal = Journal.open(tmp_path / "journal", VirtualClock())
    journal.record("mar5", *night())
    told = lineage(Study("mar5", found, journal, "autoresearch/mar5"), {"RATE": 0.3, "WIDTH": 4})
    (step,) = told.steps
    assert (step.candidate, step.what, step.score, told.incumbent) == ("c0004", "RATE=0.3", 0.96, "c0004")
    by_name = {one.candidate: one for one in told.recent[0].tried}
    assert (by_name["c0001"].end, by_name["c0001"].confirmed) == ("keep", -0.04)
    assert by_name["c0003"].end == "lost" and by_name["c0003"].what == "edit, SHAPE=steep"
    assert told.crashes == (), "what the infrastructure lost is no crash"
    assert [one.text for one in told.notes] == ["try “less” decay"]
    assert told.records[0].predictions == 1 and told.records[0].unscored == 1
    journal.close()


async def test_texts_that_others_wrote_are_cut_to_one_line(begun: Open) -> None:
    study = begun()
    long = "x\x1b[31m\n" * 5000
    await whole(study, Proposal(long, long, (Factor("SHAPE", (long, 7)),)), factors(WIDTH=(7,)))
    events = [
        replace(event, outcome=replace(event.outcome, reason=long))
        if isinstance(event, AttemptEnded) and event.outcome.label
        else event
        for _, _, event in study.journal.events()
    ]
    copy = Journal.open(study.workspace.directory / "copy", VirtualClock())
    copy.record(study.tag, *events)
    found = asdict(seen(Study(study.tag, study.workspace, copy, study.branch)))
    said = [text for text in strings(found) if "x [31m" in text]
    assert len(said) >= 2 and found["refused"]
    assert all(text.isprintable() and len(text) <= 200 for text in strings(found))
    copy.close()


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for one in value.values() for text in strings(one))
    elif isinstance(value, (list, tuple)):
        yield from (text for one in value for text in strings(one))


def synthetic(root: Path, experiments: int) -> Study:
    root.mkdir()
    study_root = workspace(root / "foreign")
    fill(root / "journal", experiments, "mar5", 16)
    journal = Journal.open(root / "journal", VirtualClock(), durable=False)
    return Study("mar5", find(study_root), journal, "autoresearch/mar5")


def size(value: Any) -> int:
    return len(repr(value))


def test_neither_what_is_told_nor_what_is_remembered_grows_with_the_study(tmp_path: Path) -> None:
    present: dict[str, Value] = {"MATRIX_LR": 0.03, "EMBEDDING_LR": 0.2, "DEPTH": 6, "SOFTCAP": 10.0}
    sizes = []
    for experiments in (1000, 4000):
        study = synthetic(tmp_path / str(experiments), experiments)
        study.journal.record("mar5", *(NoteAdded(f"n{one:04d}", "x" * 500, "agent") for one in range(1, 21)))
        found = lineage(study, present)
        sizes.append((size(found), size(study.memory)))
        assert found.earlier + len(found.steps) == len(reading.kept(study.journal, "mar5"))
        assert len(found.steps) < 2 * STEPS and len(found.recent) == RECENT and len(found.near) <= NEAR
        assert len(found.refused) <= REFUSED and len(found.crashes) <= CRASHES
        assert len(study.memory.near) <= INCUMBENTS
        study.journal.close()
    assert sizes[1][0] < 1.5 * sizes[0][0] and sizes[1][1] < 1.5 * sizes[0][1]


def test_a_wave_that_has_ended_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = synthetic(tmp_path / "study", 600)
    read: list[str] = []
    story = module._story

    def counted(study: Study, name: str, memory: Any) -> Any:
        read.append(name)
        return story(study, name, memory)

    monkeypatch.setattr(module, "_story", counted)
    waves = reading.waves(study.journal, "mar5")
    for _ in range(3):
        lineage(study, {})
    assert read == waves
    history(study)
    asked: list[str] = []
    study.journal.db.set_trace_callback(asked.append)
    lineage(study, {})
    assert len(asked) < 12, asked
    study.journal.close()


def test_the_latest_keeps_stay_where_they_are_while_others_are_added() -> None:
    memory, firsts = Memory(), []
    for number in range(100):
        step = Step(f"w{number:02d}", f"c{number:04d}", "better", "DEPTH=1", -0.5, -1.0, 0.0, 1.0)
        recent = RecentWave(step.wave, "doe", "c0000", 1, 1, 1, (), step.candidate, True)
        memory.take(Story(step.wave, "doe", frozenset(), recent, step=step), minimize=True)
        assert memory.earlier + len(memory.steps) == number + 1 and memory.gained == -(number + 1) / 2
        firsts.append(memory.steps[0].candidate)
    assert len(set(firsts)) <= 100 / STEPS, "a prompt cache serves what is told of them, most of the time"


def test_a_repair_that_ends_before_the_wave_whose_crash_it_repairs_still_counts() -> None:
    memory = Memory()
    recent = RecentWave("w02", "told", "c0000", 1, 1, 0, (), None, True)
    memory.take(Story("w02", "told", frozenset({"c0001"}), recent), minimize=True)
    crashes = (Crash("c0001", "it", "crash", "no", ""), Crash("c0002", "other", "crash", "no", ""))
    memory.take(Story("w01", "told", frozenset(), replace(recent, wave="w01"), crashes=crashes), minimize=True)
    assert list(memory.crashes) == ["c0002"]


def test_waves_are_known_by_number_in_whatever_order_they_end() -> None:
    memory = Memory()
    for number, floor, above in ((2, 0, {2}), (3, 0, {2, 3}), (1, 3, set()), (5, 3, {5}), (4, 5, set())):
        memory.ended(number)
        assert (memory.floor, memory.above) == (floor, above)
