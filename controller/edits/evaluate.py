"""What an expression is worth, without running it: arithmetic over literals and known names, time and memory bounded.

Expressions come from candidates, so nothing is computed before its size is known: `9**9**9`, `"a" * 10**9` and
`round(1, -10**9)` are unknown, not awaited.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Container, Iterable, Mapping
from functools import lru_cache
from itertools import islice
from math import isfinite
from typing import Any, TypeGuard

from controller.records import Value

MAX_NODES = 200
"""Nodes in an expression; this bounds the depth of recursion too."""

MAX_BITS = 1024
"""Bits in an integer, as many as the largest float has."""

MAX_SIZE = 10_000
"""Characters and elements in a value, nested ones counted."""

MAX_DIGITS = 100
"""Digits that `round` may be asked for, either side of the point."""


class Unknown(Exception):
    """The expression cannot be evaluated statically, or not within bounds."""


def evaluate(expression: ast.expr, names: Mapping[str, Value], shadowed: Container[str] = ()) -> object:
    """The value of an expression: a `Value`, or a frozenset where it is a set.

    `shadowed` are names that the file itself binds, so that `min` is known to be Python's own. Raises Unknown for
    anything else than arithmetic, comparison, logic, tuples, indexing and a few functions, and for what would raise.
    """
    if not _short(expression):
        raise Unknown("too long")
    try:
        return _evaluate(expression, names, shadowed)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise Unknown(str(error)) from error


def literal(expression: ast.expr) -> Value:
    """The value of a literal: numbers, strings, True, False, None, tuples of them, and arithmetic on them.

    Raises Unknown for anything else, and for a value that `is_literal` does not allow.
    """
    allowed = ast.Constant | ast.Tuple | ast.UnaryOp | ast.BinOp | ast.operator | ast.unaryop | ast.expr_context
    if not all(isinstance(node, allowed) for node in islice(ast.walk(expression), MAX_NODES + 1)):
        raise Unknown("not a literal")
    value = evaluate(expression, {})
    if not is_literal(value):
        raise Unknown("cannot be written as a literal")
    return value


def is_literal(value: object) -> TypeGuard[Value]:
    """True for a value within bounds that its own `repr` spells: no infinity, no set."""
    match value:
        case None | int() | str():
            return _within_bounds(value)
        case float():
            return isfinite(value)
        case tuple():
            return _within_bounds(value) and all(map(is_literal, value))
        case _:
            return False


@lru_cache(maxsize=1024)
def _short(expression: ast.expr) -> bool:
    return len(list(islice(ast.walk(expression), MAX_NODES + 1))) <= MAX_NODES


def _evaluate(node: ast.expr, names: Mapping[str, Value], shadowed: Container[str]) -> Any:
    def of(child: ast.expr) -> Any:
        return _evaluate(child, names, shadowed)

    match node:
        case ast.Constant(value=value):
            return _bounded(value)
        case ast.Name(id=name):
            return names[name]
        case ast.Tuple(elts=elements):
            return _bounded(tuple([of(element) for element in elements]))
        case ast.Set(elts=elements):
            return _bounded(frozenset([of(element) for element in elements]))
        case ast.UnaryOp(op=op, operand=operand):
            return _bounded(_UNARY[type(op)](of(operand)))
        case ast.BinOp(left=left, op=op, right=right):
            return _bounded(_binary(op, of(left), of(right)))
        case ast.BoolOp(op=op, values=operands):
            for operand in operands:
                value = of(operand)
                if bool(value) == isinstance(op, ast.Or):
                    break
            return value
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            value = of(left)
            for comparison, comparator in zip(ops, comparators, strict=True):
                before, value = value, of(comparator)
                if not _compare(comparison, before, value):
                    return False
            return True
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return of(body) if of(test) else of(orelse)
        case ast.Subscript(value=sequence, slice=index):
            at = of(index)
            if not isinstance(at, int):
                raise Unknown("not an index")
            return of(sequence)[at]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name not in shadowed:
            return _bounded(_FUNCTIONS[name](*[of(arg) for arg in args]))
        case _:
            raise Unknown(type(node).__name__)


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(left, int | float) and isinstance(right, int | float):
        if isinstance(op, ast.Pow | ast.LShift) and isinstance(left, int) and isinstance(right, int):
            growth = left.bit_length() * right if isinstance(op, ast.Pow) else left.bit_length() + right
            if growth > MAX_BITS:
                raise Unknown("too large")
        return _NUMERIC[type(op)](left, right)
    if isinstance(op, ast.Mult):
        sequence, count = (right, left) if isinstance(left, int) else (left, right)
        if isinstance(sequence, str | tuple) and isinstance(count, int) and _size(sequence) * count <= MAX_SIZE:
            return sequence * count
    if isinstance(op, ast.Add) and isinstance(left, str | tuple):
        return left + right
    raise Unknown("no arithmetic")  # among it the % of strings, which can ask for any width


def _compare(op: ast.cmpop, left: Any, right: Any) -> bool:
    if isinstance(op, ast.Is | ast.IsNot) and not (left is None or right is None):
        raise Unknown("identity of anything but None is an accident")
    return bool(_COMPARISONS[type(op)](left, right))


def _round(number: Any, digits: Any = None) -> Any:
    if digits is not None and abs(digits) > MAX_DIGITS:
        raise Unknown("too many digits")
    return round(number, digits)


def _bounded(value: object) -> object:
    if not _within_bounds(value):
        raise Unknown("too large, or of a kind not known")
    return value


def _within_bounds(value: object) -> bool:
    match value:
        case None | float() | bool():
            return True
        case int():
            return value.bit_length() <= MAX_BITS
        case str() | tuple() | frozenset():
            return _size(value) <= MAX_SIZE
        case _:
            return False


def _size(value: object) -> int:
    """Elements in all, of values whose own elements are within bounds already."""
    match value:
        case str():
            return 1 + len(value)
        case tuple() | frozenset():
            return 1 + sum(map(_size, value))
        case _:
            return 1


def _set(values: Iterable[object] = ()) -> frozenset[object]:
    return frozenset(values)


_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_NUMERIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "round": _round,
    "int": int,
    "float": float,
    "len": len,
    "set": _set,
}
