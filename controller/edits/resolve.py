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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from controller.edits.evaluate import Unknown, evaluate, is_literal
from controller.edits.knobs import fit_all
from controller.edits.source import parse
from controller.records import Knobs, Value

_NO_VALUES: Knobs = MappingProxyType({})

_NAMESPACE_NAMES = frozenset({"globals", "locals", "vars", "eval", "exec", "__import__"})
_NAMESPACE_ATTRIBUTES = frozenset({"__dict__", "__globals__"})


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A file taken apart: its static constants, the assertion that failed first, and the other statements.

    `rest` are the places in the module's body of all statements that are neither static constants nor assertions
    known to hold.
    """

    constants: Mapping[str, Value]
    broken: ast.Assert | None
    rest: tuple[int, ...]


def resolve(source: str, values: Knobs = _NO_VALUES) -> dict[str, Value]:
    """The effective constants: all static ones that the program itself refers to, in file order.

    One that is only used to compute other static constants, or in assertions, is not effective: what it does is seen in
    them. Raises SourceError where the file does not parse, UserError where `values` do
    not fit its knobs.
    """
    return _effective(source, _take_apart(source, values))


def stated(source: str, name: str) -> Value:
    """What the static constant `name` is, whether or not the program uses it; None where there is none.

    Raises as `resolve` does.
    """
    return _take_apart(source, _NO_VALUES).constants.get(name)


def model_digest(source: str, values: Knobs = _NO_VALUES) -> str:
    """A hex digest that two files share if they are two spellings of one model.

    It covers the effective constants and the syntax tree of everything else: not comments, docstrings or layout. Raises
    as `resolve` does.
    """
    resolved = _take_apart(source, values)
    effective = sorted(_effective(source, resolved).items())
    return hashlib.sha256(_canonical(source, resolved.rest) + repr(effective).encode()).hexdigest()


def broken_promise(source: str, values: Knobs = _NO_VALUES) -> str | None:
    """The message and expression of the first module-level assertion that is known to fail; None if none is.

    Raises as `resolve` does.
    """
    broken = _take_apart(source, values).broken
    if broken is None:
        return None
    expression = ast.unparse(broken.test)
    match broken.msg:
        case ast.Constant(value=str(message)):
            return f"{message} ({expression})"
        case _:
            return expression


def _take_apart(source: str, values: Knobs) -> _Resolved:
    module = parse(source)
    replaced = fit_all(source, values)
    # A star import may replace any name, Python's own functions too.
    candidates = {} if "*" in module.bound else {id(found.statement): found for found in module.constants}
    names: dict[str, Value] = {}
    broken: ast.Assert | None = None
    rest: list[int] = []
    for place, statement in enumerate(module.body):
        try:
            if isinstance(statement, ast.Assert):
                holds = bool(evaluate(statement.test, names, module.bound))
                broken = broken or (None if holds else statement)
                if holds:
                    continue
            elif found := candidates.get(id(statement)):
                value = replaced[found.name] if found.name in replaced else evaluate(found.value, names, module.bound)
                if is_literal(value):
                    names[found.name] = value
                    continue
        except Unknown:
            pass
        rest.append(place)
    return _Resolved(names, broken, tuple(rest))


def _effective(source: str, resolved: _Resolved) -> dict[str, Value]:
    mentioned = _mentioned(source, resolved.rest)
    return {name: value for name, value in resolved.constants.items() if mentioned is None or name in mentioned}


@lru_cache(maxsize=16)
def _mentioned(source: str, places: tuple[int, ...]) -> frozenset[str] | None:
    """Every name, attribute and string in these statements of the file; None where they may reach any name at all."""
    found: set[str] = set()
    for statement in _statements(source, places):
        for node in ast.walk(statement):
            match node:
                case ast.Name(id=name):
                    found.add(name)
                case ast.Attribute(value=ast.Name(id="sys"), attr="modules"):
                    return None
                case ast.Attribute(attr=name):
                    found.add(name)
                case ast.Constant(value=str(name)):  # getattr(module, "DEPTH")
                    found.add(name)
    return None if found & _NAMESPACE_NAMES or found & _NAMESPACE_ATTRIBUTES else frozenset(found)


@lru_cache(maxsize=16)
def _canonical(source: str, places: tuple[int, ...]) -> bytes:
    """These statements of the file, in a form that is the same whatever their layout."""
    return "\n".join(_tokens(_statements(source, places))).encode(errors="backslashreplace")


def _statements(source: str, places: tuple[int, ...]) -> list[ast.stmt]:
    body = parse(source).body
    return [body[place] for place in places]


def _tokens(statements: Sequence[ast.stmt]) -> Iterator[str]:
    """The trees in preorder. Unambiguous, as each kind of node has a fixed number of fields and lists tell theirs.

    Not `ast.dump`, which recurses: a chain of ten thousand additions is a legal file.
    """
    pending: list[object] = [list(statements)]
    while pending:
        match pending.pop():
            case ast.AST() as node:
                yield type(node).__name__
                pending.extend(getattr(node, field, None) for field in reversed(node._fields))
            case list() as items:
                kept = [item for item in items if not _is_remark(item)]
                yield f"[{len(kept)}"
                pending.extend(reversed(kept))
            case int() as number:
                yield f"{type(number).__name__} {number:x}"  # Python refuses to print long numbers in decimal
            case other:
                yield repr(other)


def _is_remark(node: object) -> bool:
    """True for a docstring, or any other string that stands by itself."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
