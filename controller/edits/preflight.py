"""Preflight: what must not run, found before it costs any GPU time. It reads the file and never runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from controller.accelerators import memory_gib
from controller.edits.resolve import broken_promise, model_digest, stated
from controller.edits.source import SourceError
from controller.records import Objection

MEMORY = "MEMORY_GIB"
"""The constant by which a file says how much accelerator memory its training takes at least."""


def refusal(
    source: str, incumbent: str, models: Mapping[str, str], tiers: Sequence[Sequence[str]] = ()
) -> tuple[Objection, str] | None:
    """Why this candidate must not run, as a label and a sentence about it; None if it may.

    `incumbent` is the incumbent's file, `models` the candidate that each model tried so far was, by digest, `tiers` the
    accelerators of each tier, of which one must hold it. Raises SourceError where the incumbent itself does not parse.
    """
    try:
        broken = broken_promise(source)
        digest = model_digest(source)
    except SourceError as error:
        return Objection.SYNTAX, f"it does not parse: {error}"
    if broken is not None:
        return Objection.ASSERTION, f"it fails its own assertion: {broken}"
    if digest == model_digest(incumbent):
        return Objection.NO_OP, "it is the same model as the incumbent"
    if digest in models:
        return Objection.DUPLICATE, f"it is the same model as {models[digest]}, which was tried before"
    return next((found for accelerators in tiers if (found := _too_big(source, accelerators))), None)


def _too_big(source: str, accelerators: Sequence[str]) -> tuple[Objection, str] | None:
    needed = stated(source, MEMORY)
    known = {name: room for name in accelerators if (room := memory_gib(name)) is not None}
    if not isinstance(needed, (int, float)) or not known or len(known) < len(accelerators):
        return None
    if not needed > max(known.values()) or not isfinite(needed):
        return None
    most = " and ".join(f"{name} has {room:g}" for name, room in known.items())
    return Objection.MEMORY, f"it takes at least {needed:.0f} GiB of memory ({MEMORY}), {most}"
