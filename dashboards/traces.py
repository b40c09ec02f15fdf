"""The marks of the progress picture, each a plotly trace: what was tried, what failed, the line and the winners.

All text is made harmless by `dashboards.text` before plotly sees it. Numbers go in as arrays of bytes and hover texts
as three short strings a point: a study of 100,000 experiments is drawn whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from controller.records import Label, Tier
from dashboards.history import Row, Step
from dashboards.text import knob_list, paragraph, plain, template

MANY = 2_000
"""Studies with more experiments are drawn with WebGL: it stays fluid, where SVG is crisper."""

DENSE = 10_000
"""Studies with more experiments than this have smaller and fainter marks."""

PALE, TRIED, CONFIRMED, KEPT = "#6e7781", "#aab2bb", "#57606a", "#1a7f37"
FAILED, INNOCENT = "#cf5b56", "#8c959f"
BAND = "rgba(26,127,55,0.11)"
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "pentagon", "star", "hexagon", "triangle-down")


def tried(rows: Sequence[Row], scores: Sequence[float | None], metric: str) -> Iterator[dict[str, Any]]:
    """One trace for each tier on each accelerator: open marks screen, filled ones confirm; the shape is hardware."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, score in enumerate(scores):
        if score is not None:
            groups[rows[index]["tier"], rows[index]["accelerator"] or "unknown"].append(index)
    names = sorted({accelerator for _, accelerator in groups})
    symbols = {name: SYMBOLS[number % len(SYMBOLS)] for number, name in enumerate(names)}
    dense = len(rows) > DENSE
    for (tier, accelerator), indices in sorted(
        groups.items(), key=lambda group: (group[0][0] != Tier.SCREENING, group[0][1])
    ):
        confirming = tier == Tier.CONFIRMATION
        marker = {
            "symbol": symbols[accelerator] + ("" if confirming or dense else "-open"),
            "color": CONFIRMED if confirming else TRIED,
            "size": (4 if dense else 6) if confirming else (3 if dense else 7),
            "opacity": 0.4 if dense else 0.8,
            "line": {"width": 0 if confirming or dense else 1.4},
        }
        yield _points(indices, len(rows)) | {
            "y": _numbers([scores[index] for index in indices], "f8"),
            "name": f"{tier} · {plain(accelerator, 24)}",
            "marker": marker,
            "customdata": _texts([_hover(rows[index]) for index in indices]),
            "hovertemplate": f"<b>%{{customdata[0]}}</b> · {tier} · {template(accelerator, 24)}"
            f"<br>{template(metric, 60)} <b>%{{y:.6f}}</b><br>%{{customdata[1]}}<br>%{{customdata[2]}}<extra></extra>",
        }


def failures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Crosses on the strip: the candidates' failures in red, the infrastructure's in grey."""
    groups: dict[bool, list[int]] = {False: [], True: []}
    for index, row in enumerate(rows):
        if row["status"] not in ("done", "queued", "running"):
            label = Label(row["status"])
            groups[label.infrastructure or label is Label.CANCELLED].append(index)
    return [
        _points(indices, len(rows))
        | {
            "y": _numbers([0] * len(indices), "u1"),
            "yaxis": "y2",
            "name": "given up, not its fault" if innocent else "failed",
            "marker": {
                "symbol": "x-thin",
                "size": 5 if len(rows) > DENSE else 7,
                "opacity": 0.1 if len(rows) > DENSE else 0.7,
                "line": {"width": 0.6 if len(rows) > DENSE else 1.2, "color": INNOCENT if innocent else FAILED},
            },
            "customdata": _texts([_hover(rows[index], failed=True) for index in indices]),
            "hovertemplate": "<b>%{customdata[0]}</b><br>%{customdata[1]}<br>%{customdata[2]}<extra></extra>",
        }
        for innocent, indices in groups.items()
        if indices
    ]


def _points(indices: Sequence[int], count: int) -> dict[str, Any]:
    """A trace of the experiments at `indices`; all of a large study's are drawn the same way."""
    return {
        "type": _kind(count),
        "mode": "markers",
        "x": _numbers([index + 1 for index in indices], "i4"),
    }


