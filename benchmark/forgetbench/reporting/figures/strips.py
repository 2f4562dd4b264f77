"""Rows of a board one below the other: distances with the places that they span, and every metric seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from forgetbench.metrics import metrics
from forgetbench.reporting.figures._axes import Axis, axis
from forgetbench.reporting.figures._label_placement import text_width
from forgetbench.reporting.figures._style import LETTER, LIGHT, Theme, color_of, finish, shape_of, values
from forgetbench.reporting.figures.points import kind_of
from forgetbench.reporting.tables import Row
from forgetbench.scoring.scorecards import MetricBand

STEP = 13
"""Height of a row, in pixels."""
WHY = {"collapsed": "collapsed", "diverged": "diverged", "failed": "failed"}


def ranks(rows: Sequence[Row], limit: float | None, theme: Theme = LIGHT) -> dict[str, Any] | None:
    """Distance with its 95 % interval, and the places that each row may take. None where no row has a distance.

    Args:
        rows: The board's rows, in order.
        limit: End of the family band; None where the board has none.
        theme: Colors.
    """
    shown = [row for row in rows if row.card.distance is not None]
    data = [_distance(row) for row in shown]
    if not data:
        return None
    x_axis = axis([one[key] for one in data for key in ("distance", "high")], 190, minimum=10)
    y = _rows_axis(shown, titled=True)
    guide = alt.Axis(values=list(x_axis.ticks), format=".3~f", labelOverlap=False)
    title = "distance to retraining, in oracle sd"
    x = alt.X("distance:Q", title=title, scale=x_axis.scale, axis=guide)
    chart = values(data)
    left: list[Any] = []
    if limit is not None:
        band = values([{"distance": 0.0, "end": limit}]).mark_rect(color=theme.oracle, opacity=0.13)
        left.append(band.encode(x=x, x2="end:Q"))
    left += _landmarks(data, limit, x, x_axis, theme)
    whisker = chart.mark_rule(strokeWidth=1.4, opacity=0.6)
    low = alt.X("low:Q", title=title, scale=x_axis.scale, axis=guide)  # the same axis on all layers, or Vega mixes them
    left.append(whisker.encode(x=low, x2="high:Q", y=y, color=_plain(theme)))
    left.append(_point(chart, theme).encode(x=x, y=y, color=_plain(theme), shape=_shapes()))
    size = {"width": 190, "height": alt.Step(STEP)}
    panels = [alt.layer(*left).properties(**size)]
    placed = [one for one in data if one["first"] is not None]
    if placed:
        panels.append(_places(data, placed, shown, theme).properties(width=110, height=alt.Step(STEP)))
    return finish(alt.hconcat(*panels, spacing=8).resolve_scale(y="shared"), theme)


def _landmarks(data: list[dict[str, Any]], limit: float | None, x: alt.X, scale: Axis, theme: Theme) -> list[Any]:
    """What the band is, and a line where doing nothing stands, named above the rows."""
    layers, free = [], 0.0
    above: dict[str, Any] = {"baseline": "bottom", "fontSize": LETTER - 1}
    if limit is not None:
        name = values([{"distance": 0.0, "text": "retrained models"}])
        text = name.mark_text(align="left", color=theme.oracle, **above)
        layers.append(text.encode(x=x, y=alt.value(-3), text="text:N"))
        free = text_width("retrained models", LETTER) + 6
    untouched = [one["distance"] for one in data if one["kind"] == "No unlearning"]
    if untouched:
        line = values([{"distance": untouched[0], "text": "doing nothing"}])
        rule = line.mark_rule(color=theme.original, strokeDash=[3, 3], strokeWidth=1, opacity=0.8)
        layers.append(rule.encode(x=x))
        half = text_width("doing nothing", LETTER) / 2
        if scale.pixel(untouched[0]) - half > free:
            text = line.mark_text(align="center", color=theme.original, **above)
            layers.append(text.encode(x=x, y=alt.value(-3), text="text:N"))
    return layers


def _distance(row: Row) -> dict[str, Any]:
    distance, place = row.card.distance, row.place
    if distance is None:
        raise ValueError("only rows with a distance are drawn here")
    ranked = place is not None and place.rank is not None
    return {
        "label": row.card.name,
        "kind": kind_of(row.card.name, ranked=ranked),
        "distance": distance.value,
        "low": distance.value if distance.low is None else max(distance.low, 0.0),
        "high": distance.value if distance.high is None else distance.high,
        "first": place.low - 0.4 if place and place.low is not None else None,
        "last": place.high + 0.4 if place and place.high is not None else None,
        "why": next((WHY[flag] for flag in row.card.flags if flag in WHY), ""),
    }


def _places(data: list[dict[str, Any]], placed: list[dict[str, Any]], rows: Sequence[Row], theme: Theme) -> Any:
    last = max(one["last"] for one in placed)
    ticks = [1, *range(5, int(last) + 1, 5)]
    x = alt.X("first:Q", title="places", scale=alt.Scale(domain=[0.4, last + 0.2], nice=False))
    x = x.axis(alt.Axis(values=ticks, format="d"))
    y = _rows_axis(rows, titled=False)
    bars = values(placed).mark_bar(height=5, cornerRadius=2).encode(x=x, x2="last:Q", y=y, color=_plain(theme))
    words = values([{**one, "first": 0.6} for one in data if one["why"]])
    text = words.mark_text(align="left", baseline="middle", fontSize=LETTER - 1, color=theme.quiet)
    return alt.layer(bars, text.encode(x=x, y=y, text="why:N"))


def seeds(rows: Sequence[Row], ranking: Sequence[str], theme: Theme = LIGHT) -> dict[str, Any] | None:
    """One dot for each seed of each row, a panel for each metric, over the oracles' band. None where there is no dot.

    Args:
        rows: The board's rows, in order.
        ranking: The board's ranking metrics; test accuracy is shown beside them.
        theme: Colors.
    """
    shown = [row for row in rows if row.card.metrics]
    names = [*ranking, "accuracy.test"]
    names = [name for name in names if any(_seeds(row, name) for row in shown)]
    if not names:
        return None
    width = max(80, min(130, 600 // len(names)))
    panels = [_panel(shown, name, width, theme, titled=number == 0) for number, name in enumerate(names)]
    return finish(alt.hconcat(*panels, spacing=8).resolve_scale(y="shared"), theme)


def _panel(rows: Sequence[Row], name: str, width: int, theme: Theme, *, titled: bool) -> Any:
    display = metrics.get(name).display
    factor = display.scale
    unit = f", {display.unit}" if display.unit in {"%", "points"} else ""
    dots = [
        {"label": row.card.name, "kind": _kind(row), "value": value * factor, "seed": number}
        for row in rows
        for number, value in enumerate(_seeds(row, name))
    ]
    means = [
        {"label": row.card.name, "kind": _kind(row), "value": value * factor}
        for row in rows
        if (value := row.card.metrics[name].value if name in row.card.metrics else None) is not None
    ]
    x = alt.X("value:Q", title=f"{name}{unit}", scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=4))
    y = _rows_axis(rows, titled=titled)
    layers: list[Any] = []
    band = next((b for row in rows if (b := _band(row, name)) is not None), None)
    if band is not None:
        area = values([{"value": factor * band.low, "end": factor * band.high}])
        layers.append(area.mark_rect(color=theme.oracle, opacity=0.2).encode(x=x, x2="end:Q"))
    circles = values(dots).mark_circle(size=13, opacity=0.55)
    layers.append(circles.encode(x=x, y=y, color=_plain(theme), tooltip=["label:N", "seed:Q", "value:Q"]))
    layers.append(values(means).mark_tick(thickness=1.6, size=9).encode(x=x, y=y, color=_plain(theme)))
    return alt.layer(*layers).properties(width=width, height=alt.Step(STEP))


def _kind(row: Row) -> str:
    return kind_of(row.card.name, ranked=row.place is not None and row.place.rank is not None)


def _seeds(row: Row, name: str) -> tuple[float, ...]:
    value = row.card.metrics.get(name)
    return value.seeds if value is not None else ()


def _band(row: Row, name: str) -> MetricBand | None:
    value = row.card.metrics.get(name)
    return value.band if value is not None else None


def _rows_axis(rows: Sequence[Row], *, titled: bool) -> alt.Y:
    guide = alt.Axis(grid=True, ticks=False, domain=False, labels=titled, labelLimit=170, labelPadding=5)
    return alt.Y("label:N", title=None, sort=[row.card.name for row in rows], axis=guide)


def _plain(theme: Theme) -> alt.Color:
    return color_of(theme).legend(None)


def _shapes() -> alt.Shape:
    return shape_of().legend(None)


def _point(chart: alt.Chart, theme: Theme) -> Any:
    return chart.mark_point(filled=True, size=34, opacity=1, stroke=theme.background, strokeWidth=0.5)
