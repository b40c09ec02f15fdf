"""The fixed half of an experiment: corpus, tokenizer, loader, trial protocol and evaluation.

Research never edits this package: two scores can be compared because everything in here was the same for both.
Importing it costs nothing; torch, tiktoken, pyarrow and the network are reached for only by the functions that need
them, so that a harness can import the accounting and the scoring with numpy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prepare.protocol import Trial

__all__ = ["trial"]


def trial() -> Trial:
    """Open this process's trial: under the harness where one started us, otherwise on our own."""
    from prepare.protocol import Trial

    return Trial.open()
