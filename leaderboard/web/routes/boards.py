"""The page of a board, with its charts and files."""

from __future__ import annotations

import json
import re
from datetime import date
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup
from sqlalchemy.orm import Session

from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.boards import charts, history, queries
from forgetbench.leaderboard.boards.view import SUMMARY, PageView
from forgetbench.leaderboard.db.models import Board
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.render import exports, vega
from forgetbench.leaderboard.render.board_page import PageChart, board_context, chart_axes, draw_chart, embed_context
from forgetbench.leaderboard.render.history_page import as_of_context, as_of_tables, last_day, levels
from forgetbench.leaderboard.web.caching import Cache, conditional, etag_of
from forgetbench.leaderboard.web.context import base_url, pages_of
from forgetbench.leaderboard.web.middleware import EMBEDDED
from forgetbench.reporting.figures.style import DARK, LIGHT

router = APIRouter()
HTML = "text/html; charset=utf-8"
SVG = "image/svg+xml"
EmbeddedRows = Annotated[int, Query(ge=1, le=50)]


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
    if view.as_of is not None:
        return _as_of(
            request, database, *((name, ending) if ending in exports.VIEW_WRITERS else (task, "")), view.as_of
        )
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
            page_charts = _charts(request, session, board, view) if view.has_charts else []
            context = board_context(session, board, view, settings.page_rows, page_charts)
            return pages_of(request).render("board.html", program=program, base=base_url(request), **context)

        return conditional(request, etag, make, media_type=HTML)


def _as_of(request: Request, database: Database, task: str, ending: str, day: date) -> Response:
    """The places of a board at the end of a day; with an ending as a file."""
    with database.read_session() as session:
        past_board = history.past_board(session, history.board_on(session, task, day), day)
        versions = queries.board_versions(session, task)
        etag = etag_of(request, "as of", task, versions, ending, day, base_url(request))

        def page() -> bytes:
            links = [
                (text, f"/boards/{quote(task)}.{end}?as-of={day}") for end, text in (("csv", "CSV"), ("json", "JSON"))
            ]
            return pages_of(request).render("as_of.html", files=links, **as_of_context(session, past_board))

        def table() -> bytes:
            url = f"{base_url(request)}/boards/{task}?as-of={day}"
            return exports.VIEW_WRITERS[ending](exports.View(task, url, as_of_tables(past_board))).encode()

        if not ending:
            return conditional(request, etag, page, media_type=HTML)
        headers = attachment(re.sub(r"[^\w-]+", "-", f"{task}-{day}"), ending)
        return conditional(request, etag, table, media_type=exports.MEDIA_TYPES[ending], headers=headers)


@router.get("/embed/boards/{task:path}")
def embedded_board(request: Request, database: DatabaseDep, task: str, rows: EmbeddedRows = 10) -> Response:
    """The first rows of a board, for a frame on a page of another site: without cookies, forms and scripts."""
    with database.read_session() as session:
        board_id, _ = queries.board_version(session, task)
        etag = etag_of(request, "embed", rows, board_id, queries.board_versions(session, task), base_url(request))

        def make() -> bytes:
            board = queries.get_board(session, task)
            return pages_of(request).render("embed.html", **embed_context(session, board, rows))

        return conditional(request, etag, make, media_type=HTML)


@router.get("/embed/charts/{task:path}")
def embedded_chart(request: Request, database: DatabaseDep, task: str, view: Annotated[PageView, Query()]) -> Response:
    """The first chart of a board as SVG, as at ``/boards/TASK.svg``."""
    return _chart_file(request, database, task.removesuffix(".svg"), "svg", view)


@router.get("/embed/history/{task:path}")
def embedded_history(
    request: Request, database: DatabaseDep, task: str, theme: Literal["light", "dark"] = "light"
) -> Response:
    """The best distance of a board over time as SVG."""
    with database.read_session() as session:
        board = queries.get_board(session, task.removesuffix(".svg"))
        last = last_day(board)
        etag = etag_of(request, "history", board.id, board.revision, last, theme)

        def make() -> bytes:
            steps = history.best_over_time(session, board)
            colors = DARK if theme == "dark" else LIGHT
            specification = history.chart(steps, last, *levels(session, board), colors)
            if specification is None:
                raise Problem(404, "This board has no history yet: no verified or reference row has had a place.")
            return vega.standalone_svg(specification, history.chart_text(steps, board.task))

        return conditional(request, etag, make, media_type=SVG)


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
    return {**EMBEDDED, "Content-Disposition": f'attachment; filename="{name}.{ending}"'}


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

        media_type = SVG if ending == "svg" else "application/json"
        return conditional(request, etag, make, media_type=media_type, headers=EMBEDDED)
