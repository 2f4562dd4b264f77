"""Sign-ins in progress: rows of the database, so that each is used once, whichever web process answers."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from hmac import compare_digest
from typing import NamedTuple

from sqlalchemy import delete
from sqlalchemy.orm import Session

from forgetbench.leaderboard.auth.openid import Identity
from forgetbench.leaderboard.db.models import SignIn, utc_now
from forgetbench.leaderboard.errors import Link, Problem

MINUTES = 10
"""How long a person may take at the provider, and then on this site."""
_AGAIN = [Link("sign in again", "/signin")]


class Request(NamedTuple):
    """A sign-in that waits for the provider's answer."""

    secret: str
    """What the person's browser keeps."""
    state: str
    nonce: str
    verifier: str


def new_request() -> Request:
    """A sign-in with new secrets."""
    return Request(*(secrets.token_urlsafe(32) for _ in range(4)))


def begin(session: Session, request: Request) -> None:
    """Begin a sign-in, and forget those that were given up."""
    forget_expired(session)
    _add(session, request.secret, state=request.state, nonce=request.nonce, verifier=request.verifier)


def answered(session: Session, secret: str, state: str) -> Request:
    """The sign-in that a provider's answer belongs to; it is used up when the session commits.

    Raises:
        Problem: 400, this browser began no such sign-in, or it has expired or was answered before.
    """
    row = _take(session, secret)
    if row is None or not row.state or not compare_digest(row.state.encode(), state.encode()):
        raise Problem(
            400,
            "This browser did not begin this sign-in, or it took longer than "
            f"{MINUTES} minutes, or its answer was used before. Sign in again; cookies must be allowed for it.",
            links=_AGAIN,
        )
    return Request(secret, row.state, row.nonce, row.verifier)


def admit(session: Session, identity: Identity) -> str:
    """Note who signed in; returns a ticket with which they make one token."""
    ticket = secrets.token_urlsafe(32)
    _add(session, ticket, identity=identity.key, name=identity.name)
    return ticket


def redeem(session: Session, ticket: str) -> SignIn:
    """The sign-in of a ticket; it is used up when the session commits.

    Raises:
        Problem: 400, the ticket is unknown, expired or used up.
    """
    row = _take(session, ticket)
    if row is None or not row.identity:
        raise Problem(400, "This sign-in has expired or made a token before. Sign in again.", links=_AGAIN)
    return row


def forget_expired(session: Session) -> None:
    """Delete sign-ins that were given up."""
    session.execute(delete(SignIn).where(SignIn.expires_at <= utc_now()))


def _add(session: Session, secret: str, **fields: str) -> None:
    empty = dict.fromkeys(("state", "nonce", "verifier", "identity", "name"), "")
    expires = utc_now() + timedelta(minutes=MINUTES)
    session.add(SignIn(key=_hash(secret), expires_at=expires, **{**empty, **fields}))


def _take(session: Session, secret: str) -> SignIn | None:
    row = session.get(SignIn, _hash(secret), with_for_update=True) if secret else None
    if row is None:
        return None
    session.delete(row)
    return row if row.expires_at > utc_now() else None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
