"""Read routes of the API under /api/v1; listed entries are public, others need a token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from forgetbench.leaderboard.auth.dependencies import AnyToken, DatabaseDep, OptionalToken, SettingsDep
from forgetbench.leaderboard.boards import directory, entries, queries
from forgetbench.leaderboard.boards.view import PackHash, View
from forgetbench.leaderboard.db import queue, runs
from forgetbench.leaderboard.db.models import Entry, Token
from forgetbench.leaderboard.errors import Problem, ProblemDocument
from forgetbench.leaderboard.render import serializers
from forgetbench.leaderboard.render.schemas import (
    BoardBrief,
    BoardDocument,
    EntryDocument,
    MethodDocument,
    MetricDocument,
    SubmissionDocument,
    TokenDocument,
)
from forgetbench.leaderboard.submissions import downloads
from forgetbench.leaderboard.submissions.uploads import MEDIA_TYPE
from forgetbench.leaderboard.web.caching import cache_headers, conditional, etag_of, unchanged
from forgetbench.leaderboard.web.context import base_url
from forgetbench.store import JsonObject

router = APIRouter(prefix="/api/v1")
JSON = "application/json"
Superseded = Annotated[bool, Query(description="Include boards that a newer pack of their task superseded.")]
_ERRORS: dict[int | str, JsonObject] = {
    status: {"model": ProblemDocument, "description": text}
    for status, text in ((404, "Not found"), (422, "Invalid"), (429, "Too many requests"))
}
WRITE_ERRORS = {
    **_ERRORS,
    400: {"model": ProblemDocument, "description": "Incomplete submission"},
    401: {"model": ProblemDocument, "description": "Missing or invalid token"},
    403: {"model": ProblemDocument, "description": "Token without the required scope, or a quota that is used up"},
    409: {"model": ProblemDocument, "description": "Conflict with an earlier request or the present state"},
    413: {"model": ProblemDocument, "description": "Too large"},
    415: {"model": ProblemDocument, "description": "Not a zip file"},
    503: {"model": ProblemDocument, "description": "The database is busy; try again"},
    507: {"model": ProblemDocument, "description": "The server has no space"},
}


class BoardQuery(View):
    """View of a board, with pagination."""

    cursor: Annotated[str, Query(max_length=600)] = ""
    """``next`` of the previous page; opaque."""
    limit: Annotated[int, Query(ge=1, le=1000)] = 100
    """Rows per response."""
    pack: PackHash = ""
    """Beginning of a pack's hash, for a superseded board."""


@router.get("/boards", response_model=list[BoardBrief], responses=_ERRORS)
def list_boards(request: Request, database: DatabaseDep, superseded: Superseded = False) -> Response:
    """All boards that accept submissions; with ``superseded=true`` also earlier ones."""
    with database.read_session() as session:

        def make() -> list[BoardBrief]:
            counts = queries.entry_counts(session)
            boards = queries.all_boards(session) if superseded else queries.current_boards(session)
            return [serializers.board_brief(board, counts.get(board.id, 0)) for board in boards]

        return _json_response(request, _etag(request, session, superseded), list[BoardBrief], make)


@router.get("/boards/{task:path}", response_model=BoardDocument, responses=_ERRORS)
def get_board(request: Request, database: DatabaseDep, task: str, query: Annotated[BoardQuery, Query()]) -> Response:
    """One page of a view of a board; follow ``next`` until it is null."""
    with database.read_session() as session:
        board_id, revision = queries.board_version(session, task, query.pack or None)
        etag = etag_of(request, "board.json", board_id, revision, query.model_dump())

        def make() -> bytes:
            view = View(**{name: getattr(query, name) for name in View.model_fields if name != "page"})
            board = queries.get_board(session, task, query.pack or None)
            page = queries.board_page(session, board, view, query.limit, query.cursor)
            return serializers.board(page).model_dump_json().encode()

        return conditional(request, etag, make, media_type=JSON)


@router.get(
    "/entries/{entry_id}",
    response_model=EntryDocument,
    responses={**_ERRORS, 410: {"model": ProblemDocument, "description": "Withdrawn"}},
)
def get_entry(request: Request, database: DatabaseDep, token: OptionalToken, entry_id: str) -> Response:
    """One entry with scorecard, manifest, files and history."""
    with database.read_session() as session:
        detail = entries.get_entry(session, entry_id, token)
        if detail.withheld:
            raise Problem(403, "The results of this round are hidden until they are revealed.")
        etag = etag_of(request, "entry.json", *entries.entry_version(detail))
        return _json_response(request, etag, EntryDocument, lambda: serializers.entry(detail))


