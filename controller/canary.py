"""Whether a new cluster is like those in use, by what its canary reported: the baseline, trained there briefly.

Scores of two clusters are compared with each other all night. Where one has another library, other data or a slower
GPU, that difference would be taken for the candidates'. Pure; reports are what programs on clusters wrote, and nothing
about them is taken for granted.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from controller.text import one_line

SCORE_TOLERANCE = 0.01
"""By what fraction a score may differ from the others'. Seeds and code are the same, so what is left is the order of
sums on a GPU, a tenth of a per cent at most; other data or a broken library cost several per cent."""

SCORE_DEVIATIONS = 8.0
"""How many median absolute deviations it may differ by, where those are more: 5 standard deviations, were it normal, so
that a metric which is noisier by nature refuses no cluster for nothing."""

DEVIATIONS_FROM = 5
"""Of how many others at least a spread is told: that of fewer is mostly luck."""

SLOWEST = 0.8
"""Of the others' speed a cluster has at least. Cards of one kind differ by a few per cent; one that is throttled,
shared, or on a starved host by far more, and under a budget of seconds its scores would be worse for it."""

SPEEDS_FROM = 2
"""With how many others at least speeds are compared: a single one may be the odd one itself."""

PACKAGES_NAMED = 3
"""Of packages that differ so many are named: mostly they have one cause."""

BYSTANDERS = frozenset(
    {"pip", "setuptools", "uv", "wheel", "certifi", "charset-normalizer", "idna", "requests", "urllib3"}
)
"""Packages that install and download, and compute nothing: they change from one day to the next."""

NAMED_FIRST = ("torch", "triton", "numpy")
"""Packages that numbers depend on most."""

REASON_CHARACTERS = 200
WORD_CHARACTERS = 60
SENTENCE_CHARACTERS = 500
"""How much is quoted of a reason and of a name or version, and how long a difference gets."""

CODE = ("train", "fixed")
"""The hashes of the code: two canaries are comparable where these are equal."""


@dataclass(frozen=True)
class Canary:
    """What a cluster's canary reported. accelerator: what the cluster is said to have, "" where nothing is said."""

    cluster: str
    accelerator: str
    report: Mapping[str, Any]


def difference(new: Canary, others: Sequence[Canary], metric: str) -> str | None:
    """One sentence that says how the new cluster differs from the others in use, or None where it does not.

    others: canaries that passed, in the order of their age; the majority of those that ran the same code decides what
    is normal, the earliest where there is no majority.
    """
    status = _said(new.report, "status")
    if status != "done":
        reason = _text(_get(new.report, "reason"), REASON_CHARACTERS)
        ended = f"its canary ended as {status}" if status else "its canary ended without a result"
        return ended + (f": {reason}" if reason else "")
    alike = [other for other in others if _code(other) == _code(new)]
    found = "; ".join(_differences(new, alike, metric))
    return _cut(found, SENTENCE_CHARACTERS) or None


def _differences(new: Canary, others: Sequence[Canary], metric: str) -> Iterator[str]:
    seen = _said(new.report, "accelerator")
    if _has_gpu(new) and not _same_model(seen, new.accelerator):
        yield f"it has the accelerator {seen}, where {_text(new.accelerator)} was said"
    if not all(_code(new)):
        yield "its canary does not say which code it ran"
        return
    yield from _other_hashes(new, others)
    peers = [other for other in others if _kind(other) == _kind(new)]
    yield from _other_gpu(new, peers)
    yield from _other_python(new, others)
    of_budget = [other for other in peers if _said(other.report, "budget") == _said(new.report, "budget")]
    yield from _other_score(new, of_budget, metric)
    yield from _other_speed(new, of_budget)


def _other_hashes(new: Canary, others: Sequence[Canary]) -> Iterator[str]:
    own, theirs = _hashes(new), [_hashes(other) for other in others]
    for name in dict.fromkeys(name for hashes in [*theirs, own] for name in hashes):
        normal = _majority(hashes.get(name, "") for hashes in theirs)
        if normal is not None and own.get(name, "") != normal:
            has, have = (_cut(value, 12) or "none" for value in (own.get(name, ""), normal))
            yield f"the hash of its {name} is {has}, where the others have {have}"


def _other_gpu(new: Canary, peers: Sequence[Canary]) -> Iterator[str]:
    which = f"the others with {_text(new.accelerator)}" if _known(new.accelerator) else "the others"
    if _majority(_has_gpu(peer) for peer in peers) and not _has_gpu(new):
        yield f"no GPU was seen on it, where {which} have one"
        return
    if _majority(_uses_gpu(peer) for peer in peers) and not _uses_gpu(new):
        yield f"its GPU is hidden from programs, where {which} train on theirs"
    for name, what in (("gpu", "GPU"), ("driver", "GPU driver")):
        own = _environment(new, name)
        normal = _majority(theirs for peer in peers if (theirs := _environment(peer, name)))
        if own and normal and own != normal:
            yield f"its {what} is {own}, where {which} have {normal}"


