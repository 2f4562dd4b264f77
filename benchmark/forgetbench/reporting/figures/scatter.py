"""Rows of a board as points: distance against cost, forgetting against utility, or any other two numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from forgetbench.reporting.figures._label_placement import Box, place, text_width
from forgetbench.reporting.figures.axes import TICKS, Axis, linear_axis, symlog_axis
from forgetbench.reporting.figures.points import Interval, Point
from forgetbench.reporting.figures.style import (
    KINDS,
    LETTER,
    LIGHT,
    Spec,
    Theme,
    category,
    color_by_kind,
    finish,
    layer,
    quantity,
    shape_by_kind,
    text_layers,
)

NAMED = 60
"""At most so many points bear names: beyond that there is no room in any case."""
BAND_NAME = "oracle band"
BUDGETS = (1.0, 5.0, 20.0, 100.0)
"""Budget classes, % of retraining's FLOPs (protocol section 3)."""


@dataclass(frozen=True)
class Dimension:
    """What one axis of a scatter chart shows."""

    title: str
    """In words, with the unit."""
    constant: float | None = None
    """Where the axis turns from linear to logarithmic; None for a linear axis."""
    small: bool = False
    """Whether the constant shrinks to the least value above 0, so that small values are distinguishable."""
    ticks: tuple[float, ...] = TICKS
    """Values that bear a number on a logarithmic axis."""
    minimum: float = 0.0
    """A logarithmic axis reaches at least this far up."""
    better: Literal["up", "down", ""] = ""
    """The better end; "" where neither is."""
    band: tuple[float, float] | None = None
    """Ends of the oracle band."""
    zero_line: bool = False
    """Whether a line marks 0, where retrained models are."""

    def axis(self, ends: Sequence[float], length: float) -> Axis:
        """The axis that shows so many values, or ends of intervals, in a length in pixels."""
        shown = [*ends, *(self.band or ())]
        if self.constant is None:
            return linear_axis(shown, length)
        least = min((end for end in ends if end > 0), default=self.constant) if self.small else self.constant
        return symlog_axis(shown, length, min(self.constant, least), self.ticks, minimum=self.minimum)


COST = Dimension("cost, % of retraining's FLOPs", 1.0, small=True, ticks=BUDGETS, minimum=100, better="down")
DISTANCE = Dimension("distance to retraining, in oracle sd", 1.0, minimum=10, better="down")


def gap(title: str, minimum: float, band: tuple[float, float] | None) -> Dimension:
    """An accuracy minus the oracles', in percentage points.

    Args:
        title: In words, with the unit.
        minimum: The axis reaches at least this far up.
        band: Ends of the oracle band, in points.
    """
    return Dimension(title, 2.0, ticks=(0, 1, 3, 10, 30, 100), minimum=minimum, band=band, zero_line=True)


class Size(NamedTuple):
    """Size of a chart without what is written around it, in pixels."""

    width: float
    height: float
    letter: float = LETTER
    """Size of its letters."""


COLUMN = Size(330.0, 250.0)
"""A paper's column."""


def pareto(points: Sequence[Point], limit: float | None, theme: Theme = LIGHT) -> Spec | None:
    """Distance against cost, with the front of the ranked rows; None where no method has a cost.

    Args:
        points: The rows; cost in % of retraining's FLOPs, distance in oracle standard deviations.
        limit: End of the family band; None where the board has none.
        theme: Colors.
    """
    return scatter(points, COST, replace(DISTANCE, band=None if limit is None else (0.0, limit)), theme)


def utility(
    points: Sequence[Point],
    bands: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0)),
    theme: Theme = LIGHT,
) -> Spec | None:
    """Forgetting against utility, in percentage points from the oracles; None where no method has both gaps.

    Args:
        points: The rows.
        bands: Where the oracles themselves fall on the two axes, in points.
        theme: Colors.
    """
    forget = gap("accuracy on the forgotten, points from retraining", 5, bands[0])
    return scatter(points, forget, gap("test accuracy, points from retraining", 3, bands[1]), theme)


