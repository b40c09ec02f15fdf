"""The probes against models in numpy: every cheat is caught, and no honest model is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from controller.harness.probes import Caught, Examination, Question

VOCABULARY, LENGTH, ROWS = 64, 64, 256
Tokens = NDArray[np.int64]
Logits = NDArray[np.float64]
Model = Callable[[Tokens], Logits]


def text(count: int, random: np.random.Generator) -> Tokens:
    """Rows of a Markov chain, [count, LENGTH + 1]: each token has a few likely successors."""
    chain = random.dirichlet(np.full(VOCABULARY, 0.2), size=VOCABULARY)
    steps = chain.cumsum(axis=1)
    rows = np.empty((count, LENGTH + 1), np.int64)
    rows[:, 0] = random.integers(VOCABULARY, size=count)
    for place in range(LENGTH):
        rows[:, place + 1] = (
            (random.random(count)[:, None] > steps[rows[:, place]]).sum(axis=1).clip(max=VOCABULARY - 1)
        )
    return rows


def judged(model: Model, seed: int = 1) -> Examination:
    """An examination in which `model` has answered everything."""
    random = np.random.default_rng(seed)
    rows = text(2 * ROWS, random)
    sheet, spare = rows[:ROWS], rows[ROWS:]
    examination = Examination(sheet[:, :-1], sheet[:, 1:], spare, VOCABULARY, random)
    for questions in examination.portions(32):
        logits = model(np.stack([question.tokens[:-1] for question in questions]))
        logits = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
        for question, answer in zip(questions, logits, strict=True):
            targets = examination.targets_of(question)
            examination.answer(question, -answer[np.arange(LENGTH), targets])
    return examination


def caught(model: Model, seed: int = 1) -> str:
    """The label the examination of `model` ends with; empty where it finds nothing."""
    try:
        judged(model, seed).conclude()
    except Caught as found:
        assert str(found)
        return found.label
    return ""


def learnt() -> Model:
    """The best honest model of the text: the chain it comes from, as counted."""
    rows = text(20_000, np.random.default_rng(1))
    counts = np.full((VOCABULARY, VOCABULARY), 1e-3)
    np.add.at(counts, (rows[:, :-1].ravel(), rows[:, 1:].ravel()), 1)
    table = np.log(counts / counts.sum(axis=1, keepdims=True))
    return lambda tokens: table[tokens]


def peeking(share: float, boost: float = 8.0) -> Model:
    """Knows the next token at a fixed share of the places of every row."""
    honest = learnt()
    known = np.flatnonzero(np.random.default_rng(3).random(LENGTH - 1) < share)

    def model(tokens: Tokens) -> Logits:
        logits = honest(tokens).copy()
        for place in known.tolist():
            logits[np.arange(len(tokens)), place, tokens[:, place + 1]] += boost
        return logits

    return model


def replaying(model: Model) -> Model:
    """Remembers what it answered to each beginning of a row, and says the same again."""
    memory: dict[bytes, Logits] = {}

    def replay(tokens: Tokens) -> Logits:
        logits = model(tokens).copy()
        for row, answer in zip(tokens, logits, strict=True):
            for end in range(1, LENGTH + 1):
                answer[end - 1] = memory.setdefault(row[:end].tobytes(), answer[end - 1].copy())
        return logits

    return replay


@pytest.mark.parametrize("seed", range(20))
def test_an_honest_model_passes(seed: int) -> None:
    uniform: Model = lambda tokens: np.zeros((*tokens.shape, VOCABULARY))  # noqa: E731
    random_table = np.random.default_rng(seed).normal(size=(VOCABULARY, VOCABULARY))
    for model in (learnt(), uniform, lambda tokens: random_table[tokens], replaying(learnt())):
        assert caught(model, seed) == ""


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_looking_at_the_next_token_is_a_leak(share: float) -> None:
    assert caught(peeking(share)) == "leak"


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_looking_ahead_and_remembering_what_was_said_is_a_leak_all_the_same(share: float) -> None:
    assert caught(replaying(peeking(share))) == "leak"


def test_the_mean_of_the_whole_row_is_a_leak() -> None:
    honest = learnt()
    model: Model = lambda tokens: honest(tokens) * (1 + 0.01 * np.sin(tokens.mean(axis=1))[:, None, None])  # noqa: E731
    assert caught(model) == "leak"


def test_a_model_that_goes_on_changing_drifts() -> None:
    honest, calls = learnt(), iter(range(1000))
    model: Model = lambda tokens: honest(tokens) * (1 + 0.01 * next(calls))  # noqa: E731
    assert caught(model) == "drift"


def test_statistics_over_the_rows_asked_together_drift() -> None:
    honest = learnt()
    model: Model = lambda tokens: honest(tokens) * (1 + 0.01 * np.sin(tokens.sum()))  # noqa: E731
    assert caught(model) == "drift"


def test_remembering_rows_gains_nothing() -> None:
    honest = learnt()
    seen: set[bytes] = set()

    def model(tokens: Tokens) -> Logits:
        logits = honest(tokens).copy()
        for row, answer in zip(tokens, logits, strict=True):
            for place in range(LENGTH - 1):
                if row[: place + 2].tobytes() in seen:
                    answer[place, row[place + 1]] += 8.0
            seen.update(row[:end].tobytes() for end in range(8, LENGTH + 1))
        return logits

    assert np.allclose(judged(model).nats, judged(honest).nats)


def test_every_row_is_scored_once_and_every_portion_is_full() -> None:
    random = np.random.default_rng(5)
    rows = text(2 * ROWS, random)
    examination = Examination(rows[:ROWS, :-1], rows[:ROWS, 1:], rows[ROWS:], VOCABULARY, random)
    portions = list(examination.portions(24))
    assert {len(questions) for questions in portions} == {24}
    asked: list[Question] = [question for questions in portions for question in questions]
    assert sorted(question.row for question in asked if question.kind == "row") == list(range(ROWS))
    first = {question.row: place for place, question in reversed(list(enumerate(asked))) if question.kind == "row"}
    for place, question in enumerate(asked):
        if question.kind in ("twin", "repeat"):
            assert first[question.row] < place, "a row is scored before anything of it is asked again"
    cuts = [question.until for question in asked if question.kind == "twin"]
    assert len(cuts) == len(set(cuts)) == 32


def test_the_splices_of_an_honest_model_prove_nothing_on_average() -> None:
    assert max(judged(learnt(), seed).evidence for seed in range(10)) < 2
