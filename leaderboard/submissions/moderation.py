"""Changes of an entry's state by its submitter or by moderators, each with a reason."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from forgetbench.errors import UsageError, described_pattern
from forgetbench.leaderboard.boards.entries import can_view, is_owner
from forgetbench.leaderboard.db import queue, states
from forgetbench.leaderboard.db.models import Board, Entry, Job, KnownAttack, Token, Verification
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.submissions.receive import reclaim_evidence
from forgetbench.leaderboard.submissions.uploads import deceptive_characters

TargetState = Literal["listed", "flagged", "quarantined", "withdrawn", "rejected", "scoring"]


def _check_reason(reason: str) -> str:
    if what := deceptive_characters(reason):
        raise ValueError(f"contains {what}: remove it")
    return reason


Reason = Annotated[
    str,
    AfterValidator(_check_reason),
    Field(
        min_length=1,
        max_length=2000,
        pattern=described_pattern(r"^[^\x00]*\S[^\x00]*$", "a reason in words, without null characters"),
    ),
]


class Acknowledgment(BaseModel):
    """What a moderator's review of an entry's alarms found."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    reason: Reason
    """What the review found, which appears in the public history."""


class StateChange(BaseModel):
    """A request to change the state of an entry."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    state: TargetState
    """``withdrawn`` for your own submissions; moderators also flag, quarantine, reject, list and rescore entries."""
    reason: Reason
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
        withdraw = "; this one is of another submitter" if requested.state == "withdrawn" else ""
        raise Problem(
            403,
            f"This token may not change the state of this submission to {requested.state!r}. Submitters can withdraw "
            f"their own submissions{withdraw}; all else needs the scope 'moderate'.",
        )
    if entry.baseline:
        raise Problem(409, "The state of a reference row cannot be changed.")
    before = entry.state
    try:
        if (before, requested.state) == ("rejected", "scoring"):
            score_again(session, settings, entry, actor, requested.reason)
        else:
            listed = requested.state == "listed"
            after = states.scored_state(entry.board, entry) if listed else requested.state
            states.transition(session, entry, after, actor, requested.reason, states.MODERATOR_TRANSITIONS)
    except UsageError as error:
        raise Problem(409, str(error)) from error
    if before == "quarantined" and requested.state == "listed":
        queue.enqueue(session, "rescore", entry.id)  # the worker skips it unless the scoring code has changed
    queue.enqueue(session, "rank", str(entry.board_id))
    return entry


def _may_change(token: Token, entry: Entry, state: str) -> bool:
    return "moderate" in token.scopes or (state == "withdrawn" and is_owner(entry, token))


def acknowledge(session: Session, entry_id: str, reason: str, actor: str, token: Token | None = None) -> Entry:
    """Remove an entry from the moderation queue; a suspended claim gets its place back. Its state stays.

    Args:
        session: Session to write with.
        entry_id: Id of the entry.
        reason: What the review found.
        actor: Name in the history.
        token: Token of the request; None for the operator on the server's machine.

    Raises:
        Problem: 404, the entry is unknown; 403, it is the moderator's own; 409, it is not in the queue.
    """
    entry = session.get(Entry, entry_id) if "\0" not in entry_id else None
    if entry is None:
        raise Problem(404, "There is no submission with that id.")
    if token is not None and is_owner(entry, token):
        raise Problem(403, "You cannot review your own submission; another moderator must.")
    states.lock_entry(session, entry)
    if not (entry.queued or entry.suspended):
        raise Problem(409, f"{entry_id!r} is not in the moderation queue; `forgetbench admin queue` shows the queue.")
    done = "acknowledged, place restored" if entry.suspended else "acknowledged"
    states.record_event(session, entry, entry.state, actor, f"{done}: {reason}")
    entry.queued = entry.suspended = False
    states.bump_revision(session, entry.board_id)
    queue.enqueue(session, "rank", str(entry.board_id))
    return entry


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


class QueueItem(NamedTuple):
    """An item of the moderation queue: an entry, or a failed job."""

    id: str
    """Id of an entry; for a failed job, "job" and its number."""
    task: str
    label: str
    submitter: str
    state: str
    reason: str


def queue_items(session: Session) -> list[QueueItem]:
    """What needs a moderator: entries with alarms, flagged and quarantined entries, and failed jobs."""
    queued = (
        select(Entry.id, Board.task, Entry.label, Entry.submitter, Entry.state, Entry.note, Entry.alarms)
        .join(Board, Board.id == Entry.board_id)
        .where(Entry.queued)
        .order_by(Entry.received_at)
    )
    items = [
        QueueItem(entry_id, task, label, submitter, state, "; ".join(filter(None, [note, *(alarms or ())])))
        for entry_id, task, label, submitter, state, note, alarms in session.execute(queued)
    ]
    failed = session.scalars(select(Job).where(Job.state == "failed").order_by(Job.id))
    return items + [_failed_job_item(session, job) for job in failed]


def _failed_job_item(session: Session, job: Job) -> QueueItem:
    record: Verification | KnownAttack | None = None
    if job.kind == "verify":
        record = session.get(Verification, job.subject)
    elif job.kind == "attack":
        record = session.get(KnownAttack, job.subject)
    entry = session.get(Entry, record.entry_id if record else job.subject) if job.kind != "rank" else None
    board = session.get(Board, entry.board_id if entry else int(job.subject)) if entry or job.kind == "rank" else None
    label, submitter = (entry.label, entry.submitter) if entry else ("", "")
    task = board.task if board else job.subject
    return QueueItem(f"job {job.id}", task, label, submitter, f"{job.kind} failed", job.error or "")