def scatter(
    points: Sequence[Point], x: Dimension, y: Dimension, theme: Theme = LIGHT, size: Size = COLUMN
) -> Spec | None:
    """Points with their names and 95 % intervals, the oracle bands and, where both axes have a better end, the front.

    Args:
        points: The rows, the most important first.
        x: The axis from left to right.
        y: The axis from bottom to top.
        theme: Colors.
        size: Size of the chart.

    Returns:
        The specification; None where there is nothing but reference rows to draw.
    """
    if not any(point.kind in {*KINDS[:2], "claimed"} for point in points):
        return None
    axes = x.axis(_ends(point.x for point in points), size.width), y.axis(_ends(p.y for p in points), size.height)
    encodings = {
        name: quantity(name, title=dimension.title, scale=axis.scale, axis=axis.guide)
        for name, dimension, axis in zip("xy", (x, y), axes, strict=True)
    }
    rows = [_row(point) for point in points if point.kind != "claimed"]
    claims = [_row(point) for point in points if point.kind == "claimed"]
    front = front_of(points, x, y)
    layers, taken = _background((x, y), axes, encodings, theme, size)
    if claims:
        layers += [*_claimed_whiskers(claims, encodings, theme), _claimed_marks(claims, encodings, theme, size)]
    layers += _whiskers(rows, encodings, theme)
    if len(front) > 1:
        line: Spec = {"color": theme.ranked, "opacity": 0.6, "strokeWidth": 1.2}
        steps = "step-before" if x.better == "up" else "step-after"
        ends = [{"x": point.x.value, "y": point.y.value} for point in front]
        layers.append(layer(ends, "line", encodings, interpolate=steps, aria=False, **line))
    layers.append(_marks(rows, encodings, theme, size))
    layers += _names(points, {point.label for point in front}, axes, encodings, theme, size, taken)
    return finish({"height": size.height, "layer": layers, "width": size.width}, theme, size.letter)


def front_of(points: Iterable[Point], x: Dimension, y: Dimension) -> list[Point]:
    """The ranked rows that no other beats on both axes, from left to right; empty where an axis has no better end."""
    if not (x.better and y.better):
        return []
    signs = [-1.0 if dimension.better == "up" else 1.0 for dimension in (x, y)]
    ranked = [(signs[0] * point.x.value, signs[1] * point.y.value, point) for point in points if point.kind == "ranked"]
    front = pareto_front([(first, second) for first, second, _ in ranked])
    on_front = [point for first, second, point in ranked if (first, second) in front]
    return sorted(on_front, key=lambda point: (point.x.value, point.y.value))


