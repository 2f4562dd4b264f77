"""The chart of a board: two of its numbers against each other, as a drawing and as a Vega-Lite specification.

The drawing is made here, in plain SVG, so that any two axes can be asked for without a script. The specification holds
the same points for the interactive chart. (Altair would write it for us, and takes a second and 60 MB to import.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, aliased

from forgetbench.leaderboard.boards.queries import Column, columns_of
from forgetbench.leaderboard.db.models import Board, Entry, MetricValue
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.errors import FieldError, Problem

MOST = 300
"""Points of a chart: the rows nearest to the oracles."""
LABELLED = 40
"""Up to this many points, names are written beside them where there is room."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 620.0, 360.0, 66.0, 14.0, 12.0, 46.0
KINDS, SHAPES = ("ranked", "not ranked", "reference"), ("circle", "cross", "diamond")


class Axis(NamedTuple):
    """What is drawn along one side."""

    key: str
    """``distance``, ``cost``, or a metric's name."""
    title: str
    """In words, with the unit."""
    kind: str
    """``log``, ``symlog`` or ``linear``."""
    factor: float
    """From the stored number to the one that is shown."""
    better: str
    """``up``, ``down``, or ``""`` where neither end is best."""
    mark: float | None
    """A line across: where the oracles stand, or the end of their family band."""


class Point(NamedTuple):
    """One row of a board in a chart."""

    entry: str
    label: str
    kind: str
    x: float
    y: float


class Mark(NamedTuple):
    """A point in the drawing, in pixels."""

    point: Point
    x: float
    y: float
    text: str
    named: bool
    """Whether its name has room beside it."""
    left: bool
    """Whether the name stands to its left."""


class Drawing(NamedTuple):
    """Everything that the template draws, in pixels."""

    x: Axis
    y: Axis
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_mark: float | None
    y_mark: float | None
    front: str
    """Path of the line that joins the rows that nothing beats on both axes; "" where there is none."""
    marks: list[Mark]
    kinds: list[str]
    text: str
    """The chart in one sentence."""


def default_axes(board: Board) -> tuple[tuple[str, str], ...]:
    """The two charts of a board: distance against cost, and forgetting against utility."""
    forgetting = "gap.forget" if board.track == "match-oracle" else "gap.test-forgotten"
    names = {column.name for column in columns_of(board)}
    return (("cost", "distance"), *((((forgetting, "gap.test"),)) if {forgetting, "gap.test"} <= names else ()))


def choices(board: Board) -> list[str]:
    """Everything that an axis may show."""
    return ["distance", "cost", *(column.name for column in columns_of(board))]


def axis_of(board: Board, key: str, field: str) -> Axis:
    """The axis of a key.

    Raises:
        Problem: 422, the board has no such number.
    """
    if key == "distance":
        limit = (board.summary or {}).get("family_limit")
        return Axis(key, "distance to the oracles, in oracle sd", "symlog", 1.0, "down", limit)
    if key == "cost":
        return Axis(key, "cost, % of retraining's FLOPs", "log", 100.0, "down", None)
    column = next((column for column in columns_of(board) if column.name == key), None)
    if column is None:
        message = f"{key!r} is no number of this board; choose from {', '.join(choices(board))}"
        raise Problem(422, "The chart cannot show that.", [FieldError(field=field, message=message)])
    return _axis_of_metric(column)


def _axis_of_metric(column: Column) -> Axis:
    unit = f", {column.shown_unit}" if column.shown_unit else ""
    better = column.direction if column.direction in {"up", "down"} else ""
    mark = column.band.mean * column.scale if column.band and not better else None
    kind = "symlog" if column.display.signed else "linear"
    return Axis(column.name, f"{column.title} ({column.name}){unit}", kind, column.scale, better, mark)


def points_of(session: Session, board: Board, x: Axis, y: Axis) -> list[Point]:
    """The public rows that have both numbers, those nearest to the oracles first."""
    query = select(Entry.id, Entry.label, Entry.tier, Entry.status)
    numbers: list[ColumnElement[Any]] = []
    for axis in (x, y):
        if axis.key in {"distance", "cost"}:
            numbers.append(getattr(Entry, axis.key))
        else:
            value = aliased(MetricValue)
            query = query.join(value, (value.entry_id == Entry.id) & (value.metric == axis.key))
            numbers.append(cast("ColumnElement[Any]", value.value))
    rows = session.execute(
        query.add_columns(*numbers)
        .where(Entry.board_id == board.id, Entry.state.in_(PUBLIC_STATES), *(number.is_not(None) for number in numbers))
        .order_by(Entry.distance.is_(None), Entry.distance, Entry.id)
        .limit(MOST)
    )
    found = []
    for identity, label, tier, status, first, second in rows:
        if not (math.isfinite(first) and math.isfinite(second)):
            continue
        kind = "reference" if tier == "reference" else "ranked" if status == "ranked" else "not ranked"
        found.append(Point(identity, label, kind, first * x.factor, second * y.factor))
    return found


