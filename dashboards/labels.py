"""Finds room for the labels of a chart, so that none covers another, a marker or the line.

Greedy, the most important label first, each at the first free place around its point (cf. Christensen, Marks & Shieber,
An empirical study of algorithms for point-feature label placement, 1995). A label that finds no room is left out.
Positions are pixels, x to the right and y downwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LINE_HEIGHT = 18.0
CHARACTER = 6.4
GAP = 11.0


class Box(NamedTuple):
    """A rectangle of pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


@dataclass(frozen=True, slots=True)
class Label:
    """A text beside its point: `x` and `y` are pixels from the point to the end of the text that is nearer to it."""

    index: int
    x: float
    y: float
    leftwards: bool


def place(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    hard: Sequence[Box],
    soft: Sequence[Box],
    size: tuple[float, float],
    down: bool,
) -> list[Label]:
    """Labels for those of `points` that have room for their text in an area of `size`, preferring the last of them.

    A label never covers a `hard` obstacle; it moves away a little to cover fewer `soft` ones. `down` says on which side
    of the points there is most room: below them, or above.
    """
    width, height = size
    taken = list(hard)
    labels = []
    for index in reversed(range(len(points))):
        free: list[tuple[int, int, Label, Box]] = []
        for order, label in enumerate(_choices(index, down)):
            box = _box(label, points[index], texts[index])
            inside = box.left >= 0 and box.right <= width and box.top >= 0 and box.bottom <= height
            if inside and not any(box.meets(other) for other in taken):
                free.append((order + 3 * sum(box.meets(mark) for mark in soft), order, label, box))
        if free:
            *_, label, box = min(free)
            taken.append(box)
            labels.append(label)
    return labels


def _choices(index: int, down: bool) -> Iterator[Label]:
    """Places to try for a label, the nearest first."""
    sign = 1 if down else -1
    yield Label(index, -GAP, 0.0, leftwards=True)
    for row in range(1, 4):
        for leftwards in (True, False):
            yield Label(index, -GAP if leftwards else GAP, sign * row * LINE_HEIGHT, leftwards)
    for row in range(1, 3):
        yield Label(index, GAP, -sign * row * LINE_HEIGHT, leftwards=False)


def _box(label: Label, point: tuple[float, float], text: str) -> Box:
    x, y = point[0] + label.x, point[1] + label.y
    width = CHARACTER * len(text) + 4
    left = x - width if label.leftwards else x
    return Box(left, y - LINE_HEIGHT / 2, left + width, y + LINE_HEIGHT / 2)
