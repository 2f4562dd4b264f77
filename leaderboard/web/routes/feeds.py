"""What others take of this site: a feed of what is new, a badge of an entry's place, and everything that is listed."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import contains_eager

from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.boards import entries
from forgetbench.leaderboard.boards import queries as boards
from forgetbench.leaderboard.db.models import Board, Entry
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.render import dump as dumps
from forgetbench.leaderboard.render import formatting
from forgetbench.leaderboard.web.caching import conditional, etag_of, kept, unchanged
from forgetbench.leaderboard.web.routes.api import base_url

router = APIRouter()
NEWEST = 50
_EMBEDDED = {"Cache-Control": "max-age=300", "Cross-Origin-Resource-Policy": "cross-origin"}
"""A badge stands on pages of other sites."""
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@router.get("/feed.atom")
def feed(request: Request, database: DatabaseDep) -> Response:
    """The newest entries of all boards."""
    with database.read_session() as session:
        etag = etag_of(request, "feed", boards.versions(session), base_url(request))

        def make() -> bytes:
            query = (
                select(Entry)
                .join(Entry.board)
                .where(Entry.state.in_(PUBLIC_STATES), Entry.tier != "reference", Board.superseded_at.is_(None))
                .order_by(Entry.listed_at.desc(), Entry.id)
                .options(contains_eager(Entry.board), boards.light_columns())
                .limit(NEWEST)
            )
            found = session.scalars(query).all()
            body: bytes = request.app.state.pages.render("feed.xml", found=found, base=base_url(request))
            return _NOT_XML.sub("", body.decode()).encode()

        return conditional(request, etag, make, media_type="application/atom+xml")


@router.get("/dump.jsonl")
def dump(request: Request, database: DatabaseDep, settings: SettingsDep) -> Response:
    """Everything that is listed, one entry on each line, behind a head that says what it is."""
    with database.read_session() as session:
        etag = etag_of(request, "dump", boards.versions(session))
    if (same := unchanged(request, etag)) is not None:
        return same
    named = {**kept(etag), "Content-Disposition": 'attachment; filename="dump.jsonl"'}
    return StreamingResponse(dumps.lines(database, settings), media_type="application/jsonl", headers=named)


@router.get("/badges/{identity}.svg")
def badge(request: Request, database: DatabaseDep, identity: str) -> Response:
    """An entry's place and tier as a small picture, for a README."""
    with database.read_session() as session:
        whole = entries.find(session, identity)
        place = whole.placing
        rank = f"rank {formatting.rank_text(place.low, place.high)} of {whole.ranked}" if place else "not ranked"
        text = f"{rank}, {whole.entry.tier}"
    body: bytes = request.app.state.pages.render("badge.svg", text=text, width=round(6.4 * len(text)) + 14)
    return Response(body, media_type="image/svg+xml", headers=_EMBEDDED)