def _kind(count: int) -> str:
    """One kind for all of a study's traces: WebGL's would cover the others."""
    return "scattergl" if count > MANY else "scatter"


def _texts(texts: Sequence[tuple[str, str, str]]) -> Any:
    """An array, which plotly takes as it is, where it would look at every item of a list."""
    import numpy as np

    return np.array(texts, dtype=object)


def _numbers(values: Sequence[Any], kind: str) -> Any:
    """An array that plotly writes as bytes rather than as digits."""
    import numpy as np

    return np.asarray(values, dtype=kind)


def _hover(row: Row, failed: bool = False) -> tuple[str, str, str]:
    """Who it was, what it was for, and what it ran with."""
    who = f"{row['experiment']} · {row['candidate']} · {row['role']} · seed {row['seed']}"
    if failed:
        about = f"{row['status']}: {row['reason'] or 'no reason given'}"
    else:
        about = row["hypothesis"] or ("no hypothesis given" if row["proposal"] else "the baseline")
    return plain(who, 80), paragraph(about, 160), paragraph(knob_list(row["knobs"]), 160)


def line(steps: Sequence[Step], count: int) -> Iterator[dict[str, Any]]:
    """The running best, and around it what one run of that incumbent may score by chance."""
    if not steps:
        return
    ends = [*(step.number for step in steps[1:]), max(count, steps[-1].number)]
    x = [place for step, end in zip(steps, ends, strict=True) for place in (step.number, end)]
    level = [step.score for step in steps for _ in range(2)]
    reach = [step.noise.sigma if step.noise else 0.0 for step in steps for _ in range(2)]
    path = {"type": _kind(count), "mode": "lines", "x": x, "hoverinfo": "skip", "legendgroup": "best"}
    if any(reach):
        edge = path | {"line": {"width": 0}, "showlegend": False, "name": "noise"}
        yield edge | {"y": [one - wide for one, wide in zip(level, reach, strict=True)]}
        yield edge | {
            "y": [one + wide for one, wide in zip(level, reach, strict=True)],
            "fill": "tonexty",
            "fillcolor": BAND,
        }
    yield path | {
        "y": level,
        "line": {"color": KEPT, "width": 2.2},
        "name": "best confirmed ± noise" if any(reach) else "best confirmed",
    }


def winners(steps: Sequence[Step], metric: str, count: int) -> Iterator[dict[str, Any]]:
    """The baseline as a white point, the kept candidates as green ones."""
    for name, fill, edge, members in (
        ("baseline", "#ffffff", KEPT, [step for step in steps if step.decision is None]),
        ("kept", KEPT, "#ffffff", [step for step in steps if step.decision is not None]),
    ):
        if members:
            yield {
                "type": _kind(count),
                "mode": "markers",
                "x": [step.number for step in members],
                "y": [step.score for step in members],
                "name": name,
                "marker": {"color": fill, "size": 11, "line": {"color": edge, "width": 1.8}},
                "customdata": _texts([_winner_hover(step) for step in members]),
                "hovertemplate": f"<b>%{{customdata[0]}}</b><br>{template(metric, 60)} <b>%{{y:.6f}}</b>,"
                " %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
            }


def _winner_hover(step: Step) -> tuple[str, str, str]:
    runs = f"mean of {step.runs} run{'s' * (step.runs != 1)} on {plain(step.accelerator or 'unknown', 24)}"
    if step.decision is None:
        return plain(f"{step.candidate} · the baseline", 80), runs, "where the study began"
    sentence = paragraph(step.decision.sentence, 240)
    return plain(f"{step.candidate} · kept", 80), runs, f"{paragraph(step.description, 160)}<br>{sentence}"
