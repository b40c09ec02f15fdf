from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from controller.clock import VirtualClock
from controller.edits import read_knobs
from controller.history import history, past_wave
from controller.journal import AttemptEnded, Event, ExperimentAbandoned, Journal, WaveEnded, reading
from controller.keep import claim_of
from controller.proposers import Context, Person
from controller.records import (
    Design,
    Experiment,
    Factor,
    Knobs,
    Label,
    NothingRan,
    Objection,
    Proposal,
    Role,
    Tier,
    UserError,
    Verdict,
)
from controller.study import Study, open_study
from controller.wave import FIRST_CONFIRMATION_SEED, Request, advance, begin, design
from controller.workspace import find
from tests.foreign import PROGRAM, TRAIN, commit, git, refs, workspace
from tests.studies import Answer, Answers, Says, factors, finish, open_in, wave_of

BRANCH = "autoresearch/mar5"


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    opened = open_in(workspace(tmp_path / "foreign"))
    yield opened
    opened.journal.close()


def bowl(knobs: Knobs, experiment: Experiment) -> float:
    """Best at RATE 0.3, better with WIDTH; every seed has luck that all its arms share, and a little of its own."""
    rate, width = cast(float, knobs.get("RATE", 0.5)), cast(int, knobs.get("WIDTH", 4))
    own = hash((experiment.seed, rate, width)) % 10 / 1e5
    return 1 + (rate - 0.3) ** 2 + 0.1 / width + experiment.seed % 7 / 1e3 + own


def complete(study: Study, wave: str, answer: Answer = bowl) -> Answers:
    answers = Answers(study, answer)
    finish(study, wave, answers)
    return answers


def experiments(study: Study, wave: str) -> list[Experiment]:
    return [result.experiment for result in reading.results_of(study.journal, study.tag, wave=wave)]


async def test_cells_that_are_the_same_model_run_once(study: Study) -> None:
    again = Proposal("again", "the same by another name", (Factor("RATE", (0.3, 0.1)),))
    wave = await wave_of(study, factors(RATE=(0.3, 0.2), WIDTH=(4, 4)), again)
    knobs = [
        reading.candidate(study.journal, "mar5", one.candidate).knobs
        for one in experiments(study, wave)
        if one.role is Role.CELL
    ]
    assert sorted(cast(float, found["RATE"]) for found in knobs) == [0.1, 0.2, 0.3]
    assert len(knobs) == 3


async def test_the_incumbent_s_own_cell_becomes_a_control_and_no_refusal(study: Study) -> None:
    wave = await wave_of(study, factors(RATE=(0.5, 0.3), WIDTH=(4, 8)))
    found = experiments(study, wave)
    assert [one.role for one in found if one.candidate == "c0000"] == [Role.CONTROL] * 3
    assert len([one for one in found if one.role is Role.CELL]) == 3
    assert reading.refusals(study.journal, "mar5", wave) == []
    assert reading.wave(study.journal, "mar5", wave).base == {"RATE": 0.5, "WIDTH": 4}


async def test_a_model_that_was_tried_in_an_earlier_wave_is_refused_by_name(study: Study) -> None:
    complete(study, await wave_of(study, factors(RATE=(0.7, 0.9))))
    with pytest.raises(NothingRan, match="it is the same model as c0001, which was tried before"):
        await wave_of(study, factors(RATE=(0.7,)))
    wave = await wave_of(study, factors(RATE=(0.7, 0.8)))
    (refused,) = reading.refusals(study.journal, "mar5", wave)
    assert "c0001" in refused.reason
    assert refused.label is Objection.DUPLICATE
    assert past_wave(study.journal, "mar5", wave).refusals == (refused,), "the next proposer is told"


async def test_what_another_wave_is_screening_is_not_tried_a_second_time_and_its_proposer_is_told(study: Study) -> None:
    asked: list[Context] = []

    class Listens(Says):
        async def propose(self, context: Context, room: int) -> list[Proposal]:
            asked.append(context)
            return await super().propose(context, room)

    first = await wave_of(study, factors(RATE=(0.7, 0.8)))
    finish(study, await wave_of(study, factors(SHAPE=("steep",))), Answers(study, bowl))
    request = Request({}, 0, 2, 12)
    designed = await design(study, Listens(factors(RATE=(0.7, 0.9))), request)
    assert [cell.knobs for cell in designed.cells] == [{"RATE": 0.9}]
    assert designed.refusals[0].label is Objection.DUPLICATE
    (context,) = asked
    assert [design.factors for design in context.pending] == [factors(RATE=(0.7, 0.8)).factors]
    assert [past.id for past in context.history] == ["w02"], "of the first nothing is known yet"
    answers = Answers(study, bowl)
    answers.run(experiments(study, first))
    await design(study, Listens(factors(RATE=(0.9,))), request)
    assert [past.id for past in asked[1].history] == ["w02"] and asked[1].pending, "not before all of it is known"
    assert advance(study, reading.wave(study.journal, "mar5", first), VirtualClock()) == []
    await design(study, Listens(factors(RATE=(0.9,))), request)
    assert asked[2].pending == () and [past.id for past in asked[2].history] == ["w01", "w02"]


