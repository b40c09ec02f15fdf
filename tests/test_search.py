"""The search over simulated nights: when it proposes, what it confirms, what it is told to stop by, whom it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from faults import SMALL
from nights import KNOBS, SOURCE, TAG, Ideas, Night, Nobody, make_workspace

from controller import hints
from controller.agents import answer
from controller.backends.simulated import Scenario, Simulated, load
from controller.budget import Caps
from controller.harness.fingerprint import fingerprint
from controller.inbox import Inbox, hand_in
from controller.journal import Journal, ProposalsRefused, ProposerAsked, WaveDesigned, WaveEnded, reading
from controller.proposers import Context, Jotting
from controller.proposers.brief import brief
from controller.proposers.submissions import Submissions
from controller.records import Design, Factor, Interrupted, NothingRan, Objection, Proposal, Refusal, Tier
from controller.search import CALL_PAUSE_SECONDS, FAILED_CALLS, Order, Outside, Search, Stop
from controller.study import Study, open_study
from controller.workspace import open_directory


def world(good: int = 10, faults: float = 0, **truth: object) -> Scenario:
    scenario = load().with_faults(faults)
    some = scenario.truth.good.model_copy(update={"count": good})
    return scenario.with_truth(good=some, crash=0.0, overtime=0.0, **truth)


class Stage:
    """A night, and one search of it after another."""

    def __init__(self, root: Path, scenario: Scenario, settings: str) -> None:
        self.night = Night(make_workspace(root, settings), scenario, 1)
        self.clock = self.night.clock
        self.journal = Journal.open(open_directory(self.night.workspace), self.clock, durable=False)
        self.said: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.backend = Simulated(self.night.world, self.clock)
        self.submissions = Submissions(Inbox(lambda: self.study), self.clock)

    def hand_in(self, knob: str, *levels: int) -> str:
        idea = {"name": f"of {knob}", "hypothesis": "one of these is better", "factors": {knob: [*levels]}}
        return hand_in(self.study, idea, self.clock)[0]

    def states(self, *names: str) -> list[str]:
        return [answer(self.journal, TAG, name)["state"] for name in names]

    @property
    def study(self) -> Study:
        return open_study(self.night.workspace, self.journal, TAG)

    def search(self, proposer: Any = None, **asked: Any) -> Search:
        order = Order({"proposer": "ideas"}, 0, asked.pop("clusters", 4), **asked)
        self.backend = Simulated(self.night.world, self.clock)
        tell: Callable[[str, str], None] = lambda title, text: self.told.append((title, text))  # noqa: E731
        proposer = proposer or Ideas(self.clock, 1)
        outside = Outside(self.backend, proposer, Nobody(), self.said.append, tell, self.submissions)
        return Search(self.study, order, outside, self.clock)

    def run(self, proposer: Any = None, **asked: Any) -> Stop:
        return self.clock.run(self.search(proposer, **asked).run())

    def times(self, kind: type) -> list[float]:
        return [at for at, _, event in self.journal.events(TAG) if isinstance(event, kind)]

    def waves(self) -> int:
        return len(reading.waves(self.journal, TAG))


Make = Callable[..., Stage]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    stages: list[Stage] = []

    def made(scenario: Scenario | None = None, settings: str = SMALL) -> Stage:
        stages.append(Stage(tmp_path / f"workspace{len(stages)}", scenario or world(), settings))
        return stages[-1]

    yield made
    for stage in stages:
        stage.journal.close()


class Sayings:
    """Proposes what it is given, a list a call; an exception is raised instead."""

    name = "sayings"
    usd_at_most = 0.0
    usd_spent = 0.0

    def __init__(self, *sayings: list[Proposal] | Exception) -> None:
        self.sayings = list(sayings)
        self.contexts: list[Context] = []
        self.rooms: list[int] = []
        self.known: list[int] = []

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        self.contexts.append(context)
        self.rooms.append(room)
        self.known.append(len(context.models))
        said = self.sayings.pop(0) if self.sayings else []
        if isinstance(said, Exception):
            raise said
        return said


def sweep(knob: str, *levels: int) -> list[Proposal]:
    return [Proposal(knob, "one of these is better", (Factor(knob, levels),), Design.SWEEP)]


def test_the_next_wave_is_proposed_while_this_one_trains_and_knows_what_is_pending(make: Make) -> None:
    stage, proposer = make(), Sayings(sweep("K01", 1, 2, 3, 4), sweep("K02", 1, 2, 3, 4))
    stage.run(proposer, waves=2)
    designed, ended = stage.times(WaveDesigned), stage.times(WaveEnded)
    assert designed[1] < ended[0]
    assert {factor.knob for design in proposer.contexts[1].pending for factor in design.factors} == {"K01"}
    assert proposer.contexts[1].history == ()
    assert proposer.known == [1, 5], "the incumbent, and four that are being tried"


def test_without_overlap_it_is_proposed_when_that_one_has_ended(make: Make) -> None:
    stage, proposer = make(), Sayings(sweep("K01", 1, 2, 3, 4), sweep("K02", 1, 2, 3, 4))
    stage.run(proposer, waves=2, overlap=False)
    assert stage.times(WaveDesigned)[1] >= stage.times(WaveEnded)[0]
    assert len(proposer.contexts[1].history) == 1 and proposer.contexts[1].pending == ()


def test_every_experiment_is_sent_its_own_candidates_files_and_its_own_seed(make: Make) -> None:
    stage = make()
    sent: dict[str, Any] = {}
    search = stage.search(waves=1)
    submit = stage.backend.submit

    async def noted(cluster: str, attempt: Any, bundle: Any) -> None:
        sent[attempt.experiment] = bundle
        await submit(cluster, attempt, bundle)

    stage.backend.submit = noted  # type: ignore[method-assign]
    stage.clock.run(search.run())
    results = reading.results_of(stage.journal, TAG)
    assert sent.keys() == {result.experiment.id for result in results}
    for result in results:
        candidate = reading.candidate(stage.journal, TAG, result.experiment.candidate)
        source = stage.night.workspace.source(candidate.commit).encode()
        job = sent[result.experiment.id].job
        assert job["seed"] == result.experiment.seed
        assert job["hashes"]["train"] == fingerprint([("train.py", source)], "train.py")["train"]


def test_a_wave_is_as_large_as_keeps_both_tiers_busy_and_larger_while_others_wait_to_be_confirmed(make: Make) -> None:
    stage = make(settings="")
    proposer = Sayings(*(sweep(knob, *range(1, 31)) for knob in KNOBS[:6]))
    stage.run(proposer, clusters=16, waves=6)
    # 4 arms with 3 seeds on 3 H200s are 4 rounds; as many on 13 H100s are 52 runs, a fifth of them controls.
    assert proposer.rooms[0] == 12, "nobody knows the fleet yet"
    assert 42 in proposer.rooms and max(proposer.rooms) >= 83


def test_waves_are_confirmed_one_after_another_each_against_the_latest_incumbent(make: Make) -> None:
    stage = make(world(good=500))
    stage.run(waves=5, room=8)
    kept = reading.kept(stage.journal, TAG)
    assert len(kept) >= 2
    spans = stage.journal.db.execute(
        "SELECT min(e.started), max(e.finished), w.against FROM experiments e JOIN waves w USING (study, wave)"
        " WHERE e.tier = 'confirmation' GROUP BY wave ORDER BY 1"
    ).fetchall()
    assert len(spans) >= 3
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert len({against for _, _, against in spans}) >= 2
    commits = [stage.night.workspace.head, *(commit for _, _, commit, _ in kept)]
    parents = [stage.night.workspace.repository.resolve(f"{commit}^") for commit in commits[1:]]
    assert parents == commits[:-1]
    scores = [stage.night.true_score(commit) for commit in commits]
    assert scores == sorted(scores, reverse=True)


def test_a_target_ends_it_with_what_runs(make: Make) -> None:
    stage = make(world(good=500))
    stop = stage.run(room=8, target=0.9920)
    assert stop.why == "target" and "has reached the target of 0.992" in stop.sentence
    again = stage.run(room=8, target=0.9920)
    assert again.why == "target"


def test_a_plateau_is_said_in_words(make: Make) -> None:
    stage = make(world(good=0, slight=load().truth.slight.model_copy(update={"count": 0})))
    stop = stage.run(room=6, plateau=3)
    assert stop.why == "plateau"
    assert stop.sentence == f"a plateau: the last {stage.waves()} waves gave nothing to keep"
    assert stage.waves() >= 3


def test_a_proposer_without_ideas_is_asked_again_when_more_is_known_and_then_it_is_over(make: Make) -> None:
    stage, proposer = make(), Sayings(sweep("K01", 1, 2, 3), [], sweep("K02", 1, 2, 3))
    stop = stage.run(proposer)
    assert stop.why == "exhausted" and stop.sentence == "sayings proposed nothing that is new"
    assert stage.waves() == 2
    with pytest.raises(NothingRan, match="proposed nothing that is new"):
        make().run(Sayings())


def test_a_proposer_that_fails_is_asked_again_with_pauses(make: Make) -> None:
    stage = make()
    failing = [RuntimeError("overloaded")] * (FAILED_CALLS - 1)
    stop = stage.run(Sayings(*failing, sweep("K01", 1, 2, 3)), waves=1)
    assert stop.why == "waves" and stage.waves() == 1
    asked = stage.times(ProposerAsked)
    pauses = [after - before for before, after in pairwise(asked)]
    assert pauses == pytest.approx([CALL_PAUSE_SECONDS * 2**number for number in range(FAILED_CALLS - 1)])
    stop = make().run(Sayings(*[RuntimeError("overloaded")] * FAILED_CALLS))
    assert stop.why == "exhausted" and "failed 5 times, at last with RuntimeError" in stop.sentence


class Steered(Sayings):
    """While it thinks about its first wave a person writes into program.md, and into the next one a hint."""

    def __init__(self, stage: Stage, text: str, *sayings: list[Proposal] | Exception) -> None:
        super().__init__(*sayings)
        self._root, self._text = stage.night.workspace.root, text

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        if not self.contexts:
            (self._root / "program.md").write_text(self._text)
            hints.leave(self._root / ".autoresearch", TAG, 1.0, text="not the first knob again")
        return await super().propose(context, room)

    def jottings(self) -> list[Jotting]:
        return [Jotting(f"lesson {len(self.contexts)}")]


def test_what_a_person_writes_meanwhile_is_taken_up_with_the_next_wave_and_recorded(make: Make) -> None:
    stage = make()
    text = (stage.night.workspace.root / "program.md").read_text()
    changed = text.replace("min_effect: 0", "min_effect: 0.25") + "Look at the second knob.\n"
    proposer = Steered(stage, changed, sweep("K01", 1, 2, 3), sweep("K02", 1, 2, 3), sweep("K03", 1, 2, 3))
    assert stage.run(proposer, waves=3).why == "waves"
    assert [one.program for one in proposer.contexts] == [
        "A simulated night.",
        *["A simulated night.\nLook at the second knob."] * 2,
    ]
    notes = [[note.text for note in one.lineage.notes] for one in proposer.contexts if one.lineage]
    assert notes == [
        [],
        ["lesson 1", "not the first knob again"],
        ["lesson 1", "not the first knob again", "lesson 2"],
    ]
    steered = [line for line in stage.said if "program.md" in line or "hint" in line]
    assert steered == [
        "program.md now has other settings (min_effect: 0.0 before, 0.25 now), and this study keeps those that it was"
        " begun with: set them back, or begin a new study with --tag",
        "program.md has changed: 1 line added; the next wave is proposed by it",
        "hint n0002 is taken up: not the first knob again",
    ]
    assert all(one.min_effect == 0 for one in proposer.contexts)
    assert [changed for _, changed in reading.program_changes(stage.journal, TAG)] == ["1 line added"]
    first, *_, last = proposer.contexts
    assert (first.edit, first.evaluated, first.gates) == ("train.py", False, ())
    assert last.lineage is not None and last.lineage.waves == 2 and "lesson 2" in brief(last)


def test_an_error_of_its_own_is_recorded_with_what_it_says(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("c0002")

    stage = make()
    monkeypatch.setattr("controller.search.advance", broken)
    with pytest.raises(KeyError):
        stage.run(Sayings(sweep("K01", 1, 2)), waves=1)
    last = reading.last_run(stage.journal, TAG)
    assert last is not None and "(KeyError: 'c0002'; see .autoresearch/log)" in str(last)


def test_what_is_handed_in_comes_before_what_the_proposer_says(make: Make) -> None:
    stage, proposer = make(), Sayings(sweep("K01", 1, 2, 3), sweep("K02", 1, 2, 3))
    names = [stage.hand_in("K05", 1, 2), stage.hand_in("K06", 1, 2)]
    assert stage.run(proposer, waves=2).why == "waves"
    assert [reading.wave(stage.journal, TAG, name).proposer for name in ("w01", "w02")] == ["submissions", "sayings"]
    assert stage.states(*names) == ["ended", "ended"] and len(proposer.contexts) == 1
    assert f"wave w01: 4 candidates proposed by submissions ({', '.join(names)})" in stage.said


def test_what_is_handed_in_while_ideas_have_run_out_goes_on_with_it(make: Make) -> None:
    class Late(Sayings):
        async def propose(self, context: Context, room: int) -> list[Proposal]:
            if len(self.contexts) == 1:
                stage.hand_in("K05", 1, 2)
            return await super().propose(context, room)

    stage = make()
    assert stage.run(Late(sweep("K01", 1, 2, 3))).why == "exhausted"
    proposers = [reading.wave(stage.journal, TAG, name).proposer for name in reading.waves(stage.journal, TAG)]
    assert proposers == ["sayings", "submissions"]


def test_with_submissions_alone_it_waits_for_the_next_and_gives_idle_clusters_back(make: Make) -> None:
    stage = make()

    async def main() -> Stop:
        running = asyncio.ensure_future(stage.search(stage.submissions, caps=Caps(hours=12.0)).run())
        names = []
        for knob in ("K01", "K02"):
            await stage.clock.sleep(3 * 3600.0)
            names.append(stage.hand_in(knob, 1, 2))
            assert stage.states(names[-1]) == ["waiting"]
        stop = await running
        assert stage.states(*names) == ["ended", "ended"]
        return stop

    assert stage.clock.run(main()).why == "budget"
    begun = stage.times(WaveDesigned)
    assert begun[1] - begun[0] == pytest.approx(3 * 3600.0, abs=5.0)
    up = sum((lease.until or 0.0) - lease.since for lease in reading.leases(stage.journal, TAG)) / 3600
    assert up < 4 * 6, f"four clusters for twelve hours would be 48 hours, these were up for {up:.1f}"


def test_what_is_handed_in_one_after_another_is_screened_together(make: Make) -> None:
    stage = make()

    async def main() -> Stop:
        running = asyncio.ensure_future(stage.search(stage.submissions, waves=1).run())
        names = []
        for knob in ("K01", "K02", "K03"):
            await stage.clock.sleep(2.0)
            names.append(stage.hand_in(knob, 1, 2))
        stop = await running
        assert stage.states(*names) == ["ended"] * 3
        (said,) = [line for line in stage.said if line.startswith("wave w01: 6 candidates")]
        assert said.endswith(f"proposed by submissions ({', '.join(names)})")
        return stop

    assert stage.clock.run(main()).why == "waves"
    assert stage.said[0].startswith("waiting for ideas")


def test_waiting_for_submissions_ends_when_somebody_says_so(make: Make) -> None:
    stage = make()

    async def main() -> Stop:
        search = stage.search(stage.submissions)
        running = asyncio.ensure_future(search.run())
        await stage.clock.sleep(100.0)
        search.stop(Stop("asked", "somebody asked it to stop"))
        search.scheduler.wake()
        return await running

    assert stage.clock.run(main()).why == "asked" and stage.times(ProposerAsked) == []


def test_what_is_refused_without_a_wave_is_in_the_journal_and_told_to_proposers(make: Make) -> None:
    class Refusing(Sayings):
        def refusals(self) -> list[Refusal]:
            lacking = len(self.contexts) == 1
            return [Refusal("lost", "it is better", "SEARCH is not there", Objection.EDIT)] if lacking else []

    stage, proposer = make(), Refusing([], sweep("K01", 1, 2, 3))
    with pytest.raises(NothingRan, match="SEARCH is not there"):
        stage.run(proposer, waves=1)
    assert [event.refusals[0].name for *_, event in stage.journal.events(TAG) if isinstance(event, ProposalsRefused)]
    assert stage.run(proposer, waves=1).why == "waves"
    lineage = proposer.contexts[-1].lineage
    assert lineage is not None and lineage.refusals == {"edit": 1}
    assert [one.reason for one in lineage.refused] == ["SEARCH is not there"]


def test_what_proposers_cost_is_capped_at_their_worst(make: Make) -> None:
    class Paid(Sayings):
        usd_at_most = 1.0

        async def propose(self, context: Context, room: int) -> list[Proposal]:
            self.usd_spent += 0.4
            return await super().propose(context, room)

    stage = make()
    stop = stage.run(Paid(*(sweep(knob, 1, 2, 3) for knob in KNOBS)), caps=Caps(llm_usd=2.1))
    # After three calls another might end at 2.2 dollars.
    assert reading.llm_usd(stage.journal, TAG) == pytest.approx(1.2)
    assert stop.why == "budget" and "1.20 of 2.1 dollars for language models are spent" in stop.sentence
    assert stage.waves() == 3


def test_confirmations_have_their_share_when_the_budget_runs_out(make: Make) -> None:
    stage = make(world(good=500))
    stop = stage.run(caps=Caps(gpu_hours=8), room=30)
    assert stop.why == "budget" and "of 8 GPU-hours are spent" in stop.sentence
    states = {state for _, state in reading.open_waves(stage.journal, TAG)}
    assert states <= {"screening"}
    ended = reading.waves(stage.journal, TAG, ended=True)
    assert ended and any(one.experiment.tier is Tier.CONFIRMATION for one in reading.results_of(stage.journal, TAG))
    assert sum(stage.night.world.use().billed.values()) <= 8
    calls = [one.reason for one in reading.results_of(stage.journal, TAG) if one.status == "cancelled"]
    assert calls and all(reason.startswith("called off, as ") for reason in calls)


def test_a_first_interruption_lets_what_runs_end_and_a_second_does_not(make: Make) -> None:
    for now, expected in ((False, {None}), (True, {None, "cancelled"})):
        stage = make()
        search = stage.search(waves=2)

        async def main(search: Search = search, stage: Stage = stage, now: bool = now) -> None:
            import asyncio

            running = asyncio.ensure_future(search.run())
            while sum(one.started is not None for one in search.scheduler.running.values()) < 4:
                await stage.clock.sleep(10)
            search.interrupt()
            if now:
                search.interrupt(now=True)
            await running

        with pytest.raises(Interrupted, match="everything finished so far is kept"):
            stage.clock.run(main())
        query = "SELECT DISTINCT label FROM attempts WHERE started IS NOT NULL"
        assert {label for (label,) in stage.journal.db.execute(query)} == expected
        assert stage.night.world.alive() == [] and stage.night.world.sites == {}
        run = reading.last_run(stage.journal, TAG)
        assert run is not None and run.why == "interrupted"
        assert stage.run(waves=2).why == "waves"
        assert stage.waves() == 2, "it goes on with the same two"


def test_a_person_is_told_of_what_matters(make: Make) -> None:
    stage = make(world(good=500))
    stage.run(room=8, waves=4, caps=Caps(gpu_hours=6))
    titles = [title for title, _ in stage.told]
    assert [title for title in titles if "GPU" not in title and "new best" in title]
    assert f"{TAG}: 50% of gpu hours" in titles
    best = next(text for title, text in stage.told if "new best" in title)
    assert best.startswith("keep c") and "95% interval" in best


def test_hopeless_runs_are_ended_but_never_those_that_decide(make: Make) -> None:
    stage = make(world(bad_sd=40), settings="")
    stage.run(clusters=8, waves=3, room=40)
    rows = stage.journal.db.execute("SELECT DISTINCT role, tier FROM experiments WHERE status = 'pruned'").fetchall()
    assert rows == [("cell", "screening")]
    other = make(world(bad_sd=40), settings="early_stopping: false\n")
    other.run(clusters=8, waves=3, room=40)
    assert "pruned" not in reading.counts(other.journal, TAG)
    longest = "SELECT max(ended - started) FROM attempts WHERE label = 'pruned'"
    assert stage.journal.db.execute(longest).fetchone()[0] < 300


def test_the_workspace_of_these_nights_has_the_knobs_it_says() -> None:
    assert all(f"{knob} = 0\n" in SOURCE for knob in KNOBS)
