"""Bearer tokens ``fb_<id>_<secret>``: only the SHA-256 of the secret is stored; the token is shown once."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from hmac import compare_digest

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from forgetbench.errors import UsageError
from forgetbench.leaderboard.db.models import TOKEN_SCOPES, Invitation, Token, utc_now

BASELINE_SUBMITTER = "ForgetBench"
"""Submitter of a board's reference rows."""
_TOKEN = re.compile(r"fb_([0-9a-f]{16})_([0-9a-f]{64})")
_NAME = re.compile(r"[\w .,:()@'&+/-]{1,80}")
_INVITATION = re.compile(r"fbi_([0-9a-f]{16})_([0-9a-f]{32})")
_MAX_USES = 10_000
_LAST_USED_RESOLUTION = timedelta(minutes=1)
"""``last_used_at`` is updated at most this often, because every update takes the write lock of SQLite."""


def create_token(
    session: Session,
    name: str,
    scopes: Iterable[str],
    *,
    expires_at: datetime | None = None,
    daily_submissions: int | None = None,
    team: str | None = None,
    identity: str | None = None,
) -> str:
    """Create a token and return its text, which is not stored.

    Raises:
        UsageError: The name, a scope or the quota is invalid.
    """
    requested = sorted(set(scopes))
    if not requested or not set(requested) <= set(TOKEN_SCOPES):
        scope_text = ", ".join(requested) or "none"
        raise UsageError(f"Invalid token scopes: {scope_text}. Choose one or more of {', '.join(TOKEN_SCOPES)}.")
    name, team = _checked_name(name), _checked_name(team) if team else None
    validate_quota(daily_submissions)
    token_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    session.add(
        Token(
            id=token_id,
            name=name,
            team=team,
            scopes=requested,
            secret_sha256=_hash(secret),
            created_at=utc_now(),
            expires_at=expires_at,
            daily_submissions=daily_submissions,
            identity=identity,
        )
    )
    return f"fb_{token_id}_{secret}"


def _checked_name(name: str) -> str:
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise UsageError(f"Invalid token name {name!r}: use 1 to 80 letters, digits, spaces or . , : ( ) @ ' & + / - _")
    return name


def owner_ids(token: Token) -> Select[str]:
    """Ids of the tokens that share entries and quotas with a token: those of its team, or it alone."""
    return select(Token.id).where(Token.id == token.id if token.team is None else Token.team == token.team)


def lock_owners(session: Session, token: Token) -> Token:
    """Lock the rows of a token's team until the transaction ends, so that quotas are counted one after the other."""
    session.scalars(select(Token).where(Token.id.in_(owner_ids(token))).order_by(Token.id).with_for_update()).all()
    return session.get_one(Token, token.id)


def taken_names(session: Session) -> set[str]:
    """Names of tokens and teams, and the server's own, casefolded: boards cannot tell another one from them."""
    owners = (name for row in session.execute(select(Token.name, Token.team)) for name in row if name)
    return {str(name).casefold() for name in (BASELINE_SUBMITTER, *owners)}


def create_invitation(
    session: Session,
    *,
    team: str | None = None,
    uses: int = 1,
    expires_at: datetime | None = None,
    token_days: int | None = None,
) -> str:
    """Create an invitation code and return it; only its hash is stored.

    Args:
        session: Session to write with.
        team: The team that its tokens belong to; None if everyone names their own.
        uses: Tokens that can be made with it.
        expires_at: When it expires; None for never.
        token_days: Days until its tokens expire; None for never.

    Raises:
        UsageError: The team's name or the number of uses is invalid.
    """
    if not 1 <= uses <= _MAX_USES:
        raise UsageError(f"Invalid number of uses {uses}: it must be from 1 to {_MAX_USES}.")
    invitation_id, secret = secrets.token_hex(8), secrets.token_hex(16)
    session.add(
        Invitation(
            id=invitation_id,
            secret_sha256=_hash(secret),
            team=_checked_name(team) if team else None,
            uses=uses,
            token_days=token_days,
            created_at=utc_now(),
            expires_at=expires_at,
        )
    )
    return f"fbi_{invitation_id}_{secret}"


