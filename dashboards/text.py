"""Text from experiments, made harmless and short before it is shown.

Hypotheses, knobs and names are written by agents and must never be interpreted: not by the browser, and not by plotly,
which reads `<b>`, `<a href>` and entities in every label. Both undo the escaping done here when they draw the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from html import escape
from textwrap import wrap
from typing import Any

SHOWN_KNOBS = 12


def shorten(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` printable characters, not yet escaped.

    What does not print (control characters, lone surrogates, marks that turn the direction of writing) becomes space.
    """
    head = text[: 4 * limit]
    if not head.isprintable():
        head = "".join(character if character.isprintable() else " " for character in head)
    line = " ".join(head.split())
    if len(line) <= limit and len(text) == len(head):
        return line
    kept = line[: limit - 1]
    word = kept.rfind(" ")
    return f"{kept[: word if word > 0.75 * limit else limit].rstrip(' ,;:.')}…"


def plain(text: str, limit: int) -> str:
    """`text` shortened and escaped, for an HTML text node or a plotly label."""
    return escape(shorten(text, limit), quote=False)


def template(text: str, limit: int) -> str:
    """`text` shortened and escaped, for a plotly hover template, in which `%{` would begin a variable."""
    return plain(text, limit).replace("%{", "%&#123;")


@lru_cache(maxsize=1024)
def paragraph(text: str, limit: int, width: int = 72) -> str:
    """`text` shortened, broken into lines of `width` characters and escaped, for a plotly hover box."""
    line = shorten(text, limit)
    lines = wrap(line, width) if len(line) > width else (line,)
    return "<br>".join(escape(one, quote=False) for one in lines)


def knob_list(knobs: Mapping[str, Any]) -> str:
    """`MATRIX_LR = 0.04, DEPTH = 8`, not yet shortened or escaped."""
    shown = [f"{name} = {value!r}" for name, value in list(knobs.items())[:SHOWN_KNOBS]]
    return ", ".join(shown + ["…"] * (len(knobs) > SHOWN_KNOBS))
