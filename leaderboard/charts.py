"""The Pareto charts of a board: drawn by the worker as SVG files, in the colours of a light and of a dark page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from forgetbench.leaderboard.models import Board, Entry, MetricValue
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.states import PUBLIC
from forgetbench.store import write_atomically


class Theme(NamedTuple):
    """Colours of a chart."""

    ink: str
    quiet: str
    grid: str
    point: str
    other: str
    reference: str


THEMES = {
    "light": Theme("#1c2024", "#5b6570", "#e3e7ea", "#1f5fa8", "#8a949e", "#1b7f4b"),
    "dark": Theme("#e4e8eb", "#a1abb5", "#30373d", "#77aee8", "#7e8993", "#5fc18d"),
}
LABELLED = 24
"""Up to this many points bear their names."""


class Point(NamedTuple):
    """One row of a board in a chart."""

    label: str
    kind: str
    cost: float | None
    distance: float | None
    forget: float | None
    utility: float | None


def data_of(session: Session, board: Board) -> list[Point]:
    """The points of a board: every public row, in SQL."""
    forgetting = "gap.forget" if board.track == "match-oracle" else "gap.test-forgotten"
    forget, utility = aliased(MetricValue), aliased(MetricValue)
    query = (
        select(Entry.label, Entry.tier, Entry.status, Entry.cost, Entry.distance, forget.value, utility.value)
        .outerjoin(forget, (forget.entry_id == Entry.id) & (forget.metric == forgetting))
        .outerjoin(utility, (utility.entry_id == Entry.id) & (utility.metric == "gap.test"))
        .where(Entry.board_id == board.id, Entry.state.in_(PUBLIC), Entry.distance.is_not(None))
        .order_by(Entry.distance)
        .limit(500)
    )
    points = []
    for label, tier, status, cost, distance, first, second in session.execute(query):
        kind = "reference" if tier == "reference" else "ranked" if status == "ranked" else "not ranked"
        points.append(Point(label, kind, cost, distance, first, second))
    return points


def path_of(settings: Settings, board: int, name: str, theme: str) -> Path:
    """Where a chart lies."""
    return settings.charts / f"{board}-{name}-{theme}.svg"


def draw(settings: Settings, board: Board, points: list[Point]) -> None:
    """Draw a board's charts, or remove them where there is nothing to draw."""
    import vl_convert

    limit = (board.summary or {}).get("family_limit")
    for theme, colours in THEMES.items():
        for name, specification in (
            ("cost", cost_chart(points, limit, colours)),
            ("utility", utility_chart(points, colours)),
        ):
            path = path_of(settings, board.id, name, theme)
            if specification is None:
                path.unlink(missing_ok=True)
            else:
                svg = vl_convert.vegalite_to_svg(specification, allowed_base_urls=[])
                write_atomically(path, svg.encode())


def cost_chart(points: list[Point], limit: float | None, theme: Theme) -> dict[str, Any] | None:
    """Distance against cost, with the front that nothing is better than on both; None where no row has a cost."""
    import altair

    rows = [point for point in points if point.cost is not None and point.distance is not None]
    if not any(point.kind != "reference" for point in rows):
        return None
    floor = min((point.cost for point in rows if point.cost), default=1e-3) / 2
    values: list[dict[str, Any]] = [
        {"label": p.label, "kind": p.kind, "cost": max(p.cost or 0.0, floor) * 100, "distance": p.distance or 0.0}
        for p in rows
    ]
    front = pareto_front([(value["cost"], value["distance"]) for value in values if value["kind"] == "ranked"])
    x = altair.X("cost:Q", title="cost, % of retraining's FLOPs (log)", scale=altair.Scale(type="log"))
    y = altair.Y(
        "distance:Q", title="distance to the oracles (log, lower is better)", scale=altair.Scale(type="symlog")
    )
    layers = [_points(values, x, y, theme)]
    if len(front) > 1:
        line = altair.Chart(altair.InlineData(values=[{"cost": c, "distance": d} for c, d in front]))
        layers.insert(0, line.mark_line(interpolate="step-after", color=theme.point, opacity=0.5).encode(x=x, y=y))
    if limit is not None:
        rule = altair.Chart(altair.InlineData(values=[{"distance": limit}]))
        layers.insert(0, rule.mark_rule(color=theme.reference, strokeDash=[4, 3]).encode(y=y))
    return _finish(layers, values, x, y, theme)


