from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import log2
from pathlib import Path
from statistics import fmean

import pytest

from controller.clock import VirtualClock
from controller.designs import cells
from controller.edits import broken_promise, model_digest, read_knobs
from controller.history import history
from controller.journal import reading
from controller.proposers import Context, Doe, Observation, PastDesign, PastWave
from controller.proposers.tpe import KNOBS, REACH, Optuna, axes
from controller.records import Design, Experiment, Factor, Knobs, Proposal, Role, Value
from controller.wave import Request, begin, design
from tests.foreign import workspace
from tests.studies import Answers, finish, open_in

TRAIN = (Path(__file__).parents[2] / "train" / "train.py").read_text()
SMALL = "MATRIX_LR = 0.04\nDEPTH = 8\nWEIGHT_DECAY = 0.2\nBATCH = 64\nprint(MATRIX_LR, DEPTH, WEIGHT_DECAY, BATCH)\n"
BEST = {"MATRIX_LR": 0.02, "DEPTH": 6, "WEIGHT_DECAY": 0.5, "BATCH": 128}
Score = Callable[[Knobs], float | None]


def number(value: Value) -> float:
    assert isinstance(value, int | float)
    return value


def bowl(knobs: Knobs) -> float:
    """0.01 for every knob that is one doubling from the best, four times that at two, and nothing is separable."""
    away = [log2(number(knobs[knob]) / best) for knob, best in BEST.items()]
    return 1 + 0.01 * (sum(one**2 for one in away) + away[0] * away[2])


@dataclass
class Study:
    """What the controller does around a proposer, without clusters; the incumbent stays what it is."""

    source: str
    score: Score
    minimize: bool = True
    seed: int = 0
    models: dict[str, str] = field(default_factory=dict)
    history: list[PastWave] = field(default_factory=list)
    tried: list[Knobs] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)

    def context(self) -> Context:
        self.models.setdefault(model_digest(self.source), "c0000")
        return Context(self.source, self.minimize, 0.0005, dict(self.models), tuple(self.history), self.seed)

    async def wave(self, room: int = 6) -> list[Proposal]:
        proposals = await Optuna().propose(self.context(), room)
        assert len(proposals) <= room
        base = read_knobs(self.source)
        varied = {factor.knob: base[factor.knob] for proposal in proposals for factor in proposal.factors}
        designs = []
        for proposal in proposals:
            (cell,) = cells(proposal.design, proposal.factors, base)
            assert proposal.design is Design.FULL and proposal.edit is None
            assert broken_promise(self.source, cell) is None
            digest = model_digest(self.source, cell)
            assert digest not in self.models, "a model was proposed twice"
            self.models[digest] = "tried"
            self.tried.append(base | cell)
            self.scores.append(self.score(base | cell))
            designs.append(PastDesign(proposal.factors, (Observation(varied | cell, self.scores[-1]),)))
        control = self.score(base)
        controls = () if control is None else (control,) * 3
        self.history.append(PastWave(f"w{len(self.history)}", varied, tuple(designs), controls, False))
        return proposals

    @property
    def best(self) -> float:
        known = [score for score in self.scores if score is not None]
        return min(known) if self.minimize else max(known)


async def searched(seed: int, waves: int = 8, sign: int = 1) -> float:
    study = Study(SMALL, lambda knobs: sign * bowl(knobs), sign > 0, seed)
    for _ in range(waves):
        await study.wave()
    return sign * study.best - 1


async def test_it_comes_nearer_to_the_best_than_random_search_at_equal_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    seeds = range(6)
    ours = [await searched(seed) for seed in seeds]
    upside_down = [await searched(seed, sign=-1) for seed in seeds]
    monkeypatch.setattr(optuna.samplers, "TPESampler", lambda seed, **_: optuna.samplers.RandomSampler(seed))
    at_random = [await searched(seed) for seed in seeds]
    start = bowl(read_knobs(SMALL)) - 1
    assert fmean(ours) < 0.1 * start
    assert fmean(ours) < 0.5 * fmean(at_random)
    assert sum(one < other for one, other in zip(ours, at_random, strict=True)) >= 5
    assert fmean(upside_down) == pytest.approx(fmean(ours)), "larger can be better"


async def test_the_same_study_gets_the_same_proposals_and_another_seed_others() -> None:
    study = Study(TRAIN, lambda knobs: number(knobs["MATRIX_LR"]))
    for _ in range(2):
        first, again = [await Optuna().propose(study.context(), 12) for _ in range(2)]
        assert first == again and len(first) == 12
        assert first != await Optuna().propose(replace(study.context(), seed=1), 12)
        await study.wave(12)


def pending(*found: Knobs) -> tuple[PastDesign, ...]:
    return tuple(
        PastDesign(tuple(Factor(knob, (value,)) for knob, value in knobs.items()), (Observation(knobs, None),))
        for knobs in found
    )


