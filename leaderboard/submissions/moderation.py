"""Changes of state that people make: withdrawing, flagging, quarantine and restoring, each with a reason."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from forgetbench.errors import UsageError
from forgetbench.leaderboard.db import queue as jobs
from forgetbench.leaderboard.db import states
from forgetbench.leaderboard.db.models import Entry, Token
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions import receive as submissions

Wanted = Literal["listed", "flagged", "quarantined", "withdrawn", "rejected", "scoring"]


class StateChange(BaseModel):
    """What a submitter or a moderator asks for."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    state: Wanted
    """``withdrawn`` for one's own submissions; moderators also flag, quarantine, list again and have scored again."""
    reason: str = Field(min_length=1, max_length=2000, pattern=r"^[^\x00]*\S[^\x00]*$")
    """Why; it stands in the public history."""


def allowed(token: Token, entry: Entry, state: str) -> bool:
    """Whether a token may bring an entry into a state."""
    return "moderate" in token.scopes or (state == "withdrawn" and token.id == entry.token_id)


def change(
    session: Session, settings: Settings, identity: str, wanted: StateChange, actor: str, token: Token | None
) -> Entry:
    """Change the state of an entry.

    Args:
        session: Where to write.
        settings: Where packs are.
        identity: The entry.
        wanted: State and reason.
        actor: Whose name stands in the history.
        token: Who asks; None: the operator, on the server's machine.

    Raises:
        Problem: 404, 403 or 409: it is not there, not theirs, or that state does not follow the present one; or its
            evidence stands under another entry by now.
    """
    entry = session.get(Entry, identity) if "\0" not in identity else None
    if entry is not None:
        states.lock(session, entry)
    if entry is None or (token is not None and entry.state not in states.PUBLIC and not _knows(token, entry)):
        raise Problem(404, "There is no submission of that id, or it is neither listed nor yours.")
    if token is not None and not allowed(token, entry, wanted.state):
        raise Problem(403, f"This token may not bring that submission into the state {wanted.state!r}.")
    if entry.tier == "reference":
        raise Problem(409, "The reference rows belong to the board and stay.")
    before = entry.state
    try:
        if (before, wanted.state) == ("rejected", "scoring"):
            score_again(session, settings, entry, actor, wanted.reason)
        else:
            states.move(session, entry, wanted.state, actor, wanted.reason, states.BY_HAND)
    except UsageError as error:
        raise Problem(409, str(error)) from error
    if before == "quarantined" and wanted.state == "listed":
        jobs.request(session, "rescore", entry.id)  # the worker does so only where newer code scores by now
    jobs.request(session, "rank", str(entry.board_id))
    return entry


def score_again(session: Session, settings: Settings, entry: Entry, actor: str, reason: str) -> None:
    """Have a rejected entry scored; one that is not rejected stays as it is.

    Raises:
        Problem: 409, its evidence stands under another entry by now.
    """
    states.lock(session, entry)
    if entry.state == "rejected":
        states.move(session, entry, "scoring", actor, reason)
        submissions.count_again(session, settings, entry)
        jobs.request(session, "score", entry.id)


def _knows(token: Token, entry: Entry) -> bool:
    return "moderate" in token.scopes or token.id == entry.token_id
