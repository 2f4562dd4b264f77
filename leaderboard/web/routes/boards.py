"""The pages: rendered here, usable without a script, all state in the address."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from markupsafe import Markup
from sqlalchemy.orm import Session

from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.boards import charts, entries
from forgetbench.leaderboard.boards import queries as boards
from forgetbench.leaderboard.boards.view import View
from forgetbench.leaderboard.db.models import Board
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.render import board_export as exports
from forgetbench.leaderboard.render import table_export as sheets
from forgetbench.leaderboard.render import table_export as tabling
from forgetbench.leaderboard.render import vega
from forgetbench.leaderboard.render.templates import STATIC, Pages
from forgetbench.leaderboard.web.caching import Cache, conditional, etag_of
from forgetbench.leaderboard.web.routes.api import PackHash, base_url

router = APIRouter()
HTML = "text/html; charset=utf-8"
SVG = "image/svg+xml"


AxisKey = Annotated[str, Query(pattern=r"^([a-z][a-z0-9.-]{0,63})?$")]


class Chart(NamedTuple):
    """A chart on a board's page."""

    x: str
    y: str
    body: Markup


class BoardView(View):
    """A view of a board's page."""

    pack: PackHash = ""
    """The beginning of a pack's hash, for a superseded board."""
    x: AxisKey = ""
    """What the chart shows from left to right: distance, cost, or a metric's name; cost where it is left out."""
    y: AxisKey = ""
    """What it shows upwards; distance where it is left out."""


@router.get("/boards/{task:path}")
def board(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    task: str,
    query: Annotated[BoardView, Query()],
) -> Response:
    """A board; with ``.csv``, ``.json``, ``.md`` or ``.tex`` behind its name, the same view as a file.

    With ``.svg`` it is the chart as a picture, with ``.vega`` its specification for Vega-Lite.
    """
    name, _, ending = task.rpartition(".")
    if ending in exports.FORMATS:
        return _export(request, database, name, ending, query)
    if ending in {"svg", "vega"}:
        return _chart_file(request, database, name, ending, query)
    with database.read_session() as session:
        identity, _ = boards.version(session, task, query.pack or None)
        told = (identity, boards.versions(session, task), query.model_dump(), base_url(request), vega.address(settings))
        etag = etag_of(request, "board", *told)

        def make() -> bytes:
            found = boards.find(session, task, query.pack or None)
            page = boards.page(session, found, query, settings.page_rows)
            return _pages(request).render(
                "board.html",
                page=page,
                view=query,
                board=found,
                summary=found.summary or {},
                charts=_charts(request, session, found, query),
                axes=charts.choices(found),
                versions=[other for other in boards.of_task(session, found.task) if other.id != found.id],
                program=vega.address(settings),
            )

        return conditional(request, etag, make, media_type=HTML)


def _export(request: Request, database: Database, task: str, ending: str, query: BoardView) -> Response:
    media_type, write = exports.FORMATS[ending]
    with database.read_session() as session:
        found = boards.find(session, task, query.pack or None)
        etag = etag_of(request, "export", ending, found.id, found.revision, query.model_dump(), base_url(request))
        name = re.sub(r"[^\w-]+", "-", task)
        return conditional(
            request,
            etag,
            lambda: write(boards.page(session, found, query, None), base_url(request)),
            media_type=media_type,
            headers={"Content-Disposition": f'attachment; filename="{name}.{ending}"'},
        )


def _charts(request: Request, session: Session, board: Board, query: BoardView) -> list[Chart]:
    """The charts of a board's page; each is drawn once for all sorts and filters of the table."""
    cache: Cache = request.app.state.cache
    first, *others = charts.default_axes(board)
    found = []
    for x, y in ((query.x or first[0], query.y or first[1]), *others):
        name = etag_of(request, "chart", board.id, board.revision, x, y)
        body = cache.get(name)
        if body is None:
            drawing = charts.draw(session, board, x, y)
            body = _pages(request).render("chart.html", drawing=drawing) if drawing else b""
            cache.put(name, body)
        if body:
            found.append(Chart(x, y, Markup(body.decode())))  # noqa: S704 - our own template, which escapes
    return found


def _chart_file(request: Request, database: Database, task: str, ending: str, query: BoardView) -> Response:
    with database.read_session() as session:
        found = boards.find(session, task, query.pack or None)
        first = charts.default_axes(found)[0]
        x, y = query.x or first[0], query.y or first[1]
        etag = etag_of(request, ending, found.id, found.revision, x, y)
        if ending == "vega":
            return conditional(
                request,
                etag,
                lambda: json.dumps(charts.specification(session, found, x, y)).encode(),
                media_type="application/json",
            )

        def make() -> bytes:
            drawing = charts.draw(session, found, x, y)
            if drawing is None:
                raise Problem(404, "There is nothing to draw on this board yet.")
            return _pages(request).render("chart.svg", drawing=drawing)

        return conditional(request, etag, make, media_type=SVG)


@router.get("/vega.js")
def vega_program(settings: SettingsDep) -> Response:
    """The program of the interactive chart; its address bears its version, so that it may be kept."""
    path = vega.path_of(settings)
    if not path.is_file():
        raise Problem(404, "The interactive chart is not there yet; a worker makes its program.")
    return FileResponse(path, media_type="text/javascript", headers={"Cache-Control": "max-age=31536000, immutable"})


@router.get("/favicon.ico")
def icon() -> FileResponse:
    """The site's icon, where a browser asks for it unbidden: beside JSON, which names none."""
    return FileResponse(STATIC / "icon.svg", media_type=SVG, headers={"Cache-Control": "max-age=86400"})


@router.get("/entries/{identity}")
def entry(request: Request, database: DatabaseDep, identity: str) -> Response:
    """An entry, whole; with ``.csv``, ``.json``, ``.md`` or ``.tex`` behind its id, its tables as a file."""
    identity, _, ending = identity.partition(".")
    url = f"{base_url(request)}/entries/{identity}"
    with database.read_session() as session:
        whole = entries.find(session, identity)
        if ending:
            if ending not in sheets.WRITERS:
                raise Problem(404, "There is no entry of that id, or it is not listed.")
            sheet = sheets.Sheet(whole.entry.label, url, tabling.entry(whole, boards.columns_of(whole.board)))
            headers = {"Content-Disposition": f'attachment; filename="{identity}.{ending}"'}
            return Response(sheets.WRITERS[ending](sheet), media_type=exports.FORMATS[ending][0], headers=headers)

        def make() -> bytes:
            return _pages(request).render("entry.html", alone=False, **entries.shown(whole, base_url(request)))

        etag = etag_of(request, "entry", *entries.version(whole), base_url(request))
        return conditional(request, etag, make, media_type=HTML)


def _pages(request: Request) -> Pages:
    found: Any = request.app.state.pages
    assert isinstance(found, Pages)  # noqa: S101 - tells the type checker
    return found
