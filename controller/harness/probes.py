"""Questions hidden among the rows that are scored, which only an honest model answers alike. numpy alone.

Every row of the sheet is asked once, in random order, and only that answer is scored. Between them stand
  twins     a row again, its end swapped for that of another: what comes before the cut may not change (leak)
  repeats   an early row again, late: nothing may change (drift)
  forgeries a row in which some tokens were drawn by us: a model that looks ahead finds them too easily (leak)

The ends of twins, and forgeries, are text that is not scored, so that no probe teaches what a later row asks.

A forgery needs no second answer to compare with, so that remembering earlier rows does not help against it. Its test
holds for whatever model: tokens are drawn from a distribution q that we know, so if the model gives them p without
having seen them, p/q has an expectation of at most 1. A gambler who stakes a fixed share of what he has on each p/q can
then multiply it by 1/α with a chance of at most α (Ville's inequality; Shafer, Testing by betting, 2021). We take the
mean of several gamblers, as it is not known how often a leak would look.

Rows cannot be told apart by their kind: all are text of the same shape, in portions of one size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import log
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-3
"""Nats by which an answer that should be the same may differ."""

EVIDENCE = -log(1e-6)
"""The log of the gamblers' gain at which a model has seen what it should predict: one false alarm in a million runs."""

STAKES = np.array([0.01, 0.03, 0.1, 0.3, 0.9])
"""What shares of their fortunes the gamblers stake."""

DRAWN = 4
"""In a forgery one token in so many is drawn, on average."""


class Caught(Exception):
    """A probe found what an honest model can't do; `label` is "leak" or "drift"."""

    def __init__(self, label: str, reason: str) -> None:
        super().__init__(reason)
        self.label = label


@dataclass
class Question:
    """One row to be asked: `tokens` [T + 1], of which the last T are the targets of the first T.

    kind: "row", "twin", "repeat", "forgery" or "filler". row: its number on the sheet, -1 for other text. until: how
    many positions must agree with the row's own answer. drawn: in a forgery, the positions whose targets were drawn,
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
        self._forger = _Forger(self._spare, vocab_size, random)
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
        elif question.kind == "forgery":
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
        timed += [(self._random.random(), self._forger.forge()) for _ in range(_share(count, 8, 8, 64))]
        return [question for _, question in sorted(timed, key=lambda one: one[0])]

    def _some(self, count: int, many: int) -> list[int]:
        return list(self._random.permutation(count)[:many].tolist())

    def _after(self, moment: float) -> float:
        return float(moment + (1 - moment) * self._random.random())


class _Forger:
    """Puts tokens into a row that look natural behind the one before: drawn from pairs of the sheet's own text."""

    def __init__(self, windows: NDArray[np.int64], vocab_size: int, random: np.random.Generator) -> None:
        self._windows = windows
        self._random = random
        before, after = windows[:, :-1].ravel(), windows[:, 1:].ravel()
        order = np.argsort(before, kind="stable")
        self._after = after[order]
        self._starts = np.searchsorted(before[order], np.arange(vocab_size + 1))
        self._all = after
        self._share = np.bincount(after, minlength=vocab_size) / len(after)

    def forge(self) -> Question:
        """Some row with about one token in DRAWN drawn by us, each given the token before it."""
        tokens = self._windows[self._random.integers(len(self._windows))].copy()
        drawn = np.flatnonzero(self._random.random(len(tokens) - 1) < 1 / DRAWN)
        log_q = np.empty(len(drawn))
        for place, position in enumerate(drawn.tolist()):  # the target of `position` stands one further
            likely = self._after[self._starts[tokens[position]] : self._starts[tokens[position] + 1]]
            pool = likely if len(likely) and self._random.random() < 0.5 else self._all
            token = int(pool[self._random.integers(len(pool))])
            tokens[position + 1] = token
            pair = np.count_nonzero(likely == token) / len(likely) if len(likely) else self._share[token]
            log_q[place] = log(0.5 * pair + 0.5 * self._share[token])
        return Question("forgery", tokens, drawn=drawn, log_q=log_q)


def _share(count: int, part: int, least: int, most: int) -> int:
    return min(max(count // part, least), most, count)
