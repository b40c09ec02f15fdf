"""Knobs: the module-level constants of the edited file that an experiment may set.

Setting one replaces its value's own characters and nothing else, so that a commit's diff shows the experiment.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache
from math import isfinite

from controller.edits.evaluate import is_literal
from controller.edits.source import Constant, parse
from controller.records import Knobs, UserError, Value

_NEWLINE = re.compile(rb"\r\n|\r|\n")


def read_knobs(source: str) -> dict[str, Value]:
    """Every knob with its value, in file order: `NAME = literal` at module level, NAME in upper case and bound once.

    Literals are numbers, strings, True, False, None, tuples of these, and arithmetic such as `2**19`. Raises
    SourceError where the file does not parse.
    """
    return {name: value for name, (value, _) in _knobs(source).items()}


def set_knobs(source: str, values: Knobs) -> str:
    """The file with these knobs set; one that has its value already is not touched, and keeps its spelling.

    Raises SourceError where the file does not parse, and UserError for a name that is no knob, or a value that `fit`
    refuses.
    """
    knobs = _knobs(source)
    text = source.encode()
    starts = [0, *(newline.end() for newline in _NEWLINE.finditer(text))]
    edits: list[tuple[int, int, bytes]] = []
    for name, value in fit_all(source, values).items():
        current, constant = knobs[name]
        if repr(value) != repr(current):
            node = constant.value
            assert node.end_lineno is not None and node.end_col_offset is not None
            start = starts[node.lineno + constant.shift - 1] + node.col_offset  # columns count bytes of UTF-8
            end = starts[node.end_lineno + constant.shift - 1] + node.end_col_offset
            edits.append((start, end, repr(value).encode()))
    for start, end, replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[end:]
    return text.decode()


def fit_all(source: str, values: Knobs) -> dict[str, Value]:
    """`values` as the file's knobs would hold them. Raises as `set_knobs` does."""
    knobs = read_knobs(source)
    for name in values:
        if name not in knobs:
            raise UserError(_no_such_knob(name, list(knobs)))
    return {name: fit(name, knobs[name], value) for name, value in values.items()}


def fit(knob: str, current: Value, value: Value) -> Value:
    """`value` as a knob that now holds `current` would hold it: of the same kind, an int made a float where it must be.

    A knob that holds None says nothing about its kind and takes any value. Raises UserError for anything else.
    """
    fitted = _fitted(current, value)
    if not is_literal(fitted) or (fitted is None and current is not None):
        raise UserError(
            f"{knob} cannot be {_shown(value)}: give it {_kind(current)}, such as the present {_shown(current)}"
        )
    return fitted


@lru_cache(maxsize=16)
def _knobs(source: str) -> dict[str, tuple[Value, Constant]]:
    constants = parse(source).constants
    return {found.name: (found.statement.literal[0], found) for found in constants if found.statement.literal}


def _fitted(current: Value, value: Value) -> object:
    """The value made to fit; an Ellipsis, which is no literal, stands for what does not."""
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return ...
    if isinstance(current, tuple) and isinstance(value, tuple) and len(current) == len(value):
        return tuple(_fitted(*pair) for pair in zip(current, value, strict=True))
    if current is None or (type(current) is type(value) and not isinstance(current, tuple)):
        return value
    return ...


def _no_such_knob(name: str, knobs: list[str]) -> str:
    close = get_close_matches(name, knobs) or get_close_matches(name.upper(), knobs)
    if close:
        return f"there is no knob {name}: did you mean {' or '.join(close)}?"
    if not knobs:
        return f"there is no knob {name}, nor any other: write `{name} = value` at the top level of the file"
    return f"there is no knob {name}: choose one of {', '.join(knobs)}"


def _kind(current: Value) -> str:
    match current:
        case bool():
            return "True or False"
        case int():
            return "a whole number"
        case float():
            return "a finite number"
        case str():
            return "a string"
        case tuple():
            return f"a tuple of {len(current)} values of the same kinds"
        case None:
            return "a number, a string or a tuple of them"


def _shown(value: Value) -> str:
    """A value for a message, which a huge one must not swamp, or break: Python will not print every int."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    try:
        text = repr(value)
    except ValueError:
        return "a value so large"
    return text if len(text) <= 60 else f"{text[:60]}…"
