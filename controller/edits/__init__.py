"""Edits of the one file that research changes: its knobs, what it resolves to, and what is not allowed to run.

Source is parsed, never imported or run, and everything computed from it is bounded: it may be hostile.
"""

from controller.edits.factors import parse_factor
from controller.edits.knobs import fit, read_knobs, set_knobs
from controller.edits.preflight import refusal
from controller.edits.resolve import broken_promise, model_digest, resolve
from controller.edits.schedule import same_schedule
from controller.edits.source import SourceError

__all__ = [
    "SourceError",
    "broken_promise",
    "fit",
    "model_digest",
    "parse_factor",
    "read_knobs",
    "refusal",
    "resolve",
    "same_schedule",
    "set_knobs",
]
