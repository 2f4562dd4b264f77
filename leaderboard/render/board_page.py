"""The page of a board: variables of its template, and its charts."""

from __future__ import annotations

from typing import NamedTuple

from markupsafe import Markup
from sqlalchemy.orm import Session

from forgetbench.leaderboard.boards import charts, queries
from forgetbench.leaderboard.boards.view import PageView
from forgetbench.leaderboard.db.models import Board
from forgetbench.leaderboard.render.rows import board_table, headline
from forgetbench.leaderboard.render.vega import inline_svg
from forgetbench.reporting.figures.style import PAGE


class PageChart(NamedTuple):
    """A chart on a board's page."""

    x: str
    """Key of what it shows from left to right."""
    y: str
    """Key of what it shows from bottom to top."""
    body: Markup


def chart_axes(board: Board, view: PageView) -> list[tuple[str, str]]:
    """Axes of the charts on a board's page; the view chooses those of the first."""
    first, *others = charts.default_axes(board)
    return [(view.x or first[0], view.y or first[1]), *others]


def draw_chart(session: Session, board: Board, x: str, y: str) -> Markup:
    """A chart as part of a page, "" where there is nothing but reference rows.

    Raises:
        Problem: 422, the board has no such number.
    """
    chart = charts.draw(session, board, x, y, PAGE)
    return inline_svg(chart.specification, chart.text) if chart else Markup()


def board_context(
    session: Session, board: Board, view: PageView, size: int | None, page_charts: list[PageChart]
) -> dict[str, object]:
    """Variables of the template of a board's page.

    Args:
        session: Where to read.
        board: The board.
        view: Filters, sorting, columns and page number.
        size: Rows per page; None for all rows.
        page_charts: Its charts.
    """
    page = queries.board_page(session, board, view, size)
    return {
        "page": page,
        "table": board_table(page),
        "headline": headline(queries.overview(session, board).verdicts),
        "titles": {column.name: column.title for column in page.all_columns},
        "view": view,
        "board": board,
        "summary": board.summary or {},
        "charts": page_charts,
        "axes": charts.axis_keys(page.all_columns),
        "versions": [other for other in queries.boards_of_task(session, board.task) if other.id != board.id],
    }


def embed_context(session: Session, board: Board, size: int) -> dict[str, object]:
    """Variables of the template of the first rows of a board, which other sites show.

    Args:
        session: Where to read.
        board: The board.
        size: Number of rows in addition to Retrain and No unlearning.
    """
    page = queries.board_page(session, board, PageView(), size)
    table = board_table(page)
    return {
        "board": board,
        "table": table,
        "rows": [row for row in table.all if row.place or row.baseline],
        "more": page.total - len(page.rows),
        "headline": headline(queries.overview(session, board).verdicts),
    }
