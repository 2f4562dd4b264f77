"""Rounds of a board: when it accepts submissions, what is hidden, and quotas of teams.

A round is a schedule of a task's present board. Submissions that arrive from its opening on belong to it. While results
are hidden, a scored submission is ``accepted``: it is on no page and in no ranking until the results are revealed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from forgetbench.errors import UsageError
from forgetbench.leaderboard.auth import tokens
from forgetbench.leaderboard.db import states
from forgetbench.leaderboard.db.models import Board, Entry, Token
from forgetbench.leaderboard.errors import FieldError, Problem
from forgetbench.registry import how_to_list

Visibility = Literal["public", "own", "accepted"]


class Schedule(BaseModel):
    """Schedule of a round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    opens: datetime
    """From then on submissions are accepted."""
    closes: datetime | None = None
    """From then on they are refused; None for no end."""
    reveals: datetime | None = None
    """When hidden results are revealed; None if the operator does it."""
    visibility: Visibility = "public"
    """What submitters see until then."""
    team_submissions: int | None = None
    """Submissions of one team in the round."""
    final_only: bool = False
    """Whether only the last submission of each team is run by the board's runner, after the round has closed."""


def current_board(session: Session, task: str) -> Board:
    """The present board of a task.

    Raises:
        UsageError: There is none.
    """
    board = session.scalar(select(Board).where(Board.task == task, Board.superseded_at.is_(None)))
    if board is None:
        known = session.scalars(select(Board.task).where(Board.superseded_at.is_(None)).order_by(Board.task)).all()
        raise UsageError(f"No board for task {task!r}. {how_to_list('board', list(known))}")
    return board


def schedule(session: Session, task: str, planned: Schedule) -> Board:
    """Start a round of a task's board, or change the present one.

    Raises:
        UsageError: There is no such board, a limit is below 1, the dates are not in order, a final evaluation needs a
            sealed board and a closing date, or results of the present round are still hidden.
    """
    board = current_board(session, task)
    if planned.team_submissions is not None and planned.team_submissions < 1:
        raise UsageError("--per-team must be at least 1.")
    dates = [date for date in (planned.opens, planned.closes, planned.reveals) if date is not None]
    if dates != sorted(dates):
        raise UsageError("The dates are not in order: a round opens, then closes, then reveals its results.")
    if planned.final_only and (not board.sealed or planned.closes is None):
        raise UsageError("A final evaluation needs a sealed board, whose runner makes it, and a closing date.")
    hidden = session.scalar(select(func.count()).where(Entry.board_id == board.id, Entry.state == "accepted")) or 0
    if hidden and board.opens_at != planned.opens:
        raise UsageError(
            f"{hidden} submissions of the present round are hidden: reveal them with `forgetbench admin round reveal "
            f"{task}` before the next round, or keep the opening date."
        )
    board.opens_at, board.closes_at, board.reveals_at = planned.opens, planned.closes, planned.reveals
    board.visibility, board.team_submissions = planned.visibility, planned.team_submissions
    board.final_only, board.finals_at = planned.final_only, None
    states.bump_revision(session, board.id)
    return board


def check_open(board: Board, now: datetime) -> None:
    """Check that a board accepts submissions.

    Raises:
        Problem: 422, its round has not begun, or is over.
    """
    if board.retired:
        why, detail = f"round {board.round} of {board.task!r} is over: its salt is public", "until its next round"
    elif board.opens_at is not None and now < board.opens_at:
        why, detail = f"the round of {board.task!r} opens on {board.opens_at:%Y-%m-%d %H:%M} UTC", "yet"
    elif board.closes_at is not None and now >= board.closes_at:
        why, detail = f"{board.task!r} was closed on {board.closes_at:%Y-%m-%d %H:%M} UTC", "any more"
    else:
        return
    raise Problem(422, f"This board accepts no submissions {detail}.", [FieldError(field="task", message=why)])


def check_team_quota(session: Session, board: Board, token: Token) -> None:
    """Check that a team may submit once more in the present round.

    Raises:
        Problem: 403, it may not.
    """
    if board.team_submissions is None:
        return
    query = select(func.count()).where(Entry.token_id.in_(tokens.owner_ids(token)), *of_round(board))
    used = session.scalar(query) or 0
    if used >= board.team_submissions:
        raise Problem(403, f"Your team has made {used} of {board.team_submissions} submissions of this round.")


def close(session: Session, task: str, now: datetime) -> Board:
    """Close a board: it accepts no more submissions.

    Raises:
        UsageError: There is no such board.
    """
    board = current_board(session, task)
    if board.closes_at is None or board.closes_at > now:
        board.closes_at = now
        states.bump_revision(session, board.id)
    return board


def of_round(board: Board) -> list[ColumnElement[bool]]:
    """Conditions for the submissions of a board's present round."""
    conditions = [Entry.board_id == board.id, ~Entry.baseline]
    if board.opens_at is not None:
        conditions.append(Entry.received_at >= board.opens_at)
    return conditions
