"""Lists across boards: methods, metrics, submitters, and tasks of the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, contains_eager

from forgetbench.datasets import datasets
from forgetbench.leaderboard.boards.queries import current_boards, without_manifest
from forgetbench.leaderboard.db.models import Board, Entry, Placing
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.errors import Link, Problem
from forgetbench.store import JsonObject
from forgetbench.tasks.task import names, read_task

if TYPE_CHECKING:
    from forgetbench.store import JsonObject
from forgetbench.tasks.task import Task


@dataclass(frozen=True)
class Placed:
    """An entry with its board and its rank."""

    entry: Entry
    placing: Placing | None


@dataclass(frozen=True)
class MethodLine:
    """A method on all boards."""

    name: str
    family: str
    entries: int
    boards: int
    newest: datetime | None


def methods(session: Session) -> list[MethodLine]:
    """All methods with entries on current boards, by name."""
    query = (
        select(
            Entry.method,
            func.min(Entry.family),
            func.count(),
            func.count(Entry.board_id.distinct()),
            func.max(Entry.received_at),
        )
        .join(Board, Board.id == Entry.board_id)
        .where(Entry.state.in_(PUBLIC_STATES), Board.superseded_at.is_(None))
        .group_by(Entry.method)
        .order_by(Entry.method)
    )
    return [MethodLine(*row) for row in session.execute(query)]


@dataclass(frozen=True)
class Places:
    """One page of entries on several boards."""

    entries: list[Placed]
    total: int
    """Entries on all pages."""
    page: int
    pages: int


def placed(session: Session, condition: ColumnElement[bool], size: int | None, page: int = 1) -> Places:
    """Public entries on all boards with their ranks; those of current boards first, then by board and rank.

    Args:
        session: Where to read.
        condition: Which entries.
        size: Entries per page; None for all.
        page: Page number, from 1.

    Raises:
        Problem: 404, there is no such page.
    """
    public = (Entry.state.in_(PUBLIC_STATES), condition)
    total = session.scalar(select(func.count()).select_from(Entry).where(*public)) or 0
    last = max(1, -(-total // size)) if size is not None else 1
    if page > last:
        link = Link(f"page {last}", f"?page={last}")
        raise Problem(404, f"There is no page {page}: the last is page {last}.", links=[link])
    query = (
        select(Entry, Placing)
        .join(Entry.board)
        .outerjoin(Placing, Placing.entry_id == Entry.id)
        .where(*public)
        .order_by(
            *(Board.superseded_at.is_not(None), Board.task, Board.id.desc()),
            *(Entry.tier == "claimed", Placing.position.is_(None), Placing.position, Entry.id),
        )
        .options(contains_eager(Entry.board), without_manifest())
    )
    if size is not None:
        query = query.limit(size).offset((page - 1) * size)
    return Places([Placed(row[0], row[1]) for row in session.execute(query)], total, page, last)


def is_method(session: Session, name: str) -> bool:
    """Whether an entry of that method is listed."""
    query = select(Entry.id).where(Entry.method == name.replace("\0", ""), Entry.state.in_(PUBLIC_STATES)).limit(1)
    return session.scalar(query) is not None


def first_of_method(session: Session, name: str) -> Entry:
    """The public entry of a method that was listed first: later entries with that name do not describe the method.

    Raises:
        Problem: 404.
    """
    query = (
        select(Entry)
        .where(Entry.method == name.replace("\0", ""), Entry.state.in_(PUBLIC_STATES))
        .order_by(Entry.listed_at, Entry.id)
        .limit(1)
    )
    entry = session.scalar(query)
    if entry is None:
        detail = f"No entry of a method {name[:100]!r} is listed."
        raise Problem(404, detail, links=[Link("all methods", "/methods")])
    return entry


def is_submitter(session: Session, name: str) -> bool:
    """Whether a submitter of that name exists."""
    query = select(Entry.id).where(Entry.submitter == name.replace("\0", ""), Entry.token_id.is_not(None)).limit(1)
    return session.scalar(query) is not None


@dataclass(frozen=True)
class Attempts:
    """A submitter's attempts on one board, by state."""

    task: str
    states: dict[str, int]

    @property
    def total(self) -> int:
        """All attempts, withdrawn and rejected ones included."""
        return sum(self.states.values())


def attempts(session: Session, submitter: str) -> list[Attempts]:
    """A submitter's attempts by board. All are counted, so that readers can tell the best of many from a single try."""
    query = (
        select(Board.task, Entry.state, func.count())
        .join(Board, Board.id == Entry.board_id)
        .where(Entry.submitter == submitter)
        .group_by(Board.task, Entry.state)
        .order_by(Board.task)
    )
    states_of: dict[str, dict[str, int]] = {}
    for task, state, count in session.execute(query):
        states_of.setdefault(task, {})[state] = count
    return [Attempts(task, states) for task, states in states_of.items()]


def metric_specs(session: Session) -> dict[str, JsonObject]:
    """Spec of every metric on a current board, as the worker recorded it."""
    specs: dict[str, JsonObject] = {}
    for board in current_boards(session):
        for column in (board.summary or {}).get("columns", []):
            specs.setdefault(column["name"], column)
    return dict(sorted(specs.items()))


def boards_of_metric(session: Session, name: str) -> Sequence[tuple[Board, JsonObject]]:
    """The boards that show a metric, with its spec there."""
    return [
        (board, column)
        for board in current_boards(session)
        for column in (board.summary or {}).get("columns", [])
        if column["name"] == name
    ]


@lru_cache(maxsize=1)
def embedded_tasks() -> tuple[Task, ...]:
    """Tasks of the catalog whose images come with the suite, by name."""
    tasks = (read_task(name) for name in names())
    return tuple(task for task in tasks if datasets.get(task.image_set.name).card.embedded)


def catalog_task(name: str) -> Task | None:
    """The task of the catalog with that name, or None."""
    return read_task(name) if name in names() else None


def catalog_task_context(task: Task) -> dict[str, object]:
    """Variables of the template of a task without a board."""
    card = datasets.get(task.image_set.name).card
    return {
        "task": task,
        "images": {"name": card.name, "title": card.title, "license": card.license, "homepage": card.homepage},
        "embedded": card.embedded,
        "definition": task.model_dump(mode="json"),
    }
