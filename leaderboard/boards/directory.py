"""Lists across boards: methods, metrics, submitters, and tasks of the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, contains_eager

from forgetbench.datasets import datasets
from forgetbench.evidence.run import Manifest, MethodRecord
from forgetbench.leaderboard.boards.queries import current_boards, row_columns
from forgetbench.leaderboard.boards.shipped import is_shipped, shipped_boards
from forgetbench.leaderboard.db.models import Board, Entry, Placing
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.errors import Link, Problem
from forgetbench.store import JsonObject
from forgetbench.tasks.task import Task, names, read_task


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
        .options(contains_eager(Entry.board), row_columns())
    )
    if size is not None:
        query = query.limit(size).offset((page - 1) * size)
    return Places([Placed(row[0], row[1]) for row in session.execute(query)], total, page, last)


def is_method(session: Session, name: str) -> bool:
    """Whether an entry of that method is listed."""
    query = select(Entry.id).where(Entry.method == name.replace("\0", ""), Entry.state.in_(PUBLIC_STATES)).limit(1)
    return session.scalar(query) is not None


def has_method(session: Session, name: str) -> bool:
    """Whether an entry or a shipped result of that method exists."""
    return is_method(session, name) or is_shipped(name)


@dataclass(frozen=True)
class Description:
    """How a submitter describes a method."""

    submitter: str
    method: MethodRecord


MAX_DESCRIPTIONS = 20
"""Descriptions that the page of a method shows."""


def describe_method(session: Session, name: str) -> list[Description]:
    """What each submitter says of a method in the newest entry; no one's text is the method's.

    A method of this package needs no description of a submitter: the list is then empty.

    Raises:
        Problem: 404, no entry of that name is listed.
    """
    query = (
        select(Entry.submitter, Entry.registered, Entry.manifest)
        .where(Entry.method == name.replace("\0", ""), Entry.state.in_(PUBLIC_STATES), ~Entry.baseline)
        .order_by(Entry.received_at, Entry.id)
        .limit(500)
    )
    if not is_method(session, name):
        detail = f"No entry of a method {name[:100]!r} is listed."
        raise Problem(404, detail, links=[Link("all methods", "/methods")])
    newest = {row.submitter: row for row in session.execute(query) if not row.registered}
    return [
        Description(submitter, Manifest.model_validate(row.manifest).method)
        for submitter, row in sorted(newest.items())[:MAX_DESCRIPTIONS]
    ]


def is_submitter(session: Session, name: str) -> bool:
    """Whether a submitter of that name exists."""
    own = (Entry.submitter == name.replace("\0", ""), Entry.token_id.is_not(None), Entry.state != "purged")
    query = select(Entry.id).where(*own).limit(1)
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
        .where(Entry.submitter == submitter, Entry.state != "purged")
        .group_by(Board.task, Entry.state)
        .order_by(Board.task)
    )
    states_of: dict[str, dict[str, int]] = {}
    for task, state, count in session.execute(query):
        states_of.setdefault(task, {})[state] = count
    return [Attempts(task, states) for task, states in states_of.items()]


def metric_specs(session: Session) -> dict[str, JsonObject]:
    """Spec of every metric on a current board, as the worker recorded it, and of those of shipped results."""
    specs: dict[str, JsonObject] = {}
    for board in current_boards(session):
        for column in (board.summary or {}).get("columns", []):
            specs.setdefault(column["name"], column)
    return dict(sorted({**shipped_specs(), **specs}.items()))


@lru_cache(maxsize=1)
def shipped_specs() -> dict[str, JsonObject]:
    """Spec of every metric of the results that ship with the package."""
    from forgetbench.metrics import metrics  # loads all definitions of metrics, in a second

    names = sorted({name for board in shipped_boards() for name in board.bands})
    specs = {name: metrics.get(name) for name in names if name in metrics}
    return {
        name: {
            **spec.model_dump(mode="json", exclude={"efficacy", "harm"}),
            "shown_unit": spec.display.unit,
            "scale": spec.display.scale,
        }
        for name, spec in specs.items()
    }


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


@lru_cache
def shows_people(image_set: str) -> bool:
    """Whether the images of a set of the suite are of people."""
    return image_set in datasets.names() and datasets.get(image_set).card.people


def catalog_task_context(task: Task) -> dict[str, object]:
    """Variables of the template of a task without a board."""
    card = datasets.get(task.image_set.name).card
    return {
        "task": task,
        "images": {"name": card.name, "title": card.title, "license": card.license, "homepage": card.homepage},
        "embedded": card.embedded,
        "definition": task.model_dump(mode="json"),
    }
