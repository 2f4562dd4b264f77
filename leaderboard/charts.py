"""The charts of a board: the pictures of `forgetbench.figures`, drawn by the worker for a light and for a dark page."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from forgetbench.figures.points import Point, forgetting_metric, in_points, interval, kind_of
from forgetbench.leaderboard.boards import columns_of
from forgetbench.leaderboard.models import Board, Entry, MetricValue
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.states import PUBLIC
from forgetbench.store import write_atomically


def data_of(session: Session, board: Board) -> list[Point]:
    """The points of a board: every public row, in SQL."""
    forget, utility = aliased(MetricValue), aliased(MetricValue)
    numbers = (column for metric in (forget, utility) for column in (metric.value, metric.low, metric.high))
    query = (
        select(Entry, *numbers)
        .outerjoin(forget, (forget.entry_id == Entry.id) & (forget.metric == forgetting_metric(board.track)))
        .outerjoin(utility, (utility.entry_id == Entry.id) & (utility.metric == "gap.test"))
        .where(Entry.board_id == board.id, Entry.state.in_(PUBLIC), Entry.distance.is_not(None))
        .order_by(Entry.distance)
        .limit(500)
    )
    points = []
    for entry, *found in session.execute(query):
        reference = entry.tier == "reference"
        points.append(
            Point(
                label=entry.label,
                kind=kind_of(entry.label if reference else "", ranked=entry.status == "ranked"),
                cost=entry.cost,
                distance=interval(entry.distance, entry.distance_low, entry.distance_high),
                forget=interval(*found[:3]),
                utility=interval(*found[3:]),
            )
        )
    return points


def path_of(settings: Settings, board: int, name: str, theme: str) -> Path:
    """Where a chart lies."""
    return settings.charts / f"{board}-{name}-{theme}.svg"


def draw(settings: Settings, board: Board, points: list[Point]) -> None:
    """Draw a board's charts, or remove them where there is nothing to draw."""
    import vl_convert

    from forgetbench.figures.scatter import pareto, utility
    from forgetbench.figures.style import DARK, LIGHT

    limit = (board.summary or {}).get("family_limit")
    band_of = {column.name: in_points(column.band) for column in columns_of(board)}
    bands = (band_of.get(forgetting_metric(board.track), (0.0, 0.0)), band_of.get("gap.test", (0.0, 0.0)))
    for theme, colours in (("light", LIGHT), ("dark", DARK)):
        for name, specification in (
            ("cost", pareto(points, limit, colours)),
            ("utility", utility(points, bands, colours)),
        ):
            path = path_of(settings, board.id, name, theme)
            if specification is None:
                path.unlink(missing_ok=True)
            else:
                svg = vl_convert.vegalite_to_svg(specification, allowed_base_urls=[])
                write_atomically(path, svg.encode())
