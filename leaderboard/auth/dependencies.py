"""Who asks: the bearer token of a request, and what it may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.db.models import Token, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.settings import Settings

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="forgetbench"'}
_bearer = HTTPBearer(auto_error=False, description="A token `fb_<id>_<secret>` of this server.")


def database_of(request: Request) -> Database:
    """The application's database."""
    found: Database = request.app.state.database
    return found


def settings_of(request: Request) -> Settings:
    """The application's settings."""
    found: Settings = request.app.state.settings
    return found


DatabaseDep = Annotated[Database, Depends(database_of)]
SettingsDep = Annotated[Settings, Depends(settings_of)]
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def reader(request: Request, database: DatabaseDep, credentials: Credentials) -> Token | None:
    """The token of a request; None where it brings none.

    Raises:
        Problem: 401, it brings one that is wrong.
    """
    if credentials is None:
        if "authorization" in request.headers:
            raise Problem(401, "The Authorization header must be `Bearer fb_<id>_<secret>`.", headers=_CHALLENGE)
        return None
    with database.reading() as session:
        token = tokens.authenticate(session, credentials.credentials)
        if token is None:
            raise Problem(
                401, "The token is wrong, expired or revoked; ask the operator for another.", headers=_CHALLENGE
            )
        session.expunge(token)
    if tokens.needs_note_of_use(token):
        with database.writing() as session:
            session.get_one(Token, token.id).last_used_at = utc_now()
    return token


ReaderDep = Annotated[Token | None, Depends(reader)]


def require(scope: str) -> Callable[[Token | None], Token]:
    """A dependency: a token with this scope.

    Raises:
        Problem: 401, no token; 403, it has not this scope.
    """

    def check(token: ReaderDep) -> Token:
        if token is None:
            raise Problem(401, f"This needs a token with the scope {scope!r}.", headers=_CHALLENGE)
        if scope not in token.scopes:
            raise Problem(403, f"This token has not the scope {scope!r}.")
        return token

    return check


Submitter = Annotated[Token, Depends(require("submit"))]
Verifier = Annotated[Token, Depends(require("verify"))]
Moderator = Annotated[Token, Depends(require("moderate"))]


def known(token: ReaderDep) -> Token:
    """Any token.

    Raises:
        Problem: 401, there is none.
    """
    if token is None:
        raise Problem(401, "This needs a token.", headers=_CHALLENGE)
    return token


Known = Annotated[Token, Depends(known)]
