"""The API under /api/v1. Reading is open to everybody; writing needs a token."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from forgetbench.leaderboard.auth.dependencies import DatabaseDep, Known, ReaderDep, SettingsDep
from forgetbench.leaderboard.boards import directory, entries
from forgetbench.leaderboard.boards import queries as boards
from forgetbench.leaderboard.boards.view import View
from forgetbench.leaderboard.db import queue as jobs
from forgetbench.leaderboard.db.models import Entry, Token
from forgetbench.leaderboard.db.states import PUBLIC
from forgetbench.leaderboard.errors import Problem, ProblemDocument
from forgetbench.leaderboard.render import serializers as documents
from forgetbench.leaderboard.render.schemas import (
    BoardBrief,
    BoardDocument,
    EntryDocument,
    MethodDocument,
    MetricDocument,
    SubmissionDocument,
)
from forgetbench.leaderboard.submissions import downloads as handing
from forgetbench.leaderboard.submissions import uploads
from forgetbench.leaderboard.web.caching import conditional, etag_of, kept, unchanged

router = APIRouter(prefix="/api/v1")
JSON = "application/json"
PackHash = Annotated[str, Query(pattern="^([0-9a-f]{8,64})?$")]
"""The beginning of a pack's hash; of the present board, where it is left out."""
Superseded = Annotated[bool, Query(description="Also boards that a newer pack of their task superseded.")]
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemDocument, "description": text}
    for status, text in ((404, "Not here"), (422, "Not valid"), (429, "Too many requests"))
}
WRITE_ERRORS = {
    **_ERRORS,
    400: {"model": ProblemDocument, "description": "Not a complete submission"},
    401: {"model": ProblemDocument, "description": "No token, or a wrong one"},
    403: {"model": ProblemDocument, "description": "A token without the scope"},
    409: {"model": ProblemDocument, "description": "A conflict with something earlier"},
    413: {"model": ProblemDocument, "description": "Too large"},
    415: {"model": ProblemDocument, "description": "Not a zip"},
}


class BoardQuery(View):
    """A view of a board, read page by page."""

    cursor: Annotated[str, Query(max_length=600)] = ""
    """``next`` of the page before; opaque."""
    limit: Annotated[int, Query(ge=1, le=1000)] = 100
    """Rows in one answer."""
    pack: PackHash = ""
    """The beginning of a pack's hash, for a superseded board."""


@router.get("/boards", response_model=list[BoardBrief], responses=_ERRORS)
def list_boards(request: Request, database: DatabaseDep, superseded: Superseded = False) -> Response:
    """All boards that take submissions, or all there ever were."""
    with database.reading() as session:

        def make() -> list[BoardBrief]:
            rows = (
                select(Entry.board_id, func.count())
                .where(Entry.state.in_(PUBLIC), Entry.tier != "reference")
                .group_by(Entry.board_id)
            )
            count = dict(session.execute(rows).all())
            found = boards.every(session) if superseded else boards.current(session)
            return [BoardBrief(**documents.board_brief(board, count.get(board.id, 0))) for board in found]

        return _answer(request, _etag(request, session, superseded), list[BoardBrief], make)


@router.get("/boards/{task:path}", response_model=BoardDocument, responses=_ERRORS)
def get_board(request: Request, database: DatabaseDep, task: str, query: Annotated[BoardQuery, Query()]) -> Response:
    """One view of a board, a page at a time: follow ``next`` until it is null."""
    with database.reading() as session:
        identity, revision = boards.version(session, task, query.pack or None)
        etag = etag_of(request, "board.json", identity, revision, query.model_dump())

        def make() -> bytes:
            view = View(**{name: getattr(query, name) for name in View.model_fields if name != "page"})
            board = boards.find(session, task, query.pack or None)
            page = boards.page(session, board, view, query.limit, query.cursor)
            return json.dumps(documents.board(page, page.following), allow_nan=False).encode()

        return conditional(request, etag, make, media_type=JSON)


@router.get(
    "/entries/{identity}",
    response_model=EntryDocument,
    responses={**_ERRORS, 410: {"model": ProblemDocument, "description": "Withdrawn"}},
)
def get_entry(request: Request, database: DatabaseDep, token: ReaderDep, identity: str) -> Response:
    """One entry, whole: scorecard, manifest, files, history."""
    with database.reading() as session:
        whole = entries.find(session, identity, token)
        etag = etag_of(request, "entry.json", *entries.version(whole))
        return _answer(request, etag, EntryDocument, lambda: documents.entry(whole))