def draw(session: Session, board: Board, x: str, y: str) -> Drawing | None:
    """A chart of a board; None where there is nothing but the reference rows to draw.

    Raises:
        Problem: 422, the board has no such number.
    """
    across, up = axis_of(board, x, "x"), axis_of(board, y, "y")
    points = points_of(session, board, across, up)
    if all(point.kind == "reference" for point in points):
        return None
    columns = make_scale(across.kind, [point.x for point in points], LEFT + 8, WIDTH - RIGHT - 8, across.mark)
    rows = make_scale(up.kind, [point.y for point in points], HEIGHT - BOTTOM - 8, TOP + 8, up.mark)
    front = front_of(points, across, up)
    path = "".join(
        f"M{columns.at(px):.1f} {rows.at(py):.1f}" if not place else f"H{columns.at(px):.1f}V{rows.at(py):.1f}"
        for place, (px, py) in enumerate(front)
    )
    beyond = f" (the {MOST} nearest to the oracles)" if len(points) == MOST else ""
    return Drawing(
        x=across,
        y=up,
        x_ticks=columns.ticks(90.0),
        y_ticks=rows.ticks(44.0),
        x_mark=columns.at(across.mark) if across.mark is not None else None,
        y_mark=rows.at(up.mark) if up.mark is not None else None,
        front=path if len(front) > 1 else "",
        marks=_marks(points, columns, rows),
        kinds=[kind for kind in KINDS if any(point.kind == kind for point in points)],
        text=f"{up.title} against {across.title}: {len(points)} rows{beyond}",
    )


def _marks(points: list[Point], columns: Scale, rows: Scale) -> list[Mark]:
    """Points in pixels; a name is written where it runs into no other name and no other point."""
    places = [(columns.at(point.x), rows.at(point.y)) for point in points]
    taken: list[tuple[float, float, float, float]] = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    marks = []
    for place, (point, (x, y)) in enumerate(zip(points, places, strict=True)):
        shown = point.label if len(point.label) <= 28 else point.label[:27] + "…"
        width, left = 5.6 * len(shown) + 4, False
        box = (x + 7, y - 12, x + 7 + width, y + 1)
        if box[2] > WIDTH - RIGHT:
            left, box = True, (x - 7 - width, y - 12, x - 7, y + 1)
        others = taken[:place] + taken[place + 1 :]
        named = len(points) <= LABELLED and box[0] > LEFT and not any(_meet(box, other) for other in others)
        if named:
            taken.append(box)
        text = f"{point.label}: {point.x:.4g}, {point.y:.4g}"
        marks.append(Mark(point._replace(label=shown), round(x, 1), round(y, 1), text, named, left))
    return marks


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def front_of(points: list[Point], x: Axis, y: Axis) -> list[tuple[float, float]]:
    """The front of the ranked rows, where both axes have a better end."""
    if not (x.better and y.better):
        return []
    signs = [-1.0 if axis.better == "up" else 1.0 for axis in (x, y)]
    ranked = [(signs[0] * point.x, signs[1] * point.y) for point in points if point.kind == "ranked"]
    return [(signs[0] * a, signs[1] * b) for a, b in pareto_front(ranked)]


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other point is at least as good as on both axes (smaller is better), by the first axis."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front