async def test_a_wave_that_was_designed_against_an_older_incumbent_has_that_for_its_control(study: Study) -> None:
    first = await wave_of(study, factors(RATE=(0.3,)))
    proposer, request = Says(factors(WIDTH=(8,))), Request({}, 0, 2, 12)
    designed = await design(study, proposer, request)
    complete(study, first)
    assert study.incumbent.knobs == {"RATE": 0.3}
    wave = begin(study, proposer, request, designed, VirtualClock())
    assert wave.incumbent == "c0000"
    (cell,) = [one.candidate for one in experiments(study, wave.id) if one.role is Role.CELL]
    commit = reading.candidate(study.journal, "mar5", cell).commit
    assert read_knobs(study.workspace.source(commit)) == {"RATE": 0.5, "WIDTH": 8, "SHAPE": "flat"}
    complete(study, wave.id)
    assert read_knobs(study.workspace.source(study.tip)) == {"RATE": 0.3, "WIDTH": 8, "SHAPE": "flat"}


async def test_the_order_comes_from_the_seed_and_from_nothing_else(tmp_path: Path) -> None:
    def order(study: Study) -> list[tuple[Any, ...]]:
        return [(one.candidate, one.role, one.seed) for one in experiments(study, "w01")]

    orders = []
    for place, seed in enumerate((0, 0, 1, 2)):
        study = open_in(workspace(tmp_path / f"{place}"))
        await wave_of(study, factors(RATE=(0.1, 0.2, 0.3, 0.4), WIDTH=(4, 8)), seed=seed)
        orders.append([(candidate, role, number % 1000) for candidate, role, number in order(study)])
        study.journal.close()
    assert orders[0] == orders[1]
    assert len({tuple(found) for found in orders}) == 3


async def test_no_seed_serves_both_screening_and_confirmation_nor_two_waves(tmp_path: Path) -> None:
    program = "---\ntiers: {screening: {seeds: 500}, confirmation: {seeds: 500, promote: 1}}\n---\n"
    root = workspace(tmp_path / "foreign", {"train.py": TRAIN, "program.md": program})
    study = open_in(root)
    seen: dict[tuple[str, Tier], set[int]] = {}
    for rate in (0.4, 0.3):
        wave = await wave_of(study, factors(RATE=(rate,)))
        answers = complete(study, wave)
        assert len(answers.ran) > 600
        for one in answers.ran:
            seen.setdefault((wave, one.tier), set()).add(one.seed)
    sets = list(seen.values())
    assert [len(found) for found in sets] == [500] * 4
    assert sum(map(len, sets)) == len(set().union(*sets)), "no seed is in two of them"
    study.journal.close()


async def test_a_whole_wave_ends_with_its_winner_on_the_branch(study: Study) -> None:
    wave = await wave_of(study, factors(RATE=(0.5, 0.3), WIDTH=(4, 8)))
    answers = complete(study, wave)
    root = study.workspace.root
    winner = study.incumbent
    assert winner.knobs == {"RATE": 0.3, "WIDTH": 8}
    assert git(root, "rev-parse", BRANCH) == study.tip
    assert git(root, "rev-list", "--count", f"main..{BRANCH}") == "1"
    assert read_knobs(git(root, "show", f"{BRANCH}:train.py"))["RATE"] == 0.3
    claim = claim_of(git(root, "log", "-1", "--format=%B", BRANCH))
    assert claim is not None
    confirmed = [one for one in answers.ran if one.role is Role.CONFIRMATION and one.candidate == winner.id]
    assert set(claim.seeds) == {one.seed for one in confirmed} and len(claim.seeds) == 3
    assert min(claim.seeds) % 1000 >= FIRST_CONFIRMATION_SEED
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "symbolic-ref", "HEAD") == "refs/heads/main"


