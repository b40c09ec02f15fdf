"""The progress picture as one HTML file that needs nothing else: no network, no server, no other file.

Experiments choose their own texts, so the page trusts none of them: they are escaped where they are shown, the data is
JSON that no parser of HTML can leave, and a content security policy allows this page's scripts only and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.journal import Journal, export, reading
from controller.records import UserError
from dashboards.figures import progress_figure
from dashboards.history import history
from dashboards.summary import caption, summary
from dashboards.text import plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Hover texts repeat: they travel once, and each point's are looked up here, before plotly sees the figure.
_DRAW = """
const figure = JSON.parse(document.getElementById("figure").textContent);
for (const trace of figure.data)
  if (trace.customdata) trace.customdata = trace.customdata.map(texts => texts.map(index => figure.texts[index]));
Plotly.newPlot("plot", figure.data, figure.layout, {
  responsive: true, displaylogo: false,
  modeBarButtons: [["zoom2d", "pan2d", "autoScale2d", "resetScale2d", "toImage"]],
});
"""

_STYLE = """
body { margin: 0 auto; padding: 28px 32px 40px; min-width: 1080px; max-width: 1600px; background: #fff; color: #24292f;
       font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 4px; font-size: 22px; font-weight: 600; }
p { margin: 0; max-width: 128ch; overflow-wrap: anywhere; }
#plot { height: max(560px, calc(100vh - 290px)); margin: 12px 0 10px; }
.caption { max-width: 168ch; font-size: 13px; color: #6e7781; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="summary">{summary}</p>
<div id="plot"></div>
<p class="caption">{caption}</p>
<script id="figure" type="application/json">{data}</script>
<script>{plotly}</script>
<script>{draw}</script>
</body>
</html>
"""


def write_page(journal: Journal, tag: str, path: Path) -> None:
    """Draw study `tag` into the file `path`, which appears whole or not at all.

    Raises UserError where there is no such study, or the file can't be written.
    """
    from plotly.offline import get_plotlyjs

    with _snapshot(journal.db):
        study = reading.study(journal, tag)
        if study is None:
            known = ", ".join(reading.tags(journal)) or "none yet"
            raise UserError(f"there is no study {tag!r} in this journal: choose one of its studies ({known})")
        rows = export.results(journal, tag)
        decisions = reading.decisions(journal, tag)
        kept = [(wave, candidate) for wave, candidate, *_ in reading.kept(journal, tag)]

    changed = {candidate: reading.candidate(journal, tag, candidate).knobs for _, candidate in kept}
    steps = history(rows, decisions, kept, study.baseline, study.metric, changed)
    figure = progress_figure(rows, steps, study.metric, study.minimize)
    plotly = get_plotlyjs()
    page = _PAGE.format(
        policy=_policy(plotly, _DRAW),
        title=f"autoresearch · {plain(tag, 60)}",
        style=_STYLE,
        summary=escape(summary(study, rows, steps)),
        caption=escape(caption(study, rows, steps)),
        data=_script_json(figure),
        plotly=plotly,
        draw=_DRAW,
    )
    _write(path, page)


@contextmanager
def _snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """Let several queries see one moment of a study that goes on."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.rollback()


def _script_json(figure: Figure) -> str:
    """The figure as JSON in which no `<` can end the script element it stands in, whatever plotly has escaped."""
    from plotly.io.json import to_json_plotly

    content = figure.to_dict()
    content["texts"] = _intern(content["data"])
    text: str = to_json_plotly(content)
    return text.replace("<", "\\u003c")


def _intern(traces: Sequence[dict[str, Any]]) -> list[str]:
    """Put numbers in place of the hover texts, and return the texts by number."""
    texts: dict[str, int] = {}
    for trace in traces:
        if "customdata" in trace:
            rows = trace["customdata"].tolist()
            trace["customdata"] = [[texts.setdefault(text, len(texts)) for text in row] for row in rows]
    return list(texts)


def _policy(*scripts: str) -> str:
    """No connection, no frame, no script but these; WebGL drawing compiles its own, hence `unsafe-eval`."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"


def _write(path: Path, text: str) -> None:
    """Replace `path` by a file that holds `text`, in one step."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}): choose another file") from None
