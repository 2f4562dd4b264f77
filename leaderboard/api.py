"""The API under /api/v1. Reading is open to everybody; writing needs a token."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import asdict
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy import func, select
from starlette.background import BackgroundTask

from forgetbench.leaderboard import boards, directory, documents, entries, handing, jobs, uploads
from forgetbench.leaderboard.access import DatabaseDep, Known, ReaderDep, SettingsDep
from forgetbench.leaderboard.caching import conditional, etag_of
from forgetbench.leaderboard.documents import (
    BoardBrief,
    BoardDocument,
    EntryDocument,
    MethodDocument,
    MetricDocument,
    SubmissionDocument,
)
from forgetbench.leaderboard.models import Entry, Token
from forgetbench.leaderboard.problems import FieldError, Problem, ProblemDocument
from forgetbench.leaderboard.states import PUBLIC
from forgetbench.leaderboard.views import View

router = APIRouter(prefix="/api/v1")
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

    cursor: Annotated[str, Query(max_length=200)] = ""
    """``next`` of the page before; opaque."""
    limit: Annotated[int, Query(ge=1, le=1000)] = 100
    """Rows in one answer."""
    pack: Annotated[str, Query(pattern="^([0-9a-f]{8,64})?$")] = ""
    """The beginning of a pack's hash, for a superseded board."""


@router.get("/boards", responses=_ERRORS)
def list_boards(database: DatabaseDep) -> list[BoardBrief]:
    """All boards."""
    with database.reading() as session:
        rows = (
            select(Entry.board_id, func.count())
            .where(Entry.state.in_(PUBLIC), Entry.tier != "reference")
            .group_by(Entry.board_id)
        )
        count = dict(session.execute(rows).all())
        found = boards.current(session)
        return [BoardBrief(**documents.board_brief(board, count.get(board.id, 0))) for board in found]


@router.get("/boards/{task:path}", response_model=BoardDocument, responses=_ERRORS)
def get_board(request: Request, database: DatabaseDep, task: str, query: Annotated[BoardQuery, Query()]) -> Response:
    """One view of a board, a page at a time: follow ``next`` until it is null."""
    with database.reading() as session:
        identity, revision = boards.version(session, task, query.pack or None)
        etag = etag_of("board.json", identity, revision, query.model_dump())

        def make() -> bytes:
            start = _offset(query.cursor)
            view = View(**{name: getattr(query, name) for name in View.model_fields if name != "page"})
            board = boards.find(session, task, query.pack or None)
            page = boards.page(session, board, view, query.limit, start)
            end = start + len(page.rows)
            following = _cursor(end) if end < page.total else None
            return json.dumps(documents.board(page, following), allow_nan=False).encode()

        return conditional(request, etag, make, media_type="application/json")


@router.get("/entries/{identity}", responses={**_ERRORS, 410: {"model": ProblemDocument, "description": "Withdrawn"}})
def get_entry(database: DatabaseDep, token: ReaderDep, identity: str) -> EntryDocument:
    """One entry, whole: scorecard, manifest, files, history."""
    with database.reading() as session:
        whole = entries.find(session, identity, token)
        return EntryDocument(
            row=documents.RowDocument(**documents.row(whole.row)),
            task=whole.board.task,
            pack=whole.board.pack_sha256,
            scorecard=whole.score.card if whole.score else None,
            software=whole.score.software if whole.score else None,
            outdated=whole.outdated,
            manifest=whole.entry.manifest,
            manifest_sha256=whole.entry.manifest_sha256,
            files=[{"name": file.name, "sha256": file.sha256, "size": file.size} for file in whole.files],
            verifications=[
                documents.VerificationDocument(**documents.verification(item)) for item in whole.verifications
            ],
            history=[documents.EventDocument(**event) for event in documents.history(whole.events)],
        )


@router.get(
    "/entries/{identity}/evidence",
    response_class=FileResponse,
    responses={**_ERRORS, 200: {"content": {uploads.MEDIA_TYPE: {}}, "description": "The run as a zip"}},
)
def get_evidence(database: DatabaseDep, settings: SettingsDep, token: ReaderDep, identity: str) -> FileResponse:
    """An entry's evidence, as it was submitted; never an oracle's."""
    with database.reading() as session:
        entry = entries.find(session, identity, token).entry
        path = handing.evidence(settings, entry)
    remove = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(path, media_type=uploads.MEDIA_TYPE, filename=f"{identity}.zip", background=remove)


@router.get(
    "/tasks/{task:path}/pack",
    response_class=FileResponse,
    responses={**_ERRORS, 200: {"content": {uploads.MEDIA_TYPE: {}}, "description": "The public part of the pack"}},
)
def get_pack(database: DatabaseDep, settings: SettingsDep, task: str) -> FileResponse:
    """What a submitter needs of a task: the card, the originals and their evidence; never labels or oracles."""
    with database.reading() as session:
        path = handing.public_pack(settings, boards.find(session, task))
    return FileResponse(path, media_type=uploads.MEDIA_TYPE, filename="pack.zip")


@router.get("/methods")
def list_methods(database: DatabaseDep) -> list[MethodDocument]:
    """Every method that is listed."""
    with database.reading() as session:
        return [MethodDocument(**asdict(line)) for line in directory.methods(session)]


@router.get("/metrics")
def list_metrics(database: DatabaseDep) -> list[MetricDocument]:
    """Every metric: what it means, and what it misses."""
    with database.reading() as session:
        specs = directory.metric_specs(session)
    return [MetricDocument(**{name: spec[name] for name in MetricDocument.model_fields}) for spec in specs.values()]


@router.get("/submissions/{identity}", responses=_ERRORS)
def getsubmission_document(
    request: Request, database: DatabaseDep, token: ReaderDep, identity: str
) -> SubmissionDocument:
    """What became of a submission: its state, its place, its history."""
    with database.reading() as session:
        entry = session.get(Entry, identity) if "\0" not in identity else None
        if entry is None or not entries.visible(entry, token):
            raise Problem(404, "There is no submission of that id, or it is neither listed nor yours.")
    return SubmissionDocument(**submission_document(request, database, identity))


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


def _cursor(offset: int) -> str:
    return base64.urlsafe_b64encode(f"o{offset}".encode()).decode().rstrip("=")


def _offset(cursor: str) -> int:
    if not cursor:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (ValueError, binascii.Error):
        text = ""
    if not re.fullmatch(r"o\d{1,9}", text):
        raise Problem(
            422, "The cursor is not one of ours.", [FieldError(field="cursor", message="take it from `next`")]
        )
    return int(text[1:])
