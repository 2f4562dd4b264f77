"""The end of a round: the final evaluation by the board's runner, and the reveal of hidden results."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from forgetbench.errors import UsageError
from forgetbench.leaderboard.db import queue, runs, states
from forgetbench.leaderboard.db.models import Board, BoardRun, Entry, Job, Token
from forgetbench.leaderboard.submissions import methods
from forgetbench.leaderboard.submissions.rounds import of_round

REPLACED = "replaced: only the last submission of a team is evaluated"
"""Reason why a method is rejected at the final evaluation."""


def evaluate(session: Session, board: Board, now: datetime) -> list[str]:
    """Request the final evaluation of a round: the runner runs the last submission of each team.

    Returns:
        Ids of the entries that are run.

    Raises:
        UsageError: The round has no final evaluation, or is still open.
    """
    if not board.final_only:
        raise UsageError(f"The round of {board.task} has no final evaluation: each submission is run as it arrives.")
    if board.closes_at is None or now < board.closes_at:
        raise UsageError(f"The round of {board.task} is open: close it before its final evaluation.")
    candidates = session.execute(
        select(Entry, func.coalesce(Token.team, Token.id))
        .join(Token, Token.id == Entry.token_id)
        .where(*of_round(board), Entry.state.in_(("received", "scoring", "accepted", *states.PUBLIC_STATES)))
        .order_by(Entry.received_at.desc(), Entry.id)
    ).all()
    last: dict[str, Entry] = {}
    for entry, team in candidates:
        if team not in last:
            last[team] = entry
            methods.request_final(session, board, entry)
        elif entry.state == "received" and session.get(BoardRun, entry.id) is not None:
            runs.drop_run(session, entry.id)
            states.lock_entry(session, entry)
            states.transition(session, entry, "rejected", states.SERVER_ACTOR, REPLACED)
    board.finals_at = now
    states.bump_revision(session, board.id)
    return [entry.id for entry in last.values()]


def reveal(session: Session, board: Board, actor: str) -> int:
    """Reveal the results of a round: list its accepted submissions and rank them; returns their number."""
    board.visibility, board.reveals_at = "public", None
    accepted = session.scalars(select(Entry).where(Entry.board_id == board.id, Entry.state == "accepted")).all()
    for entry in accepted:
        states.lock_entry(session, entry)
        if entry.state == "accepted":
            states.transition(session, entry, "listed", actor, "the results of the round were revealed")
    states.bump_revision(session, board.id)
    queue.enqueue(session, "rank", str(board.id))
    return len(accepted)


def unfinished_runs(session: Session, board: Board) -> int:
    """Submissions of a board that its runner has not finished."""
    query = (
        select(func.count())
        .select_from(Job)
        .join(Entry, Entry.id == Job.subject)
        .where(Job.kind == "run", Job.state.in_(("waiting", "running")), Entry.board_id == board.id)
    )
    return session.scalar(query) or 0


def due(session: Session, now: datetime) -> list[int]:
    """Ids of the boards whose round has a step that `advance` takes now."""
    final = and_(Board.final_only, Board.finals_at.is_(None), Board.closes_at <= now)
    query = select(Board.id).where(or_(Board.reveals_at <= now, final), Board.superseded_at.is_(None))
    return list(session.scalars(query))


def advance(session: Session, board_id: int, now: datetime) -> None:
    """Take the steps of a round whose dates have come: the final evaluation, then the reveal."""
    board = session.get_one(Board, board_id, with_for_update=True)
    if board.final_only and board.finals_at is None and board.closes_at is not None and board.closes_at <= now:
        evaluate(session, board, now)
    if board.reveals_at is not None and board.reveals_at <= now:
        reveal(session, board, states.SERVER_ACTOR)
