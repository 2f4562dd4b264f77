"""Pages for participants and moderators of a challenge: sign-up by invitation, and moderation."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from forgetbench.errors import UsageError
from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.web.context import client_address, pages_of

router = APIRouter()
_MAX_FORM = 4096
"""Longest form of a sign-up, in bytes."""


@router.get("/signup")
def sign_up_form(request: Request, settings: SettingsDep) -> Response:
    """The form with which people make a token."""
    return _sign_up_page(request, settings.token_help)


@router.post("/signup")
async def sign_up(request: Request, database: DatabaseDep, settings: SettingsDep) -> Response:
    """Make a token with an invitation code, and show it."""
    await run_in_threadpool(request.app.state.limits.count_write, client_address(request))
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM:
            raise Problem(413, f"The form may have at most {_MAX_FORM} bytes.")
    fields = {name: values[0] for name, values in parse_qs(body.decode("utf-8", errors="replace")).items()}

    def create() -> str:
        with database.write_session() as session:
            return tokens.sign_up(session, fields.get("code", ""), fields.get("name", ""), fields.get("team", ""))

    try:
        token = await run_in_threadpool(create)
    except UsageError as error:
        return _sign_up_page(request, settings.token_help, problem=str(error), status=422)
    return _sign_up_page(request, settings.token_help, token=token)


def _sign_up_page(
    request: Request, help_text: str, *, token: str = "", problem: str = "", status: int = 200
) -> Response:
    body = pages_of(request).render("signup.html", help=help_text, token=token, problem=problem)
    return HTMLResponse(body, status, headers={"Cache-Control": "no-store"})


@router.get("/moderate")
def moderate(request: Request) -> Response:
    """The moderation queue in the browser, through the API."""
    return HTMLResponse(pages_of(request).render("moderate.html"), headers={"Cache-Control": "no-store"})
