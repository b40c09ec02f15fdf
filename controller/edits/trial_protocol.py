"""What a file keeps of the trial protocol, by which the evaluator speaks with it.

That is no defence, which is the harness's business: it saves an honest mistake its run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from controller.edits.source import parse

PARTS = {
    "trial": "`trial = prepare.trial()`",
    "ready": "`trial.ready(model, optimizers)` before the first counted step",
    "more": "`trial.more(tokens=…, loss=…)` as the loop's condition",
    "serve": "`trial.serve(model)` at the end",
}
"""The names by which a file follows it, and in words how."""


def lost(before: str, after: str) -> list[str]:
    """The parts that `before` refers to and `after` does not, in words. Raises SourceError."""
    missing = _parts(before) - _parts(after)
    return [words for part, words in PARTS.items() if part in missing]


def replaced(source: str) -> str:
    """What a file does to put something else in the place of `prepare`, or of what is in it: empty for nothing.

    Raises SourceError.
    """
    for node in _nodes(source, functions=False):
        match node:
            case ast.FunctionDef(name="prepare") | ast.AsyncFunctionDef(name="prepare") | ast.ClassDef(name="prepare"):
                return "defines `prepare` itself"
            case ast.Name(id="prepare", ctx=ast.Store() | ast.Del()):
                return "assigns to `prepare`"
            case ast.Import(names=names) if any(one.asname == "prepare" != one.name for one in names):
                return "imports something else as `prepare`"
            case ast.ImportFrom(names=names) if any((one.asname or one.name) == "prepare" for one in names):
                return "imports something else as `prepare`"
    for node in _nodes(source):
        match node:
            case ast.Attribute(attr=name, value=value, ctx=ast.Store() | ast.Del()) if _root(value) == "prepare":
                return f"assigns to `{name}` of `prepare`"
            case ast.Subscript(
                value=ast.Attribute(attr="modules"), slice=ast.Constant(value=str(name)), ctx=ast.Store() | ast.Del()
            ) if _is_prepare(name):
                return f"assigns to `sys.modules[{name!r}]`"
    return ""


def _parts(source: str) -> set[str]:
    found: set[str] = set()
    for node in _nodes(source):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Load()) if name in PARTS:
                found.add(name)
            case ast.ImportFrom(module=str(module), names=names) if _is_prepare(module):
                found |= {"trial"} if any(one.name in ("trial", "Trial", "*") for one in names) else set()
    return found


def _nodes(source: str, *, functions: bool = True) -> Iterator[ast.AST]:
    """Every node of a file, or only those of the module's own scope."""
    pending: list[ast.AST] = [*parse(source).body]
    while pending:
        node = pending.pop()
        yield node
        if functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))


def _root(node: ast.expr) -> str | None:
    """`a` of `a.b.c`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _is_prepare(module: str) -> bool:
    return module.partition(".")[0] == "prepare"
