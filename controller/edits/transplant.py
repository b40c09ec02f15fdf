"""A change that was made to one version of a file, made to another."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from controller.edits.knobs import read_knobs, set_knobs
from controller.edits.source import SourceError
from controller.records import Knobs, UserError


def transplanted(base: str, changed: str, tip: str) -> str | None:
    """What made `base` into `changed`, done to `tip`; None where both have changed the same lines, or one no Python.

    Knobs are set, and the rest is merged as text with their values left out of it: they stand close together, so that
    the change of one would be in conflict with that of its neighbour.
    """
    try:
        present = read_knobs(base)
        ours, theirs = (
            {knob: value for knob, value in changed_knobs(text, base).items() if knob in present}
            for text in (changed, tip)
        )
        if set_knobs(base, ours) == changed:
            return set_knobs(tip, ours)
        if not theirs.keys() <= read_knobs(changed).keys():
            return None
        ours_left_out = set_knobs(changed, {knob: present[knob] for knob in ours})
        theirs_left_out = set_knobs(tip, {knob: present[knob] for knob in theirs})
    except (SourceError, UserError, ValueError):
        # A knob is gone, or holds another kind of value now, which only the text can tell.
        return _merged(base, changed, tip)
    merged = _merged(base, ours_left_out, theirs_left_out)
    try:
        return None if merged is None else set_knobs(merged, {**theirs, **ours})
    except (SourceError, UserError, ValueError):
        return None


def changed_knobs(text: str, incumbent: str) -> Knobs:
    """The knobs of `text` that the incumbent's file lacks or has otherwise."""
    present = read_knobs(incumbent)
    return {
        knob: value
        for knob, value in read_knobs(text).items()
        if knob not in present or repr(present[knob]) != repr(value)
    }


def _merged(base: str, changed: str, tip: str) -> str | None:
    """What made `base` into `changed`, done to the text of `tip`; None where lines of both were changed."""
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch, name) for name in ("tip", "base", "changed")]
        for file, text in zip(files, (tip, base, changed), strict=True):
            file.write_bytes(text.encode("utf-8", errors="surrogateescape"))
        # With `-p` the merge goes to the output, and no repository is asked.
        done = subprocess.run(
            ["git", "merge-file", "-p", "--quiet", *map(str, files)], cwd=scratch, capture_output=True, check=False
        )
    return done.stdout.decode("utf-8", errors="surrogateescape") if done.returncode == 0 else None
