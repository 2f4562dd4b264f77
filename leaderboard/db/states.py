"""The life of an entry: which change of state may follow which, each one recorded with who, when and why."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from forgetbench.errors import UsageError
from forgetbench.leaderboard.db.models import Board, Entry, Event, EvidenceFile, Score, utc_now

SERVER = "server"
"""The actor of changes that nobody asked for."""
PUBLIC = ("listed", "flagged")
"""States in which everybody sees an entry; a flagged one is marked as under review."""
FOLLOWING: dict[str, tuple[str, ...]] = {
    "received": ("scoring", "rejected", "withdrawn"),
    "scoring": ("listed", "rejected", "withdrawn"),
    "listed": ("flagged", "quarantined", "withdrawn"),
    "flagged": ("listed", "quarantined", "withdrawn"),
    "quarantined": ("listed", "withdrawn"),
    "rejected": ("scoring",),
    "withdrawn": (),
}
"""State -> the states that may follow it."""
BY_HAND: dict[str, tuple[str, ...]] = {
    **FOLLOWING,
    "received": ("rejected", "withdrawn"),
    "scoring": ("rejected", "withdrawn"),
}
"""State -> the states that people may bring it into: only the worker scores, and lists what it scored."""
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def new_id() -> str:
    """An id that nobody guesses: 18 letters and digits that are not mistaken for each other, 89 bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(18))


def lock(session: Session, entry: Entry) -> None:
    """Read an entry as it is now, and keep it so for others until this transaction ends; every change begins here."""
    session.refresh(entry, with_for_update=True)


def record(session: Session, entry: Entry, after: str, actor: str, reason: str = "") -> None:
    """Write a change into the history, without making it."""
    session.add(
        Event(
            entry_id=entry.id,
            at=utc_now(),
            actor=actor,
            before=entry.state if entry.state != after else None,
            after=after,
            reason=reason,
        )
    )


def move(
    session: Session,
    entry: Entry,
    after: str,
    actor: str,
    reason: str = "",
    following: Mapping[str, tuple[str, ...]] = FOLLOWING,
) -> None:
    """Change the state of an entry that this transaction has locked.

    Raises:
        UsageError: That state does not follow the present one, or it would be listed without a score.
    """
    if after not in following[entry.state]:
        possible = ", ".join(following[entry.state]) or "none"
        raise UsageError(f"An entry that is {entry.state} cannot become {after}; possible: {possible}.")
    if after == "listed" and session.scalar(select(Score.entry_id).where(Score.entry_id == entry.id)) is None:
        raise UsageError("An entry that has no score cannot be listed; the worker lists what it scored.")
    record(session, entry, after, actor, reason)
    entry.state, entry.note = after, reason
    entry.queued = after in {"flagged", "quarantined"}
    if after == "listed" and entry.listed_at is None:
        entry.listed_at = utc_now()
    if after == "rejected":
        session.execute(update(EvidenceFile).where(EvidenceFile.entry_id == entry.id).values(counted=False))
    touch(session, entry.board_id)


def touch(session: Session, board: int) -> None:
    """Note that a board looks different now."""
    session.execute(update(Board).where(Board.id == board).values(revision=Board.revision + 1))
