"""What a file resolves to: which constants reach the program, whether its assertions hold, and which model it is.

A knob often acts through others only: with `MODEL_DIM = -(-DEPTH * ASPECT_RATIO // HEAD_DIM) * HEAD_DIM`, an
ASPECT_RATIO of 90 is the same model as one of 96, and running both buys nothing. All of this is read from the syntax
tree. Where it cannot be decided, two files count as different models and an assertion as kept: a wasted run is cheaper
than a good idea refused.

Every function takes `values` to answer for the file as `set_knobs(source, values)` would make it, without making it.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from controller.edits.evaluate import Unknown, evaluate, is_literal
from controller.edits.knobs import fit_all
from controller.edits.source import parse
from controller.edits.statements import Statement
from controller.records import Knobs, Value

_NO_VALUES: Knobs = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A file taken apart: its static constants, the assertion that failed first, and the other statements.

    `rest` are all statements that are neither static constants nor assertions known to hold.
    """

    constants: Mapping[str, Value]
    broken: ast.Assert | None
    rest: tuple[Statement, ...]


def resolve(source: str, values: Knobs = _NO_VALUES) -> dict[str, Value]:
    """The effective constants: all static ones that the program itself refers to, in file order.

    One that is only used to compute other static constants, or in assertions, is not effective: what it does is seen in
    them. Raises SourceError where the file does not parse, UserError where `values` do
    not fit its knobs.
    """
    return _effective(_taken_apart(source, values))


def stated(source: str, name: str) -> Value:
    """What the static constant `name` is, whether or not the program uses it; None where there is none.

    Raises as `resolve` does.
    """
    return _taken_apart(source, _NO_VALUES).constants.get(name)


def model_digest(source: str, values: Knobs = _NO_VALUES) -> str:
    """A hex digest that two files share if they are two spellings of one model.

    It covers the effective constants and the syntax tree of everything else: not comments, docstrings or layout. Raises
    as `resolve` does.
    """
    return _digest(source, values) if values else _digest_as_is(source)


def broken_promise(source: str, values: Knobs = _NO_VALUES) -> str | None:
    """The message and expression of the first module-level assertion that is known to fail; None if none is.

    Raises as `resolve` does.
    """
    broken = _taken_apart(source, values).broken
    if broken is None:
        return None
    expression = ast.unparse(broken.test)
    match broken.msg:
        case ast.Constant(value=str(message)):
            return f"{message} ({expression})"
        case _:
            return expression


def _digest(source: str, values: Knobs) -> str:
    resolved = _taken_apart(source, values)
    effective = sorted(_effective(resolved).items())
    rest = [statement.canonical for statement in resolved.rest if statement.canonical is not None]
    return hashlib.sha256(b"\n".join([b"[%d" % len(rest), *rest]) + repr(effective).encode()).hexdigest()


@lru_cache(maxsize=16)
def _digest_as_is(source: str) -> str:
    return _digest(source, _NO_VALUES)


def _taken_apart(source: str, values: Knobs) -> _Resolved:
    return _take_apart(source, values) if values else _taken_apart_as_is(source)


@lru_cache(maxsize=16)
def _taken_apart_as_is(source: str) -> _Resolved:
    return _take_apart(source, _NO_VALUES)


def _take_apart(source: str, values: Knobs) -> _Resolved:
    module = parse(source)
    replaced = fit_all(source, values)
    # A star import may replace any name, Python's own functions too.
    candidates = {} if "*" in module.bound else {found.statement: found for found in module.constants}
    names: dict[str, Value] = {}
    broken: ast.Assert | None = None
    rest: list[Statement] = []
    for statement in module.statements:
        try:
            if isinstance(statement.node, ast.Assert):
                holds = bool(evaluate(statement.node.test, names, module.bound))
                broken = broken or (None if holds else statement.node)
                if holds:
                    continue
            elif found := candidates.get(statement):
                value = replaced[found.name] if found.name in replaced else evaluate(found.value, names, module.bound)
                if is_literal(value):
                    names[found.name] = value
                    continue
        except Unknown:
            pass
        rest.append(statement)
    return _Resolved(names, broken, tuple(rest))


def _effective(resolved: _Resolved) -> dict[str, Value]:
    mentioned: set[str] = set()
    for statement in resolved.rest:
        if statement.mentions is None:
            return dict(resolved.constants)
        mentioned |= statement.mentions
    return {name: value for name, value in resolved.constants.items() if name in mentioned}
