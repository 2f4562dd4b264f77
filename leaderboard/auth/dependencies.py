"""FastAPI dependencies: database, settings, and the bearer token of a request with its scopes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import SQLAlchemyError

from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.db.failures import failure_kind
from forgetbench.leaderboard.db.models import Token, utc_now
from forgetbench.leaderboard.db.session import Database
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.settings import Settings

log = logging.getLogger("forgetbench.server")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="forgetbench"'}
_bearer = HTTPBearer(auto_error=False, description="A token `fb_<id>_<secret>` of this server.")


def get_database(request: Request) -> Database:
    """The application's database."""
    database: Database = request.app.state.database
    return database


def get_settings(request: Request) -> Settings:
    """The application's settings."""
    settings: Settings = request.app.state.settings
    return settings


DatabaseDep = Annotated[Database, Depends(get_database)]
SettingsDep = Annotated[Settings, Depends(get_settings)]
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def current_token(request: Request, database: DatabaseDep, credentials: Credentials) -> Token | None:
    """The token of a request; None for an anonymous request.

    Raises:
        Problem: 401, the token is invalid.
    """
    if credentials is None:
        if "authorization" in request.headers:
            raise Problem(401, "The Authorization header must be `Bearer fb_<id>_<secret>`.", headers=_CHALLENGE)
        return None
    with database.read_session() as session:
        token = tokens.authenticate(session, credentials.credentials)
        if token is None:
            detail = "The token is wrong, expired or revoked; ask the operator for another."
            raise Problem(401, detail, headers=_CHALLENGE)
        session.expunge(token)
    if tokens.last_use_is_outdated(token):
        try:
            with database.write_session(waits=False) as session:
                session.get_one(Token, token.id).last_used_at = utc_now()
        except SQLAlchemyError as error:
            if failure_kind(error) is None:
                raise
            log.warning("the last use of a token was not recorded: %s", error)  # no reason to refuse the request
    return token


OptionalToken = Annotated[Token | None, Depends(current_token)]


def require_token(token: OptionalToken) -> Token:
    """Dependency: any valid token.

    Raises:
        Problem: 401, the request has no token.
    """
    if token is None:
        detail = "This request needs a token, as `Authorization: Bearer fb_<id>_<secret>`; /submit says how to get one."
        raise Problem(401, detail, headers=_CHALLENGE)
    return token


AnyToken = Annotated[Token, Depends(require_token)]


def require_scope(scope: str) -> Callable[[Token], Token]:
    """Make a dependency that requires a token with a scope.

    Raises:
        Problem: 401, the request has no token; 403, the token lacks the scope.
    """

    def check_scope(token: AnyToken) -> Token:
        if scope not in token.scopes:
            scopes = ", ".join(token.scopes)
            detail = f"This token lacks the scope {scope!r}; it has {scopes}. Ask the operator for one that has it."
            raise Problem(403, detail)
        return token

    return check_scope


SubmitToken = Annotated[Token, Depends(require_scope("submit"))]
VerifyToken = Annotated[Token, Depends(require_scope("verify"))]
ModerateToken = Annotated[Token, Depends(require_scope("moderate"))]
