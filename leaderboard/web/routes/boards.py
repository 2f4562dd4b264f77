"""The page of a board, with its charts and files."""

from __future__ import annotations

import json
import re
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup
from sqlalchemy.orm import Session

from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.boards import charts, queries
from forgetbench.leaderboard.boards.view import SUMMARY, PageView
from forgetbench.leaderboard.db.models import Board
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.render import exports, vega
from forgetbench.leaderboard.render.board_page import PageChart, board_context, chart_axes, draw_chart
from forgetbench.leaderboard.web.caching import Cache, conditional, etag_of
from forgetbench.leaderboard.web.context import base_url, pages_of
from forgetbench.reporting.figures.style import DARK, LIGHT

router = APIRouter()
HTML = "text/html; charset=utf-8"
SVG = "image/svg+xml"


@router.get("/boards/{task:path}")
def board(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    task: str,
    view: Annotated[PageView, Query()],
) -> Response:
    """A board; with ``.csv``, ``.json``, ``.md`` or ``.tex`` after its name, the same view as a file.

    With ``.svg`` it is the first chart as a picture, with ``.vega`` its Vega-Lite specification.
    """
    name, _, ending = task.rpartition(".")
    if ending in exports.BOARD_WRITERS:
        return _export(request, database, name, ending, view)
    if ending in {"svg", "vega"}:
        return _chart_file(request, database, name, ending, view)
    program = vega.program_address(settings)
    with database.read_session() as session:
        board_id, _ = queries.board_version(session, task, view.pack or None)
        versions = queries.board_versions(session, task)
        etag = etag_of(request, "board", board_id, versions, view.model_dump(), base_url(request), program)

        def make() -> bytes:
            board = queries.get_board(session, task, view.pack or None)
            page_charts = _charts(request, session, board, view)
            context = board_context(session, board, view, settings.page_rows, page_charts)
            return pages_of(request).render("board.html", program=program, **context)

        return conditional(request, etag, make, media_type=HTML)


def _export(request: Request, database: Database, task: str, ending: str, view: PageView) -> Response:
    if view.columns == SUMMARY:
        view = view.model_copy(update={"columns": "ranking"})
    with database.read_session() as session:
        board, base = queries.get_board(session, task, view.pack or None), base_url(request)
        etag = etag_of(request, "export", ending, board.id, board.revision, view.model_dump(), base)

        def make() -> bytes:
            return exports.BOARD_WRITERS[ending](queries.board_page(session, board, view, None), base).encode()

        return conditional(
            request,
            etag,
            make,
            media_type=exports.MEDIA_TYPES[ending],
            headers=attachment(re.sub(r"[^\w-]+", "-", task), ending),
        )


def attachment(name: str, ending: str) -> dict[str, str]:
    """Headers of a response that is saved as a file."""
    return {"Content-Disposition": f'attachment; filename="{name}.{ending}"'}


def _charts(request: Request, session: Session, board: Board, view: PageView) -> list[PageChart]:
    """The charts of a board's page; each is drawn once per revision, for all sorts and filters of the table."""
    cache: Cache = request.app.state.cache
    drawn = []
    for x, y in chart_axes(board, view):
        key = etag_of(request, "chart", board.id, board.revision, x, y)
        body = cache.get(key)
        if body is None:
            body = draw_chart(session, board, x, y).encode()
            cache.put(key, body)
        if body:
            drawn.append(PageChart(x, y, Markup(body.decode())))  # noqa: S704 - drawn by `inline_svg`, which escapes
    return drawn


def _chart_file(request: Request, database: Database, task: str, ending: str, view: PageView) -> Response:
    """The first chart of a board as a file, in the colors that the view names."""
    with database.read_session() as session:
        board = queries.get_board(session, task, view.pack or None)
        x, y = chart_axes(board, view)[0]
        etag = etag_of(request, ending, board.id, board.revision, x, y, view.theme)

        def make() -> bytes:
            chart = charts.draw(session, board, x, y, DARK if view.theme == "dark" else LIGHT)
            if chart is None:
                raise Problem(404, "This board has no chart yet: it needs an entry with both numbers.")
            if ending == "vega":
                return json.dumps(chart.specification).encode()
            return vega.standalone_svg(chart.specification, chart.text)

        return conditional(request, etag, make, media_type=SVG if ending == "svg" else "application/json")