def _other_python(new: Canary, others: Sequence[Canary]) -> Iterator[str]:
    own = _minor(_environment(new, "python"))
    normal = _majority(theirs for other in others if (theirs := _minor(_environment(other, "python"))))
    if own and normal and own != normal:
        yield f"python {own}, where the others have {normal}"
    packages = _packages(new)
    installed = [found for other in others if (found := _packages(other)) is not None]
    if packages is None or not installed:
        return
    names = sorted({*packages, *(name for found in installed for name in found)})
    usual = {name: _majority(found.get(name) for found in installed) for name in names}
    differing = [name for name in names if packages.get(name) != usual[name]]
    differing.sort(key=lambda name: name not in NAMED_FIRST)
    for name in differing[:PACKAGES_NAMED]:
        has = f"{name} {packages[name]}" if name in packages else f"no {name}"
        yield f"{has}, where the others have {usual[name] or 'none'}"
    if len(differing) > PACKAGES_NAMED:
        yield f"{len(differing) - PACKAGES_NAMED} packages more"


def _other_score(new: Canary, peers: Sequence[Canary], metric: str) -> Iterator[str]:
    scores = [score for peer in peers if (score := _number(peer, metric)) is not None]
    if not scores:
        return
    own, normal = _number(new, metric), median(scores)
    if own is None:
        yield f"its canary has no {_text(metric)}, where the others have {normal:.6g}"
        return
    tolerance = SCORE_TOLERANCE * abs(normal)
    if len(scores) >= DEVIATIONS_FROM:
        tolerance = max(tolerance, SCORE_DEVIATIONS * median(abs(score - normal) for score in scores))
    if abs(own - normal) > tolerance:
        yield f"{_text(metric)} {own:.6g}, where the others have {normal:.6g}"


def _other_speed(new: Canary, peers: Sequence[Canary]) -> Iterator[str]:
    speeds = [speed for peer in peers if (speed := _speed(peer)) is not None]
    own = _speed(new)
    if own is not None and len(speeds) >= SPEEDS_FROM and own < SLOWEST * (normal := median(speeds)):
        yield f"it trains on {own:.3g} million tokens a second, where the others do on {normal:.3g}"


def _speed(canary: Canary) -> float | None:
    """Million tokens a second on a GPU; None where that is not known. A CPU's says most of what else it does."""
    tokens, seconds = _number(canary, "total_tokens_M"), _number(canary, "training_seconds")
    if not _uses_gpu(canary) or not tokens or not seconds or tokens < 0 or seconds < 0:
        return None
    speed = tokens / seconds
    return speed if math.isfinite(speed) else None


def _has_gpu(canary: Canary) -> bool:
    return _known(_said(canary.report, "accelerator"))


def _uses_gpu(canary: Canary) -> bool:
    return _has_gpu(canary) and _said(canary.report, "device") != "cpu"


def _kind(canary: Canary) -> str:
    """Which accelerator it is compared by: what it is said to have, else what was seen."""
    said = _text(canary.accelerator)
    return said if _known(said) else _said(canary.report, "accelerator")


def _known(accelerator: str) -> bool:
    return accelerator not in ("", "CPU")


def _same_model(seen: str, said: str) -> bool:
    """Whether two names of accelerators may be one card's: `A100-SXM4-80GB` is an A100-80GB, an `A6000` an RTXA6000.

    What is no model's name, such as GeForce, may be any.
    """
    models = [re.match(r"(?:RTX|GTX)?-?([A-Z]+[0-9]+[A-Z]*|[0-9]{3,}[A-Z]*)", name.upper()) for name in (seen, said)]
    return any(model is None for model in models) or len({model[1] for model in models if model}) == 1


def _minor(version: str) -> str:
    """`3.11` of `3.11.2`."""
    return ".".join(version.split(".")[:2])


def _code(canary: Canary) -> tuple[str, ...]:
    hashes = _get(canary.report, "hashes")
    return tuple(_text(_get(hashes, name)) for name in CODE)


def _hashes(canary: Canary) -> dict[str, str]:
    """What its canary found there besides the code. A model's depends on nothing but the code and its libraries."""
    found = _get(canary.report, "hashes")
    return {
        _text(name): _text(value, 2 * WORD_CHARACTERS)
        for name, value in (found.items() if isinstance(found, Mapping) else ())
        if name not in (*CODE, "model")
    }


def _environment(canary: Canary, name: str) -> str:
    return _text(_get(_get(canary.report, "environment"), name))


def _packages(canary: Canary) -> dict[str, str] | None:
    found = _get(_get(canary.report, "environment"), "packages")
    if not isinstance(found, Mapping):
        return None
    return {_text(name): _text(version) for name, version in found.items() if version and name not in BYSTANDERS}


def _number(canary: Canary, name: str) -> float | None:
    """A metric, where it is a finite number."""
    found = _get(_get(canary.report, "metrics"), name)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return None
    try:
        number = float(found)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _majority(values: Iterable[Any]) -> Any:
    """What most of them are, the first where several are as many; None where there are none."""
    counted = Counter(values)
    return max(counted, key=counted.__getitem__) if counted else None


def _said(report: Any, name: str) -> str:
    return _text(_get(report, name))


def _get(found: Any, name: str) -> Any:
    return found.get(name) if isinstance(found, Mapping) else None


def _text(value: Any, most: int = WORD_CHARACTERS) -> str:
    """A text in a report, or a number, harmless and bounded; "" for anything else."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    try:
        text = str(value)
    except ValueError:  # a whole number of more digits than Python likes to print
        return ""
    return _cut(one_line(text[: 10 * most]), most)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