async def test_the_next_wave_starts_from_the_winner(study: Study) -> None:
    complete(study, await wave_of(study, factors(RATE=(0.3,))))
    wave = await wave_of(study, factors(WIDTH=(8, 16)))
    assert reading.wave(study.journal, "mar5", wave).incumbent == "c0001"
    assert {one.candidate for one in experiments(study, wave) if one.role is Role.CONTROL} == {"c0001"}
    complete(study, wave)
    candidate = study.incumbent
    assert candidate.knobs == {"WIDTH": 16}
    assert read_knobs(study.workspace.source(study.tip)) == {"RATE": 0.3, "WIDTH": 16, "SHAPE": "flat"}
    assert git(study.workspace.root, "rev-list", "--count", f"main..{BRANCH}") == "2"
    assert [(past.id, past.kept) for past in history(study)] == [("w01", True), ("w02", True)]


async def test_a_wave_without_a_better_cell_confirms_nothing_and_leaves_the_branch(study: Study) -> None:
    before = refs(study.workspace.root)
    wave = await wave_of(study, factors(RATE=(0.9, 0.1)))
    answers = complete(study, wave, lambda knobs, experiment: 1.0 if experiment.role is Role.CONTROL else 2.0)
    assert {one.tier for one in answers.ran} == {Tier.SCREENING}
    assert reading.unfinished_wave(study.journal, "mar5") is None
    assert reading.decisions(study.journal, "mar5") == []
    kept = [line for line in refs(study.workspace.root).splitlines() if "refs/autoresearch" not in line]
    assert kept == before.splitlines()


async def test_candidates_that_fail_are_results_and_the_rest_goes_on(study: Study) -> None:
    def answer(knobs: Knobs, experiment: Experiment) -> float | Label:
        if knobs["RATE"] == 0.9:
            return Label.DIVERGED
        if knobs["RATE"] == 0.35 and experiment.tier is Tier.CONFIRMATION:
            return Label.OUT_OF_MEMORY
        return bowl(knobs, experiment)

    wave = await wave_of(study, factors(RATE=(0.9, 0.35, 0.4)))
    answers = complete(study, wave, answer)
    assert study.incumbent.knobs == {"RATE": 0.4}
    verdicts = {
        cast(float, reading.candidate(study.journal, "mar5", one.candidate).knobs["RATE"]): one.verdict
        for one in reading.decisions(study.journal, "mar5", wave=wave)
    }
    assert verdicts == {0.4: Verdict.KEEP, 0.35: Verdict.DISCARD}
    names = {one.candidate for one in answers.ran}
    assert all(git(study.workspace.root, "rev-parse", f"refs/autoresearch/mar5/{name}") for name in names - {"c0000"})


async def test_a_wave_whose_controls_give_no_score_is_called_off_ends_and_says_why(study: Study) -> None:
    wave = await wave_of(study, factors(RATE=(0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)))
    answers = Answers(study, lambda knobs, one: Label.CRASH if one.role is Role.CONTROL else 0.5)
    with pytest.raises(NothingRan, match=r"the incumbent itself gave no score \(crash, as the test has it\)"):
        finish(study, wave, answers)
    assert [one.role for one in answers.ran].count(Role.CONTROL) == 2
    rest = [one.status for one in reading.results_of(study.journal, "mar5") if one.experiment not in answers.ran]
    assert rest and set(rest) == {"cancelled"}
    assert reading.unfinished_wave(study.journal, "mar5") is None
    assert study.incumbent.id == "c0000"
    cells = [one.candidate for one in answers.ran if one.role is Role.CELL]
    models = [reading.candidate(study.journal, "mar5", name).model for name in ("c0000", *cells)]
    assert set(reading.KnownModels(study.journal, "mar5")) == set(models), "what was called off may be tried again"


async def test_a_control_that_fails_calls_nothing_off_once_another_has_scored(study: Study) -> None:
    wave = await wave_of(study, factors(RATE=(0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)))
    controls: Iterator[float | Label] = iter([1.0, Label.CRASH, Label.CRASH])

    def answer(knobs: Knobs, one: Experiment) -> float | Label:
        return next(controls) if one.role is Role.CONTROL and one.tier is Tier.SCREENING else 2.0

    complete(study, wave, answer)
    statuses = [one.status for one in reading.results_of(study.journal, "mar5", wave=wave)]
    assert sorted(statuses) == ["crash"] * 2 + ["done"] * 9


