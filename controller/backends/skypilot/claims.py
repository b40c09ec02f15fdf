"""Which clusters are this workspace's: their names, the label they carry, and what their canaries reported."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from controller.backends.skypilot.sdk import Record
from controller.canary import Canary
from controller.clock import Clock

LABEL = "autoresearch"
PREFIX = "autoresearch-"
NAME_CHARACTERS = 42
"""The longest name of a cluster that Kubernetes takes."""
_NUMBER = r"-(\d{2,4})"
CANARIES = 64
"""Canaries remembered of a study, the last ones."""


def cluster_name(study: str, number: int) -> str:
    """`autoresearch-nov21-07`; a tag that clouds would not take is cut, and told apart by its digest."""
    return f"{PREFIX}{_slug(study)}-{number:02d}"


def is_of(name: str, study: str) -> bool:
    """Whether a cluster called `name` is one of that study's names."""
    return re.fullmatch(re.escape(f"{PREFIX}{_slug(study)}") + _NUMBER, name) is not None


def _slug(study: str) -> str:
    most = NAME_CHARACTERS - len(PREFIX) - len("-0000")
    plain = re.sub(r"[^a-z0-9-]+", "-", study.lower()).strip("-")
    if plain == study and len(plain) <= most:
        return plain
    digest = hashlib.sha256(study.encode()).hexdigest()[:6]
    return f"{plain[: most - 7].rstrip('-')}-{digest}".lstrip("-")


@dataclass(frozen=True)
class Claim:
    """A cluster that is about to be asked for: by which study, and with which nonce for its canary."""

    name: str
    study: str
    nonce: str
    passed: bool = False


class Claims:
    """What is kept in `directory` of the clusters of one workspace."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._owner = directory / "owner"

    @property
    def owner(self) -> str:
        """By what this workspace's clusters are told from those of others, whatever they are called."""
        if not self._owner.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            _write(self._owner, self._clock.token()[:16])
        return self._owner.read_text().strip()

    def owns(self, record: Record) -> bool:
        """Whether a cluster is this workspace's. As long as it comes up it may carry no label: then its claim tells."""
        label = record.labels.get(LABEL)
        return label == self.owner or (label is None and not record.is_up and self.get(record.name) is not None)

    def get(self, name: str) -> Claim | None:
        """The claim to the cluster called `name`."""
        found = _read(self._directory / f"{name}.json")
        try:
            return Claim(**found) if found else None
        except TypeError:
            return None

    def put(self, claim: Claim) -> None:
        """Remember a claim."""
        self._directory.mkdir(parents=True, exist_ok=True)
        _write(self._directory / f"{claim.name}.json", json.dumps(asdict(claim)))

    def drop(self, name: str) -> None:
        """Forget a claim."""
        (self._directory / f"{name}.json").unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        """Where the log of a cluster's set-up and canary is kept."""
        return self._directory / f"{name}.log"

    def remember(self, study: str, canary: Canary) -> None:
        """Keep what a canary that passed has reported."""
        known = [*self._canaries(study), asdict(canary)][-CANARIES:]
        self._directory.mkdir(parents=True, exist_ok=True)
        _write(self._directory / f"{_slug(study)}.canaries", json.dumps(known))

    def canaries(self, study: str) -> list[Canary]:
        """The canaries of a study that passed, the oldest first."""
        return [Canary(**one) for one in self._canaries(study)]

    def _canaries(self, study: str) -> list[dict[str, Any]]:
        found = _read(self._directory / f"{_slug(study)}.canaries")
        return found if isinstance(found, list) else []


def free_numbers(study: str, taken: Iterable[str]) -> Iterable[int]:
    """Numbers from 1 on whose names nobody has."""
    names, number = set(taken), 0
    while True:
        number += 1
        if cluster_name(study, number) not in names:
            yield number


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
