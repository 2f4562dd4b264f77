"""Rows of a board as points: distance against cost, and forgetting against utility."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from forgetbench.reporting.figures._axes import Axis, axis
from forgetbench.reporting.figures._label_placement import Box, place, text_width
from forgetbench.reporting.figures._style import (
    KINDS,
    LETTER,
    LIGHT,
    Theme,
    color_of,
    finish,
    shape_of,
    values,
    written,
)
from forgetbench.reporting.figures.points import Interval, Point
from forgetbench.scoring.ranking import pareto_front

WIDTH, HEIGHT = 330.0, 250.0
NAMED = 60
"""At most so many points bear names: beyond that there is no room in any case."""
DISTANCE = "distance to retraining, in oracle sd"
FORGET, UTILITY = "accuracy on the forgotten, points from retraining", "test accuracy, points from retraining"
BAND_NAME = "oracle band"
BUDGETS = (1.0, 5.0, 20.0, 100.0)
"""Budget classes, % of retraining's FLOPs (protocol section 3)."""


def pareto(points: Sequence[Point], limit: float | None, theme: Theme = LIGHT) -> dict[str, Any] | None:
    """Distance against cost, with the front: the ranked rows that no other beats in both. None without any cost.

    Args:
        points: The rows.
        limit: End of the family band, None where the board has none.
        theme: Colors.
    """
    shown = [(p, 100 * p.cost, p.distance) for p in points if p.cost is not None and p.distance is not None]
    if not any(p.kind in KINDS[:2] for p, _, _ in shown):
        return None
    least = min(cost for _, cost, _ in shown if cost > 0)
    x_axis = axis([cost for _, cost, _ in shown], WIDTH, min(1.0, least), BUDGETS, minimum=100)
    y_axis = axis([end for _, _, d in shown for end in (d.value, d.high)], HEIGHT, minimum=10)
    rows: list[dict[str, Any]] = [
        {"label": p.label, "kind": p.kind, "cost": c, "distance": d.value, "low": max(d.low, 0.0), "high": d.high}
        for p, c, d in shown
    ]
    x = _encoding(alt.X, "cost", "cost, % of retraining's FLOPs", x_axis)
    y = _encoding(alt.Y, "distance", DISTANCE, y_axis)
    ranked = [row for row in rows if row["kind"] == "ranked"]
    optimal = pareto_front([(row["cost"], row["distance"]) for row in ranked]).tolist() if ranked else []
    front = sorted(
        (row for row, best in zip(ranked, optimal, strict=True) if best), key=lambda row: (row["cost"], row["distance"])
    )
    layers: list[Any] = _band_below(limit, (x_axis, y_axis), x, y, theme) if limit is not None else []
    whiskers = values(rows).mark_rule(opacity=0.25, strokeWidth=1)
    layers.append(whiskers.encode(x=x, y=_encoding(alt.Y, "low", DISTANCE, y_axis), y2="high:Q", color=color_of(theme)))
    if len(front) > 1:
        line = values(front).mark_line(interpolate="step-after", color=theme.ranked, opacity=0.6, strokeWidth=1.2)
        layers.append(line.encode(x=x, y=y))
    layers.append(_marks(rows, x, y, theme))
    first = {str(row["label"]) for row in front}
    taken = Box(0, 0, text_width(BAND_NAME, LETTER) + 6, y_axis.pixel(limit or 0.0))
    layers += _names(rows, ("cost", "distance"), (x_axis, y_axis), (x, y), theme, first, taken)
    return _chart(layers, theme)