async def test_a_wave_whose_screening_was_called_off_altogether_ends_in_silence(study: Study) -> None:
    wave = await wave_of(study, factors(RATE=(0.3,)))
    off = [ExperimentAbandoned(one.id, Label.CANCELLED, "the budget") for one in experiments(study, wave)]
    study.journal.record("mar5", *off)
    assert complete(study, wave).ran == []
    assert reading.waves(study.journal, "mar5", ended=True) == [wave]
    assert reading.decisions(study.journal, "mar5") == []


GATED = "---\ngates: [val_bpb >= 1.01]\n---\n"


async def test_a_gate_refuses_what_is_better_in_screening_and_in_confirmation_and_the_next_wins(tmp_path: Path) -> None:
    study = open_in(workspace(tmp_path / "foreign", {"train.py": TRAIN, "program.md": GATED}))
    means = {0.9: 1.0, 0.8: 1.02, 0.7: 1.03}

    def answer(knobs: Knobs, experiment: Experiment) -> float:
        rate = cast(float, knobs["RATE"])
        later = 0.02 if rate == 0.8 and experiment.tier is Tier.CONFIRMATION else 0.0
        return means.get(rate, 1.04) - later + experiment.seed % 7 / 1e4

    wave = await wave_of(study, factors(RATE=(0.9, 0.8, 0.7)))
    answers = complete(study, wave, answer)
    names = {reading.candidate(study.journal, "mar5", f"c000{n}").knobs["RATE"]: f"c000{n}" for n in (1, 2, 3)}
    assert {one.candidate for one in answers.ran if one.role is Role.CONFIRMATION} == {names[0.8], names[0.7]}
    decisions = {one.candidate: one for one in reading.decisions(study.journal, "mar5", wave=wave)}
    assert decisions[names[0.8]].verdict is Verdict.DISCARD
    assert "val_bpb 1.0004 is not >= 1.01; val_bpb 1.04" in decisions[names[0.8]].sentence
    assert study.incumbent.id == names[0.7]
    past = history(study)[0]
    assert sorted(round(cast(float, cell.score), 2) for cell in past.designs[0].cells) == [1.0, 1.02, 1.03], "all teach"
    study.journal.close()


async def test_a_candidate_that_looks_ahead_too_little_for_one_run_is_refused_for_all_of_them(study: Study) -> None:
    class Foresees(Answers):
        def _events_of(self, experiment: Experiment) -> list[Event]:
            changed = reading.candidate(self._study.journal, "mar5", experiment.candidate).knobs
            evidence = {0.9: 4.0, 0.8: 3.0}.get(cast(float, changed.get("RATE", 0.0)), -2.5)
            return [
                replace(
                    event,
                    outcome=replace(event.outcome, metrics={**event.outcome.metrics, "leak_evidence": evidence}),
                )
                if isinstance(event, AttemptEnded)
                else event
                for event in super()._events_of(experiment)
            ]

    wave = await wave_of(study, factors(RATE=(0.9, 0.8)))
    means = {0.9: 1.0, 0.8: 1.02}
    finish(
        study,
        wave,
        Foresees(study, lambda knobs, one: means.get(cast(float, knobs["RATE"]), 1.04) + one.seed % 7 / 1e4),
    )
    verdicts = {one.candidate: one for one in reading.decisions(study.journal, "mar5", wave=wave)}
    names = {reading.candidate(study.journal, "mar5", name).knobs["RATE"]: name for name in verdicts}
    assert verdicts[names[0.9]].verdict is Verdict.DISCARD
    assert "leak, its runs together foresee" in verdicts[names[0.9]].sentence
    assert study.incumbent.id == names[0.8], "4 runs of 3 nats are no proof"


async def test_the_incumbent_need_not_pass_the_gates(tmp_path: Path) -> None:
    study = open_in(workspace(tmp_path / "foreign", {"train.py": TRAIN, "program.md": GATED.replace(">=", "<")}))
    wave = await wave_of(study, factors(RATE=(0.9,)))
    complete(study, wave, lambda knobs, one: (1.0 if knobs["RATE"] == 0.9 else 2.0) + one.seed % 7 / 1e4)
    assert study.incumbent.knobs == {"RATE": 0.9}
    study.journal.close()


async def test_the_gates_of_a_study_are_frozen(tmp_path: Path) -> None:
    root = workspace(tmp_path / "foreign")
    open_in(root).journal.close()
    (root / "program.md").write_text(GATED)
    with pytest.raises(UserError, match=r"begun with other settings \(gates: \[\] before, \['val_bpb >= 1.01'\] now\)"):
        open_in(root)


class Cut(Exception):
    """The power went."""


