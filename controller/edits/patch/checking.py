"""Whether an edited file may take the place of the file that it was."""

from __future__ import annotations

from controller.edits.knobs import read_knobs
from controller.edits.patch.telling import PatchError, around
from controller.edits.resolve import model_digest
from controller.edits.source import SourceError
from controller.edits.trial_protocol import lost, replaced
from controller.records import Objection


def check(before: str, after: str, evaluated: bool) -> None:
    """Raise PatchError unless `after` parses, is not what `before` was, and keeps the evaluator's protocol.

    It is what `before` was where both are one model with the same knobs. Where the workspace is `evaluated`, each part
    of the trial protocol that `before` refers to must still be referred to, and nothing take the place of `prepare`.
    Raises SourceError where `before` itself does not parse.
    """
    try:
        digest, knobs = model_digest(after), read_knobs(after)
    except SourceError as error:
        shown = ["The edited file there:", *around(after, error.line)] if error.line else []
        raise PatchError(f"it does not parse: {error}", shown, Objection.SYNTAX) from error
    if digest == model_digest(before) and repr(sorted(knobs.items())) == repr(sorted(read_knobs(before).items())):
        how = "the edit changes nothing" if after == before else "the edit changes only comments, docstrings or layout"
        raise PatchError(f"{how}: it is the same model as the incumbent; change what it does", label=Objection.NO_OP)
    if not evaluated:
        return
    if parts := lost(before, after):
        raise PatchError(f"the edited file no longer follows the evaluator's protocol: it must keep {', '.join(parts)}")
    if (how := replaced(after)) and not replaced(before):
        raise PatchError(
            f"the edited file {how}, which is the evaluator's and stays as it is; import and call it, and give your own"
            " things other names"
        )
