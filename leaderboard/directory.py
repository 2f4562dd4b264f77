"""Lists across boards: methods, metrics, submitters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, contains_eager

from forgetbench.leaderboard.boards import current, light_columns
from forgetbench.leaderboard.models import Board, Entry, Placing
from forgetbench.leaderboard.problems import Problem
from forgetbench.leaderboard.states import PUBLIC


@dataclass(frozen=True)
class Placed:
    """An entry with its board and its place."""

    entry: Entry
    placing: Placing | None


@dataclass(frozen=True)
class MethodLine:
    """A method over all boards."""

    name: str
    family: str
    entries: int
    boards: int
    newest: datetime | None


def methods(session: Session) -> list[MethodLine]:
    """Every method that stands on a current board, by name."""
    query = (
        select(
            Entry.method,
            func.min(Entry.family),
            func.count(),
            func.count(Entry.board_id.distinct()),
            func.max(Entry.received_at),
        )
        .join(Board, Board.id == Entry.board_id)
        .where(Entry.state.in_(PUBLIC), Board.superseded_at.is_(None))
        .group_by(Entry.method)
        .order_by(Entry.method)
    )
    return [MethodLine(*row) for row in session.execute(query)]


def placed(session: Session, *conditions: Any, limit: int = 500) -> list[Placed]:
    """Public entries on all boards, with their places; the newest boards' first, then by place."""
    query = (
        select(Entry, Placing)
        .join(Entry.board)
        .outerjoin(Placing, (Placing.entry_id == Entry.id) & (Placing.scope == "all"))
        .where(Entry.state.in_(PUBLIC), *conditions)
        .order_by(Board.superseded_at.is_not(None), Board.task, Placing.position.is_(None), Placing.position, Entry.id)
        .options(contains_eager(Entry.board), light_columns())
        .limit(limit)
    )
    return [Placed(row[0], row[1]) for row in session.execute(query)]


def of_method(session: Session, name: str) -> list[Placed]:
    """All public entries of a method.

    Raises:
        Problem: 404.
    """
    found = placed(session, Entry.method == name) if "\0" not in name else []
    if not found:
        raise Problem(404, f"No entry of a method {name[:100]!r} is listed here.")
    return found


@dataclass(frozen=True)
class Attempts:
    """How often a submitter tried on one board, and what became of it."""

    task: str
    states: dict[str, int]

    @property
    def total(self) -> int:
        """All attempts, the withdrawn and rejected ones too."""
        return sum(self.states.values())


def attempts(session: Session, submitter: str) -> list[Attempts]:
    """A submitter's attempts by board: nothing is hidden, so that the best of many can be told from the best of one."""
    query = (
        select(Board.task, Entry.state, func.count())
        .join(Board, Board.id == Entry.board_id)
        .where(Entry.submitter == submitter)
        .group_by(Board.task, Entry.state)
        .order_by(Board.task)
    )
    found: dict[str, dict[str, int]] = {}
    for task, state, count in session.execute(query):
        found.setdefault(task, {})[state] = count
    return [Attempts(task, states) for task, states in found.items()]


def metric_specs(session: Session) -> dict[str, dict[str, Any]]:
    """Spec of every metric on a current board, as the worker wrote it down."""
    found: dict[str, dict[str, Any]] = {}
    for board in current(session):
        for column in (board.summary or {}).get("columns", []):
            found.setdefault(column["name"], column)
    return dict(sorted(found.items()))


def boards_of_metric(session: Session, name: str) -> Sequence[tuple[Board, dict[str, Any]]]:
    """The boards that show a metric, with its column there."""
    return [
        (board, column)
        for board in current(session)
        for column in (board.summary or {}).get("columns", [])
        if column["name"] == name
    ]
