"""Questions hidden among the rows that are scored, which only an honest model answers alike. numpy alone.

Every row of the sheet is asked once, in random order, and only that answer is scored. Between them stand
  twins    a row again, its end swapped for that of another: what comes before the cut may not change (leak)
  repeats  an early row again, late: nothing may change (drift)
  splices  pieces of other text, joined where we drew the next piece: a model that looks ahead foresees the draw (leak)

The ends of twins, and splices, are text that is not scored, so that no probe teaches what a later row asks.

A splice needs no second answer to compare with, so that remembering earlier rows does not help against it. Its test
holds for whatever model: tokens are drawn from a distribution q that we know, so if the model gives them p without
having seen them, p/q has an expectation of at most 1. A gambler who stakes a fixed share of what he has on each p/q can
then multiply it by 1/α with a chance of at most α (Ville's inequality; Shafer, Testing by betting, 2021). We take the
mean of several gamblers, as it is not known how often a leak would look.

Rows cannot be told apart by their kind: all are text of the same shape, in portions of one size. Joints are few, and
the token behind one mostly follows the two before it somewhere in real text, so that a splice is hardly more surprising
than a row. `bench/probes.py` shows what looking ahead still goes unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-3
"""Nats by which an answer that should be the same may differ."""

EVIDENCE = -log(1e-6)
"""The log of the gamblers' gain at which a model has seen what it should predict: one false alarm in a million runs."""

STAKES = np.array([0.01, 0.03, 0.1, 0.3, 0.9])
"""What shares of their fortunes the gamblers stake."""

JOINT = 16
"""In a splice one token in so many is drawn, on average."""

SPLICED = 2**15
"""Tokens of splices in an evaluation: with JOINT, about 2,000 draws to bet on."""

CONTEXTS = ((2, 0.6), (1, 0.3), (0, 0.1))
"""How many tokens before a joint its draw looks at, and how often."""


class Caught(Exception):
    """A probe found what an honest model can't do; `label` is "leak" or "drift"."""

    def __init__(self, label: str, reason: str) -> None:
        super().__init__(reason)
        self.label = label


@dataclass
class Question:
    """One row to be asked: `tokens` [T + 1], of which the last T are the targets of the first T.

    kind: "row", "twin", "repeat", "splice" or "filler". row: its number on the sheet, -1 for other text. until: how
    many positions must agree with the row's own answer. drawn: in a splice, the positions whose targets were drawn,
    log_q: how likely each was.
    """

    kind: str
    tokens: NDArray[np.int64]
    row: int = -1
    until: int = 0
    drawn: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    log_q: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