async def test_it_looks_elsewhere_than_what_is_being_screened() -> None:
    source = "PEAK_LR = 0.04\nMATRIX_LR = 0.04\nprint(PEAK_LR, MATRIX_LR)\n"

    async def near(seed: int, running: int) -> int:
        """How many of eight cells are near the best one, with so many running there."""
        study = Study(source, lambda knobs: log2(number(knobs["PEAK_LR"]) / 0.03) ** 2, seed=seed)
        for _ in range(4):
            await study.wave()
        there = [{"PEAK_LR": 0.0295 + at / 1e4, "MATRIX_LR": 0.04} for at in range(running)]
        proposals = await Optuna().propose(replace(study.context(), pending=pending(*there)), 8)
        at = [number(factor.levels[0]) for one in proposals for factor in one.factors if factor.knob == "PEAK_LR"]
        return sum(abs(log2(one / 0.03)) < 0.1 for one in at)

    crowded, free = [[await near(seed, running) for seed in range(6)] for running in (24, 0)]
    assert sum(crowded) < sum(free)


async def test_what_failed_is_avoided() -> None:
    def score(knobs: Knobs) -> float | None:
        return None if number(knobs["DEPTH"]) > 8 else log2(number(knobs["MATRIX_LR"]) / 0.02) ** 2

    early = late = 0
    for seed in range(4):
        study = Study(SMALL, score, seed=seed)
        for _ in range(8):
            await study.wave()
        early += study.scores[:12].count(None)
        late += study.scores[-12:].count(None)
    assert early >= 10 and late < early / 2


async def test_knobs_of_every_kind_stay_what_they_are() -> None:
    source = """\
LR = 0.04
NEGATIVE = -2.0
DEPTH = 2
BATCH = 64
RAMP = 300
STEPS = 0
MOMENTUM = 0.95
WARMDOWN_RATIO = 0.5
WARMUP_RATIO = 0.0
USE_BIAS = True
SHAPE = "flat"
PATTERN = "SL"
BETAS = (0.8, 0.95)
NAME = "plain"
FLAG = -1
SEED = 3
TINY = 5e-324
HUGE = 2**60 + 1
assert SHAPE in ("flat", "steep", 7)
assert DEPTH < 4, "not deeper"
run(LR, NEGATIVE, DEPTH, BATCH, RAMP, STEPS, MOMENTUM, WARMDOWN_RATIO, WARMUP_RATIO, USE_BIAS, SHAPE, PATTERN, BETAS)
run(NAME, FLAG, SEED, TINY, HUGE)
"""
    tried = (Factor("PATTERN", ("L", "SL", 4)), Factor("BETAS", ((0.9, 0.95),)), Factor("LR", (1.0,)))
    study = Study(source, lambda knobs: number(knobs["LR"]))
    study.history.append(PastWave("w0", {"PATTERN": "SL"}, (PastDesign(tried, ()),), (1.0,), False))
    assert [axis.knob for axis in axes(study.context(), read_knobs(source))][:2] == ["LR", "DEPTH"]
    for _ in range(4):
        await study.wave(12)
    seen: dict[str, set[Value]] = {}
    for knobs in study.tried:
        for knob, value in knobs.items():
            seen.setdefault(knob, set()).add(value)
    assert len(axes(study.context(), read_knobs(source))) == KNOBS
    for knob in ("NAME", "FLAG", "SEED", "TINY", "HUGE"):
        assert len(seen[knob]) == 1, knob
    assert seen["SHAPE"] <= {"flat", "steep"} and seen["BETAS"] <= {(0.8, 0.95), (0.9, 0.95)}
    assert seen["USE_BIAS"] <= {True, False} and seen["PATTERN"] <= {"L", "SL"}
    assert seen["DEPTH"] == {1, 2, 3} and seen["BATCH"] == {32, 64, 128}
    assert all(type(value) is int and 0 <= value <= 2 for value in seen["STEPS"])
    assert all(0.5 < number(value) < 1 for value in seen["MOMENTUM"])
    assert all(0.2 <= number(value) <= 0.8 for value in seen["WARMDOWN_RATIO"])
    assert all(-2 * 2**REACH <= number(value) < 0 for value in seen["NEGATIVE"])
    assert all(float(f"{number(value):.3g}") == value for value in seen["LR"] | seen["WARMUP_RATIO"])


async def test_the_range_follows_the_incumbent_and_keeps_what_has_been_seen() -> None:
    before = PastWave("w0", {"LR": 0.01}, pending({"LR": 0.001}), (1.0,), True)
    context = Context("LR = 0.04\nprint(LR)\n", True, 0.0005, {}, (before,), 0)
    proposals = [await Optuna().propose(replace(context, seed=seed), 6) for seed in range(8)]
    seen = [number(proposal.factors[0].levels[0]) for found in proposals for proposal in found]
    assert 0.001 <= min(seen) < 0.01 and 0.08 < max(seen) <= 0.04 * 2**REACH + 0.001


