from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import log2
from pathlib import Path

import pytest

from controller.designs import cells, controls_for
from controller.edits import broken_promise, model_digest, read_knobs, set_knobs
from controller.proposers import Context, Doe, Observation, PastDesign, PastWave
from controller.proposers.tpe import Optuna
from controller.records import Design, Factor, Knobs, Proposal, Value

TRAIN = (Path(__file__).parents[2] / "train" / "train.py").read_text()
BEST = {
    "MATRIX_LR": 0.02,
    "UNEMBEDDING_LR": 0.016,
    "DEPTH": 12,
    "ASPECT_RATIO": 32,
    "WARMDOWN_RATIO": 0.8,
    "WEIGHT_DECAY": 0.1,
}


def number(value: Value) -> float:
    assert isinstance(value, int | float)
    return value


def bowl(knobs: Knobs) -> float:
    """0.01 for every knob that is one doubling from the best, four times that at two; lower is better."""
    return 1 + 0.01 * sum(log2(number(knobs[knob]) / best) ** 2 for knob, best in BEST.items())


@dataclass
class Study:
    """What the controller does around a proposer, without clusters: runs waves, keeps a better cell."""

    source: str
    score: Callable[[Knobs], float | None]
    minimize: bool = True
    noise: float = 0.0
    models: dict[str, str] = field(default_factory=dict)
    history: list[PastWave] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    def context(self, seed: int = 0) -> Context:
        return Context(self.source, self.minimize, 0.0005, dict(self.models), tuple(self.history), seed)

    async def wave(self, room: int = 12) -> list[Proposal]:
        proposals = await Doe().propose(self.context(), room)
        base = read_knobs(self.source)
        varied = {factor.knob: base[factor.knob] for proposal in proposals for factor in proposal.factors}
        self.models.setdefault(model_digest(self.source), "incumbent")
        tried, past = [], []
        for proposal in proposals:
            observed = []
            for cell in cells(proposal.design, proposal.factors, base):
                if all(base[knob] == level for knob, level in cell.items()):
                    continue  # a factorial's cell that is the incumbent: the controls are that cell
                digest = model_digest(self.source, cell)
                assert digest not in self.models, "a model was proposed twice"
                assert broken_promise(self.source, cell) is None
                self.models[digest] = proposal.name
                tried.append(varied | cell)
                observed.append(Observation(varied | cell, self.measure(base | cell)))
            past.append(PastDesign(proposal.factors, tuple(observed)))
        assert len(tried) <= room
        controls = tuple(number(self.measure(base)) for _ in range(controls_for(len(tried))))
        kept = self.keep(base, tried)
        self.history.append(PastWave(f"w{len(self.history)}", varied, tuple(past), controls, kept))
        return proposals

    def measure(self, knobs: Knobs) -> float | None:
        score = self.score(knobs)
        return None if score is None else score + self.rng.gauss(0, self.noise)

    def keep(self, base: Knobs, tried: list[dict[str, Value]]) -> bool:
        """The cell that is truly best, where it is better by more than the noise, as confirmation would find."""
        sign = 1 if self.minimize else -1
        scores = [
            (sign * score, at) for at, cell in enumerate(tried) if (score := self.score({**base, **cell})) is not None
        ]
        if not scores or min(scores)[0] >= sign * number(self.score(base)) - self.noise:
            return False
        self.source = set_knobs(self.source, tried[min(scores)[1]])
        return True


@pytest.mark.parametrize(("noise", "left"), [(0.0, 0.1), (0.002, 0.2)])
async def test_six_waves_come_near_the_optimum(noise: float, left: float) -> None:
    study = Study(TRAIN, bowl, noise=noise)
    start = bowl(read_knobs(TRAIN)) - 1
    for _ in range(6):
        await study.wave()
    assert bowl(read_knobs(study.source)) - 1 < left * start


async def test_larger_can_be_better() -> None:
    study = Study(TRAIN, lambda knobs: -bowl(knobs), minimize=False)
    for _ in range(4):
        await study.wave()
    assert bowl(read_knobs(study.source)) - 1 < 0.3 * (bowl(read_knobs(TRAIN)) - 1)


async def test_the_first_wave_is_a_screen_and_a_sweep_around_the_incumbent() -> None:
    screen, sweep = await Doe().propose(Study(TRAIN, bowl).context(), 12)
    assert (screen.design, sweep.design) == (Design.SCREEN, Design.SWEEP)
    assert [factor.knob for factor in screen.factors[:3]] == ["MATRIX_LR", "DEPTH", "ASPECT_RATIO"]
    assert [factor.knob for factor in sweep.factors] == ["MATRIX_LR", "DEPTH"]
    assert screen.factors[0].levels == (0.02, 0.08)
    assert set(sweep.factors) <= set(screen.factors)


async def test_a_resolved_effect_is_followed_from_where_the_incumbent_is() -> None:
    study = Study(TRAIN, bowl)
    await study.wave()
    present = read_knobs(study.source)
    follow = (await study.wave())[0]
    assert follow.design is Design.FULL and follow.predicted is not None and follow.predicted < 0
    assert all(factor.levels[0] == present[factor.knob] for factor in follow.factors)


async def test_a_step_that_failed_is_halved() -> None:
    study = Study("LR = 0.04\nprint(LR)\n", lambda knobs: abs(log2(number(knobs["LR"]) / 0.052)))
    tried = [
        [cell["LR"] for p in await study.wave(2) for cell in cells(p.design, p.factors, {"LR": 0})] for _ in range(4)
    ]
    assert tried[0] == [0.02, 0.08]
    assert abs(log2(number(read_knobs(study.source)["LR"]) / 0.052)) < 0.2


