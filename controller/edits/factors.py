"""Factors as a person types them: `DEPTH=1,2`, `WINDOW_PATTERN=SSSL,L`, `ADAM_BETAS=(0.8,0.95),(0.9,0.95)`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from controller.edits.evaluate import Unknown, literal
from controller.edits.source import SourceError, parse
from controller.edits.statements import is_constant_name
from controller.records import Factor, UserError, Value

_BARE_WORD = re.compile(r"[A-Za-z_][\w.+/:-]*")
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


def parse_factor(text: str) -> Factor:
    """A knob and its levels from `KNOB=v1,v2,…`, each level once.

    A level is a literal as in the file; a bare word is a string. Commas inside brackets and quotes belong to their
    level. Raises UserError for anything else.
    """
    knob, equals, levels = text.partition("=")
    knob = knob.strip()
    if not equals or not is_constant_name(knob):
        raise UserError(f"{_shown(text)} is not a factor: write a knob and its levels, such as DEPTH=1,2")
    values = [_level(knob, part.strip()) for part in _split(knob, levels)]
    return Factor(knob, tuple({repr(value): value for value in values}.values()))


def _split(knob: str, text: str) -> Iterator[str]:
    """The text between commas that stand in no bracket and no quotes."""
    start, depth, quote, escaped = 0, 0, "", False
    for at, character in enumerate(text):
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        elif character in "'\"":
            quote = character
        elif character == "," and depth == 0:
            yield text[start:at]
            start = at + 1
        else:
            depth += _BRACKETS.get(character, 0)
    if depth or quote:
        raise UserError(f"{knob}: close every bracket and quote, such as {knob}=(1,2),(3,4)")
    yield text[start:]


def _level(knob: str, text: str) -> Value:
    if not text:
        raise UserError(f"{knob}: a level is missing, write its levels between commas, such as {knob}=1,2")
    if text in ("true", "false"):
        raise UserError(f"{knob}: write {text.title()} as Python does, such as {knob}=True,False")
    try:
        match parse(text).body:
            case [ast.Expr(value=expression)]:
                return literal(expression)
    except (SourceError, Unknown):
        pass
    if _BARE_WORD.fullmatch(text):
        return text
    raise UserError(
        f"{knob}: {_shown(text)} is no level, write a number, a word, a 'quoted string' or a tuple, such as {knob}=1,2"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")
