"""What a study may spend: arithmetic on a real journal, and the promise that no cap is ever exceeded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.budget import ARRIVAL_SECONDS, HOUR, OVERHEAD_SECONDS, Amount, Caps, Ledger, billed
from controller.clock import VirtualClock
from controller.journal import (
    ClusterGone,
    ClusterSeen,
    Journal,
    ProposerAnswered,
    ProposerAsked,
    StudyStarted,
    reading,
)
from controller.records import Candidate, Cluster, Tier, UserError
from controller.settings import Settings, parse

TAG = "mar5"
PRICED = "prices: {H100: 2.0, H200: 4.0}"
WORST = 10 * 60 + OVERHEAD_SECONDS
SCREENING, CONFIRMATION = Tier.SCREENING, Tier.CONFIRMATION


@dataclass
class Books:
    """A journal, a clock and settings, of which ledgers are opened as runs begin."""

    journal: Journal
    clock: VirtualClock
    settings: Settings

    def ledger(self, idle: float = 0.0, prices: dict[str, float] | None = None, **caps: float) -> Ledger:
        return Ledger(self.journal, TAG, self.settings, Caps(**caps), idle, self.clock, prices)

    def seen(self, ledger: Ledger, cluster: str, accelerator: str, since: float | None = None) -> None:
        """As the scheduler says it: to the ledger and to the journal."""
        at = self.clock.now() if since is None else since
        ledger.seen(cluster, accelerator, at)
        self.journal.record(TAG, ClusterSeen(Cluster(cluster, accelerator), at))

    def gone(self, ledger: Ledger, cluster: str) -> None:
        ledger.gone(cluster, self.clock.now())
        self.journal.record(TAG, ClusterGone(cluster, self.clock.now(), "released"))


@contextmanager
def opened(front: str = PRICED) -> Iterator[Books]:
    with tempfile.TemporaryDirectory() as directory:
        clock = VirtualClock()
        journal = Journal.open(Path(directory), clock, durable=False)
        journal.record(TAG, StudyStarted(Candidate("c0000", "a", "a", {}, "m"), "b", "val_bpb", True, {}))
        yield Books(journal, clock, parse(f"---\n{front}\n---\n"))
        journal.close()


@pytest.fixture
def books() -> Iterator[Books]:
    with opened() as found:
        yield found


def amounts(amount: Amount) -> tuple[float, float]:
    return round(amount.gpu_hours, 9), round(amount.usd, 9)


# Arithmetic


def test_every_cluster_costs_from_when_it_was_seen_until_it_is_gone(books: Books) -> None:
    ledger = books.ledger()
    assert amounts(ledger.spent()) == amounts(ledger.reserved()) == (0, 0)
    ledger.seen("a", "H100", books.clock.now() - HOUR / 2)
    ledger.seen("b", "H200", books.clock.now())
    books.clock.leap(HOUR)
    assert amounts(ledger.spent()) == (2.5, 1.5 * 2 + 4)
    ledger.gone("a", books.clock.now() - HOUR / 4)
    books.clock.leap(HOUR)
    assert amounts(ledger.spent()) == (1.25 + 2, 1.25 * 2 + 2 * 4)
    ledger.gone("b", books.clock.now())
    books.clock.leap(HOUR)
    assert amounts(ledger.spent()) == (1.25 + 2, 1.25 * 2 + 2 * 4)


def test_what_is_said_twice_counts_once(books: Books) -> None:
    ledger = books.ledger()
    for _ in range(2):
        ledger.seen("a", "H100", books.clock.now())
        ledger.submitted("one", "H100")
    books.clock.leap(HOUR)
    assert amounts(ledger.spent()) == (1, 2)
    assert ledger.reserved().gpu_hours == pytest.approx(WORST / HOUR)
    for _ in range(2):
        ledger.ended("one")
        ledger.gone("a", books.clock.now())
        ledger.gone("nobody", 0.0)
        ledger.ended("nothing")
    assert amounts(ledger.spent()) == (1, 2) and amounts(ledger.reserved()) == (0, 0)


def test_a_cluster_that_was_billed_for_longer_than_was_known_costs_that_too(books: Books) -> None:
    ledger = books.ledger()
    ledger.seen("a", "H100", books.clock.now())
    ledger.seen("a", "H100", books.clock.now() - HOUR)
    ledger.seen("a", "H100", books.clock.now() + HOUR)
    assert amounts(ledger.spent()) == (1, 2)
    ledger.gone("a", books.clock.now())
    books.clock.leap(HOUR)
    assert amounts(ledger.spent()) == (1, 2)


def test_a_cluster_of_the_same_name_may_come_back(books: Books) -> None:
    ledger = books.ledger()
    for accelerator in ("H100", "H200"):
        ledger.seen("a", accelerator, books.clock.now())
        books.clock.leap(HOUR)
        ledger.gone("a", books.clock.now())
    assert amounts(ledger.spent()) == (2, 6)


def test_a_run_in_flight_is_reserved_at_its_worst_and_a_cluster_at_its_idling(books: Books) -> None:
    ledger = books.ledger(idle=300)
    assert ledger.worst_seconds == WORST
    ledger.seen("a", "H100", books.clock.now())
    ledger.seen("b", "H200", books.clock.now())
    ledger.submitted("one", "H100")
    ledger.submitted("two", "H200")
    worst, idle = WORST / HOUR, 300 / HOUR
    assert amounts(ledger.reserved()) == amounts(Amount(2 * worst + 2 * idle, 6 * worst + 6 * idle))
    ledger.ended("two")
    assert amounts(ledger.reserved()) == amounts(Amount(worst + 2 * idle, 2 * worst + 6 * idle))
    ledger.gone("b", books.clock.now())
    ledger.ended("one")
    assert amounts(ledger.reserved()) == amounts(Amount(idle, 2 * idle))


def test_what_is_coming_up_is_reserved_at_the_dearest_price(books: Books) -> None:
    ledger = books.ledger(idle=300)
    ledger.arriving(3)
    hours = 3 * (ARRIVAL_SECONDS + 300) / HOUR
    assert amounts(ledger.reserved()) == amounts(Amount(hours, 4 * hours)), "any of them may be an H200"
    ledger.seen("a", "H100", books.clock.now())
    ledger.arriving(2)
    hours = 2 * (ARRIVAL_SECONDS + 300) / HOUR
    assert amounts(ledger.reserved()) == amounts(Amount(hours + 300 / HOUR, 4 * hours + 2 * 300 / HOUR))
    ledger.arriving(0)
    assert amounts(ledger.reserved()) == amounts(Amount(300 / HOUR, 2 * 300 / HOUR))


# What is allowed


def test_without_caps_anything_is_allowed(books: Books) -> None:
    ledger = books.ledger()
    ledger.set_aside = 10**6
    assert ledger.refusal(SCREENING, "H100") is None and ledger.refusal_of_wave(10**6) is None
    assert ledger.refusal_of_call(1e6) is None and ledger.affordable(1000) == 1000
    assert ledger.out_of_time() is None and not ledger.overdrawn() and not ledger.time_is_up()
    assert ledger.used() == {}


def test_a_run_is_refused_when_its_worst_case_does_not_fit_any_more(books: Books) -> None:
    ledger = books.ledger(gpu_hours=2.5 * WORST / HOUR)
    ledger.seen("a", "H100", books.clock.now())
    for name in ("one", "two"):
        assert ledger.refusal(CONFIRMATION, "H100") is None
        ledger.submitted(name, "H100")
    assert (
        ledger.refusal(CONFIRMATION, "H100")
        == "0.00 of 0.541667 GPU-hours are spent, and 0.65 would be needed in reserve"
        " (an attempt may take 13 minutes: timeout_minutes, and what comes on top)"
    )
    ledger.ended("one")
    assert ledger.refusal(CONFIRMATION, "H100") is None
    books.clock.leap(0.6 * WORST)
    assert ledger.refusal(CONFIRMATION, "H100") is not None


def test_screening_leaves_what_confirmation_may_need(books: Books) -> None:
    ledger = books.ledger(gpu_hours=4 * WORST / HOUR)
    ledger.set_aside = 3
    assert ledger.refusal(SCREENING, "H100") is None
    ledger.set_aside = 4
    assert ledger.refusal(SCREENING, "H100") is not None and ledger.refusal(CONFIRMATION, "H100") is None
    assert ledger.refusal_of_wave(0) is not None, "nor does a further wave fit"
    ledger.set_aside = 0
    assert ledger.refusal_of_wave(0) is None and ledger.refusal_of_wave(1) is not None, "four are to be screened"


def test_dollars_are_capped_by_the_accelerator_s_price(books: Books) -> None:
    ledger = books.ledger(usd=3 * WORST / HOUR)
    assert ledger.refusal(CONFIRMATION, "H100") is None
    said = ledger.refusal(CONFIRMATION, "H200")
    assert said is not None and said.startswith("0.00 of 0.65 dollars are spent, and 0.87 would be needed")


def test_what_the_backend_knows_of_prices_is_taken_where_the_user_says_nothing(books: Books) -> None:
    ledger = books.ledger(prices={"H100": 100.0, "L4": 1.0})
    for name, accelerator in (("a", "H100"), ("b", "L4"), ("c", "free")):
        ledger.seen(name, accelerator, books.clock.now() - HOUR)
    assert amounts(ledger.spent()) == (3, 2 + 1)


def test_a_dollar_cap_without_a_price_is_one_sentence_that_says_what_to_do() -> None:
    with opened("prices: {H100: 2.0}") as books:
        ledger = books.ledger(usd=10.0)
        said = (
            "a dollar cap needs the price of an hour of H200; give it in program.md's front matter, such as"
            r" `prices: \{H200: 2\.5\}`, or cap gpu_hours instead"
        )
        with pytest.raises(UserError, match=said):
            ledger.check_prices()
        with pytest.raises(UserError, match=said):
            ledger.seen("a", "H200", 0.0)
        with pytest.raises(UserError, match=said):
            ledger.refusal(SCREENING, "H200")
        books.ledger(gpu_hours=10.0).check_prices()
        books.ledger(usd=10.0, prices={"H200": 3.0}).check_prices()


def test_so_many_clusters_are_affordable_as_can_each_run_something(books: Books) -> None:
    each = (ARRIVAL_SECONDS + 300 + WORST) / HOUR
    for cap, most in ((0.9, 0), (1.1, 1), (3.5, 3), (99, 8)):
        assert books.ledger(idle=300, gpu_hours=cap * each).affordable(8) == most
    ledger = books.ledger(idle=300, gpu_hours=3.5 * each)
    ledger.seen("a", "H100", books.clock.now())
    ledger.arriving(1)
    assert ledger.affordable(8) == 2


def test_the_hours_of_a_run_leave_out_what_would_not_end_in_time(books: Books) -> None:
    ledger = books.ledger(hours=1.0)
    assert ledger.affordable(4) == 4
    books.clock.leap(HOUR - WORST - 1)
    assert ledger.out_of_time() is None and ledger.refusal(SCREENING, "H100") is None
    assert ledger.affordable(4) == 0, "one that comes up now comes too late"
    books.clock.leap(2)
    said = "the 1 hours are over for anything that is not running yet, as an attempt may take 13 minutes"
    assert ledger.out_of_time() == ledger.refusal(CONFIRMATION, "H100") == ledger.refusal_of_wave(0) == said
    assert not ledger.time_is_up()
    books.clock.leap(WORST)
    assert ledger.time_is_up()
    assert books.ledger(hours=1.0).out_of_time() is None, "they are this run's, not the study's"


def test_idling_that_eats_into_what_is_reserved_is_noticed(books: Books) -> None:
    ledger = books.ledger(gpu_hours=1.0)
    for name in ("a", "b"):
        ledger.seen(name, "H100", books.clock.now())
    ledger.submitted("one", "H100")
    books.clock.leap((HOUR - WORST) / 2 - 1)
    assert not ledger.overdrawn()
    books.clock.leap(2)
    assert ledger.overdrawn()


def test_what_is_used_of_each_cap_is_told_by_its_name(books: Books) -> None:
    ledger = books.ledger(hours=4.0, gpu_hours=8.0, usd=32.0, llm_usd=1.0)
    ledger.seen("a", "H200", books.clock.now())
    books.journal.record(TAG, ProposerAsked(1, 0.5))
    books.clock.leap(HOUR)
    used = ledger.used()
    assert list(used) == ["hours", "gpu_hours", "usd", "llm_usd"]
    assert [round(spent, 9) for spent, _ in used.values()] == [1, 1, 4, 0.5]
    assert [cap for _, cap in used.values()] == [4, 8, 32, 1]
    assert list(books.ledger(usd=3.0).used()) == ["usd"]


def test_caps_of_the_command_line_go_before_those_of_the_front_matter() -> None:
    with opened("budget: {hours: 8, usd: 300}") as books:
        assert Caps(hours=1.0).over(books.settings) == Caps(hours=1.0, usd=300.0)
        assert Caps(usd=1.0, llm_usd=2.0).over(books.settings) == Caps(8.0, None, 1.0, 2.0)


# Language models


def test_a_call_is_refused_when_the_most_it_may_cost_does_not_fit(books: Books) -> None:
    ledger = books.ledger(llm_usd=1.0)
    assert ledger.refusal_of_call(1.0) is None
    books.journal.record(TAG, ProposerAsked(1, 0.75))
    assert ledger.llm_usd() == 0.75, "nobody knows yet what it costs"
    assert ledger.refusal_of_call(0.75) == (
        "0.75 of 1 dollars for language models are spent, and another answer may cost too much"
    )
    books.journal.record(TAG, ProposerAnswered(1, 0.125))
    assert ledger.llm_usd() == 0.125
    assert ledger.refusal_of_call(0.75) is None and ledger.refusal_of_call(0.9) is not None
    assert books.ledger(llm_usd=0.1).refusal_of_call(0.0) is None, "what costs nothing may always be asked"


# From run to run, and from clock to clock


def test_a_later_run_goes_on_from_the_journal(books: Books) -> None:
    first = books.ledger(idle=300)
    books.seen(first, "a", "H100")
    books.seen(first, "b", "H200")
    books.clock.leap(HOUR)
    books.gone(first, "a")
    books.clock.leap(HOUR)
    later = books.ledger(idle=300)
    assert amounts(later.spent()) == amounts(first.spent()) == (3, 2 + 8)
    assert amounts(later.reserved()) == amounts(Amount(300 / HOUR, 4 * 300 / HOUR)), "b is still up"
    books.clock.leap(HOUR)
    books.gone(later, "b")
    books.clock.leap(HOUR)
    assert amounts(books.ledger().spent()) == (4, 2 + 12)
    prices = {"H100": 2.0, "H200": 4.0}
    assert amounts(billed(reading.leases(books.journal, TAG), prices, books.clock.now())) == (4, 2 + 12)


@pytest.mark.parametrize("seconds", [5 * HOUR, -5 * HOUR])
def test_setting_the_clock_while_a_run_goes_on_changes_nothing_that_was_spent(books: Books, seconds: float) -> None:
    ledger = books.ledger(hours=3.0, gpu_hours=3.0)
    books.seen(ledger, "a", "H100")
    books.clock.leap(HOUR)
    books.clock.jump(seconds)
    assert ledger.spent().gpu_hours == pytest.approx(1)
    books.clock.leap(HOUR)
    books.gone(ledger, "a")
    assert ledger.spent().gpu_hours == pytest.approx(2)
    assert [spent for spent, _ in ledger.used().values()] == pytest.approx([2, 2])
    assert not ledger.time_is_up()


@pytest.mark.parametrize("seconds", [5 * HOUR, -5 * HOUR])
def test_setting_the_clock_between_two_runs_makes_nothing_cheaper(books: Books, seconds: float) -> None:
    async def one_run() -> None:
        ledger = books.ledger()
        books.seen(ledger, "a", "H100")
        books.clock.leap(HOUR)
        books.seen(ledger, "b", "H100")
        books.clock.jump(seconds)

    books.clock.run(one_run())
    books.clock.catch_up(reading.last_at(books.journal, TAG))
    later = books.ledger()
    assert later.spent().gpu_hours == pytest.approx(1 if seconds < 0 else 1 + 2 * 5)
    books.clock.leap(HOUR)
    for name in ("a", "b"):
        books.gone(later, name)
    assert later.spent().gpu_hours == pytest.approx(3 if seconds < 0 else 3 + 2 * 5)
    assert amounts(books.ledger().spent()) == amounts(later.spent())


# The promise


@dataclass
class Site:
    """A cluster as it really is: what was submitted to it, how long each will take, and since when it has none."""

    accelerator: str
    queue: list[tuple[str, float]] = field(default_factory=list)


@dataclass
class World:
    """Clusters, and a controller that admits what the ledger allows and releases what idles when it has to."""

    books: Books
    ledger: Ledger
    cap: float
    unit: Callable[[Amount], float]
    sites: dict[str, Site] = field(default_factory=dict)
    coming: int = 0
    made: int = 0
    done: int = 0

    def ask(self, clusters: int) -> None:
        affordable = self.ledger.affordable(clusters)
        self.coming += affordable
        self.ledger.arriving(self.coming)

    def arrive(self, accelerator: str, seconds: float) -> None:
        """One comes up that has been billed for so long."""
        if self.coming:
            self.made += 1
            self.coming -= 1
            self.sites[f"m{self.made}"] = Site(accelerator)
            self.books.seen(self.ledger, f"m{self.made}", accelerator, self.books.clock.now() - seconds)
            self.ledger.arriving(self.coming)

    def submit(self, site: str, tier: Tier, seconds: float) -> None:
        """Have another run, which takes so long, begun on one of the clusters, if it is allowed."""
        names = sorted(self.sites)
        name = names[int(site, 36) % len(names)] if names else ""
        if name and len(self.sites[name].queue) < 2:
            accelerator = self.sites[name].accelerator
            if self.ledger.refusal(tier, accelerator) is None:
                self.made += 1
                self.sites[name].queue.append((f"a{self.made}", seconds))
                self.ledger.submitted(f"a{self.made}", accelerator)

    def wait(self, seconds: float) -> None:
        while seconds > 0:
            step = min([seconds, 30.0, *(site.queue[0][1] for site in self.sites.values() if site.queue)])
            seconds -= step
            self.books.clock.leap(step)
            for name, site in list(self.sites.items()):
                if site.queue:
                    attempt, left = site.queue[0]
                    site.queue[0] = attempt, left - step
                    if left - step <= 1e-9:
                        site.queue.pop(0)
                        self.ledger.ended(attempt)
                        self.done += 1
                elif self.ledger.overdrawn():
                    self.release(name)
            self.check()
            if step < 1e-9:
                return

    def release(self, name: str) -> None:
        for attempt, _ in self.sites.pop(name).queue:
            self.ledger.ended(attempt)
        self.books.gone(self.ledger, name)

    def check(self) -> None:
        assert self.unit(self.ledger.spent()) <= self.cap + 1e-9

    def crash(self, idle: float) -> None:
        """The controller dies: what is in flight runs to its end, and every cluster shuts itself down."""
        began = self.books.clock.now()
        for name, site in self.sites.items():
            ends = began + sum(left for _, left in site.queue) + idle
            self.ledger.gone(name, ends)
        for number in range(self.coming):
            self.ledger.seen(f"unseen{number}", "H200", began)
            self.ledger.gone(f"unseen{number}", began + ARRIVAL_SECONDS + idle)
        self.check()


LONG = st.floats(1.0, WORST)
STEPS = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 4)),
    st.tuples(st.just("arrive"), st.sampled_from(["H100", "H200"]), st.floats(0, ARRIVAL_SECONDS)),
    st.tuples(st.just("submit"), st.sampled_from("abcd"), st.sampled_from(list(Tier)), LONG | st.just(WORST)),
    st.tuples(st.just("wait"), st.floats(0, 3000)),
    st.tuples(
        st.just("release"),
    ),
    st.tuples(st.just("aside"), st.integers(0, 5)),
)


@settings(deadline=None, max_examples=200)
@given(
    steps=st.lists(STEPS, min_size=5, max_size=60),
    unit=st.sampled_from(["gpu_hours", "usd"]),
    cap=st.floats(0.1, 20),
    idle=st.sampled_from([60.0, 300.0, 1800.0]),
)
def test_no_cap_is_ever_exceeded_whatever_happens_and_whenever_the_controller_dies(
    steps: list[tuple[object, ...]], unit: str, cap: float, idle: float
) -> None:
    with opened() as books:
        ledger = books.ledger(idle, None, **{unit: cap})
        world = World(books, ledger, cap, lambda amount: getattr(amount, unit))
        world.ask(2)
        world.arrive("H100", 60.0)
        for what, *arguments in steps:
            if what == "release":
                for name in sorted(world.sites)[:1]:
                    world.release(name)
            elif what == "aside":
                ledger.set_aside = arguments[0]  # type: ignore[assignment]
            else:
                getattr(world, str(what))(*arguments)
            world.check()
        world.crash(idle)


def test_that_promise_is_not_kept_by_running_nothing() -> None:
    with opened() as books:
        world = World(books, books.ledger(idle=60, gpu_hours=8.0), 8.0, lambda amount: amount.gpu_hours)
        world.ask(4)
        for _ in range(4):
            world.arrive("H100", 60.0)
        for _ in range(60):
            for site in "abcd":
                world.submit(site, Tier.SCREENING, 500.0)
            world.wait(250.0)
        assert world.done >= 40 and world.ledger.spent().gpu_hours > 7