@pytest.mark.parametrize("room", [0, 1, 2, 3, 5, 8, 16, 24])
async def test_any_room_is_respected_and_no_model_repeated(room: int) -> None:
    study = Study(TRAIN, bowl)
    for _ in range(3):
        proposals = await study.wave(room)
        assert bool(proposals) == (room > 0)


async def test_it_ends_when_everything_was_tried() -> None:
    source = "LR = 0.1\nDEPTH = 2\nPATTERN = 'SL'\nBATCH = 64\nassert DEPTH < 5\nprint(LR, DEPTH, PATTERN, BATCH)\n"
    study = Study(source, lambda knobs: (number(knobs["LR"]) - 0.3) ** 2 + abs(number(knobs["DEPTH"]) - 3))
    waves = 0
    while await study.wave(8):
        waves += 1
        assert waves < 40
    assert read_knobs(study.source)["DEPTH"] == 3
    assert abs(number(read_knobs(study.source)["LR"]) - 0.3) < 0.05


async def test_the_same_study_gets_the_same_proposals() -> None:
    study = Study(TRAIN, bowl, noise=0.001)
    await study.wave()
    assert await Doe().propose(study.context(), 12) == await Doe().propose(study.context(), 12)


async def test_what_is_being_screened_is_left_alone_as_long_as_there_is_something_else() -> None:
    first = await Doe().propose(Study(TRAIN, bowl).context(), 12)
    pending = tuple(PastDesign(proposal.factors, ()) for proposal in first)
    context = replace(Study(TRAIN, bowl).context(), pending=pending)
    second = await Doe().propose(context, 12)
    asked = {factor.knob for proposal in first for factor in proposal.factors}
    assert second and asked.isdisjoint(factor.knob for proposal in second for factor in proposal.factors)
    single = replace(
        Study("LR = 0.1\nprint(LR)\n", bowl).context(), pending=(PastDesign((Factor("LR", (0.05,)),), ()),)
    )
    again = await Doe().propose(single, 2)
    assert {factor.knob for proposal in again for factor in proposal.factors} == {"LR"}, "there is nothing else"


async def test_what_is_being_screened_on_top_of_an_edit_need_not_be_waited_for() -> None:
    context = Study(TRAIN, bowl).context()
    first = await Doe().propose(context, 12)
    pending = tuple(PastDesign(proposal.factors, (), edited=True) for proposal in first)
    assert await Doe().propose(replace(context, pending=pending), 12) == first


@pytest.mark.parametrize("score", [0.5, 1.0, 2.0, None])
async def test_an_edit_changes_nothing_for_the_knobs_of_the_file_without_it(score: float | None) -> None:
    study = Study(TRAIN, bowl)
    first = await Doe().propose(study.context(), 12)
    base = {knob: read_knobs(TRAIN)[knob] for knob in ("MATRIX_LR", "DEPTH")}
    factors = (Factor("MATRIX_LR", (0.02, 0.04, 0.08)), Factor("DEPTH", (6, 8)))
    tried = tuple(Observation(cell, score) for cell in cells(Design.FULL, factors, base))
    design = PastDesign(factors, tried, edited=True)
    study.history.append(PastWave("w0", base, (design,), (1.0, 1.001, 0.999), False))
    assert await Doe().propose(study.context(), 12) == first


async def test_knobs_that_only_optuna_has_moved_are_screened_with_their_whole_step() -> None:
    study = Study(TRAIN, lambda knobs: 1.0)
    first = await Doe().propose(study.context(), 12)
    drawn = await Optuna().propose(study.context(), 12)
    base = read_knobs(TRAIN)
    varied = {factor.knob: base[factor.knob] for proposal in drawn for factor in proposal.factors}
    designs = [
        PastDesign(proposal.factors, (Observation({**varied, **{f.knob: f.levels[0] for f in proposal.factors}}, 1.1),))
        for proposal in drawn
    ]
    assert len(designs) == 12
    study.history.append(PastWave("w0", varied, tuple(designs), (1.0, 1.001, 0.999), False))
    assert await Doe().propose(study.context(), 12) == first


async def test_what_was_tried_is_asked_for_model_by_model() -> None:
    """There may be a hundred thousand: nobody is to go through them all."""

    class Tried(Mapping[str, str]):
        def __getitem__(self, digest: str) -> str:
            raise KeyError(digest)

        def __iter__(self) -> Iterator[str]:
            raise AssertionError("all of them were asked for")

        def __len__(self) -> int:
            raise AssertionError("all of them were counted")

    context = Study(TRAIN, bowl).context()
    assert await Doe().propose(replace(context, models=Tried()), 12) == await Doe().propose(context, 12)


async def test_a_level_that_always_crashes_is_left_alone() -> None:
    study = Study(TRAIN, lambda knobs: None if number(knobs["DEPTH"]) > 8 else bowl(knobs))
    await study.wave()
    later = [proposal for _ in range(3) for proposal in await study.wave()]
    assert all(10 not in factor.levels for proposal in later for factor in proposal.factors if factor.knob == "DEPTH")


@pytest.mark.parametrize(
    "source",
    [
        "",
        "print(1)\n",
        "PATTERN = 'SL'\nUSE_X = True\nSEED = 1\nprint(PATTERN, USE_X, SEED)\n",
        "UNUSED = 0.5\n",
        "A = -1\nf(A)\n",
    ],
)
async def test_a_file_without_numbers_that_matter_gives_no_ideas(source: str) -> None:
    assert await Doe().propose(Study(source, lambda _: 1.0).context(), 12) == []