def pareto_front(points: Iterable[tuple[float, float]]) -> set[tuple[float, float]]:
    """The points that no other is at least as good as on both axes (smaller is better)."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return set(front)


def _ends(intervals: Iterable[Interval]) -> list[float]:
    return [number for interval in intervals for number in interval]


def _row(point: Point) -> Spec:
    ends = {f"{name}_{end}": getattr(part, end) for name, part in (("x", point.x), ("y", point.y)) for end in _END}
    return {
        "label": point.label,
        "kind": point.kind,
        "x": point.x.value,
        "y": point.y.value,
        **ends,
        "text": f"{point.label}: {point.x.value:.4g}, {point.y.value:.4g}",
        **({"url": point.url} if point.url else {}),
    }


_END = ("low", "high")


def _background(
    dimensions: tuple[Dimension, Dimension], axes: tuple[Axis, Axis], encodings: Spec, theme: Theme, size: Size
) -> tuple[list[Spec], Box]:
    """The oracle bands with their name, lines at 0, and the box that the name takes."""
    fill: Spec = {"aria": False, "color": theme.oracle, "opacity": 0.13}
    layers: list[Spec] = []
    for name, dimension in zip("xy", dimensions, strict=True):
        if dimension.band is not None:
            ends = {name: dimension.band[0], "end": dimension.band[1]}
            layers.append(layer([ends], "rect", {name: encodings[name], f"{name}2": {"field": "end"}}, **fill))
        if dimension.zero_line:
            rule: Spec = {"aria": False, "color": theme.oracle, "strokeWidth": 1}
            layers.append(layer([{name: 0}], "rule", {name: encodings[name]}, **rule))
    width = text_width(BAND_NAME, size.letter)
    across, up = (dimension.band for dimension in dimensions)
    if across is not None:  # at the upper end of the upright band
        left, middle = axes[0].pixel(across[0]) + 3, size.height - size.letter + 1
    elif up is not None and axes[1].pixel(up[1]) - axes[1].pixel(up[0]) >= size.letter + 2:
        left, middle = 4.0, (axes[1].pixel(up[0]) + axes[1].pixel(up[1])) / 2
    else:
        return layers, Box(0, 0, 0, 0)
    text = {"label": BAND_NAME, "x": axes[0].value(left), "y": axes[1].value(middle)}
    encoding = {**encodings, "text": category("label")}
    layers += text_layers([text], theme, encoding, color=theme.oracle, size=size.letter)
    return layers, Box(left, middle - size.letter + 1, left + width, middle + size.letter - 1)


def _whiskers(rows: list[Spec], encodings: Spec, theme: Theme) -> list[Spec]:
    """The 95 % intervals of all points, on each axis that has any."""
    return _rules(rows, {**encodings, "color": color_by_kind(theme)}, opacity=0.25, strokeWidth=1)


def _claimed_whiskers(rows: list[Spec], encodings: Spec, theme: Theme) -> list[Spec]:
    return _rules(rows, encodings, color=theme.unranked, opacity=0.25, strokeDash=[2, 2], strokeWidth=1)


def _rules(rows: list[Spec], encodings: Spec, **style: object) -> list[Spec]:
    layers = []
    for name, other in (("x", "y"), ("y", "x")):
        low, high = f"{name}_low", f"{name}_high"
        if any(row[low] < row[high] for row in rows):
            encoding = {
                name: {**encodings[name], "field": low},
                f"{name}2": {"field": high},
                other: encodings[other],
                **({"color": encodings["color"]} if "color" in encodings else {}),
            }
            layers.append(layer(rows, "rule", encoding, aria=False, **style))
    return layers


def _marks(rows: list[Spec], encodings: Spec, theme: Theme, size: Size) -> Spec:
    encoding = {**_pointers(rows, encodings), "color": color_by_kind(theme), "shape": shape_by_kind()}
    style: Spec = {"filled": True, "opacity": 1, "size": _mark_size(size)}
    return layer(rows, "point", encoding, stroke=theme.background, strokeWidth=0.5, **style)


def _claimed_marks(rows: list[Spec], encodings: Spec, theme: Theme, size: Size) -> Spec:
    """Hollow, dashed circles, below the other marks."""
    style: Spec = {"filled": False, "opacity": 1, "size": _mark_size(size), "strokeDash": [2, 1.5]}
    return layer(rows, "point", _pointers(rows, encodings), stroke=theme.unranked, strokeWidth=1, **style)


def _mark_size(size: Size) -> float:
    return 42 * (size.letter / LETTER) ** 2


def _pointers(rows: list[Spec], encodings: Spec) -> Spec:
    """Where marks are, what they say, and where they lead."""
    tooltip = [category("label"), *(quantity(name, title=encodings[name]["title"]) for name in "xy")]
    return {
        **encodings,
        "description": category("text"),
        "tooltip": tooltip,
        **({"href": category("url")} if any("url" in row for row in rows) else {}),
    }


def _names(
    points: Sequence[Point],
    first: set[str],
    axes: tuple[Axis, Axis],
    encodings: Spec,
    theme: Theme,
    size: Size,
    taken: Box,
) -> list[Spec]:
    """Layers with the rows' names, the most important first: reference rows, then ``first``, then ranked ones."""
    pixels = [(axes[0].pixel(point.x.value), axes[1].pixel(point.y.value)) for point in points]
    weight = {"Retrain": 0, "No unlearning": 0, "ranked": 2, "not ranked": 3, "claimed": 4}
    order = sorted(range(len(points)), key=lambda i: 1 if points[i].label in first else weight[points[i].kind])
    labels = [point.label for point in points]
    placed = place(pixels, labels, order[:NAMED], (size.width, size.height), size.letter, [taken])

    def at(pixel: tuple[float, float]) -> Spec:
        return {name: axis.value(where) for name, axis, where in zip("xy", axes, pixel, strict=True)}

    texts = [{"label": labels[label.point], **at((label.x, label.y))} for label in placed]
    lines = [
        {"name": str(label.point), **at(end)}
        for label in placed
        if label.line
        for end in (pixels[label.point], label.line)
    ]
    layers: list[Spec] = []
    if lines:
        encoding = {**encodings, "detail": category("name")}
        layers.append(layer(lines, "line", encoding, aria=False, color=theme.quiet, strokeWidth=0.5))
    if texts:
        layers += text_layers(texts, theme, {**encodings, "text": category("label")}, size=size.letter)
    return layers