@router.get(
    "/entries/{entry_id}/evidence",
    response_class=StreamingResponse,
    responses={**_ERRORS, 200: {"content": {MEDIA_TYPE: {}}, "description": "The run as a zip"}},
)
def get_evidence(
    request: Request, database: DatabaseDep, settings: SettingsDep, token: OptionalToken, entry_id: str
) -> Response:
    """The evidence of an entry as it was submitted; reference rows have none."""
    with database.read_session() as session:
        entry = entries.get_entry(session, entry_id, token).entry
        body = downloads.stream_evidence(settings, entry)
        etag = etag_of(request, "evidence", entry_id, entry.manifest_sha256)
    if (not_modified := unchanged(request, etag)) is not None:
        return not_modified
    headers = {**cache_headers(etag), "Content-Disposition": f'attachment; filename="{entry_id}.zip"'}
    return StreamingResponse(body, media_type=MEDIA_TYPE, headers=headers)


@router.get(
    "/tasks/{task:path}/pack",
    response_class=FileResponse,
    responses={**_ERRORS, 200: {"content": {MEDIA_TYPE: {}}, "description": "The public part of the pack"}},
)
def get_pack(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    task: str,
    pack: PackHash = "",
    kind: Annotated[Literal["public", "development"], Query()] = "public",
) -> Response:
    """What a submitter needs of a task: the pack's card, the originals and their evidence; never labels or oracles.

    With ``kind=development`` it is the development bundle of a sealed board, with labels and oracles of its own.
    """
    with database.read_session() as session:
        board = queries.get_board(session, task, pack or None)
        path, etag = downloads.public_bundle(settings, board, kind), etag_of(request, kind, board.pack_sha256)
    if (not_modified := unchanged(request, etag)) is not None:
        return not_modified
    return FileResponse(path, media_type=MEDIA_TYPE, filename="pack.zip", headers=cache_headers(etag))


@router.get("/methods", response_model=list[MethodDocument], responses=_ERRORS)
def list_methods(request: Request, database: DatabaseDep) -> Response:
    """All methods with listed entries."""
    with database.read_session() as session:

        def make() -> list[MethodDocument]:
            return [MethodDocument(**asdict(line)) for line in directory.methods(session)]

        return _json_response(request, _etag(request, session), list[MethodDocument], make)


@router.get("/metrics", response_model=list[MetricDocument], responses=_ERRORS)
def list_metrics(request: Request, database: DatabaseDep) -> Response:
    """All metrics, with what they mean and what they miss."""
    with database.read_session() as session:

        def make() -> list[MetricDocument]:
            specs = directory.metric_specs(session).values()
            return [MetricDocument(**{name: spec[name] for name in MetricDocument.model_fields}) for spec in specs]

        return _json_response(request, _etag(request, session), list[MetricDocument], make)


@router.get("/submissions/{entry_id}", response_model=SubmissionDocument, responses=_ERRORS)
def get_submission(request: Request, database: DatabaseDep, token: OptionalToken, entry_id: str) -> Response:
    """State, rank and history of a submission."""
    with database.read_session() as session:
        entry = session.get(Entry, entry_id) if "\0" not in entry_id else None
        if entry is None or not entries.can_view(entry, token):
            raise Problem(404, "There is no submission with that id, or it is not listed and not yours.")
    document = submission_document(request, database, entry_id)
    etag = etag_of(request, "submission", document.model_dump_json())
    return _json_response(request, etag, SubmissionDocument, lambda: document)


def _etag(request: Request, session: Session, *parts: object) -> str:
    """ETag of a response that changes only when a board changes."""
    return etag_of(request, request.url.path, queries.board_versions(session), *parts)


def _json_response(request: Request, etag: str, kind: Any, make: Callable[[], Any]) -> Response:
    """JSON response of a document or a list of documents; 304 if the client has it."""
    return conditional(request, etag, lambda: TypeAdapter(kind).dump_json(make()), media_type=JSON)


@router.get("/whoami", responses=WRITE_ERRORS)
def whoami(settings: SettingsDep, token: AnyToken) -> TokenDocument:
    """Name and scopes of the token, and the license of entries; clients check them before an upload."""
    return TokenDocument(
        name=token.name, scopes=token.scopes, expires_at=token.expires_at, license=settings.data_license
    )


def submission_document(request: Request, database: DatabaseDep, entry_id: str) -> SubmissionDocument:
    """State, rank and history of a submission; the caller has checked that the client may see it."""
    with database.read_session() as session:
        owner = session.get_one(Entry, entry_id).token_id
        detail = entries.get_entry(session, entry_id, session.get(Token, owner) if owner else None)
        url = f"{base_url(request)}/entries/{entry_id}"
        settings = request.app.state.settings
        warning = queue.worker_warning(session, settings.lease_seconds)
        run, runner_warning = runs.run_state(session, entry_id), queue.runner_warning(session, settings.lease_seconds)
        return serializers.submission(detail, url, warning, run, runner_warning)
