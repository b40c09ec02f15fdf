"""What a command is told of how to answer, and what it has answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Any, NoReturn

from controller.proposers.vetting import NAME, Objected
from controller.text import clip

BRIEF, PROPOSAL = "AUTORESEARCH_BRIEF", "AUTORESEARCH_PROPOSAL"
"""Variables of its environment: the paths of what it should know, and of what it may say."""

HOW = """
# How to answer

Nobody will answer questions. The working directory is a checkout of the incumbent, a git repository by itself that is
thrown away when you are done: look around and try what you like in it. Training to the end is the clusters' business,
not yours. You have {total:g} minutes, and must print something every {silence:g}.

An idea is an edit of `{edit}`, knobs (its module-level constants) with levels to try, or both.

- An edit: change `{edit}` in place, and leave it changed. Only that file counts: changes of others are refused, and new
  files stay behind.
- What you expect of it, and levels: write one JSON object to the path in the environment variable {proposal}. Without
  it an edit is tried as it is.

```json
{{"name": "a few words", "hypothesis": "what makes the metric better, and why", "factors": {{"SOME_KNOB": [1, 2]}},
 "predicted": -0.004, "low": -0.009, "high": 0.001, "falsified_by": "what would show it wrong", "usd": 0.12}}
```

`name` and `hypothesis` are needed. Every combination of the levels is one cell (`design` may be `full`, `sweep`, one
knob at a time, or `screen`, two levels of many), on top of the edit if there is one; there is room for {room} cells in
all. `predicted` is the change of the metric, candidate minus control, and [`low`, `high`] an interval that should hold
it; they are compared with what is measured. `repairs` names the candidate whose crash the edit repairs, `usd` is what
the answer has cost you. A list of such objects is several ideas: the edit belongs to the one without factors, and the
others are tried without it.
"""

MOST_JSON = 1_000_000
"""Bytes."""
MOST_IDEAS = 100
MOST_USD = 10_000
"""Dollars: a number that is larger is none."""


def ideas_in(path: Path) -> list[Any]:
    """The ideas that were left there as JSON, whatever they are. Raises Objected for what is no JSON, or too much."""
    try:
        found = path.lstat()
    except OSError:
        return []
    if not S_ISREG(found.st_mode) or found.st_size > MOST_JSON:
        raise Objected(f"the file at {PROPOSAL} is not one of {MOST_JSON} bytes at most; write a JSON object there")
    try:
        data = path.read_bytes()
        answer = json.loads(data, parse_constant=_no_number) if data.strip() else None
    except (ValueError, RecursionError, OSError) as error:
        raise Objected(f"the file at {PROPOSAL} is no JSON: {clip(str(error), NAME)}") from None
    if answer is None:
        return []
    ideas = answer if isinstance(answer, list) else [answer]
    if len(ideas) > MOST_IDEAS:
        raise Objected(f"the file at {PROPOSAL} holds {len(ideas)} ideas, more than {MOST_IDEAS}; choose the best")
    return ideas


def said(idea: Any, key: str) -> str:
    """A text of an idea's; empty where there is none."""
    found = idea.get(key) if isinstance(idea, dict) else None
    return found if isinstance(found, str) else ""


def usd(idea: Any) -> float:
    """What it says that it has cost, in dollars; 0 for what is no sum."""
    found = idea.get("usd") if isinstance(idea, dict) else None
    is_sum = isinstance(found, int | float) and not isinstance(found, bool) and 0 <= found < MOST_USD
    return float(found) if is_sum and found is not None else 0.0


def with_edit(ideas: Sequence[Any], edit: str | None, who: str) -> list[tuple[Any, str | None]]:
    """Each idea with its edit: one belongs to the only idea, or to the first that has nothing else to try."""
    if edit is None:
        return [(idea, None) for idea in ideas]
    own = next((at for at, idea in enumerate(ideas) if _may_have(idea, len(ideas))), None)
    if own is None:
        own = 0
        ideas = [{"name": f"an edit by {who}", "hypothesis": f"what {who} changed makes the metric better"}, *ideas]
    return [(idea, edit if at == own else None) for at, idea in enumerate(ideas)]


def _may_have(idea: Any, of: int) -> bool:
    return isinstance(idea, dict) and (of == 1 or not (idea.get("factors") or idea.get("edit")))


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")
