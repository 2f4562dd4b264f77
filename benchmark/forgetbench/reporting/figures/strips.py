"""Rows of a board one below the other: distances with rank intervals, and every metric seed by seed."""

from __future__ import annotations

from collections.abc import Sequence

from forgetbench.metrics import metrics
from forgetbench.reporting.figures._label_placement import text_width
from forgetbench.reporting.figures.axes import Axis, symlog_axis
from forgetbench.reporting.figures.points import kind_of
from forgetbench.reporting.figures.scatter import DISTANCE
from forgetbench.reporting.figures.style import (
    LETTER,
    LIGHT,
    Kind,
    Spec,
    Theme,
    category,
    color_by_kind,
    finish,
    layer,
    quantity,
    shape_by_kind,
)
from forgetbench.reporting.tables import Row
from forgetbench.scoring.scorecards import MetricBand

STEP = 13
"""Height of a row, in pixels."""
DISTANCE_WIDTH, RANKS_WIDTH = 190, 110
"""Widths of the two panels of `ranks`, in pixels."""
NOT_SCORED = ("collapsed", "diverged", "failed")
"""Flags that a row without a rank shows in place of its rank interval."""


def ranks(rows: Sequence[Row], limit: float | None, theme: Theme = LIGHT) -> Spec | None:
    """Distance with its 95 % interval, and the rank interval of each row. None where no row has a distance.

    Args:
        rows: The board's rows, in order.
        limit: End of the family band; None where the board has none.
        theme: Colors.
    """
    shown = [row for row in rows if row.card.distance is not None]
    data = [_distance(row) for row in shown]
    if not data:
        return None
    axis = symlog_axis([row[key] for row in data for key in ("distance", "high")], DISTANCE_WIDTH, minimum=10)
    y = _rows_axis(shown, titled=True)
    x = quantity("distance", title=DISTANCE.title, scale=axis.scale, axis=axis.guide)
    color = color_by_kind(theme, legend=False)
    layers: list[Spec] = []
    if limit is not None:
        encoding = {"x": x, "x2": {"field": "end"}}
        layers.append(layer([{"distance": 0.0, "end": limit}], "rect", encoding, color=theme.oracle, opacity=0.13))
    layers += _landmarks(data, limit, x, axis, theme)
    low = {**x, "field": "low"}  # the same title and scale on all layers, or Vega mixes them
    whiskers = {"x": low, "x2": {"field": "high"}, "y": y, "color": color}
    layers.append(layer(data, "rule", whiskers, opacity=0.6, strokeWidth=1.4))
    points = {"x": x, "y": y, "color": color, "shape": shape_by_kind(legend=False)}
    style: Spec = {"filled": True, "opacity": 1, "size": 34, "stroke": theme.background, "strokeWidth": 0.5}
    layers.append(layer(data, "point", points, **style))
    panels: list[Spec] = [{"height": {"step": STEP}, "layer": layers, "width": DISTANCE_WIDTH}]
    ranked = [row for row in data if row["first"] is not None]
    if ranked:
        panels.append(_rank_ranges(data, ranked, shown, theme))
    return finish({"hconcat": panels, "resolve": {"scale": {"y": "shared"}}, "spacing": 8}, theme)


def _landmarks(data: list[Spec], limit: float | None, x: Spec, axis: Axis, theme: Theme) -> list[Spec]:
    """The name of the oracle band, and a line at No unlearning with its name, above the rows."""
    layers, free = [], 0.0
    above: Spec = {"baseline": "bottom", "fontSize": LETTER - 1}
    encoding = {"x": x, "y": {"value": -3}, "text": category("text")}
    if limit is not None:
        name = {"distance": 0.0, "text": "retrained models"}
        layers.append(layer([name], "text", encoding, align="left", color=theme.oracle, **above))
        free = text_width("retrained models", LETTER) + 6
    untouched = [row["distance"] for row in data if row["kind"] == "No unlearning"]
    if untouched:
        name = {"distance": untouched[0], "text": "no unlearning"}
        rule: Spec = {"color": theme.original, "opacity": 0.8, "strokeDash": [3, 3], "strokeWidth": 1}
        layers.append(layer([name], "rule", {"x": x}, **rule))
        half = text_width("no unlearning", LETTER) / 2
        if axis.pixel(untouched[0]) - half > free:
            layers.append(layer([name], "text", encoding, align="center", color=theme.original, **above))
    return layers


