"""Write routes of the API: submit a run, post a verification, change a state."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from forgetbench.errors import UsageError, described_pattern
from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.auth.dependencies import (
    AnyToken,
    DatabaseDep,
    ModerateToken,
    SettingsDep,
    SubmitToken,
    VerifyToken,
)
from forgetbench.leaderboard.db.models import Token
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.render.schemas import (
    DryRunDocument,
    NewTokenDocument,
    QueueItemDocument,
    SignUp,
    SubmissionDocument,
    VerificationReceived,
)
from forgetbench.leaderboard.submissions import erasure, methods, moderation, receive, verification
from forgetbench.leaderboard.submissions.methods import SubmittedCode
from forgetbench.leaderboard.submissions.moderation import Acknowledgment, StateChange
from forgetbench.leaderboard.submissions.uploads import MEDIA_TYPE, UploadedBody
from forgetbench.leaderboard.web.context import client_address
from forgetbench.leaderboard.web.routes.api import WRITE_ERRORS, submission_document
from forgetbench.store import JsonObject

router = APIRouter(prefix="/api/v1")
JSON_TYPE = "application/json"
ZIP_BODY: JsonObject = {
    "requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}
IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=described_pattern(r"^[\x21-\x7e]+$", "ASCII letters, digits and signs, without spaces"),
    ),
]
Result = TypeVar("Result")


async def process_body(
    request: Request, token: Token, process: Callable[[UploadedBody], Result], *, media_type: str = MEDIA_TYPE
) -> Result:
    """Write the body of a request to a temporary file, and process the file in a thread."""
    settings = request.app.state.settings
    most = settings.max_upload_bytes if media_type == MEDIA_TYPE else settings.max_manifest_bytes
    await run_in_threadpool(request.app.state.limits.count_write, client_address(request), token.id)
    if request.headers.get("content-type", "").partition(";")[0].strip() != media_type:
        raise Problem(415, f"Send the body as {media_type}; `forgetbench submit` does so.")
    settings.incoming.mkdir(parents=True, exist_ok=True)
    path = settings.incoming / secrets.token_hex(16)
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isascii() and length.isdigit() else None
    receive.check_disk(settings, announced or 0)
    try:
        body = await _save_body(request.stream(), path, most, announced)
        return await run_in_threadpool(process, body)
    finally:
        path.unlink(missing_ok=True)


async def _save_body(stream: AsyncIterator[bytes], path: Path, max_bytes: int, announced: int | None) -> UploadedBody:
    """Write a body to a file while it arrives.

    Args:
        stream: The body.
        path: File to create.
        max_bytes: Largest length that is accepted.
        announced: The request's Content-Length, if any.

    Raises:
        Problem: 413, the body is too large; 400, it ended early.
    """
    too_large = Problem(
        413, f"A submission may have at most {max_bytes} bytes on this server.", headers={"Connection": "close"}
    )
    if announced is not None and announced > max_bytes:
        raise too_large
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("xb") as file:
            async for chunk in stream:
                size += len(chunk)
                if size > max_bytes:
                    raise too_large
                digest.update(chunk)
                file.write(chunk)
    except ClientDisconnect as error:
        raise Problem(400, "The upload ended early; nothing was stored. Submit again.") from error
    if announced is not None and size != announced:
        raise Problem(400, f"The upload ended after {size} of {announced} bytes; nothing was stored. Submit again.")
    return UploadedBody(path, digest.hexdigest(), size)


@router.post(
    "/submissions",
    status_code=202,
    response_model=SubmissionDocument,
    responses={
        200: {
            "model": SubmissionDocument | DryRunDocument,
            "description": "A dry run, or the first response to a repeated request",
        },
        **WRITE_ERRORS,
    },
    openapi_extra=ZIP_BODY,
)
async def submit(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    token: SubmitToken,
    dry_run: bool = False,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Submit a run: a zip, stored without compression, of its manifest and evidence files.

    With ``dry_run=true``, the form is checked, and nothing is stored, scored or compared with oracles. With an
    ``Idempotency-Key``, the same body gets the first response again, and another body gets 409.
    """

    def process(body: UploadedBody) -> receive.Receipt:
        return receive.receive_submission(database, settings, token, body, key=idempotency_key, dry_run=dry_run)

    receipt = await process_body(request, token, process)
    if receipt.entry_id is None:
        detail = "All checks of the form passed; nothing was stored, scored or compared with oracles."
        return JSONResponse(DryRunDocument(task=receipt.task, accepted=True, detail=detail).model_dump())
    content = await run_in_threadpool(submission_document, request, database, receipt.entry_id)
    location = {"Location": f"/api/v1/submissions/{receipt.entry_id}"}
    return JSONResponse(content.model_dump(mode="json"), 200 if receipt.repeated else 202, location)


