"""Whether a candidate learns on its incumbent's schedule, so that their losses may be compared part of the way.

A run whose learning rate falls earlier looks better in the middle than it ends; one with larger batches, or whose
weights are averaged at the end, looks worse. Their curves cross, and to compare them in the middle is worth nothing.
Nor can losses be compared that are not the same quantity: with smoothed labels, with dropout, on other rows.

What a statement concerns is told by the words in it and by the names of the class and the functions around it. That is
a guess, made on the safe side: a candidate wrongly said to have another schedule only runs to its end.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TypeAlias

from controller.edits.source import SourceError, parse

LARGEST = 200_000
"""Characters in a file that is compared; the work is some ten times that of parsing it."""

_Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_CONCERNS = re.compile(
    r"\b(?:"
    r"lrs?|learning|rates?|peak|warm\w*|cool\w*|final|decay\w*|anneal\w*|ramp\w*|schedul\w*"
    r"|optim\w*|adam\w*|muon|sgd|lion|momentum|betas?|clip\w*|(?<!no )grad\w*|backward|accum\w*|ema|swa|averag\w*"
    r"|batch\w*|micro|sequence|seq|context|block size|(?:max|total|num|train) tokens"
    r"|steps?|iters?|iterations?|epochs?|progress|budget|trial|seconds|minutes|hours|time|deadline"
    r"|loss\w*|entropy|criterion|targets?|labels?|smoothing|drop\w*|noise|augment\w*|data|datasets?|load\w*"
    r"|train|training|eval"
    r")\b"
)


@dataclass(frozen=True, slots=True)
class _Difference:
    """A statement that only one of the two files has, and the definitions it stands in, outermost first."""

    statement: ast.stmt
    within: tuple[_Definition, ...]

    @property
    def words(self) -> str:
        """The statement's text and what is around it, to be searched."""
        return " ".join([*map(_title, self.within), _text(self.statement)])

    @property
    def names(self) -> set[str]:
        """What differs in the module's own scope: the definition that the statement is or is in, or what it binds."""
        outermost = self.within[0] if self.within else self.statement
        return {outermost.name} if isinstance(outermost, _Definition) else _names(outermost, ast.Store)


def same_schedule(source: str, incumbent: str) -> bool:
    """Whether `source` leaves alone all that decides how learning goes over time, as the file `incumbent` has it.

    A statement that differs, was added or was removed must not concern learning rates, warmup, decay, momentum, the
    optimizer, batches, the length of rows, the data, the loss, steps or the budget; nor must a variable computed from
    one that differs; nor may optimizers, schedules or the training loop refer to it by name. Classes and functions are
    compared statement by statement, loops as a whole. Comments and docstrings do not count. False where a file does not
    parse, or has more than `LARGEST` characters.
    """
    if max(len(source), len(incumbent)) > LARGEST:
        return False
    try:
        mine, theirs = parse(source).body, parse(incumbent).body
        found = list(_differences(mine, theirs))
        if any(_concerns(one.words) for one in found):
            return False
        changed = {name for one in found for name in one.names}
        return not (changed & (_governing(mine) | _governing(theirs))) and not any(
            _concerns(name) for body in (mine, theirs) for name in _computed_from(changed, body)
        )
    except (SourceError, RecursionError):
        return False


def _differences(
    mine: Sequence[ast.stmt], theirs: Sequence[ast.stmt], within: tuple[_Definition, ...] = ()
) -> Iterator[_Difference]:
    """What differs between two bodies. Definitions that both have once are compared inside; in a body whose common
    statements come in another order, all differ."""
    mine, theirs = ([one for one in body if not _is_remark(one)] for body in (mine, theirs))
    pairs = _pairs(mine, theirs)
    keys, others = ([_key(one, pairs) for one in body] for body in (mine, theirs))
    count, other_count = Counter(keys), Counter(others)
    common = {key for key in count if count[key] == other_count[key]}
    if [key for key in keys if key in common] != [key for key in others if key in common]:
        common = set()
    for key, one in [*zip(keys, mine, strict=True), *zip(others, theirs, strict=True)]:
        if key not in common:
            yield _Difference(one, within)
    for name in common & pairs.keys():
        one, other = pairs[name]
        headers = _header(one), _header(other)
        if ast.unparse(headers[0]) != ast.unparse(headers[1]):
            yield from (_Difference(header, within) for header in headers)
        yield from _differences(one.body, other.body, (*within, one))


