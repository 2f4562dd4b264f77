"""For other sites: a feed of new entries, badges, and a dump of everything that is listed."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import contains_eager

from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.boards import entries, queries
from forgetbench.leaderboard.db.models import Board, Entry
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.render import dump as dumps
from forgetbench.leaderboard.render import formatting
from forgetbench.leaderboard.render.rows import row_of
from forgetbench.leaderboard.web.caching import cache_headers, conditional, etag_of, unchanged
from forgetbench.leaderboard.web.context import base_url, pages_of
from forgetbench.leaderboard.web.middleware import EMBEDDED

router = APIRouter()
NEWEST = 50
_BADGE = {**EMBEDDED, "Cache-Control": "max-age=300"}
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@router.get("/feed.atom")
def feed(request: Request, database: DatabaseDep) -> Response:
    """The newest entries of all boards."""
    with database.read_session() as session:
        etag = etag_of(request, "feed", queries.board_versions(session), base_url(request))

        def make() -> bytes:
            query = (
                select(Entry)
                .join(Entry.board)
                .where(Entry.state.in_(PUBLIC_STATES), ~Entry.baseline, Board.superseded_at.is_(None))
                .order_by(Entry.listed_at.desc(), Entry.id)
                .options(contains_eager(Entry.board), queries.row_columns())
                .limit(NEWEST)
            )
            newest = session.scalars(query).all()
            body = pages_of(request).render("feed.xml", newest=newest, base=base_url(request))
            return _NOT_XML.sub("", body.decode()).encode()

        return conditional(request, etag, make, media_type="application/atom+xml")


@router.get("/dump.jsonl")
def dump(request: Request, database: DatabaseDep, settings: SettingsDep) -> Response:
    """Everything that is listed, one entry per line, after a line that describes the file."""
    with database.read_session() as session:
        etag = etag_of(request, "dump", queries.board_versions(session))
    if (not_modified := unchanged(request, etag)) is not None:
        return not_modified
    headers = {**cache_headers(etag), "Content-Disposition": 'attachment; filename="dump.jsonl"'}
    return StreamingResponse(dumps.lines(database, settings), media_type="application/jsonl", headers=headers)


@router.get("/badges/{entry_id}.svg")
def badge(request: Request, database: DatabaseDep, entry_id: str) -> Response:
    """An entry's tier, verdict and rank as a small picture, for a README."""
    with database.read_session() as session:
        detail = entries.get_entry(session, entry_id)
        placing = detail.placing
        of = "claims" if placing and placing.scope == "claimed" else ""
        rank = f"rank {formatting.place_text(placing)} of {detail.ranked} {of}".rstrip() if placing else "not ranked"
        row = row_of(detail.row)
        text = ": ".join([row.tier, ", ".join(filter(None, [row.verdict, row.caveat, rank]))])
    body = pages_of(request).render("badge.svg", text=text, width=round(6.4 * len(text)) + 14)
    return Response(body, media_type="image/svg+xml", headers=_BADGE)
