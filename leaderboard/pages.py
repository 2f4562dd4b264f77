"""The pages: rendered here, usable without a script, all state in the address."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse

from forgetbench.leaderboard import boards, charts, entries, exports, planned
from forgetbench.leaderboard.access import DatabaseDep, SettingsDep
from forgetbench.leaderboard.api import base_url
from forgetbench.leaderboard.caching import conditional, etag_of
from forgetbench.leaderboard.citing import bibtex
from forgetbench.leaderboard.database import Database
from forgetbench.leaderboard.problems import Problem
from forgetbench.leaderboard.rendering import Pages
from forgetbench.leaderboard.views import View

router = APIRouter()
HTML = "text/html; charset=utf-8"
CHARTS = {
    "cost": "Distance to the oracles against cost; the line joins the rows that nothing beats on both",
    "utility": "Forgetting against utility: gaps to the oracles, who stand at the crossing of the dashed lines",
}


class BoardView(View):
    """A view of a board's page."""

    pack: Annotated[str, Query(pattern="^([0-9a-f]{8,64})?$")] = ""
    """The beginning of a pack's hash, for a superseded board."""


@router.get("/")
def overview(request: Request, database: DatabaseDep) -> Response:
    """Every board with its leading entries."""
    with database.reading() as session:
        etag = etag_of("/", boards.versions(session), base_url(request))

        def make() -> bytes:
            found = boards.summaries(session)
            waiting = () if found else planned.embedded()
            return _pages(request).render("overview.html", summaries=found, planned=waiting, base=base_url(request))

        return conditional(request, etag, make, media_type=HTML)


@router.get("/boards/{task:path}")
def board(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    task: str,
    query: Annotated[BoardView, Query()],
) -> Response:
    """A board; with ``.csv``, ``.json``, ``.md`` or ``.tex`` behind its name, the same view as a file."""
    name, _, ending = task.rpartition(".")
    if ending in exports.FORMATS:
        return _export(request, database, name, ending, query)
    with database.reading() as session:
        identity, revision = boards.version(session, task, query.pack or None)
        etag = etag_of("board.html", identity, revision, query.model_dump(), base_url(request))

        def make() -> bytes:
            found = boards.find(session, task, query.pack or None)
            page = boards.page(session, found, query, settings.page_rows)
            drawn = [
                (name, text)
                for name, text in CHARTS.items()
                if charts.path_of(settings, found.id, name, "light").is_file()
            ]
            return _pages(request).render(
                "board.html", page=page, view=query, board=found, charts=drawn, summary=found.summary or {}
            )

        return conditional(request, etag, make, media_type=HTML)


def _export(request: Request, database: Database, task: str, ending: str, query: BoardView) -> Response:
    media_type, write = exports.FORMATS[ending]
    with database.reading() as session:
        found = boards.find(session, task, query.pack or None)
        etag = etag_of("export", ending, found.id, found.revision, query.model_dump(), base_url(request))
        name = re.sub(r"[^\w-]+", "-", task)
        return conditional(
            request,
            etag,
            lambda: write(boards.page(session, found, query, None), base_url(request)),
            media_type=media_type,
            headers={"Content-Disposition": f'attachment; filename="{name}.{ending}"'},
        )


@router.get("/charts/{name}")
def chart(settings: SettingsDep, name: str) -> Response:
    """A chart as SVG; its address bears the board's revision, so that it may be kept."""
    known = {path.name: path for path in settings.charts.glob("*.svg")}
    if name not in known:
        raise Problem(404, "There is no such chart.")
    return FileResponse(
        known[name], media_type="image/svg+xml", headers={"Cache-Control": "max-age=31536000, immutable"}
    )


@router.get("/entries/{identity}")
def entry(request: Request, database: DatabaseDep, identity: str) -> Response:
    """An entry, whole."""
    with database.reading() as session:
        whole = entries.find(session, identity)
        columns = boards.columns_of(whole.board)
        body = _pages(request).render(
            "entry.html",
            whole=whole,
            entry=whole.entry,
            board=whole.board,
            manifest=whole.manifest,
            columns=columns,
            card=whole.score.card if whole.score else None,
            bibtex=bibtex(whole, base_url(request)),
            base=base_url(request),
        )
    return Response(body, media_type=HTML, headers={"Cache-Control": "no-cache"})


def _pages(request: Request) -> Pages:
    found: Any = request.app.state.pages
    assert isinstance(found, Pages)  # noqa: S101 - tells the type checker
    return found
