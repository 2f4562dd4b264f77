"""The writing routes of the API: submitting, verifying, changing states."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from forgetbench.leaderboard.auth.dependencies import DatabaseDep, Known, SettingsDep, Submitter, Verifier
from forgetbench.leaderboard.db.models import Token
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.render.schemas import DryRunDocument, SubmissionDocument, VerificationReceived
from forgetbench.leaderboard.submissions import moderation, uploads, verification
from forgetbench.leaderboard.submissions import receive as submissions
from forgetbench.leaderboard.submissions.moderation import StateChange
from forgetbench.leaderboard.submissions.uploads import Body
from forgetbench.leaderboard.web.routes.api import WRITE_ERRORS, submission_document

router = APIRouter(prefix="/api/v1")
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {uploads.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}
Taken = TypeVar("Taken")
Key = Annotated[str | None, Header(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]


async def _with_body(request: Request, token: Token, take: Callable[[Body], Taken]) -> Taken:
    """Receive a body into a file, hand it on, and remove it, whatever happens."""
    settings = request.app.state.settings
    address = request.client.host if request.client else "unknown"
    await run_in_threadpool(request.app.state.limits.write, address, token.id)
    if request.headers.get("content-type", "").partition(";")[0].strip() != uploads.MEDIA_TYPE:
        raise Problem(415, f"Send the run as {uploads.MEDIA_TYPE}; `forgetbench submit` does.")
    length = request.headers.get("content-length", "")
    settings.incoming.mkdir(parents=True, exist_ok=True)
    path = settings.incoming / secrets.token_hex(16)
    announced = int(length) if length.isascii() and length.isdigit() else None
    try:
        body = await uploads.receive(request.stream(), path, settings.max_upload_bytes, announced)
        return await run_in_threadpool(take, body)
    finally:
        path.unlink(missing_ok=True)


@router.post(
    "/submissions",
    status_code=202,
    response_model=SubmissionDocument,
    responses={
        200: {"model": SubmissionDocument | DryRunDocument, "description": "A dry run, or the first answer again"},
        **WRITE_ERRORS,
    },
    openapi_extra=_BODY,
)
async def submit(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    token: Submitter,
    dry_run: bool = False,
    idempotency_key: Key = None,
) -> Response:
    """Submit a run: a zip, stored without compression, of its manifest and evidence files.

    With ``dry_run=true`` everything is checked and nothing kept. With an ``Idempotency-Key`` the same body again gets
    the first answer, another body 409.
    """

    def take(body: Body) -> submissions.Reception:
        return submissions.receive(database, settings, token, body, key=idempotency_key, dry_run=dry_run)

    got = await _with_body(request, token, take)
    if got.entry_id is None:
        detail = "Everything is as it must be; nothing was stored."
        return JSONResponse({"task": got.task, "accepted": True, "detail": detail})
    answer = await run_in_threadpool(submission_document, request, database, got.entry_id)
    return JSONResponse(answer, 200 if got.repeated else 202, {"Location": f"/api/v1/submissions/{got.entry_id}"})


@router.post("/submissions/{identity}/verifications", status_code=202, responses=WRITE_ERRORS, openapi_extra=_BODY)
async def verify(
    request: Request, database: DatabaseDep, settings: SettingsDep, token: Verifier, identity: str
) -> VerificationReceived:
    """Post a second run of a listed submission's recipe; the row becomes reproduced, or flagged."""

    def take(body: Body) -> str:
        return verification.receive(database, settings, token, identity, body)

    return VerificationReceived(id=await _with_body(request, token, take), entry=identity)


@router.post("/submissions/{identity}/state", responses=WRITE_ERRORS)
def change_state(
    request: Request, database: DatabaseDep, settings: SettingsDep, token: Known, identity: str, wanted: StateChange
) -> SubmissionDocument:
    """Withdraw one's own submission, or moderate anyone's."""
    request.app.state.limits.write(request.client.host if request.client else "unknown", token.id)
    with database.writing() as session:
        moderation.change(session, settings, identity, wanted, token.name, token)
    return SubmissionDocument(**submission_document(request, database, identity))
