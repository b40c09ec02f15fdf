"""From text to a syntax tree, and what the tree says about names.

Source is only ever parsed: never imported, never run. It may be hostile, so whatever Python's parser can raise becomes
one clean error.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from controller.records import UserError

MAX_SOURCE = 1_000_000
"""Characters in a file; a training script has some ten thousand."""

_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")


class SourceError(UserError):
    """The text is not a Python file; `line` is where it stops being one, None where that cannot be said."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        where = f"line {line}: " if line else ""
        super().__init__(f"{where}{reason}; change the file so that Python can parse it")
        self.line = line


@dataclass(frozen=True, slots=True)
class Constant:
    """A module-level assignment of one expression to one UPPER_CASE name that is bound nowhere else in the module."""

    name: str
    value: ast.expr
    statement: ast.stmt


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed file: its statements, every name its own scope binds (`*` for a star import), and its constants.

    A name bound a second time (assigned, imported, a loop's variable, declared `global` in a function, …) is no
    constant, whatever is assigned to it.
    """

    body: tuple[ast.stmt, ...]
    bound: frozenset[str]
    constants: tuple[Constant, ...]


@lru_cache(maxsize=16)
def parse(source: str) -> Module:
    """The file as a tree, shared between callers: to be read, not changed. Raises SourceError."""
    tree = _tree(source)
    bound = Counter(_bindings(tree))
    found = [constant for constant in map(_constant, tree.body) if constant is not None and bound[constant.name] == 1]
    return Module(tuple(tree.body), frozenset(bound), tuple(found))


def _tree(source: str) -> ast.Module:
    if len(source) > MAX_SOURCE:
        raise SourceError(f"it has {len(source)} characters, more than {MAX_SOURCE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except SyntaxError as error:
        raise SourceError(error.msg or "invalid syntax", error.lineno) from error
    except (RecursionError, MemoryError) as error:
        raise SourceError("it is nested too deeply") from error
    except (ValueError, OverflowError) as error:  # null bytes, lone surrogates
        raise SourceError(str(error)) from error


def is_constant_name(name: str) -> bool:
    """True for the names that knobs and derived constants have: `MATRIX_LR`, not `Model` or `_CACHE`."""
    return _CONSTANT.fullmatch(name) is not None


def _bindings(tree: ast.Module) -> Iterator[str]:
    """The name of everything that binds a name in the module's own scope, once for each time."""
    yield from (name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names)
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        yield from _binds(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))


def _binds(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [alias.asname or alias.name.partition(".")[0] for alias in names]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
        case _:
            return []


def _constant(statement: ast.stmt) -> Constant | None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if is_constant_name(name):
            return Constant(name, value, statement)
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if is_constant_name(name):
            return Constant(name, value, statement)
        case _:
            return None
