"""Lists across boards: methods, metrics, submitters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, contains_eager

from forgetbench.datasets import datasets
from forgetbench.leaderboard.boards.queries import current, light_columns
from forgetbench.leaderboard.db.models import Board, Entry, Placing
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.errors import Link, Problem
from forgetbench.tasks.task import names, read_task

if TYPE_CHECKING:
    from forgetbench.tasks.task import Task


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
        .where(Entry.state.in_(PUBLIC_STATES), Board.superseded_at.is_(None))
        .group_by(Entry.method)
        .order_by(Entry.method)
    )
    return [MethodLine(*row) for row in session.execute(query)]


@dataclass(frozen=True)
class Places:
    """Entries on several boards, a page of them."""

    found: list[Placed]
    total: int
    page: int
    pages: int


def placed(session: Session, condition: ColumnElement[bool], size: int | None, page: int = 1) -> Places:
    """Public entries on all boards, with their places; those of present boards first, then by board and place.

    Args:
        session: Where to read.
        condition: Which entries.
        size: Entries on a page; None: all.
        page: Page, from 1.

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
        .outerjoin(Placing, (Placing.entry_id == Entry.id) & (Placing.scope == "all"))
        .where(*public)
        .order_by(
            *(Board.superseded_at.is_not(None), Board.task, Board.id.desc()),
            *(Placing.position.is_(None), Placing.position, Entry.id),
        )
        .options(contains_eager(Entry.board), light_columns())
    )
    if size is not None:
        query = query.limit(size).offset((page - 1) * size)
    return Places([Placed(row[0], row[1]) for row in session.execute(query)], total, page, last)


def is_method(session: Session, name: str) -> bool:
    """Whether an entry of that method is listed here."""
    query = select(Entry.id).where(Entry.method == name.replace("\0", ""), Entry.state.in_(PUBLIC_STATES)).limit(1)
    return session.scalar(query) is not None


def first_of_method(session: Session, name: str) -> Entry:
    """The public entry that was listed first of a method: whoever uses the name later does not describe it.

    Raises:
        Problem: 404.
    """
    query = (
        select(Entry)
        .where(Entry.method == name.replace("\0", ""), Entry.state.in_(PUBLIC_STATES))
        .order_by(Entry.listed_at, Entry.id)
        .limit(1)
    )
    found = session.scalar(query)
    if found is None:
        detail = f"No entry of a method {name[:100]!r} is listed here."
        raise Problem(404, detail, links=[Link("all methods", "/methods")])
    return found


def is_submitter(session: Session, name: str) -> bool:
    """Whether anybody of that name has submitted here."""
    query = select(Entry.id).where(Entry.submitter == name.replace("\0", ""), Entry.token_id.is_not(None)).limit(1)
    return session.scalar(query) is not None


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


@lru_cache(maxsize=1)
def embedded() -> tuple[Task, ...]:
    """The catalog's tasks whose images come with the suite, by name."""
    tasks = (read_task(name) for name in names())
    return tuple(task for task in tasks if datasets.get(task.image_set.name).card.embedded)


def find(name: str) -> Task | None:
    """Any task of the catalog; None where there is none of that name."""
    return read_task(name) if name in names() else None


def facts(task: Task) -> dict[str, Any]:
    """What its page shows."""
    card = datasets.get(task.image_set.name).card
    return {
        "images": {"name": card.name, "title": card.title, "license": card.license, "homepage": card.homepage},
        "embedded": card.embedded,
        "definition": task.model_dump(mode="json"),
    }
