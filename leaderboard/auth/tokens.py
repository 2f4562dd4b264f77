"""Bearer tokens ``fb_<id>_<secret>``: only the hash of the secret is kept, and it is shown once."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from hmac import compare_digest

from sqlalchemy.orm import Session

from forgetbench.errors import UsageError
from forgetbench.leaderboard.db.models import SCOPES, Token, utc_now

_TOKEN = re.compile(r"fb_([0-9a-f]{16})_([0-9a-f]{64})")
_USE_RESOLUTION = timedelta(minutes=1)
_NAME = re.compile(r"[\w .,:()@'&+/-]{1,80}")


def create(
    session: Session,
    name: str,
    scopes: Iterable[str],
    *,
    expires_at: datetime | None = None,
    daily_submissions: int | None = None,
) -> str:
    """Make a token and return it; this is the only time that it can be seen.

    Raises:
        UsageError: The name, a scope or the quota is not allowed.
    """
    chosen = sorted(set(scopes))
    if not chosen or not set(chosen) <= set(SCOPES):
        raise UsageError(f"A token's scopes are one or more of {', '.join(SCOPES)}; got {', '.join(chosen) or 'none'}.")
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise UsageError(f"A token's name is 1 to 80 letters, digits, spaces or . , : ( ) @ ' & + / - _; got {name!r}.")
    check_quota(daily_submissions)
    identity, secret = secrets.token_hex(8), secrets.token_hex(32)
    session.add(
        Token(
            id=identity,
            name=name,
            scopes=chosen,
            secret_sha256=_hash(secret),
            created_at=utc_now(),
            expires_at=expires_at,
            daily_submissions=daily_submissions,
        )
    )
    return f"fb_{identity}_{secret}"


def authenticate(session: Session, presented: str) -> Token | None:
    """The token's row; None where it is unknown, wrong, expired or revoked. Takes the same time for a wrong secret."""
    match = _TOKEN.fullmatch(presented)
    if match is None:
        return None
    token = session.get(Token, match[1])
    known = token.secret_sha256 if token else "0" * 64
    if not compare_digest(known, _hash(match[2])) or token is None:
        return None
    now = utc_now()
    if token.revoked_at is not None or (token.expires_at is not None and token.expires_at <= now):
        return None
    return token


def check_quota(daily_submissions: int | None) -> None:
    """Refuse a quota that is none.

    Raises:
        UsageError: It is negative.
    """
    if daily_submissions is not None and daily_submissions < 0:
        raise UsageError(f"A quota is 0 (nothing may be submitted) or more, not {daily_submissions}.")


def find(session: Session, identity: str) -> Token:
    """A token by its id, or by the whole token.

    Raises:
        UsageError: There is none of that id.
    """
    match = _TOKEN.fullmatch(identity)
    token = session.get(Token, match[1] if match else identity)
    if token is None:
        raise UsageError(f"There is no token of id {identity!r}; `forgetbench admin token list` shows them.")
    return token


def needs_note_of_use(token: Token) -> bool:
    """Whether ``last_used_at`` is so old that it is worth a write."""
    return token.last_used_at is None or utc_now() - token.last_used_at > _USE_RESOLUTION


def revoke(session: Session, identity: str) -> Token:
    """Revoke a token by its id, or by the whole token.

    Raises:
        UsageError: There is none of that id.
    """
    token = find(session, identity)
    token.revoked_at = token.revoked_at or utc_now()
    return token


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
