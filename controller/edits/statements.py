"""The statements of a file, one by one, and what can be said of each by itself.

Candidates differ from their incumbent in a statement or two. What is known of the others is kept with them, and they
are shared between files: nodes are to be read, not changed, and tell no places.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from controller.edits.evaluate import Unknown, literal
from controller.records import Value

NEWLINE = re.compile(r"\r\n|\r|\n")

_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")
_NAMESPACE_NAMES = frozenset({"globals", "locals", "vars", "eval", "exec", "__import__"})
_NAMESPACE_ATTRIBUTES = frozenset({"__dict__", "__globals__"})


@dataclass(frozen=True, eq=False)
class Statement:
    """A statement of a module's body."""

    node: ast.stmt

    @cached_property
    def assigned(self) -> tuple[str, ast.expr] | None:
        """The UPPER_CASE name and the expression, where it assigns one to one; else None."""
        match self.node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if is_constant_name(name):
                return name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if is_constant_name(name):
                return name, value
            case _:
                return None

    @cached_property
    def literal(self) -> tuple[Value] | None:
        """The value that it assigns, alone in a tuple; None where it is no literal."""
        try:
            return None if self.assigned is None else (literal(self.assigned[1]),)
        except Unknown:
            return None

    @cached_property
    def mentions(self) -> frozenset[str] | None:
        """Every name, attribute and string in it; None where it may reach any name at all."""
        found: set[str] = set()
        for node in ast.walk(self.node):
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

    @cached_property
    def canonical(self) -> bytes | None:
        """Its tree in a form that is the same whatever its layout; None for a remark."""
        if _is_remark(self.node):
            return None
        return "\n".join(_tokens(self.node)).encode(errors="backslashreplace")


@dataclass(frozen=True, eq=False)
class Piece:
    """Whole lines of a file with whole statements in them, and the names these bind in the module's scope.

    `first` is the line, from 1, that the statements' nodes take for the piece's first; it has `lines` line ends.
    """

    text: str
    statements: tuple[Statement, ...]
    bound: tuple[str, ...]
    first: int
    lines: int


def is_constant_name(name: str) -> bool:
    """True for the names that knobs and derived constants have: `MATRIX_LR`, not `Model` or `_CACHE`."""
    return _CONSTANT.fullmatch(name) is not None


def pieces_of(text: str, tree: ast.Module) -> list[Piece]:
    """The text, of which this is the tree, in the smallest pieces: `text` again when joined."""
    starts = [0, *(newline.end() for newline in NEWLINE.finditer(text))]
    lines: list[int] = []
    groups: list[list[ast.stmt]] = []
    for node in tree.body:
        line = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
        if not groups or (node.col_offset == 0 and not _continued(text, starts[line - 1])):
            lines.append(line if groups else 1)
            groups.append([])
        groups[-1].append(node)
    if not groups:
        lines, groups = [1], [[]]
    ends = [*(starts[line - 1] for line in lines[1:]), len(text)]
    return [
        _piece(text[starts[line - 1] : end], nodes, line) for line, end, nodes in zip(lines, ends, groups, strict=True)
    ]


def _piece(text: str, nodes: list[ast.stmt], first: int) -> Piece:
    return Piece(text, tuple(map(Statement, nodes)), tuple(_bindings(nodes)), first, len(NEWLINE.findall(text)))


def _continued(text: str, start: int) -> bool:
    """Whether the line that starts there may belong to the one before it."""
    return text[max(0, start - 3) : start].rstrip("\r\n").endswith("\\")


def _bindings(nodes: list[ast.stmt]) -> Iterator[str]:
    """The name of everything that binds a name in the module's own scope, once for each time."""
    yield from (name for one in nodes for node in ast.walk(one) if isinstance(node, ast.Global) for name in node.names)
    pending: list[ast.AST] = [*nodes]
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


def _tokens(statement: ast.stmt) -> Iterator[str]:
    """The tree in preorder. Unambiguous, as each kind of node has a fixed number of fields and lists tell theirs.

    Not `ast.dump`, which recurses: a chain of ten thousand additions is a legal file.
    """
    pending: list[object] = [statement]
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