def utility_chart(points: list[Point], theme: Theme) -> dict[str, Any] | None:
    """Forgetting against utility: both gaps in points, the oracle at 0, 0."""
    import altair

    rows = [point for point in points if point.forget is not None and point.utility is not None]
    if not any(point.kind != "reference" for point in rows):
        return None
    values: list[dict[str, Any]] = [
        {"label": p.label, "kind": p.kind, "forget": (p.forget or 0.0) * 100, "utility": (p.utility or 0.0) * 100}
        for p in rows
    ]
    scale = altair.Scale(type="symlog", constant=5)  # one collapsed row does not press the others together
    x = altair.X("forget:Q", title="forget accuracy minus the oracles', points", scale=scale)
    y = altair.Y("utility:Q", title="test accuracy minus the oracles', points", scale=scale)
    rules = altair.Chart(altair.InlineData(values=[{"forget": 0, "utility": 0}]))
    layers = [
        rules.mark_rule(color=theme.reference, strokeDash=[4, 3]).encode(x=x),
        rules.mark_rule(color=theme.reference, strokeDash=[4, 3]).encode(y=y),
        _points(values, x, y, theme),
    ]
    return _finish(layers, values, x, y, theme)


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other point is at least as good as on both axes (smaller is better), by the first axis."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front


def _points(values: list[dict[str, Any]], x: Any, y: Any, theme: Theme) -> Any:
    import altair

    kinds = ["ranked", "not ranked", "reference"]
    colour = altair.Color(
        "kind:N",
        title=None,
        scale=altair.Scale(domain=kinds, range=[theme.point, theme.other, theme.reference]),
        legend=altair.Legend(orient="top"),
    )
    shape = altair.Shape("kind:N", title=None, scale=altair.Scale(domain=kinds, range=["circle", "cross", "diamond"]))
    chart = altair.Chart(altair.InlineData(values=values))
    return chart.mark_point(filled=True, size=70, opacity=0.9).encode(x=x, y=y, color=colour, shape=shape)


def spaced(values: list[dict[str, Any]], x: str, y: str) -> list[dict[str, Any]]:
    """The points whose names fit: none is written over another's (on the scale that the eye sees, roughly)."""

    def seen(number: float, axis: str) -> float:
        return math.asinh(number * 10 if axis == "cost" else number / 5)

    places = [[seen(float(value[axis]), axis) for axis in (x, y)] for value in values]
    spans = [max(axis) - min(axis) or 1.0 for axis in zip(*places, strict=True)] if places else []
    kept: list[int] = []
    for index, place in enumerate(places):
        clear = all(
            abs(place[0] - places[other][0]) > 0.2 * spans[0] or abs(place[1] - places[other][1]) > 0.05 * spans[1]
            for other in kept
        )
        if clear:
            kept.append(index)
    return [values[index] for index in kept]


def _finish(layers: list[Any], values: list[dict[str, Any]], x: Any, y: Any, theme: Theme) -> dict[str, Any]:
    import altair

    names = [str(axis.shorthand).removesuffix(":Q") for axis in (x, y)]
    if len(values) <= LABELLED:
        text = altair.Chart(altair.InlineData(values=spaced(values, *names))).mark_text(
            align="left", dx=7, dy=-5, fontSize=10, color=theme.ink, limit=150
        )
        layers.append(text.encode(x=x, y=y, text="label:N"))
    chart = altair.layer(*layers).properties(width=520, height=300, background="transparent")
    axis: dict[str, Any] = {
        "labelColor": theme.quiet,
        "titleColor": theme.ink,
        "titleFontWeight": "normal",
        "gridColor": theme.grid,
        "domainColor": theme.grid,
        "tickColor": theme.grid,
    }
    chart = chart.configure_axis(**axis).configure_view(stroke=None).configure_legend(labelColor=theme.ink)
    return dict(chart.to_dict())
