"""Attacks on entries: anybody with a token posts evidence, which is shown as claimed."""

from __future__ import annotations

from fastapi import APIRouter, Request

from forgetbench.leaderboard.auth.dependencies import AnyToken, DatabaseDep, SettingsDep
from forgetbench.leaderboard.render.schemas import AttackReceived
from forgetbench.leaderboard.submissions import attacks
from forgetbench.leaderboard.submissions.uploads import UploadedBody
from forgetbench.leaderboard.web.routes.api import WRITE_ERRORS
from forgetbench.leaderboard.web.routes.submissions import ZIP_BODY, process_body

router = APIRouter(prefix="/api/v1")


@router.post("/submissions/{entry_id}/attacks", status_code=202, responses=WRITE_ERRORS, openapi_extra=ZIP_BODY)
async def attack(
    request: Request, database: DatabaseDep, settings: SettingsDep, token: AnyToken, entry_id: str
) -> AttackReceived:
    """Post the evidence of an attack on a listed entry: a zip, stored without compression, of four folders.

    They are ``originals``, ``references``, ``controls`` and ``row``, as `forgetbench attack` writes them. The result is
    shown as claimed, and sets no flag until the board's runner has repeated the attack.
    """

    def process(body: UploadedBody) -> str:
        return attacks.receive_attack(database, settings, token, entry_id, body)

    return AttackReceived(id=await process_body(request, token, process), entry=entry_id)
