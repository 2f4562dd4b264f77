"""Names of points, placed so that none covers another name or a point."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

NARROW, WIDE = "iljtfrI.,:;|'!()[] -", "mwMW@%"
REACHES = (8.0, 12.0, 17.0, 24.0, 32.0, 42.0)
ANGLES = tuple(math.radians(angle) for angle in (0, 25, -25, 50, -50, 180, 155, -155, 130, -130, 90, -90))
POINT = 5.5
"""Radius of the area around a point that labels leave free, in pixels."""


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether two rectangles overlap."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )


class Label(NamedTuple):
    """A name with its place in pixels; y grows upwards."""

    point: int
    """Number of the point that it names."""
    x: float
    """Left end of the text."""
    y: float
    """Middle of the text."""
    line: tuple[float, float] | None
    """End of a line from the point to the name; None where the name is next to its point."""


def text_width(text: str, size: float) -> float:
    """About how wide a text is, in pixels (Helvetica)."""
    units = sum(0.29 if letter in NARROW else 0.86 if letter in WIDE else 0.56 for letter in text)
    return units * size


def place(
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    order: Iterable[int],
    area: tuple[float, float],
    size: float,
    taken: Iterable[Box] = (),
) -> list[Label]:
    """Places for as many names as there is room for.

    Args:
        points: Centers of all points, in pixels from the lower left corner.
        names: Their names.
        order: Points to name, the most important first.
        area: Width and height.
        size: Size of the letters.
        taken: Places that are occupied already.

    Returns:
        The names that fit; none covers another or a point, or crosses the edge.
    """
    dots = [Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in points]
    boxes = list(taken)
    lines: list[tuple[tuple[float, float], tuple[float, float]]] = []
    placed = []
    for index in order:
        width, height = text_width(names[index], size), size * 1.15
        for label, box in _candidates(index, points[index], width, height):
            inside = box.left >= 0 and box.bottom >= 0 and box.right <= area[0] and box.top <= area[1]
            if not inside or any(box.meets(other) for other in boxes):
                continue
            if any(box.meets(dot) for number, dot in enumerate(dots) if number != index):
                continue
            stroke = (points[index], label.line) if label.line else None
            if stroke and any(_crosses(stroke, other) for other in boxes):
                continue
            if any(_crosses(other, box) for other in lines):
                continue
            boxes.append(box)
            if stroke:
                lines.append(stroke)
            placed.append(label)
            break
    return placed


def _candidates(index: int, point: tuple[float, float], width: float, height: float) -> Iterable[tuple[Label, Box]]:
    for reach in REACHES:
        for angle in ANGLES:
            x, y = point[0] + reach * math.cos(angle), point[1] + reach * math.sin(angle)
            across = math.cos(angle)
            left = x if across > 0.1 else x - width if across < -0.1 else x - width / 2
            middle = y if abs(across) > 0.1 else y + math.copysign(height / 2 - 3, math.sin(angle))
            box = Box(left, middle - height / 2, left + width, middle + height / 2)
            line = (x, y) if reach > REACHES[1] else None
            yield Label(index, left, middle, line), box


def _crosses(line: tuple[tuple[float, float], tuple[float, float]], box: Box) -> bool:
    """Whether a line runs through a box (checked at eight places, which is enough for letters)."""
    (x, y), (to_x, to_y) = line
    steps = [step / 8 for step in range(1, 9)]
    return any(
        box.left < x + step * (to_x - x) < box.right and box.bottom < y + step * (to_y - y) < box.top for step in steps
    )