@pytest.mark.parametrize("moved", [False, True])
async def test_a_controller_cut_off_between_decision_and_end_commits_exactly_once(
    study: Study, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = await wave_of(study, factors(RATE=(0.3,)))
    record = Journal.record

    def cut(journal: Journal, tag: str, *events: Any) -> None:
        if isinstance(events[0], WaveEnded):
            raise Cut
        record(journal, tag, *events)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", cut)
        with pytest.raises(Cut):
            complete(study, wave)
    root = study.workspace.root
    unfinished = reading.unfinished_wave(study.journal, "mar5")
    assert unfinished is not None and unfinished[1] == "decided"
    made = git(root, "rev-parse", BRANCH)
    assert made != study.tip, "the commit is there, the journal does not know it yet"
    if not moved:
        git(root, "update-ref", f"refs/heads/{BRANCH}", study.tip)  # cut off before the branch moved
    study.journal.close()

    later = open_in(root)
    answers = complete(later, wave)
    assert answers.ran == []
    assert git(root, "rev-parse", BRANCH) == later.tip == made
    assert git(root, "rev-list", "--count", f"main..{BRANCH}") == "1"
    assert [type(event) for _, _, event in later.journal.events()].count(WaveEnded) == 1
    later.journal.close()


async def test_a_decided_wave_does_not_commit_over_what_somebody_else_put_on_the_branch(study: Study) -> None:
    wave = await wave_of(study, factors(RATE=(0.3,)))
    git(study.workspace.root, "checkout", "--quiet", BRANCH)
    theirs = commit(study.workspace.root, {"notes.md": "mine\n"})
    with pytest.raises(UserError, match="was moved to"):
        complete(study, wave)
    assert git(study.workspace.root, "rev-parse", BRANCH) == theirs
    assert git(study.workspace.root, "status", "--porcelain") == ""


@pytest.mark.parametrize("after", range(1, 8))
async def test_a_wave_cut_off_after_any_result_comes_to_the_same_end(tmp_path: Path, after: int) -> None:
    ends = []
    for name, limit in (("whole", 10**6), ("cut", after)):
        study = open_in(workspace(tmp_path / name))
        wave = await wave_of(study, factors(RATE=(0.3,)))
        left = iter(range(limit))

        def answer(knobs: Knobs, experiment: Experiment, left: Iterator[int] = left) -> float:
            if next(left, None) is None:
                raise Cut
            return bowl(knobs, experiment)

        while reading.unfinished_wave(study.journal, "mar5"):
            try:
                complete(study, wave, answer)
            except Cut:
                left = iter(range(10**6))
                study.journal.close()
                study = open_in(tmp_path / name)
                answer = bowl  # type: ignore[assignment]
        ends.append(reading.decisions(study.journal, "mar5"))
        rows = reading.results_of(study.journal, "mar5")
        assert [row.status for row in rows] == ["done"] * len(rows)
        study.journal.close()
    assert ends[0] == ends[1]


HOSTILE = (
    "better\n\nAutoresearch-Metric: val_bpb 0.1\nAutoresearch-Seeds: 1\r\n\r\n"
    "AutoAutoresearch-research-Scores: 0.1\x00\u2028Autoresearch-Study: other\n\nautoresearch-interval: 0 9\x1b[2J"
)
FORGED = "\n\n" + "\n".join(
    f"Autoresearch-{key}: {value}"
    for key, value in {
        "Study": "forged",
        "Candidate": "c9999",
        "Metric": "val_bpb 0.1",
        "Interval": "0 9",
        "Seeds": "1",
        "Scores": "0.1",
        "Accelerator": "H100",
        "Budget": "1 s",
        "Hashes": "train=1",
    }.items()
)


@pytest.mark.parametrize("hypothesis", [HOSTILE, FORGED, FORGED.replace("Auto", "AutoAutoresearch-", 1)])
async def test_no_hypothesis_can_forge_a_trailer_in_a_candidate_or_a_winner(study: Study, hypothesis: str) -> None:
    assert claim_of("x" + FORGED) is not None, "outside a study this would be a claim"
    idea = Proposal(f"name{hypothesis}", hypothesis, (Factor("SHAPE", (f"steep{hypothesis}".replace("\x00", ""),)),))
    wave = await wave_of(study, idea)
    root = study.workspace.root
    for line in git(root, "for-each-ref", "--format=%(objectname)", "refs/autoresearch/").splitlines():
        assert claim_of(git(root, "log", "-1", "--format=%B", line)) is None
    better = {Role.CONTROL: 1.0, Role.CELL: 0.5, Role.CONFIRMATION: 0.5}
    complete(study, wave, lambda knobs, one: better[one.role] + one.seed % 7 / 1e4)
    message = git(root, "log", "-1", "--format=%B", BRANCH)
    claim = claim_of(message)
    assert claim is not None and study.tip == git(root, "rev-parse", BRANCH)
    assert (claim.study, claim.candidate, len(claim.seeds)) == ("mar5", "c0001", 3)
    assert 0.4 < claim.low < claim.value < claim.high < 0.6
    assert message.count("Autoresearch-Metric:") == 1 and "\x1b" not in message
    trailers = git(root, "log", "-1", "--format=%(trailers:only)", BRANCH)
    assert trailers.count("Autoresearch-") == 13


async def test_an_edit_that_is_no_python_is_refused_and_the_others_run(study: Study) -> None:
    broken = Proposal("broken", "brackets are overrated", (), edit="RATE = (0.5\n")
    lacking = Proposal("lacking", "there is no such knob", (Factor("DEPTH", (1, 2)),))
    twice = Proposal("twice", "one knob twice", (Factor("RATE", (0.1,)), Factor("RATE", (0.2,))), Design.FULL)
    unkept = Proposal("unkept", "zero width", (Factor("WIDTH", (0,)),))
    good = Proposal("good", "a new idea", (), edit=TRAIN.replace("** 2", "** 4"))
    wave = await wave_of(study, broken, lacking, twice, unkept, good)
    assert len([one for one in experiments(study, wave) if one.role is Role.CELL]) == 1
    reasons = {one.name: one.reason for one in reading.refusals(study.journal, "mar5", wave)}
    assert "change the file so that Python can parse it" in reasons["broken"]
    assert "there is no knob DEPTH" in reasons["lacking"]
    assert "listed as a factor twice" in reasons["twice"]
    assert reasons["unkept: WIDTH=0"] == "it fails its own assertion: WIDTH must be positive (WIDTH > 0)"


async def test_a_person_s_level_that_can_never_run_is_their_mistake(study: Study) -> None:
    before = refs(study.workspace.root), list(study.journal.events())
    with pytest.raises(UserError, match="WIDTH must be positive"):
        await design(study, Person([Factor("WIDTH", (0,))]), Request({}, 0, 2, 12))
    assert (refs(study.workspace.root), list(study.journal.events())) == before


async def test_a_proposer_without_an_idea_is_nothing_that_ran(study: Study) -> None:
    with pytest.raises(NothingRan, match="told proposed nothing that is new"):
        await design(study, Says(), Request({}, 0, 2, 12))


async def test_an_edit_of_the_whole_file_keeps_its_own_new_knobs(study: Study) -> None:
    edited = TRAIN.replace("WIDTH = 4\n", "WIDTH = 4\nEXTRA = None\n").replace("seed %", "(EXTRA or 0) + seed %")
    wave = await wave_of(study, Proposal("extra", "one more", (Factor("RATE", (0.3,)),), edit=edited))
    (cell,) = [one for one in experiments(study, wave) if one.role is Role.CELL]
    assert reading.candidate(study.journal, "mar5", cell.candidate).knobs == {"RATE": 0.3, "EXTRA": None}


async def test_uncommitted_edits_of_the_user_take_no_part_in_a_wave(study: Study) -> None:
    root = study.workspace.root
    (root / "train.py").write_text("RATE = 'nonsense'\n")
    (root / "program.md").write_text(PROGRAM + "more\n")
    wave = await wave_of(open_study(find(root), study.journal, "mar5"), factors(RATE=(0.3,)))
    complete(study, wave)
    assert study.incumbent.knobs == {"RATE": 0.3}
    assert (root / "train.py").read_text() == "RATE = 'nonsense'\n"
    assert git(root, "show", f"{BRANCH}:train.py") + "\n" == TRAIN.replace("0.5", "0.3")


async def test_beginning_a_wave_again_after_a_crash_makes_the_same_candidates(study: Study) -> None:
    proposer, request = Says(factors(RATE=(0.3, 0.2))), Request({}, 0, 2, 12)
    designed = await design(study, proposer, request)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "record", lambda *_: (_ for _ in ()).throw(Cut))
        with pytest.raises(Cut):
            begin(study, proposer, request, designed, VirtualClock())
    before = refs(study.workspace.root)
    begin(study, proposer, request, designed, VirtualClock())
    assert refs(study.workspace.root) == before
