"""Candidates, and the models that have been tried."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from controller.journal.store import Journal
from controller.records import (
    Candidate,
    Knobs,
    Label,
    Role,
    Value,
)

_CANDIDATES = "SELECT candidate, commit_id, parent, knobs, model, proposal, origin FROM candidates WHERE study = ?"


def candidate(journal: Journal, tag: str, name: str) -> Candidate:
    """One candidate by id. Raises KeyError."""
    row = journal.db.execute(f"{_CANDIDATES} AND candidate = ?", (tag, name)).fetchone()
    if row is None:
        raise KeyError(name)
    return _candidate(row)


def candidates(journal: Journal, tag: str, wave: str) -> dict[str, Candidate]:
    """Every candidate that an experiment of `wave` runs, the incumbent among them, by id."""
    query = f"{_CANDIDATES} AND candidate IN (SELECT candidate FROM experiments WHERE study = ? AND wave = ?)"
    return {row[0]: _candidate(row) for row in journal.db.execute(query, (tag, tag, wave))}


def _candidate(row: tuple[Any, ...]) -> Candidate:
    return Candidate(row[0], row[1], row[2], knobs(row[3]), row[4], row[5], row[6])


class KnownModels(Mapping[str, str]):
    """The digest of every model tried in the study, or about to be, with the first candidate that was it.

    What the infrastructure kept from running, or what was called off, has not been tried. Asks the journal for each
    digest by itself, as there may be a hundred thousand. What is `claimed` counts as tried too.
    """

    _UNKNOWN = tuple(label.value for label in Label if label.infrastructure or label is Label.CANCELLED)
    _TRIED = (
        "FROM candidates c WHERE study = ? AND NOT EXISTS (SELECT 1 FROM experiments e WHERE e.study = c.study"
        f" AND e.candidate = c.candidate AND e.role != '{Role.CONTROL}'"
        f" AND e.status IN ({', '.join('?' * len(_UNKNOWN))}))"
    )

    def __init__(self, journal: Journal, tag: str) -> None:
        self._journal = journal
        self._tag = tag
        self._claims: dict[str, str] = {}

    def claim(self, digest: str, by: str) -> None:
        """Hold the model of `digest` to be tried by `by`."""
        self._claims[digest] = by

    def __getitem__(self, digest: str) -> str:
        if digest in self._claims:
            return self._claims[digest]
        query = f"SELECT min(candidate) {self._TRIED} AND model = ?"
        (found,) = self._journal.db.execute(query, (self._tag, *self._UNKNOWN, digest)).fetchone()
        if found is None:
            raise KeyError(digest)
        return str(found)

    def __iter__(self) -> Iterator[str]:
        yield from self._claims
        for (model,) in self._journal.db.execute(f"SELECT DISTINCT model {self._TRIED}", (self._tag, *self._UNKNOWN)):
            if model not in self._claims:
                yield model

    def __len__(self) -> int:
        return sum(1 for _ in self)


def knobs(text: str) -> Knobs:
    """Knobs from their JSON, in which a tuple is a list."""
    return {name: as_tuples(value) for name, value in json.loads(text).items()}


def as_tuples(value: Any) -> Value:
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value