class Examination:
    """The questions of one evaluation and the answers so far.

    inputs, targets: the sheet, each [n, T]. spare: other text of the same kind, [m, T + 1]; where m is 0 the sheet
    itself serves. `nats` [n, T] are the scored answers. `random` must not be one that the trainer could know.
    """

    def __init__(
        self,
        inputs: NDArray[np.int64],
        targets: NDArray[np.int64],
        spare: NDArray[np.int64],
        vocab_size: int,
        random: np.random.Generator,
    ) -> None:
        self.nats: NDArray[np.float64] = np.full((len(inputs), inputs.shape[1]), np.nan)
        self._windows = np.concatenate([inputs, targets[:, -1:]], axis=1)
        self._spare = spare if len(spare) else self._windows
        self._splicer = _Splicer(self._spare, vocab_size, random)
        self._random = random
        self._fortunes = np.zeros(len(STAKES))  # as logarithms
        self._later: list[tuple[Question, NDArray[np.float64]]] = []

    def portions(self, size: int) -> Iterator[list[Question]]:
        """All questions, `size` at a time, filled up with other text to a whole number of portions."""
        questions = self._questions()
        missing = -len(questions) % size
        for filler in self._random.integers(len(self._spare), size=missing).tolist():
            place = int(self._random.integers(len(questions) + 1))
            questions.insert(place, Question("filler", self._spare[filler]))
        for begin in range(0, len(questions), size):
            yield questions[begin : begin + size]

    def targets_of(self, question: Question) -> NDArray[np.int64]:
        """What its answer is compared with: for a twin the targets of the row it shares its beginning with."""
        return self._windows[question.row, 1:] if question.kind == "twin" else question.tokens[1:]

    def answer(self, question: Question, nats: NDArray[np.float64]) -> None:
        """The model's surprise at the targets, [T]."""
        if question.kind == "row":
            self.nats[question.row] = nats
        elif question.kind == "splice":
            ratio = np.exp(-nats[question.drawn] - question.log_q)
            self._fortunes += np.log1p(STAKES * (ratio[:, None] - 1)).sum(axis=0)
        elif question.kind in ("twin", "repeat"):
            self._later.append((question, nats))

    def conclude(self) -> None:
        """Raises Caught where an answer was not an honest model's."""
        worst: dict[str, float] = {"twin": 0.0, "repeat": 0.0}
        for question, nats in self._later:
            differences = np.abs(nats - self.nats[question.row])[: question.until]
            worst[question.kind] = max(worst[question.kind], float(differences.max(initial=0.0)))
        if worst["repeat"] > TOLERANCE:
            raise Caught("drift", f"the same row was answered otherwise later, by up to {worst['repeat']:.3g} nats")
        if worst["twin"] > TOLERANCE:
            raise Caught("leak", f"answers depend on tokens that come later, by up to {worst['twin']:.3g} nats")
        if self.evidence > EVIDENCE:
            raise Caught("leak", f"it foresees tokens that were drawn at random (evidence {self.evidence:.0f} nats)")

    @property
    def evidence(self) -> float:
        """The log of what betting on the drawn tokens has gained, on average over the gamblers."""
        return float(np.logaddexp.reduce(self._fortunes)) - log(len(STAKES))

    def _questions(self) -> list[Question]:
        count, length = len(self.nats), self.nats.shape[1]
        asked_at = self._random.random(count)
        timed = [(float(at), Question("row", self._windows[row], row)) for row, at in enumerate(asked_at)]
        # A cut before each position comes up before any comes up twice: a leak at some positions has no place to hide.
        cuts = np.concatenate([1 + self._random.permutation(length - 1) for _ in range(1 + count // length)])
        for row, cut in zip(self._some(count, _share(count, 8, 4, 64)), cuts, strict=False):
            other = self._spare[self._random.integers(len(self._spare))]
            tokens = np.where(np.arange(length + 1) < cut, self._windows[row], other)
            timed.append((self._after(float(asked_at[row])), Question("twin", tokens, row, until=int(cut))))
        early = np.argsort(asked_at)[: max(1, count // 3)]
        for row in self._random.permutation(early)[: _share(count, 16, 4, 32)].tolist():
            late = self._after(max(float(asked_at[row]), 2 / 3))
            timed.append((late, Question("repeat", self._windows[row], row, until=length)))
        timed += [(self._random.random(), self._splicer.splice()) for _ in range(max(8, SPLICED // (length + 1)))]
        return [question for _, question in sorted(timed, key=lambda one: one[0])]

    def _some(self, count: int, many: int) -> list[int]:
        return list(self._random.permutation(count)[:many].tolist())

    def _after(self, moment: float) -> float:
        return float(moment + (1 - moment) * self._random.random())


class _Splicer:
    """Joins pieces of the `windows` [m, T + 1] to rows that look natural."""

    def __init__(self, windows: NDArray[np.int64], vocab_size: int, random: np.random.Generator) -> None:
        self._random = random
        self._width = windows.shape[1]
        self._vocab_size = vocab_size
        self._text = windows.ravel()
        self._used = np.zeros(len(self._text), np.int64)
        # Each place that has enough tokens before it, by what these tokens are.
        places = np.arange(windows.size).reshape(windows.shape)[:, 2:].ravel()
        self._indices = []
        for reach, weight in CONTEXTS:
            keys = self._key([self._text[places - back] for back in range(reach, 0, -1)], len(places))
            order = np.argsort(keys, kind="stable")
            self._indices.append((reach, weight, keys[order], places[order]))

    def splice(self) -> Question:
        """A row in which about one token in JOINT was drawn by us, given those before it, and others follow it."""
        tokens = np.empty(self._width, np.int64)
        drawn, log_q, filled = [], [], 0
        while filled < self._width:
            if filled:
                place, likelihood = self._draw(tokens[:filled])
                drawn.append(filled - 1)  # the target of a position stands one further
                log_q.append(log(likelihood))
            else:  # the first draw looks two tokens back
                window, column = self._random.integers([len(self._text) // self._width, self._width - 1])
                place = int(window * self._width + column)
            wanted = max(int(self._random.geometric(1 / JOINT)), 1 if filled else 2)
            length = min(wanted, self._width - filled, self._width - place % self._width)
            tokens[filled : filled + length] = self._text[place : place + length]
            self._used[place : place + length] += 1
            filled += length
        return Question("splice", tokens, drawn=np.array(drawn, np.int64), log_q=np.array(log_q))

    def _draw(self, before: NDArray[np.int64]) -> tuple[int, float]:
        """A place whose token may follow `before`, and how likely that token was to be drawn."""
        found: list[tuple[float, NDArray[np.int64]]] = []
        for reach, weight, keys, places in self._indices:
            key = self._key(list(before[len(before) - reach :]), 1)[0]
            begin, end = keys.searchsorted(key), keys.searchsorted(key, side="right")
            if end > begin:
                found.append((weight, places[begin:end]))
        total = sum(weight for weight, _ in found)
        point = self._random.random() * total
        chosen = next((places for weight, places in found if (point := point - weight) < 0), found[-1][1])
        token = self._text[chosen[self._random.integers(len(chosen))]]
        # Of the places with that token the least used: a piece that was shown before would give a splice away.
        same = chosen[self._text[chosen] == token]
        same = same[self._used[same] == self._used[same].min()]
        likelihood = sum(
            weight * np.count_nonzero(self._text[places] == token) / len(places) for weight, places in found
        )
        return int(same[self._random.integers(len(same))]), likelihood / total

    def _key(self, tokens: Sequence[Any], count: int) -> NDArray[np.int64]:
        """One number for each context."""
        key = np.zeros(count, np.int64)
        for token in tokens:
            key = key * self._vocab_size + token
        return key


def _share(count: int, part: int, least: int, most: int) -> int:
    return min(max(count // part, least), most, count)
