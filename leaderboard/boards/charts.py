"""The charts of a board: any two of its numbers against each other, drawn by the code of the reports."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, aliased

from forgetbench.leaderboard.boards.queries import Column, columns_of, summary_of
from forgetbench.leaderboard.db.models import Board, Entry, MetricValue
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.errors import FieldError, Problem
from forgetbench.reporting.figures.points import Point, forgetting_metric, interval, kind_of, short_names
from forgetbench.reporting.figures.scatter import COST, DISTANCE, Dimension, Size, scatter
from forgetbench.reporting.figures.style import Kind, Spec, Theme

MAX_POINTS = 300
"""Points of a chart: the rows nearest to the oracles."""
LABEL_LENGTH = 28
"""Longer names are cut."""
TIER_LETTERS = {"claimed": "[C]", "verified": "[V]", "reference": "[R]"}
"""Tier -> what the names of its rows begin with."""
SIZE = Size(540.0, 290.0, 11)


@dataclass(frozen=True)
class Chart:
    """A chart of a board."""

    specification: Spec
    """Vega-Lite."""
    text: str
    """What it shows, in one sentence."""


def default_axes(board: Board) -> tuple[tuple[str, str], ...]:
    """The two charts of a board: distance against cost, and forgetting against utility."""
    forgetting = forgetting_metric(board.track)
    names = {item["name"] for item in summary_of(board).get("columns", [])}
    return (("cost", "distance"), *((((forgetting, "gap.test"),)) if {forgetting, "gap.test"} <= names else ()))


def axis_keys(columns: Iterable[Column]) -> list[str]:
    """Everything that an axis may show, of a board with these columns."""
    return ["distance", "cost", *(column.name for column in columns)]


def draw(session: Session, board: Board, x: str, y: str, theme: Theme) -> Chart | None:
    """A chart of a board; None where there is nothing but the reference rows to draw.

    Args:
        session: Where to read.
        board: The board.
        x: Key of what is drawn from left to right: ``distance``, ``cost``, or a metric's name.
        y: Key of what is drawn from bottom to top.
        theme: Colors.

    Raises:
        Problem: 422, the board has no such number.
    """
    across, up = _dimension(board, x, "x"), _dimension(board, y, "y")
    points = _points(session, board, x, y)
    specification = scatter(points, across, up, theme, SIZE)
    if specification is None:
        return None
    limited = f" (the {MAX_POINTS} nearest to the oracles)" if len(points) == MAX_POINTS else ""
    return Chart(specification, f"{up.title} against {across.title}: {len(points)} rows{limited}")


def _dimension(board: Board, key: str, field: str) -> Dimension:
    """The axis of a key.

    Raises:
        Problem: 422, the board has no such number.
    """
    if key == "distance":
        limit = (board.summary or {}).get("family_limit")
        return replace(DISTANCE, band=None if limit is None else (0.0, limit))
    if key == "cost":
        return COST
    columns = columns_of(board)
    column = next((column for column in columns if column.name == key), None)
    if column is None:
        message = f"Unknown axis {key!r}. Available: {', '.join(axis_keys(columns))}."
        raise Problem(422, "The chart cannot show that.", [FieldError(field=field, message=message)])
    return _metric_dimension(column)


def _metric_dimension(column: Column) -> Dimension:
    unit = f", {column.shown_unit}" if column.shown_unit else ""
    band = (column.band.low * column.scale, column.band.high * column.scale) if column.band else None
    return Dimension(
        f"{column.title} ({column.name}){unit}",
        constant=2.0 if column.signed else None,
        minimum=3.0,
        better="up" if column.direction == "up" else "down" if column.direction == "down" else "",
        band=band,
        zero_line=column.signed,
    )


def _points(session: Session, board: Board, x: str, y: str) -> list[Point]:
    """The public rows that have both numbers, those nearest to the oracles first, and claims after all others."""
    scales = {column.name: column.scale for column in columns_of(board)} | {"cost": 100.0}
    query = select(Entry.id, Entry.label, Entry.tier, Entry.baseline, Entry.status)
    numbers: list[ColumnElement[Any]] = []
    for key in (x, y):
        if key == "cost":
            numbers += [cast("ColumnElement[Any]", Entry.cost)] * 3
        elif key == "distance":
            numbers += [Entry.distance, Entry.distance_low, Entry.distance_high]  # type: ignore[list-item]
        else:
            value = aliased(MetricValue)
            query = query.join(value, (value.entry_id == Entry.id) & (value.metric == key))
            numbers += [value.value, value.low, value.high]  # type: ignore[list-item]
    rows = session.execute(
        query.add_columns(*numbers)
        .where(
            Entry.board_id == board.id, Entry.state.in_(PUBLIC_STATES), numbers[0].is_not(None), numbers[3].is_not(None)
        )
        .order_by(Entry.tier == "claimed", Entry.distance.is_(None), Entry.distance, Entry.id)
        .limit(MAX_POINTS)
    ).all()
    names, least, points = short_names([row[1] for row in rows]), {"distance": 0.0}, []
    for entry_id, label, tier, baseline, status, x_value, x_low, x_high, y_value, y_low, y_high in rows:
        first = interval(x_value, x_low, x_high, scales.get(x, 1.0), least=least.get(x))
        second = interval(y_value, y_low, y_high, scales.get(y, 1.0), least=least.get(y))
        if first is None or second is None or not all(map(math.isfinite, (*first, *second))):
            continue
        name = names[label] if len(names[label]) <= LABEL_LENGTH else names[label][: LABEL_LENGTH - 1] + "…"
        kind: Kind = "claimed" if tier == "claimed" else kind_of(label if baseline else "", ranked=status == "ranked")
        name = name if baseline else f"{TIER_LETTERS[tier]} {name}"
        points.append(Point(name, kind, first, second, f"/entries/{entry_id}"))
    return points
