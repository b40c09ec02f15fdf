"""What is true of candidates in a simulated world: known to the world, and to nobody who decides.

A candidate is the sum of its changes against the baseline: a knob set to a value is one change, and all that is edited
beyond knobs is another. What a change does is drawn from the scenario by its name and the world's seed, so that the
same change does the same wherever it turns up. Where a list of names is given, the scenario's counts hold exactly among
them.
"""

from __future__ import annotations

import hashlib
import random
from ast import literal_eval
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from math import sqrt
from statistics import NormalDist

from controller.backends.simulated.scenario import Scenario
from controller.edits import read_knobs, set_knobs
from controller.records import Knobs, UserError, Value

NIGHT_SECONDS = 8 * 3600.0
"""Over which `drift` is counted."""

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Nature:
    """What a candidate is: its changes, the name of what is edited beyond knobs, and its fate.

    `fate` is `crash` or `overtime` where one of the changes is of that sort, else empty. The baseline has no changes.
    """

    name: str
    changes: tuple[str, ...]
    edit: str
    fate: str


class Truth:
    """The truth of one world; `source` is the baseline's file, `ideas` the changes among which counts are exact."""

    def __init__(self, scenario: Scenario, seed: int, source: str, ideas: Sequence[str] = ()) -> None:
        self.scenario = scenario
        self.numbers = scenario.truth
        self._seed = seed
        self._source = source
        self._reference = max(scenario.fleet, key=lambda name: scenario.fleet[name])
        shuffled = list(ideas)
        random.Random(f"{seed}:ideas").shuffle(shuffled)
        self._places = {idea: (place + 0.5) / len(shuffled) for place, idea in enumerate(shuffled)}
        # What is asked for again and again. A night may have 100,000 candidates: not all of them are remembered.
        self.nature = lru_cache(maxsize=512)(self._nature)
        self.expected = lru_cache(maxsize=512)(self._expected)
        self.effect = lru_cache(maxsize=65536)(self._effect)
        self._beyond = lru_cache(maxsize=65536)(self._interaction)

    def draw(self, *names: object) -> float:
        """A number between 0 and 1 that belongs to `names` in this world, and to nothing else."""
        digest = hashlib.blake2b(f"{self._seed}:{':'.join(map(str, names))}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") + 0.5) / 2**64

    def normal(self, *names: object) -> float:
        """Likewise a standard normal number."""
        return _NORMAL.inv_cdf(self.draw("normal", *names))

    def score(self, nature: Nature, accelerator: str, machine: str, seed: int, run: str, at: float) -> float:
        """What one run measures, begun `at` seconds after the world's beginning."""
        numbers = self.numbers
        # What a seed does is shared by all candidates with the same code.
        noise = sqrt(numbers.paired) * self.normal("seed", nature.edit, seed)
        noise += sqrt(1 - numbers.paired) * self.normal("run", run)
        place = numbers.clusters * self.normal("machine", machine)
        place += numbers.slow.effect if self.is_slow(machine) else 0.0
        drift = numbers.drift * at / NIGHT_SECONDS
        return self.expected(nature, accelerator) + numbers.sigma * (numbers.noise * noise + place + drift)

    def loss(self, nature: Nature, score: float, run: str, fraction: float) -> float:
        """The smoothed loss, at a fraction of its budget, of a run that will have this score.

        Set, not measured. A curve falls to the score, and halfway shows where it will end but for how far it still
        wanders, which belongs to the candidate and shrinks to nothing towards the end, and for noise.
        """
        numbers = self.numbers
        start = 3.0 * (1 - fraction) ** 3
        wander = numbers.wander * 2 * (1 - fraction) * self.normal("wander", nature.name) if nature.changes else 0.0
        noise = numbers.curve_noise * self.normal("curve", run, round(fraction, 3))
        return score + start + numbers.sigma * (wander + noise)

    def is_slow(self, machine: str) -> bool:
        """Whether a machine is one of the slow ones."""
        return self.draw("slow", machine) < self.numbers.slow.share

    def _expected(self, nature: Nature, accelerator: str) -> float:
        """The mean score of a candidate's runs on `accelerator`, over seeds and machines, slow ones and drift aside."""
        numbers = self.numbers
        sigmas = sum(self.effect(change) + self._elsewhere(change, accelerator) for change in nature.changes)
        sigmas += sum(self._beyond(*pair) for pair in combinations(nature.changes, 2))
        return numbers.baseline + numbers.offsets.get(accelerator, 0.0) + numbers.sigma * sigmas

    def _nature(self, source: str) -> Nature:
        """What the candidate with this editable file is."""
        name = _digest(source)
        try:
            edit, shared = "", self._plainly_changed(source)
            if shared is None:
                mine = read_knobs(source)
                shared = {knob: mine[knob] for knob in mine.keys() & self._baseline.keys()}
                shared = {knob: value for knob, value in shared.items() if repr(self._baseline[knob]) != repr(value)}
                edit = self._edit(source, shared)
            changes = [f"{knob}={value!r}" for knob, value in sorted(shared.items())]
        except UserError:  # it does not parse
            edit, changes = name, []
        if edit:
            changes.append(f"edit {edit}")
        fates = {self._fate(change) for change in changes}
        fate = next((fate for fate in ("crash", "overtime") if fate in fates), "")
        return Nature(name, tuple(changes), edit, fate)

    def _plainly_changed(self, source: str) -> dict[str, Value] | None:
        """The knobs that differ, where nothing else does and each has a line to itself; else None. Parses no file."""
        lines = source.split("\n")
        if len(lines) != len(self._lines):
            return None
        found: dict[str, Value] = {}
        for line, before in zip(lines, self._lines, strict=True):
            if line != before:
                knob, _, text = line.partition(" = ")
                try:
                    value, old = literal_eval(text), self._baseline[knob]
                except (KeyError, ValueError, SyntaxError, MemoryError, RecursionError):
                    return None
                plain = line == f"{knob} = {value!r}" and before == f"{knob} = {old!r}"
                if not plain or type(value) is not type(old):
                    return None
                found[knob] = value
        return found

    def _edit(self, source: str, shared: Knobs) -> str:
        """The name of what differs from the baseline beyond the knobs that both have; empty where nothing does."""
        undone = _set(source, {knob: self._baseline[knob] for knob in shared})
        return "" if undone == self._source else _digest(source if undone is None else undone)

    @cached_property
    def _baseline(self) -> Knobs:
        return read_knobs(self._source)

    @cached_property
    def _lines(self) -> list[str]:
        return self._source.split("\n")

    def _fate(self, change: str) -> str:
        draw = self.draw("fate", change)
        if draw < self.numbers.crash:
            return "crash"
        return "overtime" if draw < self.numbers.crash + self.numbers.overtime else ""

    def _effect(self, change: str) -> float:
        """What a change by itself does to the score, in sigmas, on the accelerator that most clusters have."""
        numbers = self.numbers
        place = self._places.get(change)
        place = self.draw("effect", change) if place is None else place
        for some in (numbers.good, numbers.slight):
            share = some.count / numbers.proposals
            if place < share:
                return some.begin + (some.end - some.begin) * place / share
            place -= share
        rest = 1 - numbers.nothing - numbers.better
        if place < numbers.nothing or rest <= 0:
            return 0.0
        return numbers.bad_sd * _NORMAL.inv_cdf(0.5 + 0.5 * min((place - numbers.nothing) / rest, 1 - 1e-9))

    def _elsewhere(self, change: str, accelerator: str) -> float:
        """What a change does on `accelerator` beyond its effect, in sigmas; nothing if it does nothing at all."""
        if accelerator == self._reference or not self.effect(change):
            return 0.0
        numbers = self.numbers.accelerators
        flips = self.draw("flips", change) < numbers.share
        return (numbers.flip_sd if flips else numbers.sd) * self.normal("on", accelerator, change)

    def _interaction(self, one: str, other: str) -> float:
        """What two changes do beyond the sum of their effects, in sigmas; nothing where one of them does nothing."""
        numbers = self.numbers.interactions
        if not self.effect(one) or not self.effect(other) or self.draw("interact", one, other) >= numbers.share:
            return 0.0
        return numbers.sd * self.normal("interaction", one, other)


def _set(source: str, knobs: Knobs) -> str | None:
    """The file with these knobs set; None where one of them can't be: it is of another kind there."""
    try:
        return set_knobs(source, knobs)
    except UserError:
        return None


def _digest(source: str) -> str:
    return hashlib.blake2b(source.encode(errors="surrogateescape"), digest_size=8).hexdigest()
