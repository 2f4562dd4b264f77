"""Entry state machine: allowed transitions, each recorded with actor, time and reason."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from forgetbench.errors import UsageError
from forgetbench.leaderboard.db.models import Board, Entry, Event, EvidenceFile, Score, utc_now

SERVER_ACTOR = "server"
"""Actor of the server's own changes."""
PUBLIC_STATES = ("listed", "flagged")
"""States in which everyone sees an entry; a flagged entry is marked as under review."""
TRANSITIONS: Mapping[str, tuple[str, ...]] = {
    "received": ("scoring", "rejected", "withdrawn"),
    "scoring": ("accepted", "listed", "rejected", "withdrawn"),
    "accepted": ("listed", "quarantined", "withdrawn"),
    "listed": ("flagged", "quarantined", "withdrawn"),
    "flagged": ("listed", "quarantined", "withdrawn"),
    "quarantined": ("accepted", "listed", "withdrawn"),
    "rejected": ("scoring",),
    "withdrawn": (),
    "purged": (),
}
"""State -> states that may follow it; `submissions.purge` erases an entry in any state."""
MODERATOR_TRANSITIONS: Mapping[str, tuple[str, ...]] = {
    **TRANSITIONS,
    "received": ("rejected", "withdrawn"),
    "scoring": ("rejected", "withdrawn"),
    "accepted": ("quarantined", "withdrawn"),
}
"""State -> states that submitters and moderators may set: only the worker starts scoring and lists what it scored."""
UNCHANGED = "is No unlearning"
NO_TRACE = "no trace of the board's originals"
ORIGIN_FLAGS: Mapping[str, str] = {
    UNCHANGED: "Its answers are those of the original models, or differ from them as noise would. Not ranked.",
    NO_TRACE: "Nothing in its answers shows that its models were unlearned from the board's originals.",
}
"""Flags of claims -> what they say of the origin of the evidence."""
_ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Letters and digits that are not mistaken for each other."""


def new_id() -> str:
    """An unguessable id of 18 characters (89 bits)."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(18))


def is_hidden(board: Board, entry: Entry) -> bool:
    """Whether an entry belongs to a round whose results are hidden."""
    in_round = board.opens_at is None or entry.received_at >= board.opens_at
    return board.visibility != "public" and in_round and not entry.baseline


def scored_state(board: Board, entry: Entry) -> str:
    """The state of an entry that has a score: on its board, or accepted until the results are revealed."""
    return "accepted" if is_hidden(board, entry) else "listed"


def lock_entry(session: Session, entry: Entry) -> None:
    """Reload an entry and lock its row until the transaction ends; call it before every change."""
    session.refresh(entry, with_for_update=True)


def record_event(session: Session, entry: Entry, after: str, actor: str, reason: str = "") -> None:
    """Add an event to an entry's history, without changing the entry."""
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


def transition(
    session: Session,
    entry: Entry,
    after: str,
    actor: str,
    reason: str = "",
    transitions: Mapping[str, tuple[str, ...]] = TRANSITIONS,
) -> None:
    """Change the state of an entry that this transaction has locked.

    Args:
        session: Session to write with.
        entry: The entry, locked with `lock_entry`.
        after: The new state.
        actor: Name in the history.
        reason: Reason in the history.
        transitions: Allowed transitions of the actor.

    Raises:
        UsageError: The transition is not allowed, or an entry without a score would be listed.
    """
    if after not in transitions[entry.state]:
        allowed = ", ".join(transitions[entry.state]) or "none"
        raise UsageError(f"An entry that is {entry.state} cannot become {after}; possible: {allowed}.")
    if (
        after in {"accepted", "listed"}
        and session.scalar(select(Score.entry_id).where(Score.entry_id == entry.id)) is None
    ):
        raise UsageError("An entry that has no score cannot be listed; the worker lists it after scoring.")
    record_event(session, entry, after, actor, reason)
    entry.state, entry.note = after, reason
    entry.queued = after in {"flagged", "quarantined"}
    if after == "listed":
        entry.suspended, entry.listed_at = False, entry.listed_at or utc_now()
    if after == "rejected":
        session.execute(update(EvidenceFile).where(EvidenceFile.entry_id == entry.id).values(counted=False))
    bump_revision(session, entry.board_id)


def bump_revision(session: Session, board: int) -> None:
    """Record that a board's pages changed, which changes their ETags."""
    session.execute(update(Board).where(Board.id == board).values(revision=Board.revision + 1))
