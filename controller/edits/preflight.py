"""Preflight: what must not run, found before it costs any GPU time."""

from __future__ import annotations

from collections.abc import Mapping

from controller.edits.resolve import broken_promise, model_digest
from controller.edits.source import SourceError


def refusal(source: str, incumbent: str, models: Mapping[str, str]) -> str | None:
    """Why this candidate must not run, as a sentence about it; None if it may.

    `incumbent` is the incumbent's file, `models` the candidate that each model tried so far was, by digest. Raises
    SourceError where the incumbent itself does not parse.
    """
    try:
        broken = broken_promise(source)
        digest = model_digest(source)
    except SourceError as error:
        return f"it does not parse: {error}"
    if broken is not None:
        return f"it fails its own assertion: {broken}"
    if digest == model_digest(incumbent):
        return "it is the same model as the incumbent"
    if digest in models:
        return f"it is the same model as {models[digest]}, which was tried before"
    return None
