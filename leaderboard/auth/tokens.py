"""Bearer tokens ``fb_<id>_<secret>``: only the SHA-256 of the secret is stored; the token is shown once."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from hmac import compare_digest

from sqlalchemy.orm import Session

from forgetbench.errors import UsageError
from forgetbench.leaderboard.db.models import TOKEN_SCOPES, Token, utc_now

_TOKEN = re.compile(r"fb_([0-9a-f]{16})_([0-9a-f]{64})")
_NAME = re.compile(r"[\w .,:()@'&+/-]{1,80}")
_LAST_USED_RESOLUTION = timedelta(minutes=1)
"""``last_used_at`` is updated at most this often, because every update takes the write lock of SQLite."""


def create_token(
    session: Session,
    name: str,
    scopes: Iterable[str],
    *,
    expires_at: datetime | None = None,
    daily_submissions: int | None = None,
) -> str:
    """Create a token and return its text, which is not stored.

    Raises:
        UsageError: The name, a scope or the quota is invalid.
    """
    requested = sorted(set(scopes))
    if not requested or not set(requested) <= set(TOKEN_SCOPES):
        scope_text = ", ".join(requested) or "none"
        raise UsageError(f"Invalid token scopes: {scope_text}. Choose one or more of {', '.join(TOKEN_SCOPES)}.")
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise UsageError(f"Invalid token name {name!r}: use 1 to 80 letters, digits, spaces or . , : ( ) @ ' & + / - _")
    validate_quota(daily_submissions)
    token_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    session.add(
        Token(
            id=token_id,
            name=name,
            scopes=requested,
            secret_sha256=_hash(secret),
            created_at=utc_now(),
            expires_at=expires_at,
            daily_submissions=daily_submissions,
        )
    )
    return f"fb_{token_id}_{secret}"


def authenticate(session: Session, text: str) -> Token | None:
    """Find the token with this text; None if it is unknown, wrong, expired or revoked.

    Unknown ids and wrong secrets take the same time.
    """
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    token = session.get(Token, match[1])
    expected = token.secret_sha256 if token else "0" * 64
    if not compare_digest(expected, _hash(match[2])) or token is None:
        return None
    expired = token.expires_at is not None and token.expires_at <= utc_now()
    return None if expired or token.revoked_at is not None else token


def validate_quota(daily_submissions: int | None) -> None:
    """Check a quota; None is the server's default.

    Raises:
        UsageError: It is negative.
    """
    if daily_submissions is not None and daily_submissions < 0:
        raise UsageError(f"Invalid quota {daily_submissions}: it must be 0 (no submissions) or more.")


def get_token(session: Session, text: str) -> Token:
    """Find a token by its id, or by the whole token.

    Raises:
        UsageError: The id is unknown.
    """
    match = _TOKEN.fullmatch(text)
    token = session.get(Token, match[1] if match else text)
    if token is None:
        raise UsageError(f"Unknown token {text!r}. `forgetbench admin token list` shows all tokens.")
    return token


def last_use_is_outdated(token: Token) -> bool:
    """Whether ``last_used_at`` needs an update."""
    return token.last_used_at is None or utc_now() - token.last_used_at > _LAST_USED_RESOLUTION


def revoke_token(session: Session, text: str) -> Token:
    """Revoke a token by its id, or by the whole token.

    Raises:
        UsageError: The id is unknown.
    """
    token = get_token(session, text)
    token.revoked_at = token.revoked_at or utc_now()
    return token


def renew_token(session: Session, text: str, *, expires_at: datetime | None = None) -> str:
    """Give a token a new secret, for an owner who lost it, and return its text; the old one stops working.

    The owner keeps all submissions. A revoked or expired token works again.

    Raises:
        UsageError: The id is unknown.
    """
    token = get_token(session, text)
    secret = secrets.token_hex(32)
    token.secret_sha256, token.revoked_at, token.expires_at = _hash(secret), None, expires_at
    return f"fb_{token.id}_{secret}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
