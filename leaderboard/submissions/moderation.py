"""Changes of an entry's state by its submitter or by moderators, each with a reason."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from forgetbench.errors import UsageError, described_pattern
from forgetbench.leaderboard.boards.entries import can_view
from forgetbench.leaderboard.db import queue, states
from forgetbench.leaderboard.db.models import Entry, Token
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions.receive import reclaim_evidence

TargetState = Literal["listed", "flagged", "quarantined", "withdrawn", "rejected", "scoring"]


class StateChange(BaseModel):
    """A request to change the state of an entry."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    state: TargetState
    """``withdrawn`` for your own submissions; moderators also flag, quarantine, reject, list and rescore entries."""
    reason: str = Field(
        min_length=1,
        max_length=2000,
        pattern=described_pattern(r"^[^\x00]*\S[^\x00]*$", "a reason in words, without null characters"),
    )
    """Reason, which appears in the public history."""


def change_state(
    session: Session, settings: Settings, entry_id: str, requested: StateChange, actor: str, token: Token | None
) -> Entry:
    """Change the state of an entry.

    Args:
        session: Session to write with.
        settings: Folders of the server.
        entry_id: Id of the entry.
        requested: New state and reason.
        actor: Name in the history.
        token: Token of the request; None for the operator on the server's machine.

    Raises:
        Problem: 404, the entry is unknown or not visible to this token; 403, the token may not change it; 409, the
            transition is not allowed, or another entry has the same evidence now.
    """
    entry = session.get(Entry, entry_id) if "\0" not in entry_id else None
    if entry is not None:
        states.lock_entry(session, entry)
    if entry is None or (token is not None and not can_view(entry, token)):
        raise Problem(404, "There is no submission with that id, or it is not listed and not yours.")
    if token is not None and not _may_change(token, entry, requested.state):
        raise Problem(403, f"This token may not change the state of this submission to {requested.state!r}.")
    if entry.baseline:
        raise Problem(409, "The state of a reference row cannot be changed.")
    before = entry.state
    try:
        if (before, requested.state) == ("rejected", "scoring"):
            score_again(session, settings, entry, actor, requested.reason)
        else:
            states.transition(session, entry, requested.state, actor, requested.reason, states.MODERATOR_TRANSITIONS)
    except UsageError as error:
        raise Problem(409, str(error)) from error
    if before == "quarantined" and requested.state == "listed":
        queue.enqueue(session, "rescore", entry.id)  # the worker skips it unless the scoring code has changed
    queue.enqueue(session, "rank", str(entry.board_id))
    return entry


def _may_change(token: Token, entry: Entry, state: str) -> bool:
    return "moderate" in token.scopes or (state == "withdrawn" and token.id == entry.token_id)


def score_again(session: Session, settings: Settings, entry: Entry, actor: str, reason: str) -> None:
    """Enqueue a rejected entry for scoring; does nothing if it is not rejected.

    Raises:
        Problem: 409, another entry has the same evidence now.
    """
    states.lock_entry(session, entry)
    if entry.state == "rejected":
        states.transition(session, entry, "scoring", actor, reason)
        reclaim_evidence(session, settings, entry)
        queue.enqueue(session, "score", entry.id)
