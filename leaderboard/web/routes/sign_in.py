"""Sign-in with an identity provider: a person leaves with a token of the usual kind, and the site keeps no session."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from forgetbench.errors import UsageError
from forgetbench.leaderboard.auth import sign_in, tokens
from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.auth.openid import Provider
from forgetbench.leaderboard.errors import Link, Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.web.context import client_address, pages_of
from forgetbench.leaderboard.web.forms import read_form

router = APIRouter()
COOKIE = "forgetbench-signin"
"""The site's only cookie: it ties the provider's answer to the browser that began, and ends with it."""
_NO_STORE = {"Cache-Control": "no-store"}


@router.get("/signin")
def begin(request: Request, database: DatabaseDep, settings: SettingsDep) -> Response:
    """Send a person to the identity provider."""
    request.app.state.limits.count_write(client_address(request))
    started = sign_in.new_request()
    address = _provider_of(request).authorization_address(started.state, started.nonce, started.verifier)
    with database.write_session() as session:
        sign_in.begin(session, started)
    response = RedirectResponse(address, 303, headers=_NO_STORE)
    _set_cookie(response, settings, started.secret, 60 * sign_in.MINUTES)
    return response


@router.get("/signin/callback")
def finish(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    code: str = "",
    state: str = "",
    error: str = "",
    iss: str = "",
) -> Response:
    """Check the provider's answer, and ask the person for the name of their token."""
    request.app.state.limits.count_write(client_address(request))
    provider = _provider_of(request)
    with database.write_session() as session:
        started = sign_in.answered(session, request.cookies.get(COOKIE, ""), state)
    _check_answer(settings, code, error, iss)
    identity = provider.identify(code, started.nonce, started.verifier)
    provider.check_permission(identity)
    with database.write_session() as session:
        known = tokens.owned_token(session, identity.key)
        if known is not None and known.revoked_at is not None:
            raise Problem(403, f"The operator of this server revoked your token. {settings.token_help}")
        name = tokens.suggested_name(session, identity.name) if known is None else known.name
        ticket = sign_in.admit(session, identity)
        submitter = known.submitter if known is not None else ""
    return _token_page(request, settings, ticket=ticket, name=name, known=submitter)


@router.post("/signin/token")
async def make_token(request: Request, database: DatabaseDep, settings: SettingsDep) -> Response:
    """Make the token of a person who signed in, or renew it, and show it."""
    await run_in_threadpool(request.app.state.limits.count_write, client_address(request))
    _provider_of(request)
    fields = await read_form(request)

    def create() -> str:
        with database.write_session() as session:
            signed_in = sign_in.redeem(session, fields.get("ticket", ""))
            names = (fields.get("name", ""), fields.get("team", ""), fields.get("code", ""))
            return tokens.sign_in(session, signed_in.identity, *names, days=settings.oidc_token_days)

    try:
        token = await run_in_threadpool(create)
    except UsageError as error:  # the ticket is still good: the transaction was undone
        kept = {name: fields.get(name, "") for name in ("ticket", "name", "team", "code")}
        return _token_page(request, settings, **kept, problem=str(error), status=422)
    return _token_page(request, settings, token=token)


def _provider_of(request: Request) -> Provider:
    """The site's identity provider.

    Raises:
        Problem: 404, it has none.
    """
    provider: Provider | None = request.app.state.provider
    if provider is None:
        raise Problem(
            404,
            "People do not sign in on this site: the operator gives out tokens or invitation codes.",
            links=[Link("sign-up with an invitation code", "/signup"), Link("how to submit", "/submit")],
        )
    return provider


def _check_answer(settings: Settings, code: str, error: str, iss: str) -> None:
    """Check what the provider sent the person back with.

    Raises:
        Problem: 403, it refused, or the person did; 400, the answer is not the provider's or has no code.
    """
    again = [Link("sign in again", "/signin")]
    if iss and iss != settings.oidc_issuer:  # RFC 9207
        raise Problem(
            400, "The answer came from another identity provider than this site's. Sign in again.", links=again
        )
    if error:
        known = {"access_denied": "access was denied", "login_required": "you are not signed in there"}
        reason = known.get(error, "it gave no reason that this site knows")
        raise Problem(403, f"{settings.provider_name} did not sign you in: {reason}.", links=again)
    if not code:
        raise Problem(400, f"The answer of {settings.provider_name} has no code. Sign in again.", links=again)


def _set_cookie(response: Response, settings: Settings, value: str, seconds: int) -> None:
    """Set the cookie, which no script reads and no other path gets, and which is sent over HTTPS only."""
    secure = urlsplit(str(settings.public_url)).scheme == "https"  # otherwise the site is on this machine
    path = f"{settings.root_path}/signin"
    response.set_cookie(COOKIE, value, seconds, path=path, secure=secure, httponly=True, samesite="lax")


def _token_page(request: Request, settings: Settings, *, status: int = 200, **context: str) -> Response:
    """The page after signing in: the form of a token, or the token; the cookie ends here."""
    empty = dict.fromkeys(("ticket", "name", "team", "code", "known", "token", "problem"), "")
    body = pages_of(request).render(
        "signin.html", provider=settings.provider_name, days=settings.oidc_token_days, **{**empty, **context}
    )
    response = HTMLResponse(body, status, headers=_NO_STORE)
    _set_cookie(response, settings, "", 0)
    return response