async def test_cells_that_cannot_be_placed_are_not_misread() -> None:
    """An edit's, one with knobs that are no more, and one that varies what is not searched."""
    source = 'LR = 0.04\nNAME = "a"\nprint(LR, NAME)\n'
    edit = PastDesign((), (Observation({"LR": 0.04}, 0.0),), edited=True)
    gone = PastDesign((Factor("GONE", (1,)),), (Observation({"LR": 0.02, "GONE": 1}, 0.0),))
    other = PastDesign((Factor("TEXT", ("x",)),), (Observation({"TEXT": "x", "LR": 0.02}, 0.0),))
    strange = PastDesign((Factor("LR", ("x",)),), (Observation({"LR": "x"}, float("nan")),))
    wave = PastWave("w0", {"LR": 0.04, "GONE": 2}, (edit, gone, other, strange), (), False)
    context = Context(source, True, 0.0005, {}, (wave,), 0)
    assert "nothing is known yet" in (await Optuna().propose(context, 1))[0].hypothesis


async def test_cells_on_top_of_an_edit_count_once_the_edit_was_kept() -> None:
    source = 'LR = 0.04\nKIND = "a"\nprint(LR, KIND)\n'
    factors = (Factor("LR", (0.001,)), Factor("KIND", ("b",)))
    edit = PastDesign(factors, (Observation({"LR": 0.001, "KIND": "b"}, 0.5),), edited=True)
    other = PastDesign(factors[:1], (Observation({"LR": 0.001}, None),), edited=True)

    async def asked(*designs: PastDesign, running: tuple[PastDesign, ...] = ()) -> tuple[list[str], str]:
        history = (PastWave("w0", {"LR": 0.04, "KIND": "a"}, designs, (), False),)
        context = Context(source, True, 0.0005, {}, history, 0, running)
        found = [axis.knob for axis in axes(context, read_knobs(source))]
        return found, (await Optuna().propose(context, 1))[0].hypothesis

    nothing = await asked()
    assert nothing == await asked(edit, other) == await asked(running=(edit, other)), "the file that has b is another"
    knobs, why = await asked(replace(edit, kept=True))
    assert knobs == ["LR", "KIND"] and "of 1 so far" in why


async def test_what_was_tried_is_asked_for_model_by_model() -> None:
    class Tried(Mapping[str, str]):
        def __getitem__(self, digest: str) -> str:
            raise KeyError(digest)

        def __iter__(self) -> Iterator[str]:
            raise AssertionError("all of them were asked for")

        def __len__(self) -> int:
            raise AssertionError("all of them were counted")

    assert len(await Optuna().propose(replace(Study(TRAIN, bowl).context(), models=Tried()), 4)) == 4


@pytest.mark.parametrize("room", [0, 1, 5, 24])
async def test_any_room_is_respected(room: int) -> None:
    assert len(await Study(TRAIN, lambda knobs: 1.0).wave(room)) == room


async def test_it_ends_when_everything_was_tried() -> None:
    study = Study("DEPTH = 2\nUSE_X = True\nassert DEPTH < 4\nprint(DEPTH, USE_X)\n", lambda knobs: 1.0)
    waves = 0
    while await study.wave(4):
        waves += 1
        assert waves < 10
    assert len(study.tried) == 3 * 2 - 1


@pytest.mark.parametrize("source", ["", "print(1)\n", "SEED = 1\nprint(SEED)\n", "UNUSED = 0.5\n", "A = -1\nf(A)\n"])
async def test_a_file_without_knobs_that_matter_gives_no_ideas(source: str) -> None:
    assert await Optuna().propose(Study(source, lambda _: 1.0).context(), 12) == []


def test_nothing_is_printed_and_optuna_is_imported_only_when_it_is_asked(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from controller.proposers import Context
from controller.proposers.tpe import Optuna
assert "optuna" not in sys.modules
context = Context("LR = 0.04\\nprint(LR)\\n", True, 0.0, {}, (), 0)
assert len(asyncio.run(Optuna().propose(context, 3))) == 3
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_its_waves_run_and_what_they_say_is_heard_by_it_and_by_doe(tmp_path: Path) -> None:
    def answer(knobs: Knobs, one: Experiment) -> float:
        luck = hash((one.seed, repr(knobs))) % 10 / 1e5
        return 1 + (number(knobs["RATE"]) - 0.3) ** 2 + one.seed % 7 / 1e3 + luck

    study = open_in(workspace(tmp_path / "foreign"))
    proposer, request = Optuna(), Request({}, 0, 2, 8)
    for waves in (1, 2):
        wave = begin(study, proposer, request, await design(study, proposer, request), VirtualClock())
        assert wave.proposer == "optuna"
        finish(study, wave.id, Answers(study, answer))
        ran = [row.experiment for row in reading.results_of(study.journal, study.tag, wave=wave.id)]
        assert len({one.candidate for one in ran if one.role is Role.CELL}) == 8
        past = history(study)
        assert len(past) == waves and all(len(one.cells) == 1 and one.factors for one in past[-1].designs)
    assert study.incumbent.id != "c0000"
    seen = Context(study.workspace.source(study.tip), True, 0.0005, {}, history(study), 0)
    assert "of 18 so far" in (await Optuna().propose(seen, 1))[0].hypothesis, "16 cells, and each wave's controls"
    assert await Doe().propose(seen, 8)
    study.journal.close()
