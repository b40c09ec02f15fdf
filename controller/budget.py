"""What a study may spend, and what it has: accelerator-hours, dollars, hours, and dollars for language models.

No cap is ever exceeded, because what is in flight is reserved at its worst case. At any moment

    spent + reserved ≤ cap

where *spent* is the time of every cluster from when it began to be billed until it is gone, set-up and idling
included, and *reserved* is, for each attempt in flight, as long as one can take at most; for each cluster that is
coming up, as long as that can take; and for each cluster, the time after which it shuts itself down, should nobody be
there to do it. An attempt is admitted only if its own worst case still fits; a screening one, only if the
confirmations of all open waves would fit besides. What idles is released before it eats into that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.clock import Clock
from controller.journal import Journal, reading
from controller.records import Tier, UserError

if TYPE_CHECKING:
    from controller.settings import Settings

HOUR = 3600.0
LEAST_CELLS = 4
"""Runs of screening that the budget must have room for, or a wave is not worth beginning."""
OVERHEAD_SECONDS = 180.0
"""What an attempt may take beyond its own time limit: to be delivered, started, scored, heard of, and cleaned up."""
ARRIVAL_SECONDS = 900.0
"""What a cluster may take to come up while it is billed: to boot, be set up, and prepare its data."""


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that may be spent: `hours` by this run, the others by the study as a whole. None is no cap."""

    hours: float | None = None
    gpu_hours: float | None = None
    usd: float | None = None
    llm_usd: float | None = None

    def over(self, settings: Settings) -> Caps:
        """These caps, and those of the front matter where these say nothing."""
        theirs = settings.budget
        return Caps(
            self.hours if self.hours is not None else theirs.hours,
            self.gpu_hours if self.gpu_hours is not None else theirs.gpu_hours,
            self.usd if self.usd is not None else theirs.usd,
            self.llm_usd if self.llm_usd is not None else theirs.llm_usd,
        )


@dataclass(frozen=True, slots=True)
class Amount:
    """Accelerator-hours, and what they cost in dollars (0 where no price is known)."""

    gpu_hours: float = 0.0
    usd: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.gpu_hours + other.gpu_hours, self.usd + other.usd)

    def __mul__(self, times: float) -> Amount:
        return Amount(self.gpu_hours * times, self.usd * times)


class Prices:
    """Dollars an hour by accelerator. Raises UserError where a dollar cap needs one that is not known."""

    def __init__(self, known: Mapping[str, float], needed: bool) -> None:
        self._known = dict(known)
        self._needed = needed

    def of(self, accelerator: str) -> float:
        """Dollars for an hour of `accelerator`; 0 where that is not known, and no cap asks for it."""
        if accelerator in self._known:
            return self._known[accelerator]
        if self._needed:
            raise UserError(
                f"a dollar cap needs the price of an hour of {accelerator}; give it in program.md's front matter, such"
                f" as `prices: {{{accelerator}: 2.5}}`, or cap gpu_hours instead"
            )
        return 0.0


def billed(leases: Iterable[reading.Lease], prices: Mapping[str, float], now: float) -> Amount:
    """What `leases` have cost by the Unix second `now`; dollars as far as prices are known."""
    total = Amount()
    for lease in leases:
        seconds = max(0.0, (now if lease.until is None else lease.until) - lease.since)
        total += _rate(prices.get(lease.accelerator, 0.0)) * (seconds / HOUR)
    return total