def sign_up(session: Session, code: str, name: str, team: str = "") -> str:
    """Make a token with an invitation code, and return its text.

    Args:
        session: Session to write with.
        code: The code.
        name: Name of the owner, which no other token or team has.
        team: Team of the owner, if the invitation is not for a team; "" for none.

    Raises:
        UsageError: The code is wrong, expired or used up, or a name is invalid or taken.
    """
    invitation = _get_invitation(session, code)
    text = _create_own_token(session, name, team, invitation, _expiry(invitation.token_days))
    invitation.uses -= 1
    return text


def sign_in(
    session: Session, identity: str, name: str = "", team: str = "", code: str = "", *, days: int | None = None
) -> str:
    """Make the token of a person who signed in, and return its text; a person has one, which this renews.

    Args:
        session: Session to write with.
        identity: Hash of the person's account.
        name: Name of the owner, which no other token or team has. A token that is renewed keeps its name and team.
        team: New team of the owner; "" for none.
        code: Invitation code, with which the owner joins a team; "" for none.
        days: Days until the token expires; None for never.

    Raises:
        UsageError: The operator revoked the person's token, the code is wrong, or a name is invalid or taken.
    """
    known = owned_token(session, identity)
    if known is not None:
        if known.revoked_at is not None:
            raise UsageError("The operator of this server revoked your token; ask them about it.")
        return renew_token(session, known.id, expires_at=_expiry(days))
    invitation = _get_invitation(session, code) if code.strip() else None
    text = _create_own_token(session, name, team, invitation, _expiry(days), identity)
    if invitation is not None:
        invitation.uses -= 1
    return text


def owned_token(session: Session, identity: str) -> Token | None:
    """The token of a person who signed in before, also one that expired or was revoked."""
    return session.scalars(select(Token).where(Token.identity == identity)).one_or_none()


def suggested_name(session: Session, name: str) -> str:
    """A valid name for a token that is like a person's and not taken; "" if there is none."""
    allowed = " ".join("".join(sign for sign in name if _NAME.fullmatch(sign)).split())[:70]
    known = taken_names(session)
    numbered = (allowed, *(f"{allowed} {number}" for number in range(2, 100)))
    return next((text for text in numbered if text and text.casefold() not in known), "") if allowed else ""


def _expiry(days: int | None) -> datetime | None:
    return None if days is None else utc_now() + timedelta(days=days)


def _get_invitation(session: Session, code: str) -> Invitation:
    """Find an invitation that can be used, and lock it.

    Raises:
        UsageError: The code is wrong, expired or used up.
    """
    match = _INVITATION.fullmatch(code.strip())
    invitation = session.get(Invitation, match[1], with_for_update=True) if match else None
    expected = invitation.secret_sha256 if invitation else "0" * 64
    right = compare_digest(expected, _hash(match[2] if match else ""))
    if (
        invitation is None
        or not right
        or invitation.uses < 1
        or (invitation.expires_at is not None and invitation.expires_at <= utc_now())
    ):
        raise UsageError("The invitation code is wrong, expired or used up; ask the operator for another.")
    return invitation


def _create_own_token(
    session: Session,
    name: str,
    team: str,
    invitation: Invitation | None,
    expires_at: datetime | None,
    identity: str | None = None,
) -> str:
    """Make a token for submitting under names that are new on this server; only an invitation leads into a team.

    Raises:
        UsageError: A name is invalid or taken.
    """
    invited = invitation.team if invitation else None
    team = invited or team.strip()
    known = taken_names(session)
    for text in (name, *([team] if team and not invited else [])):
        if _checked_name(text).casefold() in known:
            raise UsageError(f"The name {text.strip()!r} is taken: choose another.")
    return create_token(session, name, ("submit",), expires_at=expires_at, team=team or None, identity=identity)


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
