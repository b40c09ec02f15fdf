"""A proposer that thinks and one that stands in for it: never idle, never stuck, never dearer than it may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults import SMALL
from nights import TAG, Ideas, Night, Nobody, make_workspace

from controller.backends.simulated import Simulated, load
from controller.budget import Caps
from controller.clock import VirtualClock
from controller.edits import model_digest, set_knobs
from controller.journal import Journal, ProposerAnswered, ProposerAsked, WaveDesigned, reading
from controller.proposers.api import Unavailable
from controller.proposers.prices import Tokens
from controller.proposers.protocol import Choosy, Context, Frugal, Jotting, Metered, Notetaker
from controller.proposers.relay import LOOPS, MOST_PAUSE_SECONDS, PATIENCE_SECONDS, PAUSE_SECONDS, Relay
from controller.records import Factor, Objection, Proposal, Refusal
from controller.search import Order, Outside, Search, Stop
from controller.study import open_study
from controller.workspace import open_directory
from tests.foreign import TRAIN

EDITED = TRAIN.replace('print("seed", seed)', 'print("the seed is", seed)')
MOVED = f'"""A longer docstring, so that all lines are elsewhere."""\n# and a comment\n{TRAIN}'.replace(
    "RATE = 0.5", "RATE = 0.3"
)


def context(source: str = TRAIN, **models: int) -> Context:
    known = {
        model_digest(source): "c0000",
        **{model_digest(source, {"WIDTH": at}): name for name, at in models.items()},
    }
    return Context(source, True, 0.0005, known, (), 0, evaluated=False)


def wide(width: int, name: str = "") -> Proposal:
    return Proposal(name or f"width {width}", "wider is better", (Factor("WIDTH", (width,)),))


class Thinker:
    """Answers what it is given: proposals, or an exception, each after some seconds by the clock, for some dollars."""

    name = "thinker"
    usd_at_most = 1.0

    def __init__(self, clock: VirtualClock, *answers: tuple[float, list[Proposal] | Exception]) -> None:
        self.usd_spent = 0.0
        self.answers = list(answers)
        self.asked: list[tuple[float, Context, int]] = []
        self.remarks: list[str] = []
        self.noted: list[Jotting] = []
        self.refused: list[Refusal] = []
        self._clock = clock

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        self.asked.append((self._clock.monotonic(), context, room))
        seconds, said = self.answers.pop(0) if self.answers else (1.0, [])
        await self._clock.sleep(seconds)
        self.usd_spent += 0.4
        if isinstance(said, Exception):
            raise said
        return said

    def remark(self, text: str) -> None:
        self.remarks.append(text)

    def jottings(self) -> Sequence[Jotting]:
        found, self.noted = self.noted, []
        return found

    def refusals(self) -> Sequence[Refusal]:
        found, self.refused = self.refused, []
        return found

    def metered(self) -> tuple[str, Tokens]:
        return "a-model", Tokens(1, 2, 3, 4)


class StandIn:
    """Answers at once, while it has something."""

    name = "stand-in"
    usd_at_most = 0.0
    usd_spent = 0.0

    def __init__(self, answers: int = 99) -> None:
        self.left = answers

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        self.left -= 1
        return [wide(1000 + self.left, "standing in")] if self.left >= 0 else []


class Scene:
    """A relay of the two, and what it said."""

    def __init__(self, *answers: tuple[float, list[Proposal] | Exception], stand_in: int = 99) -> None:
        self.clock = VirtualClock()
        self.thinker = Thinker(self.clock, *answers)
        self.said: list[str] = []
        self.relay = Relay(self.thinker, StandIn(stand_in), self.clock, self.said.append)

    def run(self, main: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
        self.clock.run(main(self))

    async def names(self, context: Context, room: int = 4, pressing: bool = True) -> list[str]:
        """What it proposes, where clusters soon run out of work, or have enough."""
        asked = asyncio.ensure_future(self.relay.propose(context, room))
        await self.clock.sleep(0)
        if pressing:
            self.relay.hurry()
        return [one.name for one in await asked]


def test_the_first_answers_as_long_as_it_does(tmp_path: Path) -> None:
    async def main(scene: Scene) -> None:
        assert await scene.names(context()) == ["width 8"]
        assert (scene.relay.name, scene.relay.usd_spent, scene.said) == ("thinker", pytest.approx(0.4), [])
        assert [room for *_, room in scene.thinker.asked] == [4]

    Scene((100.0, [wide(8)])).run(main)


def test_one_that_thinks_too_long_is_stood_in_for_and_its_answer_serves_the_next_call() -> None:
    async def main(scene: Scene) -> None:
        relay, clock = scene.relay, scene.clock
        assert await scene.names(context()) == ["standing in"] and relay.name == "stand-in"
        assert clock.monotonic() == pytest.approx(PATIENCE_SECONDS)
        assert relay.usd_spent == pytest.approx(1.0), "what it may yet cost counts as spent"
        assert await scene.names(context()) == ["standing in"]
        assert clock.monotonic() == pytest.approx(PATIENCE_SECONDS), "patience counts from when it was asked"
        await clock.sleep(400)
        assert relay.usd_spent == pytest.approx(1.0), "what a call has cost is told by a call"
        assert await scene.names(context()) == ["width 8"] and relay.name == "thinker"
        assert relay.usd_spent == pytest.approx(0.4), "and so less than nothing, this time"
        assert len(scene.thinker.asked) == 1
        assert scene.said == [
            "thinker has been thinking for 120 seconds, and clusters run out of work: stand-in proposes meanwhile",
            "thinker proposes again",
        ]

    Scene((300.0, [wide(8)])).run(main)


def test_patience_can_be_longer() -> None:
    async def main(scene: Scene) -> None:
        scene.relay = Relay(scene.thinker, StandIn(), scene.clock, patience=400.0)
        assert await scene.names(context()) == ["width 8"]

    Scene((300.0, [wide(8)])).run(main)


def test_it_may_think_as_long_as_clusters_have_work() -> None:
    async def main(scene: Scene) -> None:
        assert await scene.names(context(), pressing=False) == ["width 8"]
        assert scene.clock.monotonic() == pytest.approx(3000.0) and scene.said == []

    Scene((3000.0, [wide(8)])).run(main)


def test_where_they_run_out_of_it_while_it_thinks_it_has_no_more_time() -> None:
    async def main(scene: Scene) -> None:
        asked = asyncio.ensure_future(scene.names(context(), pressing=False))
        await scene.clock.sleep(1000.0)
        assert not asked.done()
        scene.relay.hurry()
        assert await asked == ["standing in"] and scene.clock.monotonic() == pytest.approx(1000.0)

    Scene((3000.0, [wide(8)])).run(main)


def test_a_late_answer_is_held_against_what_is_known_by_now() -> None:
    late = [wide(8), wide(9), replace(wide(10), factors=(Factor("WIDHT", (1,)),), name="typo")]

    async def main(scene: Scene) -> None:
        await scene.names(context())
        await scene.clock.sleep(400)
        assert await scene.names(context(c0008=8)) == ["width 9"]
        found = [(one.name, one.label) for one in scene.relay.refusals()]
        assert found == [("width 8", Objection.DUPLICATE), ("typo", Objection.EDIT)]
        assert scene.relay.refusals() == []

    Scene((300.0, late)).run(main)


def test_a_late_edit_is_made_anew_where_the_incumbent_has_changed() -> None:
    late = [
        replace(wide(8, "an edit"), edit=EDITED),
        Proposal("no more", "h", (), edit=TRAIN.replace("RATE = 0.5", "HALF = 0.25\nRATE = 2 * HALF")),
        wide(9),
    ]

    async def main(scene: Scene) -> None:
        await scene.names(context())
        await scene.clock.sleep(400)
        moved, other = await scene.relay.propose(context(MOVED), 4)
        assert moved.edit == MOVED.replace('print("seed", seed)', 'print("the seed is", seed)')
        assert other == wide(9)
        (refused,) = scene.relay.refusals()
        assert refused.name == "no more" and "the incumbent has changed since it was proposed" in refused.reason

    Scene((300.0, late)).run(main)


def test_a_failure_is_stood_in_for_and_it_is_left_alone_ever_longer() -> None:
    async def main(scene: Scene) -> None:
        clock, asked = scene.clock, scene.thinker.asked
        pause = PAUSE_SECONDS
        for times in range(1, 8):
            assert await scene.names(context()) == ["standing in"]
            assert len(asked) == times
            await clock.sleep(pause - 1)
            assert await scene.names(context()) == ["standing in"] and len(asked) == times
            await clock.sleep(1)
            pause = min(2 * pause, MOST_PAUSE_SECONDS)
        scene.thinker.answers = [(1.0, [wide(8)]), (1.0, Unavailable("it is down again"))]
        assert await scene.names(context()) == ["width 8"]
        assert await scene.names(context(c0008=8)) == ["standing in"]
        assert scene.said == [
            "thinker gives no answer (it is overloaded): stand-in proposes meanwhile",
            "thinker proposes again",
            "thinker gives no answer (it is down again): stand-in proposes meanwhile",
        ]

    Scene(*[(0.0, Unavailable("it is overloaded"))] * 7).run(main)


def test_answers_that_go_round_in_circles_are_noticed_and_told() -> None:
    async def main(scene: Scene) -> None:
        thinker = scene.thinker
        for times in range(1, LOOPS + 1):
            assert await scene.names(context(c0008=8)) == ["standing in"] and len(thinker.asked) == times
            assert len(thinker.remarks) == (times == LOOPS)
        assert "None of your last 3 answers" in thinker.remarks[0]
        await scene.names(context(c0008=8))
        assert len(thinker.asked) == LOOPS, "it is left alone for a while"
        assert len(scene.said) == 1 and len(scene.relay.refusals()) == LOOPS
        await scene.clock.sleep(PAUSE_SECONDS)
        assert await scene.names(context(c0008=8)) == ["width 9"]

    Scene(*[(0.0, [wide(8)])] * LOOPS, (0.0, [wide(9)])).run(main)


def test_where_it_cannot_be_paid_it_is_not_asked() -> None:
    async def main(scene: Scene) -> None:
        relay = scene.relay
        relay.afford(lambda usd: usd <= 0.9)
        assert relay.usd_at_most == 0
        assert await scene.names(context()) == ["standing in"] and scene.thinker.asked == []
        assert scene.said == ["thinker costs more than is left for language models: stand-in proposes meanwhile"]
        relay.afford(lambda usd: usd <= 1.0)
        assert relay.usd_at_most == 1
        assert await scene.names(context()) == ["width 8"]

    Scene((0.0, [wide(8)])).run(main)


def test_a_late_answer_is_heard_though_no_other_can_be_paid() -> None:
    async def main(scene: Scene) -> None:
        await scene.names(context())
        scene.relay.afford(lambda usd: False)
        await scene.clock.sleep(400)
        assert await scene.names(context()) == ["width 8"]

    Scene((300.0, [wide(8)])).run(main)


def test_where_the_other_has_no_idea_the_first_is_waited_for() -> None:
    async def main(scene: Scene) -> None:
        assert await scene.names(context()) == ["width 8"]
        assert scene.clock.monotonic() == pytest.approx(700.0)
        with pytest.raises(Unavailable, match="thinker gives no answer"):
            await scene.names(context())
        assert len(scene.thinker.asked) == 2, "once a call: only so much is on the books"
        assert await scene.names(context()) == ["width 9"]
        assert scene.clock.monotonic() == pytest.approx(700.0 + PAUSE_SECONDS)
        assert await scene.names(context()) == []

    Scene((700.0, [wide(8)]), (0.0, Unavailable("down")), (0.0, [wide(9)]), stand_in=0).run(main)


def test_notes_and_refusals_and_tokens_are_passed_on() -> None:
    async def main(scene: Scene) -> None:
        relay = scene.relay
        assert isinstance(relay, Notetaker) and isinstance(relay, Choosy)
        assert isinstance(relay, Metered) and isinstance(relay, Frugal)
        scene.thinker.noted = [Jotting("a lesson")]
        scene.thinker.refused = [Refusal("x", "h", "no", Objection.EDIT)]
        await scene.names(context())
        assert relay.jottings() == [Jotting("a lesson")] and [one.name for one in relay.refusals()] == ["x"]
        assert relay.metered() == ("a-model", Tokens(1, 2, 3, 4))

    Scene((0.0, [wide(8)])).run(main)


def test_a_call_that_is_called_off_leaves_it_thinking() -> None:
    async def main(scene: Scene) -> None:
        asking = asyncio.ensure_future(scene.names(context()))
        await scene.clock.sleep(10)
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled() and scene.relay.usd_spent == pytest.approx(1.0)
        await scene.clock.sleep(10)
        assert await scene.names(context()) == ["width 8"] and len(scene.thinker.asked) == 1

    Scene((15.0, [wide(8)])).run(main)


# ---------------------------------------------------------------------------------------------------------------------
# In a search


class Model:
    """A language model in a simulated night: one knob an answer; slow, down, dear and silly, each in its turn."""

    name = "model"
    usd_at_most = 1.0

    def __init__(self, clock: VirtualClock) -> None:
        self.usd_spent = 0.0
        self.calls = 0
        self._clock = clock

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        self.calls += 1
        trouble = self.calls % 5
        await self._clock.sleep(2000.0 if trouble == 1 else 30.0)
        self.usd_spent += 0.7
        if trouble == 2:
            raise Unavailable("it is overloaded")
        knob = f"K{self.calls % 12 + 1:02d}"
        if trouble == 3:
            return [Proposal("again", "h", (), edit=context.source)]
        source = set_knobs(context.source, {knob: 5})
        return [
            Proposal("an edit", "h", (), edit=f"{source}\n# {self.calls}\n"),
            Proposal(f"sweep {knob}", "h", (Factor(knob, tuple(range(self.calls * 10, self.calls * 10 + 8))),)),
        ]


@pytest.fixture
def night(tmp_path: Path) -> Any:
    found = Night(make_workspace(tmp_path / "workspace", SMALL), load().with_faults(0), 1)
    journal = Journal.open(open_directory(found.workspace), found.clock, durable=False)
    yield found, journal
    journal.close()


def searched(night: Any, cap: float) -> tuple[Stop, Model, list[str]]:
    world, journal = night
    model, said = Model(world.clock), []
    relay = Relay(model, Ideas(world.clock, 1), world.clock, said.append)
    order = Order({"proposer": "model"}, 0, 8, caps=Caps(hours=6, llm_usd=cap))
    outside = Outside(Simulated(world.world, world.clock), relay, Nobody(), said.append)
    search = Search(open_study(world.workspace, journal, TAG), order, outside, world.clock)
    return world.clock.run(search.run()), model, said


def test_a_night_goes_on_whatever_the_model_does_and_costs_no_more_than_it_may(night: Any) -> None:
    stop, model, said = searched(night, cap=6.0)
    journal = night[1]
    assert stop.why == "budget" and "hours" in stop.sentence, "the money for the model ends nothing"
    assert model.usd_spent <= 6.0 and model.calls >= 5
    proposers = [event.wave.proposer for *_, event in journal.events(TAG) if isinstance(event, WaveDesigned)]
    assert {"model", Ideas.name} == set(proposers) and proposers[-1] == Ideas.name
    assert any(f"{Ideas.name} proposes meanwhile" in line for line in said) and "model proposes again" in said

    spent, open_calls = 0.0, {}
    for *_, event in journal.events(TAG):
        if isinstance(event, ProposerAsked):
            open_calls[event.call] = event.usd_at_most
        elif isinstance(event, ProposerAnswered):
            del open_calls[event.call]
            spent += event.usd
        assert spent + sum(open_calls.values()) <= 6.0 + 1e-9
    assert spent == pytest.approx(model.usd_spent) and reading.llm_usd(journal, TAG) == pytest.approx(spent)


def test_no_money_at_all_is_a_night_without_the_model(night: Any) -> None:
    stop, model, _ = searched(night, cap=0.5)
    assert stop.why == "budget" and "hours" in stop.sentence and model.calls == 0
    assert reading.llm_usd(night[1], TAG) == 0