@router.get(
    "/entries/{identity}/evidence",
    response_class=StreamingResponse,
    responses={**_ERRORS, 200: {"content": {uploads.MEDIA_TYPE: {}}, "description": "The run as a zip"}},
)
def get_evidence(
    request: Request, database: DatabaseDep, settings: SettingsDep, token: ReaderDep, identity: str
) -> Response:
    """An entry's evidence, as it was submitted; never an oracle's."""
    with database.reading() as session:
        entry = entries.find(session, identity, token).entry
        body = handing.evidence(settings, entry)
        etag = etag_of(request, "evidence", identity, entry.manifest_sha256)
    if (same := unchanged(request, etag)) is not None:
        return same
    named = {**kept(etag), "Content-Disposition": f'attachment; filename="{identity}.zip"'}
    return StreamingResponse(body, media_type=uploads.MEDIA_TYPE, headers=named)


@router.get(
    "/tasks/{task:path}/pack",
    response_class=FileResponse,
    responses={**_ERRORS, 200: {"content": {uploads.MEDIA_TYPE: {}}, "description": "The public part of the pack"}},
)
def get_pack(
    request: Request, database: DatabaseDep, settings: SettingsDep, task: str, pack: PackHash = ""
) -> Response:
    """What a submitter needs of a task: the card, the originals and their evidence; never labels or oracles."""
    with database.reading() as session:
        board = boards.find(session, task, pack or None)
        path, etag = handing.public_pack(settings, board), etag_of(request, "pack", board.pack_sha256)
    if (same := unchanged(request, etag)) is not None:
        return same
    return FileResponse(path, media_type=uploads.MEDIA_TYPE, filename="pack.zip", headers=kept(etag))


@router.get("/methods", response_model=list[MethodDocument], responses=_ERRORS)
def list_methods(request: Request, database: DatabaseDep) -> Response:
    """Every method that is listed."""
    with database.reading() as session:

        def make() -> list[MethodDocument]:
            return [MethodDocument(**asdict(line)) for line in directory.methods(session)]

        return _answer(request, _etag(request, session), list[MethodDocument], make)


@router.get("/metrics", response_model=list[MetricDocument], responses=_ERRORS)
def list_metrics(request: Request, database: DatabaseDep) -> Response:
    """Every metric: what it means, and what it misses."""
    with database.reading() as session:

        def make() -> list[MetricDocument]:
            specs = directory.metric_specs(session).values()
            return [MetricDocument(**{name: spec[name] for name in MetricDocument.model_fields}) for spec in specs]

        return _answer(request, _etag(request, session), list[MetricDocument], make)


@router.get("/submissions/{identity}", response_model=SubmissionDocument, responses=_ERRORS)
def get_submission(request: Request, database: DatabaseDep, token: ReaderDep, identity: str) -> Response:
    """What became of a submission: its state, its place, its history."""
    with database.reading() as session:
        entry = session.get(Entry, identity) if "\0" not in identity else None
        if entry is None or not entries.visible(entry, token):
            raise Problem(404, "There is no submission of that id, or it is neither listed nor yours.")
    document = SubmissionDocument(**submission_document(request, database, identity))
    etag = etag_of(request, "submission", document.model_dump_json())
    return _answer(request, etag, SubmissionDocument, lambda: document)


def _etag(request: Request, session: Session, *parts: object) -> str:
    """The ETag of an answer that changes only where a board does."""
    return etag_of(request, request.url.path, boards.versions(session), *parts)


def _answer(request: Request, etag: str, kind: Any, make: Callable[[], Any]) -> Response:
    """A document, or a list of them, as JSON."""
    return conditional(request, etag, lambda: TypeAdapter(kind).dump_json(make()), media_type=JSON)


@router.get("/whoami", responses=WRITE_ERRORS)
def who_am_i(token: Known) -> dict[str, Any]:
    """Whose token this is: lets a client find out before it uploads."""
    return {"name": token.name, "scopes": token.scopes, "expires_at": token.expires_at}


def submission_document(request: Request, database: DatabaseDep, identity: str) -> dict[str, Any]:
    """A ``SubmissionDocument``, for whoever may see it."""
    with database.reading() as session:
        owner = session.get_one(Entry, identity).token_id
        whole = entries.find(session, identity, session.get(Token, owner) if owner else None)
        url = f"{base_url(request)}/entries/{identity}"
        trouble = jobs.trouble(session, request.app.state.settings.lease_seconds)
        return documents.submission(whole.entry, whole.placing, whole.ranked, whole.events, url, trouble)


def base_url(request: Request) -> str:
    """Address of the site as readers see it."""
    public = cast("Any", request.app.state.settings).public_url
    return str(public or request.base_url).rstrip("/")