def specification(session: Session, board: Board, x: str, y: str) -> dict[str, Any]:
    """The same chart for Vega-Lite: wheel and drag move it, a point says what it is and leads to its entry.

    Raises:
        Problem: 422, the board has no such number.
    """
    axes = axis_of(board, x, "x"), axis_of(board, y, "y")
    points = points_of(session, board, *axes)
    floor = min((point.x for point in points if point.x > 0), default=1.0) / 2 if axes[0].kind == "log" else None
    values = [
        {
            "method": point.label,
            "kind": point.kind,
            "x": max(point.x, floor) if floor else point.x,
            "y": point.y,
            "url": f"/entries/{point.entry}",
        }
        for point in points
    ]
    encodings = {
        name: {"field": name, "type": "quantitative", "title": axis.title, "scale": _vega_scale(axis)}
        for name, axis in zip("xy", axes, strict=True)
    }
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": [{name: axis.mark}]},
            "mark": {"type": "rule", "strokeDash": [4, 3]},
            "encoding": {name: code},
        }
        for (name, code), axis in zip(encodings.items(), axes, strict=True)
        if axis.mark is not None
    ]
    front = front_of(points, *axes)
    if len(front) > 1:
        line = {"type": "line", "interpolate": "step-after", "opacity": 0.5}
        values_of_front = [{"x": max(a, floor) if floor else a, "y": b} for a, b in front]
        layers.append({"data": {"values": values_of_front}, "mark": line, "encoding": encodings})
    layers.append(
        {
            "data": {"values": values},
            "params": [{"name": "view", "select": "interval", "bind": "scales"}],
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 0.9, "cursor": "pointer"},
            "encoding": {
                **encodings,
                "color": {"field": "kind", "type": "nominal", "legend": None, "scale": {"domain": list(KINDS)}},
                "shape": {
                    "field": "kind",
                    "type": "nominal",
                    "legend": None,
                    "scale": {"domain": list(KINDS), "range": list(SHAPES)},
                },
                "href": {"field": "url", "type": "nominal"},
                "tooltip": [{"field": "method", "type": "nominal"}]
                + [{"field": name, "type": "quantitative", "title": code["title"]} for name, code in encodings.items()],
            },
        }
    )
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": 380,
        "background": "transparent",
        "layer": layers,
    }


def _vega_scale(axis: Axis) -> dict[str, Any]:
    if axis.kind == "symlog":
        return {"type": "symlog", "constant": 1, "zero": False}
    return {"type": axis.kind, "zero": False}


TINY = 1e-12


@dataclass(frozen=True)
class Scale:
    """A scale from numbers to pixels."""

    bend: Callable[[float], float]
    """Makes the scale linear."""
    nice: Sequence[float]
    """Round numbers within the scale, in order."""
    floor: float
    """Numbers below are drawn here (a logarithm has no 0)."""
    low: float
    high: float
    start: float
    end: float

    def at(self, number: float) -> float:
        """The place of a number."""
        share = (self.bend(max(number, self.floor)) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, apart: float) -> list[tuple[float, str]]:
        """Places and texts of the round numbers, as many as leave so many pixels between them."""
        found: list[tuple[float, str]] = []
        # 0 and powers of ten first: they are kept, and what stands too near to them goes
        for number in sorted(self.nice, key=lambda number: (_odd(number), abs(number))):
            place = self.at(number)
            inside = min(self.start, self.end) - 1 <= place <= max(self.start, self.end) + 1
            if inside and all(abs(place - other) >= apart for other, _ in found):
                found.append((round(place, 1), f"{number:g}".replace("-", "−")))
        return sorted(found)


def make_scale(kind: str, numbers: Sequence[float], start: float, end: float, mark: float | None = None) -> Scale:
    """A scale that holds all numbers.

    Args:
        kind: ``linear``, ``log`` or ``symlog`` (linear near 0, up to about 1).
        numbers: What is to be drawn, at least one.
        start: Pixel of the least.
        end: Pixel of the largest.
        mark: Another number that is to be seen.
    """
    shown = [*numbers, *([mark] if mark is not None else [])]
    floor = -math.inf
    bend: Callable[[float], float]
    if kind == "log":
        positive = [number for number in shown if number > TINY]
        floor = (min(positive) if positive else 1.0) / (2 if len(positive) < len(shown) else 1)
        bend = math.log10
    elif kind == "symlog":
        bend = math.asinh
    else:
        bend = float
    low, high = (bend(max(number, floor)) for number in (min(shown), max(shown)))
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return Scale(bend, _nice(kind, max(min(shown), floor), max(shown)), floor, low, high, start, end)


def _nice(kind: str, low: float, high: float) -> list[float]:
    if kind == "linear":
        span = high - low if high - low > TINY else 1.0
        step = 10.0 ** math.floor(math.log10(span / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 7)
        first = math.ceil((low - span * 0.1) / step)
        return [round((first + place) * step, 12) for place in range(12) if (first + place) * step <= high + span * 0.1]
    sizes = [factor * 10.0**power for power in range(-6, 7) for factor in (1, 2, 5)]
    sizes = (
        sizes if kind == "log" else [-size for size in sizes if size >= 0.5] + [0.0] + [s for s in sizes if s >= 0.5]
    )
    return sorted(size for size in sizes if low * (1 - 1e-9) - 1e-9 <= size <= high * (1 + 1e-9))


def _odd(number: float) -> bool:
    """Whether a number is neither 0 nor a power of ten."""
    return number != 0 and not math.isclose(math.log10(abs(number)) % 1, 0, abs_tol=1e-9)
