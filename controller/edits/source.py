"""From text to a syntax tree, and what the tree says about names.

Source is only ever parsed: never imported, never run. It may be hostile, so whatever Python's parser can raise becomes
one clean error.
"""

from __future__ import annotations

import ast
import warnings
from collections import Counter, deque
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from controller.edits.statements import Piece, Statement, pieces_of
from controller.records import UserError

MAX_SOURCE = 1_000_000
"""Characters in a file; a training script has some ten thousand."""


class SourceError(UserError):
    """The text is not a Python file; `line` is where it stops being one, None where that cannot be said."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        where = f"line {line}: " if line else ""
        super().__init__(f"{where}{reason}; change the file so that Python can parse it")
        self.line = line


@dataclass(frozen=True, slots=True)
class Constant:
    """A module-level assignment of one expression to one UPPER_CASE name that is bound nowhere else in the module.

    The nodes' line numbers are those of the file once `shift` is added.
    """

    name: str
    value: ast.expr
    statement: Statement
    shift: int


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed file: its statements, every name its own scope binds (`*` for a star import), and its constants.

    A name bound a second time (assigned, imported, a loop's variable, declared `global` in a function, …) is no
    constant, whatever is assigned to it.
    """

    pieces: tuple[Piece, ...]
    statements: tuple[Statement, ...]
    bound: frozenset[str]
    constants: tuple[Constant, ...]

    @property
    def body(self) -> tuple[ast.stmt, ...]:
        """The statements' nodes; they are shared between files, and their places are not this file's."""
        return tuple(statement.node for statement in self.statements)


_recent: deque[Module] = deque(maxlen=4)
"""What was parsed last: the next file is likely to differ from one of these in a few lines."""


@lru_cache(maxsize=16)
def parse(source: str) -> Module:
    """The file as a tree, shared between callers: to be read, not changed. Raises SourceError."""
    if len(source) > MAX_SOURCE:
        raise SourceError(f"it has {len(source)} characters, more than {MAX_SOURCE}")
    pieces = _patched(source) or pieces_of(source, _tree(source))
    module = _module(pieces)
    _recent.appendleft(module)
    return module


def _module(pieces: list[Piece]) -> Module:
    bound = Counter(name for piece in pieces for name in piece.bound)
    lines = accumulate((piece.lines for piece in pieces), initial=1)
    constants = [
        Constant(*statement.assigned, statement, line - piece.first)
        for line, piece in zip(lines, pieces, strict=False)
        for statement in piece.statements
        if statement.assigned is not None and bound[statement.assigned[0]] == 1
    ]
    statements = tuple(statement for piece in pieces for statement in piece.statements)
    return Module(tuple(pieces), statements, frozenset(bound), tuple(constants))


def _patched(source: str) -> list[Piece] | None:
    """The pieces of a file that begins and ends as a recent one does, of which only the lines between are parsed.

    Statements that begin at the start of a line end where the next begins, whatever comes after. Where other lines
    follow that would go on with one (`else:`, more of its block), or stop short of the next, these lines alone are no
    Python, and the answer is None.
    """
    for known in list(_recent):
        start, end = 0, len(source)
        head = tail = 0
        for piece in known.pieces:
            if not piece.text.endswith("\n") or not source.startswith(piece.text, start):
                break
            start += len(piece.text)
            head += 1
        for piece in reversed(known.pieces[head:]):
            before = end - len(piece.text)
            begins_a_line = before == 0 or source[before - 1 : before] == "\n"
            if before < start or not begins_a_line or not source.startswith(piece.text, before):
                break
            end = before
            tail += 1
        if end - start <= len(source) // 2:
            try:
                between = pieces_of(source[start:end], _tree(source[start:end])) if end > start else []
            except SourceError:
                continue
            return [*known.pieces[:head], *between, *known.pieces[len(known.pieces) - tail :]]
    return None


def _tree(source: str) -> ast.Module:
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