def _distance(row: Row) -> Spec:
    distance, place = row.card.distance, row.place
    if distance is None:
        raise ValueError("only rows with a distance are drawn here")
    return {
        "label": row.card.name,
        "kind": _kind(row),
        "distance": distance.value,
        "low": distance.value if distance.low is None else max(distance.low, 0.0),
        "high": distance.value if distance.high is None else distance.high,
        "first": place.low - 0.4 if place and place.low is not None else None,
        "last": place.high + 0.4 if place and place.high is not None else None,
        "why": next((flag for flag in row.card.flags if flag in NOT_SCORED), ""),
    }


def _rank_ranges(data: list[Spec], ranked: list[Spec], rows: Sequence[Row], theme: Theme) -> Spec:
    last = max(row["last"] for row in ranked)
    ticks = [1, *range(5, int(last) + 1, 5)]
    guide = {"format": "d", "values": ticks}
    x = quantity("first", title="ranks", scale={"domain": [0.4, last + 0.2], "nice": False}, axis=guide)
    y = _rows_axis(rows, titled=False)
    bars = {"x": x, "x2": {"field": "last"}, "y": y, "color": color_by_kind(theme, legend=False)}
    reasons = [{**row, "first": 0.6} for row in data if row["why"]]
    text: Spec = {"align": "left", "baseline": "middle", "color": theme.quiet, "fontSize": LETTER - 1}
    layers = [
        layer(ranked, "bar", bars, cornerRadius=2, height=5),
        layer(reasons, "text", {"x": x, "y": y, "text": category("why")}, **text),
    ]
    return {"height": {"step": STEP}, "layer": layers, "width": RANKS_WIDTH}


def seeds(rows: Sequence[Row], ranking: Sequence[str], theme: Theme = LIGHT) -> Spec | None:
    """One dot for each seed of each row, a panel for each metric, over the oracles' band. None where there is no dot.

    Args:
        rows: The board's rows, in order.
        ranking: The board's ranking metrics; test accuracy is shown next to them.
        theme: Colors.
    """
    shown = [row for row in rows if row.card.metrics]
    names = [*ranking, "accuracy.test"]
    names = [name for name in names if any(_seeds(row, name) for row in shown)]
    if not names:
        return None
    width = max(80, min(130, 600 // len(names)))
    panels = [_panel(shown, name, width, theme, titled=number == 0) for number, name in enumerate(names)]
    return finish({"hconcat": panels, "resolve": {"scale": {"y": "shared"}}, "spacing": 8}, theme)


def _panel(rows: Sequence[Row], name: str, width: int, theme: Theme, *, titled: bool) -> Spec:
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
    x = quantity(
        "value", title=f"{name}{unit}", scale={"nice": True, "zero": False}, axis={"labelSeparation": 4, "tickCount": 4}
    )
    encoding = {"x": x, "y": _rows_axis(rows, titled=titled), "color": color_by_kind(theme, legend=False)}
    layers: list[Spec] = []
    band = next((b for row in rows if (b := _band(row, name)) is not None), None)
    if band is not None:
        ends = {"value": factor * band.low, "end": factor * band.high}
        layers.append(layer([ends], "rect", {"x": x, "x2": {"field": "end"}}, color=theme.oracle, opacity=0.2))
    tooltip = [category("label"), quantity("seed"), quantity("value")]
    layers.append(layer(dots, "circle", {**encoding, "tooltip": tooltip}, opacity=0.55, size=13))
    layers.append(layer(means, "tick", encoding, size=9, thickness=1.6))
    return {"height": {"step": STEP}, "layer": layers, "width": width}


def _kind(row: Row) -> Kind:
    return kind_of(row.card.name, ranked=row.place is not None and row.place.rank is not None)


def _seeds(row: Row, name: str) -> tuple[float, ...]:
    value = row.card.metrics.get(name)
    return value.seeds if value is not None else ()


def _band(row: Row, name: str) -> MetricBand | None:
    value = row.card.metrics.get(name)
    return value.band if value is not None else None


def _rows_axis(rows: Sequence[Row], *, titled: bool) -> Spec:
    guide = {"domain": False, "grid": True, "labelLimit": 170, "labelPadding": 5, "labels": titled, "ticks": False}
    return category("label", title=None, sort=[row.card.name for row in rows], axis=guide)
