"""How much code a file is, however it is laid out."""

from __future__ import annotations

import io
import tokenize

from controller.edits.source import SourceError

TOKENS = 10
"""Of an average line: train.py has eleven, this controller nine to ten."""

_LAYOUT = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)


def code_lines(source: str) -> float:
    """The tokens of `source` as lines of ten: comments, docstrings and layout count for nothing. Raises SourceError."""
    count, begins = 0, True
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            docstring = begins and token.type == tokenize.STRING
            count += token.type not in _LAYOUT and not docstring
            begins = token.type in _LAYOUT or docstring
    except (tokenize.TokenError, SyntaxError) as error:
        raise SourceError(f"it can't be read as Python: {error}") from None
    return count / TOKENS