def utility(
    points: Sequence[Point],
    bands: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0)),
    theme: Theme = LIGHT,
) -> dict[str, Any] | None:
    """Forgetting against utility with 95 % intervals, in percentage points from the oracles; None without both gaps.

    Args:
        points: The rows.
        bands: Where the oracles themselves fall on the two axes, in points.
        theme: Colors.
    """
    shown = [(p, _percent(p.forget), _percent(p.utility)) for p in points if p.forget and p.utility]
    if not any(p.kind in KINDS[:2] for p, _, _ in shown):
        return None
    x_axis = axis([end for _, f, _ in shown for end in f], WIDTH, 2.0, (0, 1, 3, 10, 30, 100), minimum=5)
    y_axis = axis([end for _, _, u in shown for end in u], HEIGHT, 2.0, (0, 1, 3, 10, 30, 100), minimum=3)
    rows: list[dict[str, Any]] = [
        {
            "label": p.label,
            "kind": p.kind,
            **{"forget": f.value, "forget_low": f.low, "forget_high": f.high},
            **{"utility": u.value, "utility_low": u.low, "utility_high": u.high},
        }
        for p, f, u in shown
    ]
    x = _encoding(alt.X, "forget", FORGET, x_axis)
    y = _encoding(alt.Y, "utility", UTILITY, y_axis)
    across = values([{"forget": bands[0][0], "end": bands[0][1]}]).mark_rect(color=theme.oracle, opacity=0.13)
    up = values([{"utility": bands[1][0], "end": bands[1][1]}]).mark_rect(color=theme.oracle, opacity=0.13)
    zero = values([{"forget": 0, "utility": 0}]).mark_rule(color=theme.oracle, strokeWidth=1)
    corner = (x_axis.pixel(bands[0][0]) + 3, HEIGHT - 8)
    name = {"label": BAND_NAME, "forget": x_axis.value(corner[0]), "utility": y_axis.value(corner[1])}
    name_box = Box(corner[0], HEIGHT - 16, corner[0] + text_width(BAND_NAME, LETTER), HEIGHT)
    faint = values(rows).mark_rule(opacity=0.25, strokeWidth=1)
    layers = [
        across.encode(x=x, x2="end:Q"),
        up.encode(y=y, y2="end:Q"),
        zero.encode(x=x),
        zero.encode(y=y),
        faint.encode(x=_encoding(alt.X, "forget_low", FORGET, x_axis), x2="forget_high:Q", y=y, color=color_of(theme)),
        faint.encode(
            y=_encoding(alt.Y, "utility_low", UTILITY, y_axis), y2="utility_high:Q", x=x, color=color_of(theme)
        ),
        *written([name], theme, theme.oracle, x=x, y=y, text="label:N"),
        _marks(rows, x, y, theme),
        *_names(rows, ("forget", "utility"), (x_axis, y_axis), (x, y), theme, set(), name_box),
    ]
    return _chart(layers, theme)


def _percent(interval: Interval) -> Interval:
    return Interval(*(100 * part for part in interval))


def _encoding(channel: Any, name: str, title: str, scale: Axis) -> Any:
    guide = alt.Axis(values=list(scale.ticks), format=".3~f", labelOverlap=False)
    return channel(f"{name}:Q", title=title, scale=scale.scale, axis=guide)


def _band_below(limit: float, axes: tuple[Axis, Axis], x: Any, y: Any, theme: Theme) -> list[Any]:
    corner = {"cost": axes[0].low, "right": axes[0].high, "distance": 0.0, "top": limit}
    area = values([corner]).mark_rect(color=theme.oracle, opacity=0.13).encode(x=x, x2="right:Q", y=y, y2="top:Q")
    height = axes[1].pixel(limit)
    if height < LETTER + 2:
        return [area]
    name = {"label": BAND_NAME, "cost": axes[0].value(4), "distance": axes[1].value(height / 2)}
    return [area, *written([name], theme, theme.oracle, x=x, y=y, text="label:N")]


def _marks(rows: list[dict[str, Any]], x: Any, y: Any, theme: Theme) -> Any:
    tooltip = [f"{key}:{'N' if key == 'label' else 'Q'}" for key in rows[0] if key != "kind"]
    marks = values(rows).mark_point(filled=True, size=42, opacity=1, stroke=theme.background, strokeWidth=0.5)
    return marks.encode(x=x, y=y, tooltip=tooltip, color=color_of(theme), shape=shape_of())


def _names(
    rows: list[dict[str, Any]],
    fields: tuple[str, str],
    axes: tuple[Axis, Axis],
    encodings: tuple[Any, Any],
    theme: Theme,
    first: set[str],
    taken: Box,
) -> list[Any]:
    """Layers with the rows' names, the most important first: reference rows, then ``first``, then ranked ones."""
    points = [(axes[0].pixel(row[fields[0]]), axes[1].pixel(row[fields[1]])) for row in rows]
    weight = {"Retrain": 0, "No unlearning": 0, "ranked": 2, "not ranked": 3}
    order = sorted(range(len(rows)), key=lambda i: 1 if rows[i]["label"] in first else weight[rows[i]["kind"]])
    placed = place(points, [row["label"] for row in rows], order[:NAMED], (WIDTH, HEIGHT), LETTER, [taken])

    def data(pixel: tuple[float, float]) -> dict[str, float]:
        return {name: scale.value(where) for name, scale, where in zip(fields, axes, pixel, strict=True)}

    texts = [{"label": rows[one.point]["label"], **data((one.x, one.y))} for one in placed]
    lines = [
        {"name": str(one.point), **data(end)} for one in placed if one.line for end in (points[one.point], one.line)
    ]
    x, y = encodings
    layers: list[Any] = []
    if lines:
        layers.append(values(lines).mark_line(color=theme.quiet, strokeWidth=0.5).encode(x=x, y=y, detail="name:N"))
    if texts:
        layers += written(texts, theme, x=x, y=y, text="label:N")
    return layers


def _chart(layers: list[Any], theme: Theme) -> dict[str, Any]:
    return finish(alt.layer(*layers).properties(width=WIDTH, height=HEIGHT), theme)
