"""What an agent is told of its edit: the forms that there are, and why it cannot be made, beside lines of the file."""

from __future__ import annotations

from collections.abc import Sequence

from controller.edits.patch.lines import key, split
from controller.records import Objection, UserError
from controller.text import printable

FORMS = "SEARCH/REPLACE blocks, a unified diff, or the whole new file in one ```python block"
BLOCK = (
    "`<<<<<<< SEARCH`, the old lines, `=======`, the new lines, `>>>>>>> REPLACE`, each marker at the start of a line"
)

MAX_MESSAGE = 2000
"""Characters in what an agent is told."""
MAX_SENTENCE = 700
"""Of these, in the sentence at their beginning."""
WIDTH = 120
"""Characters of a line that is shown."""


class PatchError(UserError):
    """An edit that cannot be made, told to the agent that wrote it.

    `sentence` says what is wrong, where, and what to do; in the message, lines of the file may follow it. `label` is
    what the refusal is filed under.
    """

    def __init__(self, sentence: str, shown: Sequence[str] = (), label: Objection = Objection.EDIT) -> None:
        sentence = printable(sentence)
        self.sentence = sentence if len(sentence) <= MAX_SENTENCE else f"{sentence[:MAX_SENTENCE]}…"
        self.label = label
        text = self.sentence
        for line in shown:
            if len(text) + len(line) + 1 > MAX_MESSAGE:
                break
            text += f"\n{line}"
        super().__init__(text)


def cut(line: str, start: int = 0) -> str:
    """A line, or what is there of it from a character on, for a message."""
    before, after = "…" if start else "", "…" if len(line) > start + WIDTH else ""
    return f"{before}{printable(line[start : start + WIDTH])}{after}"


def around(text: str, line: int) -> list[str]:
    """The lines around one of them, numbered from 1."""
    first = max(line - 3, 0)
    lines = split(text)[first : line + 2]
    return [f"{'>' if at == line else ' '}{at:>5} | {cut(key(one))}" for at, one in enumerate(lines, first + 1)]
