"""Edits as agents write them (SEARCH/REPLACE blocks, unified diffs, whole files), and in words why one cannot be made.

An edit comes with whatever a model puts around it: prose, code fences, file names. It says by itself what it is:

- what Python can parse is the new file;
- lines `<<<<<<< SEARCH`, `=======`, `>>>>>>> REPLACE` make it blocks; all else around them is ignored. Where a line of
  the text itself looks like a marker, the block's three are written with another number of characters, 5 to 9;
- `@@ -1,3 +1,4 @@`, or `---` and `+++` lines, make it a diff. Hunks are found by their lines: the numbers only choose
  between several places;
- else the new file is in a ```python block.

Old lines are compared exactly but for white space at their ends and the kind of line end, which mean nothing to
Python; indentation does. A line that stays is left as the file has it, and new lines end as the file's lines do.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from heapq import nlargest
from itertools import pairwise, takewhile, zip_longest

from controller.edits.knobs import read_knobs
from controller.edits.resolve import model_digest
from controller.edits.source import MAX_SOURCE, SourceError, parse
from controller.edits.statements import NEWLINE
from controller.records import Objection, UserError
from controller.text import printable

MAX_CHANGES = 100
"""Blocks, or hunks, in an edit: one with more is better written as a whole file."""

MAX_MESSAGE = 2000
"""Characters in what an agent is told."""

FORMS = "SEARCH/REPLACE blocks, a unified diff, or the whole new file in one ```python block"
BLOCK = (
    "`<<<<<<< SEARCH`, the old lines, `=======`, the new lines, `>>>>>>> REPLACE`, each marker at the start of a line"
)

_SHOWN = 12  # lines of the file in a message
_WIDTH = 120  # characters of each
_MOST_FOUND = 100  # places where lines are found, before one gives up counting
_NEAR = 50  # lines from where a hunk says it belongs
_COMPARED = 120  # words, of each of the few places that are, whose order is compared
_ALIKE = 0.4  # share of words in common from which on lines are worth showing

_HEAD = re.compile(r"(<{5,9}) ?SEARCH[>:]?", re.IGNORECASE)
_DIVIDER = re.compile(r"(={5,9})")
_TAIL = re.compile(r"(>{5,9}) ?REPLACE", re.IGNORECASE)
_LIKE_A_MARKER = re.compile(r"\s*(<{5,}|>{5,})")
_FENCE = re.compile(r"(`{3,})\s*([\w+.-]*)[^`]*")
_PYTHON = frozenset({"python", "python3", "py"})
_DIFF = frozenset({"diff", "udiff", "patch"})
_HUNK = re.compile(r"@@(?!@)(?: -(\d{1,9})(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@)?")
_NEXT_FILE = re.compile(r"diff --git |Index: |index [0-9a-f]+\.\.|```")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NUMBERED = re.compile(r"[-+>]?\s*\d+\s*[|→]")
_WORDS = re.compile(r"\w+")

_PROTOCOL = {
    "trial": "`trial = prepare.trial()`",
    "ready": "`trial.ready(model, optimizers)` before the first counted step",
    "more": "`trial.more(tokens=…, loss=…)` as the loop's condition",
    "serve": "`trial.serve(model)` at the end",
}


class PatchError(UserError):
    """An edit that cannot be made, told to the agent that wrote it.

    `sentence` says what is wrong, where, and what to do; in the message, lines of the file may follow it. `label` is
    what the refusal is filed under.
    """

    def __init__(self, sentence: str, shown: Sequence[str] = (), label: Objection = Objection.EDIT) -> None:
        sentence = printable(sentence)
        self.sentence = sentence if len(sentence) <= 700 else f"{sentence[:700]}…"
        self.label = label
        text = self.sentence
        for line in shown:
            if len(text) + len(line) + 1 > MAX_MESSAGE:
                break
            text += f"\n{line}"
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class _Change:
    """Lines of the file, and what is to stand there instead, where a number is that one of the old lines, kept.

    `stated` is the index of the line where it says it belongs, if it does.
    """

    name: str
    what: str
    old: tuple[str, ...]
    new: tuple[str | int, ...]
    stated: int | None = None

    @property
    def keys(self) -> list[str]:
        return [_key(line) for line in self.old]


def apply(source: str, edit: str) -> str:
    """`source` as `edit` makes it; see the top of this file. All of it is done, or PatchError raised.

    Blocks and hunks are applied one after the other, each to what the former left, and the old lines of each must be
    there exactly once (those of a hunk: once at the place it states, or else near it, or else at all). SEARCH may be
    empty only where the file is. What comes out may still be no Python: that is for `check` to say.
    """
    for text, what in ((source, "the file"), (edit, "the edit")):
        if len(text) > MAX_SOURCE:
            raise PatchError(f"{what} has {len(text)} characters, more than {MAX_SOURCE}; make it shorter")
        if "\0" in text:
            raise PatchError(f"{what} holds a null byte, which no Python file may; leave it out")
        if _SURROGATE.search(text):
            raise PatchError(f"{what} holds half a character (a lone surrogate), which is no UTF-8; leave it out")
    edit = edit.removeprefix("\ufeff")
    lines = [line.rstrip("\r\n") for line in _lines(edit)]
    if not any(map(_key, lines)):
        raise PatchError(f"the edit is empty; send {FORMS}")
    end = NEWLINE.search(source)
    newline = end[0] if end else "\n"
    if _is_a_file(edit):
        found = "".join(f"{line}{newline}" for line in lines)
    elif any(_HEAD.fullmatch(_key(line)) for line in lines):
        found = _changed(source, list(_blocks(lines)), newline)
    elif _is_diff(lines):
        found = _changed(source, list(_hunks(lines)), newline)
    else:
        found = "".join(f"{line}{newline}" for line in _whole(edit, lines))
    if not any(map(_key, _lines(found))):
        raise PatchError("nothing would be left of the file; keep the code that trains the model")
    return found


def check(before: str, after: str, evaluated: bool) -> None:
    """Raise PatchError unless `after` parses, is not what `before` was, and keeps the evaluator's protocol.

    It is what `before` was where both are one model with the same knobs. Where the workspace is `evaluated`, each part
    of the trial protocol that `before` refers to must still be referred to, and nothing take the place of `prepare`.
    That is no defence, which is the harness's business: it saves an honest mistake its run. Raises SourceError where
    `before` itself does not parse.
    """
    try:
        digest, knobs = model_digest(after), read_knobs(after)
    except SourceError as error:
        shown = [] if error.line is None else ["The edited file there:", *_around(after, error.line)]
        raise PatchError(f"it does not parse: {error}", shown, Objection.SYNTAX) from error
    if digest == model_digest(before) and repr(sorted(knobs.items())) == repr(sorted(read_knobs(before).items())):
        how = "the edit changes nothing" if after == before else "the edit changes only comments, docstrings or layout"
        raise PatchError(f"{how}: it is the same model as the incumbent; change what it does", label=Objection.NO_OP)
    if evaluated and (needed := _protocol(before)):
        lost = [word for word in _PROTOCOL if word in needed - _protocol(after)]
        if lost:
            kept = ", ".join(_PROTOCOL[word] for word in lost)
            raise PatchError(f"the edited file no longer follows the evaluator's protocol: it must keep {kept}")
        replaced = _replacement(after)
        if replaced is not None and _replacement(before) is None:
            raise PatchError(
                f"the edited file {replaced}, which is the evaluator's and stays as it is; import and call it, and give"
                " your own things other names"
            )


# ---------------------------------------------------------------------------------------------------------------------
# What an edit says


def _lines(text: str) -> list[str]:
    """The lines as Python counts them, with their ends; form feeds and the like end none."""
    starts = [0, *(newline.end() for newline in NEWLINE.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(starts) if end > start]


def _key(line: str) -> str:
    """What a line is compared by."""
    return line.rstrip(" \t\f\r\n")


def _blocks(lines: Sequence[str]) -> Iterator[_Change]:
    """The SEARCH/REPLACE blocks of an edit."""
    keys = [_key(line) for line in lines]
    at = number = 0
    while at < len(keys):
        head = _HEAD.fullmatch(keys[at])
        if head is None:
            if _LIKE_A_MARKER.match(keys[at]):
                raise PatchError(
                    f"line {at + 1} of the edit is a marker in the wrong place or form; write a block as {BLOCK}",
                    [_cut(lines[at])],
                )
            at += 1
            continue
        number += 1
        if number > MAX_CHANGES:
            raise PatchError(f"the edit has more than {MAX_CHANGES} blocks; send the whole file instead")
        name, width = f"block {number} (line {at + 1} of the edit)", len(head[1])
        end, divider = _marks(keys, at, width, name)
        old, new = tuple(lines[at + 1 : divider]), tuple(lines[divider + 1 : end])
        if not any(map(_key, old)):
            old = ()
        yield _Change(name, "its SEARCH text is", old, _aligned(old, new))
        at = end + 1


def _marks(keys: Sequence[str], head: int, width: int, name: str) -> tuple[int, int]:
    """Where the block that begins at `head` ends, and where its two halves divide."""
    limit = head + 1
    while limit < len(keys) and not ((other := _HEAD.fullmatch(keys[limit])) and len(other[1]) == width):
        limit += 1

    def of(pattern: re.Pattern[str], before: int) -> list[int]:
        """The marker lines of that form: those as wide as the head, if any."""
        found = [(at, mark) for at in range(head + 1, before) if (mark := pattern.fullmatch(keys[at]))]
        return [at for at, mark in found if len(mark[1]) == width] or [at for at, _ in found]

    ends = of(_TAIL, limit)
    if not ends:
        before = "the next block begins" if limit < len(keys) else "the edit ends: it may have been cut off"
        raise PatchError(f"{name} has no line `>>>>>>> REPLACE` before {before}; write a block as {BLOCK}")
    dividers = of(_DIVIDER, ends[0])
    if not dividers:
        raise PatchError(f"{name} has no line `=======`; write a block as {BLOCK}")
    if len(dividers) > 1:
        raise PatchError(
            f"{name} has {len(dividers)} lines of `=`, and it cannot be told which divides old from new; write all"
            " three of its markers with another number of characters, from 5 to 9"
        )
    return ends[0], dividers[0]


def _aligned(old: Sequence[str], new: Sequence[str]) -> tuple[str | int, ...]:
    """The new lines, with those that are among the old ones as these, one for one."""
    places: defaultdict[str, deque[int]] = defaultdict(deque)
    for at, line in enumerate(old):
        places[line].append(at)
    return tuple(places[line].popleft() if places.get(line) else line for line in new)


def _is_diff(lines: Sequence[str]) -> bool:
    """Whether there is a hunk's header with its numbers, a file's header, or a bare `@@` at the top."""
    first = next(filter(_key, lines))
    return (
        _HUNK.match(first) is not None
        or any((fence := _FENCE.fullmatch(line)) and fence[2].lower() in _DIFF for line in lines)
        or any((header := _HUNK.match(line)) and header[1] for line in lines)
        or any(one.startswith("--- ") and two.startswith("+++ ") for one, two in pairwise(lines))
    )


def _hunks(lines: Sequence[str]) -> Iterator[_Change]:
    """The hunks of a diff of one file, which are between fences if any is."""
    lines = _fenced(lines)
    file: str | None = None
    at = number = 0
    while at < len(lines):
        line = lines[at]
        header = _HUNK.match(line)
        if header is None:
            if line.startswith("+++ "):
                name = _file_name(line)
                if file not in (None, name):
                    raise PatchError(f"the diff changes {file} and {name}; only one file may be changed")
                file = name
            elif number and line[:1] in ("+", "-") and not line.startswith("--- ") and line.rstrip() != "--":
                raise PatchError(f"line {at + 1} of the diff stands outside a hunk; send it within one", [_cut(line)])
            at += 1
            continue
        number += 1
        if number > MAX_CHANGES:
            raise PatchError(f"the diff has more than {MAX_CHANGES} hunks; send the whole file instead")
        change, at = _hunk(lines, at, header, f"hunk {number} (line {at + 1} of the diff)")
        yield change
    if not number:
        raise PatchError("the diff has no hunk: nothing follows a line `@@ -1,3 +1,4 @@`; send the lines that change")


def _fenced(lines: Sequence[str]) -> Sequence[str]:
    """The lines with those that are outside of code fences empty, unless no hunk is inside."""
    kept, inside = [], False
    for line in lines:
        inside ^= (fence := _FENCE.fullmatch(line) is not None)
        kept.append(line if inside or fence else "")
    return kept if any(map(_HUNK.match, kept)) else lines


def _file_name(line: str) -> str:
    return line[4:].partition("\t")[0].strip().removeprefix("b/")[:100]


def _hunk(lines: Sequence[str], at: int, header: re.Match[str], name: str) -> tuple[_Change, int]:
    """The hunk that begins at `at`, and where the text goes on behind it."""
    stated, count, other = (int(part) if part else None for part in header.groups())
    expected = None if stated is None else (1 if count is None else count, 1 if other is None else other)
    old: list[str] = []
    new: list[str | int] = []
    blank = 0  # context lines at the end that are quite empty: they may be context, or only space before what follows
    at += 1
    while at < len(lines) and not _HUNK.match(lines[at]) and not _begins_a_file(lines, at):
        sign, text = lines[at][:1], lines[at][1:]
        if (sign not in ("", " ", "+", "-", "\\") or lines[at].rstrip() == "--") and (
            (len(old) - blank, len(new) - blank) == expected or (len(old), len(new)) == expected
        ):
            break  # a mail's signature, or prose
        if sign in ("", " "):
            new.append(len(old))
        if sign in ("", " ", "-"):
            old.append(text)
        elif sign == "+":
            new.append(text)
        elif sign != "\\":  # \ No newline at end of file
            raise PatchError(
                f"{name}: line {at + 1} begins with neither a space, `-` nor `+`; begin each line of a hunk with one",
                [_cut(lines[at])],
            )
        blank = blank + 1 if sign == "" else 0
        at += 1
    if blank:
        del old[-blank:], new[-blank:]
    return _Change(name, "its old lines are", tuple(old), tuple(new), None if stated is None else stated - 1), at


def _begins_a_file(lines: Sequence[str], at: int) -> bool:
    if lines[at].startswith("--- ") and at + 2 < len(lines):
        return lines[at + 1].startswith("+++ ") and _HUNK.match(lines[at + 2]) is not None
    return _NEXT_FILE.match(lines[at]) is not None


def _whole(edit: str, lines: Sequence[str]) -> Sequence[str]:
    """The lines of the whole file that an edit holds between fences."""
    fences = [(at, fence) for at, line in enumerate(lines) if (fence := _FENCE.fullmatch(line))]
    blocks: list[tuple[str, int, int]] = []
    opened: tuple[int, re.Match[str]] | None = None
    for at, fence in fences:
        if opened is None:
            opened = at, fence
        elif not fence[2] and len(fence[1]) >= len(opened[1][1]):
            blocks.append((opened[1][2].lower(), opened[0], at))
            opened = None
    wanted = [block for block in blocks if block[0] in _PYTHON] or [block for block in blocks if not block[0]]
    if wanted:
        # Docstrings may have fences of their own, which would seem to end the block.
        widest = lines[wanted[0][1] + 1 : fences[-1][0]]
        if not fences[-1][1][2] and _is_a_file("\n".join(widest)):
            return widest
    if opened is not None:
        raise PatchError(
            f"the code block that begins at line {opened[0] + 1} of the edit is never closed: the edit may have been"
            " cut off; send it whole, or only what changes as SEARCH/REPLACE blocks"
        )
    if len(wanted) > 1:
        raise PatchError(
            f"the edit has {len(wanted)} code blocks, and it cannot be told which is the file; send {FORMS}"
        )
    if wanted:
        return lines[wanted[0][1] + 1 : wanted[0][2]]
    why = "it has no statement"
    shown: list[str] = []
    try:
        parse(edit)
    except SourceError as error:
        why = str(error).partition(";")[0]
        shown = _around(edit, error.line) if error.line else []
    raise PatchError(
        f"the edit is no Python file ({why}), nor anything else that is known; send {FORMS}; a block is {BLOCK}",
        shown,
        Objection.SYNTAX,
    )


def _is_a_file(text: str) -> bool:
    """Whether it is Python, and more than a word of prose that happens to be."""
    try:
        return any(not isinstance(node, ast.Expr) for node in parse(text).body)
    except SourceError:
        return False


# ---------------------------------------------------------------------------------------------------------------------
# Where it belongs


def _changed(source: str, changes: Sequence[_Change], newline: str) -> str:
    """The file with all changes made, one after the other. A last line without an end keeps to that."""
    lines = _lines(source)
    ended = not lines or lines[-1].endswith(("\r", "\n"))
    if not ended:
        lines[-1] += newline
    keys = [_key(line) for line in lines]
    first, shift = list(keys), 0
    for change in changes:
        if not change.old and any(keys):
            raise PatchError(
                f"{change.name} does not say where it belongs, as it has no old lines; to insert, quote a line of the"
                " file and repeat it beside the new ones; to replace everything, send the whole file"
            )
        at, length = (_place(keys, change, shift, first), len(change.old)) if change.old else (0, len(lines))
        old = lines[at : at + length]
        lines[at : at + length] = [old[line] if isinstance(line, int) else f"{line}{newline}" for line in change.new]
        keys[at : at + length] = [_key(line) for line in lines[at : at + len(change.new)]]
        shift += len(change.new) - length
    text = "".join(lines)
    return text if ended else text.removesuffix(newline)


def _place(keys: Sequence[str], change: _Change, shift: int, first: Sequence[str]) -> int:
    """The index of the line where the change's old lines begin. `first` is the file before any change."""
    wanted = change.keys
    if change.stated is not None:
        at = max(change.stated + shift, 0)
        if keys[at : at + len(wanted)] == wanted:
            return at
        start = max(at - _NEAR, 0)
        near = _found(keys[start : at + _NEAR + len(wanted)], wanted)
        if len(near) == 1:
            return start + near[0]
    found = _found(keys, wanted)
    if not found:
        raise _missed(change, keys, first)
    if len(found) > 1:
        times = f"{len(found)} times" if len(found) < _MOST_FOUND else f"{_MOST_FOUND} times or more"
        places = ", ".join(str(at + 1) for at in found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
        raise PatchError(f"{change.name}: {change.what} in the file {times}, at lines {places}; add lines around it")
    return found[0]


def _found(keys: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where these lines stand: the index of the first of them, `_MOST_FOUND` times at most."""
    if not keys or not wanted:
        return []
    text, piece = ("\n".join(["", *some, ""]) for some in (keys, wanted))
    found: list[int] = []
    at = line = 0
    while len(found) < _MOST_FOUND and (next_at := text.find(piece, at)) >= 0:
        line += text.count("\n", at, next_at)
        found.append(line)
        at, line = next_at + 1, line + 1
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Where it does not, and what is like it


def _missed(change: _Change, keys: Sequence[str], first: Sequence[str]) -> PatchError:
    """Why the old lines of a change are not there, as well as can be said, and what is most like them."""
    wanted = change.keys
    new = [wanted[line] if isinstance(line, int) else _key(line) for line in change.new]
    advice = "copy the lines to be changed from the file exactly, indentation included"
    start: int | None = None
    if any(wanted) and all(_NUMBERED.match(line) for line in wanted if line):
        advice = "leave out the line numbers"
    elif any(line.startswith("```") for line in wanted):
        advice = "leave out the ``` lines, and " + advice
    elif _found(first, wanted):
        advice = "an earlier part of this edit changed these lines: make one of the two, or quote what it leaves"
    elif there := _found(*([line.lstrip() for line in some] for some in (keys, wanted))):
        start = there[0]
        at = next(at for at, line in enumerate(wanted) if line != keys[start + at])
        advice = (
            f"but for indentation it is: line {start + at + 1} begins with {_margin(keys[start + at])}, yours with"
            f" {_margin(wanted[at])}; copy it exactly"
        )
    elif any(new) and (there := _found(keys, new)):
        start = there[0]
        advice = f"the new lines are there already, at line {start + 1}: leave this part out, or {advice}"
    if start is None:
        start = _closest(keys, wanted)
    shown = ["Nothing in the file is like it."] if start is None else _comparison(keys, wanted, start)
    return PatchError(f"{change.name}: {change.what} not in the file; {advice}", shown)


def _margin(line: str) -> str:
    margin = line[: len(line) - len(line.lstrip())]
    kind = {" ": "space", "\t": "tab"}.get(margin[:1])
    if not margin:
        return "no white space"
    if kind is None or margin != margin[0] * len(margin):
        return repr(margin[:40])
    return f"{len(margin)} {kind}{'s' if len(margin) > 1 else ''}"


def _closest(keys: Sequence[str], wanted: Sequence[str]) -> int | None:
    """Where the lines begin that have most words in common with `wanted`; None where none have many."""
    size = min(len(wanted), len(keys))
    need = Counter(word for line in wanted for word in _WORDS.findall(line))
    words = [_WORDS.findall(line) for line in keys]
    have: defaultdict[str, int] = defaultdict(int)
    common, total, shares = 0, need.total(), []
    for at, coming in enumerate(words):
        for word in coming:
            have[word] += 1
            common += have[word] <= need.get(word, 0)
        leaving = words[at - size] if at >= size else []
        for word in leaving:
            common -= have[word] <= need.get(word, 0)
            have[word] -= 1
        total += len(coming) - len(leaving)
        if at >= size - 1:
            shares.append(2 * common / (total or 1))
    best = nlargest(5, range(len(shares)), shares.__getitem__)
    if not best or shares[best[0]] < _ALIKE:
        return None
    mine = [word for line in wanted[:_COMPARED] for word in _WORDS.findall(line)][:_COMPARED]

    def likeness(start: int) -> float:
        """Both the words in their order and the whole lines in their places."""
        theirs = [word for some in words[start : start + min(size, _COMPARED)] for word in some][:_COMPARED]
        order = SequenceMatcher(None, mine, theirs, autojunk=False).ratio()
        return order + sum(a == b for a, b in zip(wanted, keys[start:], strict=False)) / size

    return max(best, key=likeness)


def _comparison(keys: Sequence[str], wanted: Sequence[str], start: int) -> list[str]:
    """The file's lines from `start` beside those wanted, from shortly before the first that differs."""
    pairs = zip(wanted, keys[start:], strict=False)
    skipped = max(next((at for at, (mine, theirs) in enumerate(pairs) if mine != theirs), 0) - 2, 0)
    start += skipped
    mine = wanted[skipped : skipped + 40]
    margin = 0 if skipped else min(start, 2)  # for lines that are wanted too few
    theirs = keys[start - margin : start + len(mine) + 2]
    rows: list[tuple[str, int, str]] = []
    opcodes = SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes()
    for place, (kind, a, b, c, d) in enumerate(opcodes):
        if kind == "insert" and place in (0, len(opcodes) - 1):
            continue
        if kind == "replace":  # at the ends there may be lines that nobody asked about
            c = max(range(c, d), key=lambda at: _in_common(mine[0], theirs[at])) if place == 0 else c
            d = max(range(c, d), key=lambda at: _in_common(mine[-1], theirs[at])) + 1 if b == len(mine) else d
        first = start - margin + c + 1
        if kind == "equal":
            rows += [(" ", first + at, line) for at, line in enumerate(theirs[c:d])]
            continue
        for at, (one, other) in enumerate(zip_longest(mine[a:b], theirs[c:d])):
            same = takewhile(lambda pair: pair[0] == pair[1], zip((one or "")[:2000], other or "", strict=False))
            both = len(list(same))
            shift = both - 40 if both > _WIDTH - 40 else 0
            rows += [("-", 0, _cut(one, shift))] if one is not None else []
            rows += [("+", first + at, _cut(other, shift))] if other is not None else []
    begin = max(next((at for at, row in enumerate(rows) if row[0] != " "), 0) - 2, 0)
    shown = rows[begin : begin + _SHOWN]
    table = [f"{mark}{number or '':>5} | {_cut(line) if mark == ' ' else line}" for mark, number, line in shown]
    return ["Most like it (`-` lines are yours, `+` lines the file's):", *table]


def _in_common(one: str, other: str) -> float:
    """How much two lines have in common: the share of their words."""
    words = set(_WORDS.findall(one)), set(_WORDS.findall(other))
    return len(words[0] & words[1]) / (len(words[0] | words[1]) or 1)


def _around(text: str, line: int) -> list[str]:
    """The lines around one of them, numbered."""
    first = max(line - 3, 0)
    lines = _lines(text)[first : line + 2]
    return [f"{'>' if at == line else ' '}{at:>5} | {_cut(_key(one))}" for at, one in enumerate(lines, first + 1)]


def _cut(line: str, start: int = 0) -> str:
    """A line, or what is there of it from a character on, for a message."""
    before, after = "…" if start else "", "…" if len(line) > start + _WIDTH else ""
    return f"{before}{printable(line[start : start + _WIDTH])}{after}"


# ---------------------------------------------------------------------------------------------------------------------
# The evaluator's protocol


def _protocol(source: str) -> set[str]:
    """The parts of the trial protocol that a file refers to."""
    found: set[str] = set()
    for node in _nodes(source):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Load()) if name in _PROTOCOL:
                found.add(name)
            case ast.ImportFrom(module=str(module), names=names) if _is_prepare(module):
                found |= {"trial"} if any(one.name in ("trial", "Trial", "*") for one in names) else set()
    return found


def _replacement(source: str) -> str | None:
    """What a file does to put something else in the place of `prepare`, or of what is in it; None for nothing."""
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
    return None


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
