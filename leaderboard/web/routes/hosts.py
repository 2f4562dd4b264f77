"""Pages for participants and moderators of a challenge: sign-up by invitation, and moderation."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from forgetbench.errors import UsageError
from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.web.context import client_address, pages_of
from forgetbench.leaderboard.web.forms import read_form

router = APIRouter()


@router.get("/signup")
def sign_up_form(request: Request, settings: SettingsDep) -> Response:
    """The form with which people make a token."""
    return _sign_up_page(request, settings)


@router.post("/signup")
async def sign_up(request: Request, database: DatabaseDep, settings: SettingsDep) -> Response:
    """Make a token with an invitation code, and show it."""
    await run_in_threadpool(request.app.state.limits.count_write, client_address(request))
    fields = await read_form(request)

    def create() -> str:
        with database.write_session() as session:
            return tokens.sign_up(session, fields.get("code", ""), fields.get("name", ""), fields.get("team", ""))

    try:
        token = await run_in_threadpool(create)
    except UsageError as error:
        return _sign_up_page(request, settings, problem=str(error), status=422)
    return _sign_up_page(request, settings, token=token)


def _sign_up_page(
    request: Request, settings: Settings, *, token: str = "", problem: str = "", status: int = 200
) -> Response:
    context = {"help": settings.token_help, "provider": settings.provider_name}
    body = pages_of(request).render("signup.html", token=token, problem=problem, **context)
    return HTMLResponse(body, status, headers={"Cache-Control": "no-store"})


@router.get("/moderate")
def moderate(request: Request) -> Response:
    """The moderation queue in the browser, through the API."""
    return HTMLResponse(pages_of(request).render("moderate.html"), headers={"Cache-Control": "no-store"})