class Ledger:
    """One run's view of the budget. Begins with what the journal says; the scheduler tells it of every change.

    `prices` are what the backend knows of them; the front matter's go before.
    """

    def __init__(
        self,
        journal: Journal,
        tag: str,
        settings: Settings,
        caps: Caps,
        idle_seconds: float,
        clock: Clock,
        prices: Mapping[str, float] | None = None,
    ) -> None:
        self.caps = caps
        self.set_aside = 0
        """Confirmation runs that open waves may still ask for."""
        self._journal = journal
        self._tag = tag
        self._clock = clock
        self._began = clock.now()
        self._until = clock.monotonic() + caps.hours * HOUR if caps.hours is not None else None
        self._prices = Prices({**(prices or {}), **settings.prices}, needed=caps.usd is not None)
        self._worst = (settings.timeout_minutes * 60 + OVERHEAD_SECONDS) / HOUR
        self._idle = idle_seconds / HOUR
        self._named = [name for tier in Tier for name in settings.accelerators(tier)]
        self._closed = Amount()
        self._open: dict[str, tuple[float, float]] = {}
        self._rate, self._begun = Amount(), Amount()
        self._flights: dict[str, float] = {}
        self._flight_rate = Amount()
        self._arriving = 0
        self._top: float | None = None
        for lease in reading.leases(journal, tag):
            price = self._prices.of(lease.accelerator)
            if lease.until is None:
                self._lease(lease.cluster, lease.since, price)
            else:
                self._closed += _rate(price) * ((lease.until - lease.since) / HOUR)

    @property
    def worst_seconds(self) -> float:
        """The longest an attempt can take, from when it is its cluster's turn."""
        return self._worst * HOUR

    @property
    def dearest_named(self) -> str:
        """The dearest accelerator that a tier names."""
        return max(self._named, key=self._prices.of)

    def seen(self, cluster: str, accelerator: str, since: float) -> None:
        """A cluster is up, and billed from `since`."""
        if cluster in self._open and since < self._open[cluster][0]:
            known, price = self._open[cluster]
            self._begun += _rate(price) * ((since - known) / HOUR)
            self._open[cluster] = (since, price)
        elif cluster not in self._open:
            self._lease(cluster, since, self._prices.of(accelerator))

    def bills(self, cluster: str) -> bool:
        """Whether `cluster` is up, as far as is known, and billed."""
        return cluster in self._open

    def gone(self, cluster: str, until: float) -> None:
        """A cluster is billed no more."""
        if cluster in self._open:
            since, price = self._open.pop(cluster)
            self._top = None
            rate = _rate(price)
            self._rate += rate * -1
            self._begun += rate * (-since / HOUR)
            self._closed += rate * (max(0.0, until - since) / HOUR)

    def submitted(self, attempt: str, accelerator: str) -> None:
        """An attempt is in flight."""
        if attempt not in self._flights:
            self._flights[attempt] = self._prices.of(accelerator)
            self._flight_rate += _rate(self._flights[attempt])

    def ended(self, attempt: str) -> None:
        """An attempt is over."""
        if attempt in self._flights:
            self._flight_rate += _rate(self._flights.pop(attempt)) * -1

    def arriving(self, clusters: int) -> None:
        """So many clusters are coming up."""
        self._arriving = clusters

    def spent(self) -> Amount:
        """What has been billed so far."""
        return self._closed + self._rate * (self._clock.now() / HOUR) + self._begun * -1

    def reserved(self) -> Amount:
        """What may still be billed for what is up and in flight, should nobody be there to end it."""
        found = self._flight_rate * self._worst + self._rate * self._idle
        if self._arriving:
            found += self._dearest_to_come() * (self._arriving * (ARRIVAL_SECONDS / HOUR + self._idle))
        return found

    def llm_usd(self) -> float:
        """What proposers have cost so far."""
        return reading.llm_usd(self._journal, self._tag)

    def refusal(self, tier: Tier, accelerator: str) -> str | None:
        """Why an attempt of `tier` on `accelerator` must not be submitted now; None where it may be."""
        more = _rate(self._prices.of(accelerator)) * self._worst
        if tier is Tier.SCREENING:
            more += self._confirmations()
        return self._refusal(more) or self.out_of_time()

    def refusal_of_wave(self, runs: int) -> str | None:
        """Why no further wave should begin, of which `runs` would have to be confirmed; None where one may."""
        more = self._confirmations() + self._dearest() * (self._worst * (runs + LEAST_CELLS))
        return self._refusal(more) or self.out_of_time()

    def refusal_of_call(self, usd_at_most: float) -> str | None:
        """Why a proposer must not be asked, if that may cost so many dollars; None where it may."""
        cap, spent = self.caps.llm_usd, self.llm_usd()
        if cap is None or not usd_at_most or spent + usd_at_most <= cap:
            return None
        return f"{spent:.2f} of {cap:g} dollars for language models are spent, and another answer may cost too much"

    def out_of_time(self) -> str | None:
        """Why nothing more would come to its end within this run's hours; None where something would."""
        if self._until is None or self._clock.monotonic() + self.worst_seconds <= self._until:
            return None
        return (
            f"the {self.caps.hours:g} hours are over for anything that is not running yet, as an attempt may take"
            f" {self.worst_seconds / 60:.0f} minutes"
        )

    def time_is_up(self) -> bool:
        """Whether this run's hours are over for everything."""
        return self._until is not None and self._clock.monotonic() >= self._until

    def affordable(self, clusters: int) -> int:
        """How many of so many more clusters can be had such that each can run something."""
        if self._until is not None and self._clock.monotonic() + ARRIVAL_SECONDS + self.worst_seconds > self._until:
            return 0
        each = self._dearest_to_come() * (ARRIVAL_SECONDS / HOUR + self._idle + self._worst)
        left = clusters
        while left and self._refusal(each * left):
            left -= 1
        return left

    def overdrawn(self) -> bool:
        """Whether clusters that idle have eaten into what is reserved, so that they must go."""
        return self._refusal(Amount()) is not None

    def used(self) -> dict[str, tuple[float, float]]:
        """For each cap there is, by its name in the front matter: what is spent of it, and the cap."""
        spent = self.spent()
        hours = (self._clock.now() - self._began) / HOUR
        found = {
            "hours": (hours, self.caps.hours),
            "gpu_hours": (spent.gpu_hours, self.caps.gpu_hours),
            "usd": (spent.usd, self.caps.usd),
            "llm_usd": (self.llm_usd(), self.caps.llm_usd),
        }
        return {name: (amount, cap) for name, (amount, cap) in found.items() if cap is not None}

    def check_prices(self) -> None:
        """Raises UserError where a dollar cap lacks the price of an accelerator that the tiers name."""
        for name in self._named:
            self._prices.of(name)

    def _confirmations(self) -> Amount:
        return self._dearest() * (self.set_aside * self._worst)

    def _dearest(self) -> Amount:
        """An hour of the dearest accelerator that is up; of those that the tiers name while none is."""
        if self._top is None:
            prices = [price for _, price in self._open.values()]
            self._top = max(prices or map(self._prices.of, self._named))
        return _rate(self._top)

    def _dearest_to_come(self) -> Amount:
        """An hour of the dearest accelerator that a cluster may turn out to have."""
        return _rate(max([self._dearest().usd, *map(self._prices.of, self._named)]))

    def _refusal(self, more: Amount) -> str | None:
        spent, reserved = self.spent(), self.reserved()
        for unit, amount, kept, asked, cap in (
            ("GPU-hours", spent.gpu_hours, reserved.gpu_hours, more.gpu_hours, self.caps.gpu_hours),
            ("dollars", spent.usd, reserved.usd, more.usd, self.caps.usd),
        ):
            if cap is not None and amount + kept + asked > cap:
                minutes = self.worst_seconds / 60
                return (
                    f"{amount:.2f} of {cap:g} {unit} are spent, and {kept + asked:.2f} would be needed in reserve"
                    f" (an attempt may take {minutes:.0f} minutes: timeout_minutes, and what comes on top)"
                )
        return None

    def _lease(self, cluster: str, since: float, price: float) -> None:
        self._open[cluster] = (since, price)
        self._top = None
        self._rate += _rate(price)
        self._begun += _rate(price) * (since / HOUR)


def _rate(price: float) -> Amount:
    return Amount(1.0, price)
