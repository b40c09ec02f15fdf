"""The progress of a study as one picture: every score against its experiment's number, and the confirmed best so far.

Grey is what was tried, green what was kept. A failure has no score and gets none here: it is a cross on a strip of its
own below the plot.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from dashboards.history import Row, Step, score_of
from dashboards.labels import Box, place
from dashboards.text import plain, shorten
from dashboards.traces import KEPT, MANY, PALE, failures, line, tried, winners

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LABELLED = 25
"""At most so many winners, the last ones, are named in the picture; the others on hovering."""

NAMED = 46
"""The longest label, in characters."""

WIDTH, HEIGHT = 900, 450
"""The smallest plot area, in pixels, in which the labels must not collide; in a larger one they have more room."""

STRIP, GAP = 0.045, 0.025
"""The parts of the height that the strip of failures takes, and the space above it."""

INK, GRID, LEADER = "#24292f", "#eef0f2", "#a9cbb3"
FONT = 'system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif'


class Range(NamedTuple):
    """What an axis shows at first."""

    low: float
    high: float


def progress_figure(rows: Sequence[Row], steps: Sequence[Step], metric: str, minimize: bool) -> Figure:
    """The picture of `rows`, as `controller.journal.export.results` gives them, and of their `history`."""
    from plotly.graph_objects import Figure

    scores = [score_of(row, metric) for row in rows]
    known = [score for score in scores if score is not None]
    shown = value_range(known, steps, minimize) if known else Range(0, 1)
    numbers = _number_range(len(rows))
    called = shorten(metric, 40) + (", self-reported" if any(row["self_reported"] for row in rows) else "")
    traces = [
        *tried(rows, scores, called),
        *failures(rows),
        *line(steps, len(rows)),
        *winners(steps, called, len(rows)),
    ]
    layout = _layout(called, minimize, numbers, shown)
    if known:
        layout["annotations"] = _labels(steps, scores, numbers, shown, minimize)
    else:
        layout["annotations"] = [_nothing_yet(len(rows))]
        layout["yaxis"]["visible"] = False
    return Figure(data=traces, layout=layout)


def value_range(scores: Sequence[float], steps: Sequence[Step], minimize: bool) -> Range:
    """The scores worth looking at: all but far outliers (Tukey's fences), and every step with its band.

    A few that went badly wrong must not squeeze the rest into a line. The fence on the better side is wider.
    """
    ordered = sorted(scores)
    first, third = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    spread = third - first
    below, above = (3.0, 1.5) if minimize else (1.5, 3.0)
    low = next(score for score in ordered if score >= first - below * spread)
    high = next(score for score in reversed(ordered) if score <= third + above * spread)
    for step in steps:
        reach = 1.6 * step.noise.sigma if step.noise else 0.0
        low, high = min(low, step.score - reach), max(high, step.score + reach)
    size = (high - low) or abs(high) * 0.01 or 1.0
    # Labels hang on the better side, where nothing has scored yet.
    room_below, room_above = (0.16, 0.05) if minimize else (0.05, 0.16)
    return Range(low - room_below * size, high + room_above * size)


def _number_range(count: int) -> Range:
    margin = max(0.02 * count, 0.8)
    return Range(1 - margin, max(count, 8) + margin)


def _labels(
    steps: Sequence[Step], scores: Sequence[float | None], numbers: Range, shown: Range, minimize: bool
) -> list[dict[str, Any]]:
    """What the last winners were, written where there is room for it."""
    height = HEIGHT * (1 - STRIP - GAP)

    def pixel(number: float, score: float) -> tuple[float, float]:
        across = (number - numbers.low) / (numbers.high - numbers.low)
        return WIDTH * across, height * (shown.high - score) / (shown.high - shown.low)

    points = [pixel(step.number, step.score) for step in steps]
    end = (WIDTH, points[-1][1]) if points else (0.0, 0.0)
    hard = [_around(point, 6) for point in points]
    for (x, y), (next_x, next_y) in pairwise([*points, end]):
        hard += [Box(x, y - 2, next_x, y + 2), Box(next_x - 2, min(y, next_y), next_x + 2, max(y, next_y))]
    few = enumerate(scores if len(scores) <= MANY else (), 1)
    soft = [_around(pixel(number, score), 4) for number, score in few if score is not None]

    last = steps[-LABELLED:]
    labels = place(
        points[-LABELLED:], [shorten(step.description, NAMED) for step in last], hard, soft, (WIDTH, height), minimize
    )
    return [
        {
            "x": step.number,
            "y": step.score,
            "text": plain(step.description, NAMED),
            "xanchor": "right" if label.leftwards else "left",
            "yanchor": "middle",
            "ax": label.x,
            "ay": label.y,
            "arrowhead": 0,
            "arrowwidth": 0.8,
            "arrowcolor": GRID if label.y == 0 else LEADER,
            "standoff": 6,
            "font": {"size": 11.5, "color": KEPT if step.decision else PALE},
            "bgcolor": "rgba(255,255,255,0.72)",
            "borderpad": 1,
        }
        for label in labels
        for step in (last[label.index],)
    ]


def _around(point: tuple[float, float], reach: float) -> Box:
    x, y = point
    return Box(x - reach, y - reach, x + reach, y + reach)


def _nothing_yet(planned: int) -> dict[str, Any]:
    expected = f"the first of {planned:,} planned experiments" if planned else "the experiments of the first wave"
    return {
        "text": f"<b>No score yet</b><br>this picture begins with {expected}",
        "x": 0.5,
        "y": 0.5,
        "xref": "paper",
        "yref": "paper",
        "showarrow": False,
        "font": {"size": 15, "color": PALE},
    }


def _layout(metric: str, minimize: bool, numbers: Range, shown: Range) -> dict[str, Any]:
    quiet = {"zeroline": False, "showline": False, "tickfont": {"color": PALE}}
    goal = "lower" if minimize else "higher"
    return {
        "template": "none",
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "font": {"family": FONT, "size": 13, "color": INK},
        "margin": {"l": 84, "r": 44, "t": 44, "b": 56},
        "modebar": {"orientation": "v"},
        "hovermode": "closest",
        "hoverlabel": {
            "align": "left",
            "bgcolor": "#ffffff",
            "bordercolor": "#d0d7de",
            "font": {"family": FONT, "color": INK},
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "itemsizing": "constant",
        },
        "xaxis": quiet
        | {
            "title": {"text": "experiment, in the order planned", "font": {"size": 13, "color": PALE}},
            "range": numbers,
            "anchor": "y2",
            "showgrid": False,
            "tickformat": ",d",
        },
        "yaxis": quiet
        | {
            "title": {"text": f"{plain(metric, 60)} ({goal} is better)", "font": {"size": 13, "color": PALE}},
            "range": shown,
            "domain": (STRIP + GAP, 1),
            "gridcolor": GRID,
        },
        # The strip of failures: a place for marks, not a scale.
        "yaxis2": quiet
        | {
            "domain": (0, STRIP),
            "range": (-1, 1),
            "fixedrange": True,
            "tickvals": (0,),
            "ticktext": ("failed",),
            "showgrid": False,
        },
    }