def _pairs(mine: Sequence[ast.stmt], theirs: Sequence[ast.stmt]) -> dict[str, tuple[_Definition, _Definition]]:
    """The definitions that both bodies have once, by their keys."""
    found = [[one for one in body if isinstance(one, _Definition)] for body in (mine, theirs)]
    counts = [Counter(one.name for one in body) for body in found]
    first, second = ({one.name: one for one in body} for body in found)
    return {
        f"{type(one).__name__} {name}": (one, second[name])
        for name, one in first.items()
        if name in second and type(one) is type(second[name]) and counts[0][name] == counts[1][name] == 1
    }


def _key(statement: ast.stmt, pairs: dict[str, tuple[_Definition, _Definition]]) -> str:
    name = f"{type(statement).__name__} {statement.name}" if isinstance(statement, _Definition) else ""
    return name if name in pairs else _text(statement)


def _text(statement: ast.stmt) -> str:
    """The statement without comments and docstrings."""
    if any(_is_remark(node) for node in ast.walk(statement)):
        statement = deepcopy(statement)  # parsed files are shared
        for node in ast.walk(statement):
            for name in ("body", "orelse", "finalbody"):
                if isinstance(inside := getattr(node, name, None), list):
                    inside[:] = [one for one in inside if not _is_remark(one)]
            if getattr(node, "body", None) == []:
                node.body = [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(statement)


def _header(definition: _Definition) -> ast.stmt:
    """The definition with nothing in it."""
    header = copy(definition)
    header.body = [ast.Pass()]
    return header


def _title(definition: _Definition) -> str:
    """Its name, and what a class is derived from."""
    bases = definition.bases if isinstance(definition, ast.ClassDef) else []
    return " ".join([definition.name, *map(ast.unparse, bases)])


def _governing(body: Sequence[ast.stmt]) -> set[str]:
    """The names of, and in, the code that learning goes by: optimizers, schedules, training loops, what they call."""
    definitions = {one.name: one for one in body if isinstance(one, _Definition)}
    found = {name for name, one in definitions.items() if _concerns(_title(one))}
    pending: list[ast.stmt] = [definitions[name] for name in found]
    loops = (node for one in body for node in ast.walk(one) if isinstance(node, ast.For | ast.AsyncFor | ast.While))
    pending += [loop for loop in loops if _concerns(ast.unparse(loop))]
    while pending:
        new = _names(pending.pop(), ast.Load) - found
        found |= new
        pending += [definitions[name] for name in new if name in definitions]
    return found


def _computed_from(changed: set[str], body: Sequence[ast.stmt]) -> set[str]:
    """The module's variables that are computed from those that changed, directly or through others."""
    found: set[str] = set()
    for one in body:
        if isinstance(one, ast.Assign | ast.AnnAssign | ast.AugAssign) and _names(one, ast.Load) & (changed | found):
            found |= _names(one, ast.Store)
    return found


def _names(statement: ast.AST, context: type[ast.expr_context]) -> set[str]:
    """The names it loads or stores; what annotations mention is neither."""
    found: set[str] = set()
    pending: list[ast.AST] = [statement]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, context):
            found.add(node.id)
        hidden = {id(getattr(node, name, None)) for name in ("annotation", "returns")}
        pending += [child for child in ast.iter_child_nodes(node) if id(child) not in hidden]
    return found


def _concerns(text: str) -> bool:
    return _CONCERNS.search(" ".join(_WORD.findall(text)).lower()) is not None


def _is_remark(node: ast.AST) -> bool:
    """True for a docstring, or any other string that stands by itself."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