@router.post(
    "/submissions/method",
    status_code=202,
    response_model=SubmissionDocument,
    responses={
        200: {"model": SubmissionDocument, "description": "The first response to a repeated request"},
        **WRITE_ERRORS,
    },
    openapi_extra={
        "requestBody": {"required": True, "content": {JSON_TYPE: {"schema": SubmittedCode.model_json_schema()}}}
    },
)
async def submit_method(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    token: SubmitToken,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Submit a method alone: the board's own runner runs it on public and sealed draws, in a sandbox.

    The source becomes public with the entry. ``run`` of the response says where it is in the queue.
    """

    def process(body: UploadedBody) -> receive.Receipt:
        code = methods.parse_code(body.path.read_bytes())
        return methods.receive_method(database, settings, token, code, key=idempotency_key)

    receipt = await process_body(request, token, process, media_type=JSON_TYPE)
    content = await run_in_threadpool(submission_document, request, database, str(receipt.entry_id))
    location = {"Location": f"/api/v1/submissions/{receipt.entry_id}"}
    return JSONResponse(content.model_dump(mode="json"), 200 if receipt.repeated else 202, location)


@router.post("/submissions/{entry_id}/verifications", status_code=202, responses=WRITE_ERRORS, openapi_extra=ZIP_BODY)
async def verify(
    request: Request, database: DatabaseDep, settings: SettingsDep, token: VerifyToken, entry_id: str
) -> VerificationReceived:
    """Post a second run of a listed submission's recipe; the row becomes reproduced, or flagged."""

    def process(body: UploadedBody) -> str:
        return verification.receive_verification(database, settings, token, entry_id, body)

    return VerificationReceived(id=await process_body(request, token, process), entry=entry_id)


@router.post("/submissions/{entry_id}/state", responses=WRITE_ERRORS)
def change_state(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    token: AnyToken,
    entry_id: str,
    requested: StateChange,
) -> SubmissionDocument:
    """Withdraw your own submission, or moderate any submission."""
    request.app.state.limits.count_write(client_address(request), token.id)
    with database.write_session() as session:
        moderation.change_state(session, settings, entry_id, requested, token.name, token)
    return submission_document(request, database, entry_id)


@router.post("/submissions/{entry_id}/acknowledge", responses=WRITE_ERRORS)
def acknowledge(
    request: Request, database: DatabaseDep, token: ModerateToken, entry_id: str, found: Acknowledgment
) -> SubmissionDocument:
    """Remove a submission from the moderation queue; a suspended claim gets its place back."""
    request.app.state.limits.count_write(client_address(request), token.id)
    with database.write_session() as session:
        moderation.acknowledge(session, entry_id, found.reason, token.name, token)
    return submission_document(request, database, entry_id)


@router.post("/submissions/{entry_id}/purge", responses=WRITE_ERRORS, status_code=204)
def purge(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    token: ModerateToken,
    entry_id: str,
    requested: Acknowledgment,
) -> Response:
    """Erase the texts and the evidence of any submission; a tombstone with the reason stays."""
    request.app.state.limits.count_write(client_address(request), token.id)
    erasure.purge(database, settings, entry_id, requested.reason, token.name)
    return Response(status_code=204)


@router.get("/moderation", responses=WRITE_ERRORS)
def moderation_queue(database: DatabaseDep, _token: ModerateToken, response: Response) -> list[QueueItemDocument]:
    """What needs a moderator: entries with alarms, flagged and quarantined entries, and failed jobs."""
    response.headers["Cache-Control"] = "no-store"
    with database.read_session() as session:
        return [QueueItemDocument(**item._asdict()) for item in moderation.queue_items(session)]


@router.post("/signup", status_code=201, responses=WRITE_ERRORS)
def sign_up(request: Request, database: DatabaseDep, requested: SignUp, response: Response) -> NewTokenDocument:
    """Make a token with an invitation code. It is shown once; only its hash is stored."""
    request.app.state.limits.count_write(client_address(request))
    response.headers["Cache-Control"] = "no-store"
    try:
        with database.write_session() as session:
            text = tokens.sign_up(session, requested.code, requested.name, requested.team)
    except UsageError as error:
        raise Problem(422, str(error)) from error
    return NewTokenDocument(token=text)
