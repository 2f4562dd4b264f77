"""Queries of boards: filtered, sorted and split into pages in SQL."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from sqlalchemy import ColumnElement, Integer, String, bindparam, func, select
from sqlalchemy.orm import Session, defer, load_only
from sqlalchemy.orm.interfaces import LoaderOption

from forgetbench.leaderboard.boards.memory import OncePerRevision
from forgetbench.leaderboard.boards.ordering import Order, order_of
from forgetbench.leaderboard.boards.view import FIXED_KEYS, SUMMARY, View
from forgetbench.leaderboard.db.models import Board, Entry, MetricValue, Placing
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.errors import FieldError, Link, Problem
from forgetbench.scoring.scorecards import Scorecard
from forgetbench.scoring.vocabulary import caveat
from forgetbench.store import JsonObject

ALWAYS = ("gap.forget", "gap.test-forgotten", "gap.retain", "gap.test", "lira.forget", "shift.forget")
"""Metrics of the default view in addition to those that rank."""


class Band(NamedTuple):
    """The range in which 95 % of oracles fall when compared with each other, with mean and standard deviation."""

    mean: float
    low: float
    high: float
    sd: float


@dataclass(frozen=True)
class Column:
    """A metric as a column of a board: its spec, its part in the ranking, and the oracles' band."""

    name: str
    title: str
    symbol: str
    group: str
    unit: str
    direction: str
    meaning: str
    role: str | None = None
    """``efficacy``, ``harm`` or None."""
    ranks: bool = False
    """Whether it ranks on this board."""
    why: str = ""
    """Why it does not rank although it could."""
    band: Band | None = None

    shown_unit: str = ""
    """Unit of the shown number."""
    scale: float = 1.0
    """Shown number over stored value."""
    signed: bool = False
    """Whether values are shown with their sign."""


@dataclass(frozen=True)
class Cell:
    """One value of one row."""

    value: float | None
    low: float | None
    high: float | None
    z: float | None
    note: str


@dataclass(frozen=True)
class Row:
    """One entry on a board."""

    entry: Entry
    cells: dict[str, Cell]
    placing: Placing | None = None
    """Its rank among the rows of its tiers; None for rows that are not ranked."""


@dataclass(frozen=True)
class Page:
    """One page of a view of a board."""

    board: Board
    view: View
    columns: list[Column]
    """Those that the view shows."""
    references: list[Row]
    rows: list[Row]
    total: int
    """Rows of the view on all pages."""
    all_columns: list[Column] = field(default_factory=list)
    """All columns of the board."""
    counts: dict[str, int] = field(default_factory=dict)
    """Status -> number of rows of the board, whatever the view filters."""
    families: list[str] = field(default_factory=list)
    size: int = 100
    next_cursor: str | None = None
    """Cursor of the next page; None on the last page, and for pages requested by number."""

    @property
    def pages(self) -> int:
        """Number of pages, at least 1."""
        return max(1, -(-self.total // self.size))


def summary_of(board: Board, tier: str = "") -> JsonObject:
    """Bands and rules of a board, as of its last ranking; empty before the first.

    Args:
        board: The board.
        tier: Tier of a row: on a sealed board, claimed rows are compared with other oracles.
    """
    summary: JsonObject = board.summary or {}
    return summary.get("claimed", summary) if tier == "claimed" else summary


def columns_of(board: Board, tier: str = "") -> list[Column]:
    """All columns of a board, as of its last ranking, with the bands for rows of a tier; none before the first."""
    columns = []
    for item in summary_of(board, tier).get("columns", []):
        band = Band(**item["band"]) if item.get("band") else None
        fields = {name: item[name] for name in Column.__dataclass_fields__ if name in item and name != "band"}
        columns.append(Column(**{**_display(item), **fields}, band=band))
    return columns


def _display(item: JsonObject) -> dict[str, object]:
    """Display rules of a column of a board that an earlier version ranked, which did not record them."""
    if "shown_unit" in item:
        return {}
    from forgetbench.metrics import metrics  # loads scipy

    if item["name"] not in metrics:
        return {"shown_unit": item["unit"]}
    display = metrics.get(item["name"]).display
    return {"shown_unit": display.unit, "scale": display.scale, "signed": display.signed}


def shown_columns(columns: list[Column], view: View) -> list[Column]:
    """Those of a board's columns that a view shows."""
    if view.columns == SUMMARY:
        return []
    if view.columns == "all":
        return columns
    if view.columns == "ranking":
        ranking = [column for column in columns if column.role]
        return ranking + [column for column in columns if column.name in ALWAYS and column not in ranking]
    return [column for column in columns if column.group == view.columns]


_ALL_VERSIONS = select(Board.id, Board.revision).order_by(Board.id)
_VERSIONS = _ALL_VERSIONS.where(Board.task == bindparam("task"))
_CURRENT_VERSION = _VERSIONS.where(Board.superseded_at.is_(None)).limit(1)


def board_version(session: Session, task: str, pack: str | None = None) -> tuple[int, int]:
    """Id and revision of a board: all that the ETag of a response needs, without reading the board.

    Args:
        session: Where to read.
        task: Its task.
        pack: Start of a pack's hash, for a board that may be superseded; the current board without it.

    Raises:
        Problem: 404.
    """
    query = _CURRENT_VERSION
    if pack:
        query = _VERSIONS.where(Board.pack_sha256.startswith(pack, autoescape=True)).limit(1)
    row = session.execute(query, {"task": task}).first() if "\0" not in task else None
    if row is None:
        if pack and board_exists(session, task):
            detail = f"The board {task!r} never had a pack whose hash begins with {pack}."
            raise Problem(
                404,
                f"{detail} Leave `pack` out for its current one.",
                links=[Link("the current board", f"/boards/{quote(task)}")],
            )
        raise Problem(404, f"There is no board {task!r} on this server. The front page and /api/v1/boards list all.")
    return row[0], row[1]


def pack_of(session: Session, start: str) -> str | None:
    """The hash of the pack of a board that begins so; None if there is none."""
    query = select(Board.pack_sha256).where(Board.pack_sha256.startswith(start, autoescape=True)).limit(1)
    return session.scalar(query)


def board_exists(session: Session, task: str) -> bool:
    """Whether a task has a current board."""
    query = select(Board.id).where(Board.task == task.replace("\0", ""), Board.superseded_at.is_(None))
    return session.scalar(query.limit(1)) is not None


def get_board(session: Session, task: str, pack: str | None = None) -> Board:
    """The board of a task, selected as by `board_version`.

    Raises:
        Problem: 404.
    """
    return session.get_one(Board, board_version(session, task, pack)[0])


def board_versions(session: Session, task: str | None = None) -> list[tuple[int, int]]:
    """Id and revision of all boards, or of those of one task.

    Superseded boards are included, because pages across boards show their rows.
    """
    query = _ALL_VERSIONS if task is None else _VERSIONS
    return [(row[0], row[1]) for row in session.execute(query, {"task": task})]


def current_boards(session: Session) -> Sequence[Board]:
    """All boards that are not superseded, by name."""
    return session.scalars(select(Board).where(Board.superseded_at.is_(None)).order_by(Board.task)).all()


def entry_counts(session: Session) -> dict[int, int]:
    """Board -> number of its public rows, without the baselines; boards without rows are left out."""
    query = (
        select(Entry.board_id, func.count())
        .where(Entry.state.in_(PUBLIC_STATES), ~Entry.baseline)
        .group_by(Entry.board_id)
    )
    return dict(session.execute(query).all())


def all_boards(session: Session) -> Sequence[Board]:
    """All boards by name; of each task the current one first, then the superseded ones, the newest first."""
    return session.scalars(_ALL_BOARDS).all()


def boards_of_task(session: Session, task: str) -> Sequence[Board]:
    """The boards of one task, in the order of `all_boards`; their large columns are loaded when they are read."""
    return session.scalars(_BOARDS_OF_TASK, {"task": task}).all()


_ALL_BOARDS = select(Board).order_by(
    Board.task, Board.superseded_at.is_not(None), Board.superseded_at.desc(), Board.id.desc()
)
_BOARDS_OF_TASK = _ALL_BOARDS.where(Board.task == bindparam("task")).options(
    defer(Board.summary), defer(Board.definition), defer(Board.image_set)
)


_NOT_IN_ROWS = {
    *("manifest", "manifest_sha256", "search_text", "fingerprint", "registered", "budget"),
    *("alarms", "suspended", "queued"),
}
"""Columns of `Entry` that no table shows; manifests are large, and each column costs time in every row."""


@lru_cache(maxsize=1)
def row_columns() -> LoaderOption:
    """Loader option: the columns of `Entry` that tables show; others are loaded row by row when they are read."""
    shown = (getattr(Entry, column.key) for column in Entry.__table__.columns if column.key not in _NOT_IN_ROWS)
    return load_only(*shown)


_PLACED = (
    select(Entry, Placing)
    .outerjoin(Placing, Placing.entry_id == Entry.id)
    .where(Entry.id.in_(bindparam("ids", expanding=True)))
    .options(row_columns())
)
_BASELINES = (
    select(Entry)
    .where(Entry.board_id == bindparam("board"), Entry.baseline, Entry.state.in_(PUBLIC_STATES))
    .order_by(Entry.method.desc(), Entry.label)
    .options(row_columns())
)
_VALUES = select(
    MetricValue.entry_id,
    MetricValue.metric,
    MetricValue.value,
    MetricValue.low,
    MetricValue.high,
    MetricValue.z,
    MetricValue.note,
).where(
    MetricValue.entry_id.in_(bindparam("ids", expanding=True)),
    MetricValue.metric.in_(bindparam("names", expanding=True)),
)


def board_page(session: Session, board: Board, view: View, size: int | None, cursor: str | None = None) -> Page:
    """One page of a view of a board.

    Args:
        session: Where to read.
        board: The board.
        view: Filters, sorting, columns and page number.
        size: Rows per page; None for all rows.
        cursor: `Page.next_cursor` of the previous page, or "" for the first page, in place of the view's page number.

    Raises:
        Problem: 422, the board has no such sort key, or the cursor is not valid; 404, there is no such page.
    """
    all_columns = columns_of(board)
    columns = shown_columns(all_columns, view)
    _check_sort(all_columns, view)
    counts, families, _ = overview(session, board)
    filters = _filters(view, columns)
    arguments = {"board": board.id, **filters}
    next_cursor = None
    if cursor is None:
        ids, total = _numbered_page(session, board, view, arguments, size)
    else:
        known = None if filters else sum(counts.values())
        ids, total, next_cursor = _cursor_page(session, view, arguments, size, cursor, known)
    entries = _entries(session, ids)
    pinned = _baselines(session, board)
    cells = _cells(session, [*pinned, *(entry for entry, _ in entries)], columns)
    return Page(
        board=board,
        view=view,
        columns=columns,
        references=[Row(entry, cells.get(entry.id, {})) for entry in pinned],
        rows=[Row(entry, cells.get(entry.id, {}), placing) for entry, placing in entries],
        total=total,
        all_columns=all_columns,
        counts=counts,
        families=families,
        size=size or max(total, 1),
        next_cursor=next_cursor,
    )


def _baselines(session: Session, board: Board) -> Sequence[Entry]:
    """The server's own rows of a board, Retrain first."""
    return session.scalars(_BASELINES, {"board": board.id}).all()


def reference_rows(session: Session, board: Board, columns: list[Column]) -> list[Row]:
    """Retrain and No unlearning on a board, with some of its metrics; empty before they are scored."""
    entries = [entry for entry in _baselines(session, board) if entry.distance is not None]
    cells = _cells(session, entries, columns)
    return [Row(entry, cells.get(entry.id, {})) for entry in entries]


_PRESENT = (
    select(func.count())
    .select_from(MetricValue)
    .where(
        MetricValue.entry_id == Entry.id,
        MetricValue.metric.in_(bindparam("complete", expanding=True)),
        MetricValue.value.is_not(None),
    )
    .scalar_subquery()
)
_FILTERS: dict[str, ColumnElement[bool]] = {
    "ranked": Entry.tier != bindparam("ranked"),
    "claimed": Entry.tier == bindparam("claimed"),
    "q": Entry.search_text.contains(bindparam("q", String), escape="/"),
    "family": Entry.family == bindparam("family"),
    "retain": Entry.needs_retain == bindparam("retain"),
    "budget": Entry.budget <= bindparam("budget"),
    "complete": bindparam("columns") == _PRESENT,
}
"""Filter of a view -> its condition, which has a parameter of the same name."""


@lru_cache(maxsize=256)
def _listing(sort: str, filters: frozenset[str], *, limited: bool, counted: bool) -> Order:
    """The order of a view with its filters: made once, because to make a query takes longer than to run it.

    Args:
        sort: Sort key.
        filters: Names in `_FILTERS`; others are parameters only.
        limited: Whether the query has the parameters ``size`` and ``offset``.
        counted: Whether rows end with the number of rows on all pages, so that filters are not evaluated again for it.
    """
    order = order_of(sort)
    query = order.query.where(*_conditions(filters))
    if limited:
        query = query.limit(bindparam("size", type_=Integer)).offset(bindparam("offset", type_=Integer))
    return replace(order, query=query.add_columns(func.count().over()) if counted else query)


def _conditions(filters: Iterable[str]) -> list[ColumnElement[bool]]:
    """The public rows of the board ``board`` that pass some filters, without baselines."""
    rows = [Entry.board_id == bindparam("board"), Entry.state.in_(PUBLIC_STATES), ~Entry.baseline]
    return [*rows, *(_FILTERS[name] for name in sorted(filters) if name in _FILTERS)]


def _count(session: Session, arguments: Mapping[str, object]) -> int:
    return session.scalar(select(func.count()).select_from(Entry).where(*_conditions(arguments)), arguments) or 0


_orders = OncePerRevision[list[str]](limit=32)


def _numbered_page(
    session: Session, board: Board, view: View, arguments: Mapping[str, object], size: int | None
) -> tuple[list[str], int]:
    """Ids on a page given by its number, and the number of rows on all pages.

    The order of all rows is read once, because a sort of a large board costs more than the rest of a page.
    """

    def read() -> list[str]:
        query = _listing(view.sort, frozenset(arguments), limited=False, counted=False).query
        return list(session.scalars(query.with_only_columns(Entry.id), arguments))

    ids = _orders.get(session, board, (view.sort, *sorted(arguments.items())), read)
    if size is None:
        return ids, len(ids)
    last = max(1, -(-len(ids) // size))
    if view.page > last:
        link = Link(f"page {last}", view.link(page=last))
        raise Problem(404, f"There is no page {view.page}: the last is page {last}.", links=[link])
    return ids[(view.page - 1) * size : view.page * size], len(ids)


def _cursor_page(
    session: Session,
    view: View,
    arguments: Mapping[str, object],
    size: int | None,
    cursor: str,
    total: int | None,
) -> tuple[list[str], int, str | None]:
    """Ids after a cursor, the number of rows on all pages, and the cursor of the next page."""
    order = _listing(view.sort, frozenset(arguments), limited=True, counted=total is None)
    query = order.query
    if cursor:
        query = query.where(order.after(cursor))
        total = _count(session, arguments) if total is None else total
    rows = session.execute(query, {**arguments, "size": (size or 0) + 1, "offset": 0}).all()
    if total is None:
        total = rows[0][-1] if rows else 0
    more = size is not None and len(rows) > size
    next_cursor = order.cursor(rows[size - 1][:4]) if more and size is not None else None
    return [row[0] for row in rows[:size]], total, next_cursor


def _entries(session: Session, ids: list[str]) -> list[tuple[Entry, Placing | None]]:
    """The rows of a page. Ids are sorted before, because a sort of complete rows takes five times as long."""
    rows: dict[str, tuple[Entry, Placing | None]] = {}
    for first in range(0, len(ids), 500):
        found = session.execute(_PLACED, {"ids": ids[first : first + 500]})
        rows |= {entry.id: (entry, placing) for entry, placing in found}
    return [rows[entry_id] for entry_id in ids]


class Overview(NamedTuple):
    """What a board has, whatever a view filters; without the baselines."""

    counts: dict[str, int]
    """Status -> number of public rows."""
    families: list[str]
    """Families of the methods."""
    verdicts: dict[tuple[str, str], int]
    """Verdict, with its caveat -> number of ranked rows: verified and reference ones."""


_overviews = OncePerRevision[Overview](limit=1_000)


def overview(session: Session, board: Board) -> Overview:
    """Statuses, families and verdicts of the public rows of a board; counted once per revision of the board."""
    return _overviews.get(session, board, "", lambda: _count_overview(session, board))


def _count_overview(session: Session, board: Board) -> Overview:
    query = (
        select(Entry.status, Entry.family, func.count())
        .where(Entry.board_id == board.id, Entry.state.in_(PUBLIC_STATES), ~Entry.baseline)
        .group_by(Entry.status, Entry.family)
        .order_by(Entry.family)
    )
    counts: Counter[str] = Counter()
    families: dict[str, None] = {}
    for status, family, number in session.execute(query):
        counts[str(status)] += number
        families[family] = None
    ranked = (
        select(Entry.verdict, Entry.forgotten_low, Entry.flags)
        .join(Placing, (Placing.entry_id == Entry.id) & (Placing.scope == "ranked"))
        .where(Placing.board_id == board.id, Entry.verdict.is_not(None))
    )
    verdicts = Counter(
        (str(verdict), caveat(verdict, low, flags or ())) for verdict, low, flags in session.execute(ranked)
    )
    return Overview(dict(counts), list(families), dict(verdicts))


def _filters(view: View, columns: list[Column]) -> dict[str, object]:
    """The filters of a view: name of a parameter of its query -> value."""
    filters: dict[str, object] = {}
    if view.tier != "all":
        filters[view.tier] = "claimed"
    if view.q:
        escaped = re.sub("[/%_]", r"/\g<0>", view.q.casefold().replace("\0", ""))
        filters["q"] = escaped
    if view.family:
        filters["family"] = view.family.replace("\0", "")
    if view.retain:
        filters["retain"] = view.retain == "yes"
    if view.budget:
        filters["budget"] = int(view.budget)
    if view.complete and columns:
        filters |= {"complete": tuple(column.name for column in columns), "columns": len(columns)}
    return filters


def _check_sort(columns: list[Column], view: View) -> None:
    known = {*FIXED_KEYS, *(column.name for column in columns)}
    if view.key not in known:
        message = f"Unknown column {view.key!r}. Available: {', '.join(sorted(known))}."
        raise Problem(422, "The board cannot be sorted by that.", [FieldError(field="sort", message=message)])


def _cells(session: Session, entries: Sequence[Entry], columns: list[Column]) -> dict[str, dict[str, Cell]]:
    if not entries or not columns:
        return {}
    cells: dict[str, dict[str, Cell]] = {}
    names = [column.name for column in columns]
    for start in range(0, len(entries), 500):
        arguments = {"ids": [entry.id for entry in entries[start : start + 500]], "names": names}
        for entry_id, metric, value, low, high, z, note in session.execute(_VALUES, arguments):
            cells.setdefault(entry_id, {})[metric] = Cell(value, low, high, z, note)
    return cells


@dataclass(frozen=True)
class Outcome:
    """What a scorecard says of the distance and of recalibration; the column ``entries.outcome`` holds its fields."""

    decided_by: str = ""
    """The metric that sets the distance."""
    tested: bool = False
    """Whether the models were recalibrated."""
    recoverable: bool = False
    """Whether recalibration brings back what was forgotten."""
    recovered: float | None = None
    """Share of the way to retraining that recalibration undoes."""
    reason: str = ""
    """Why it was not tested."""
    p: float | None = None
    """Two-sided p that anything had been forgotten."""


def outcome_of(card: Scorecard) -> Outcome:
    """The outcome that a scorecard states."""
    kept = card.recalibration
    return Outcome(
        decided_by=(card.distance.metric or "") if card.distance else "",
        tested=kept.recoverable is not None,
        recoverable=bool(kept.recoverable),
        recovered=kept.recovered.value,
        reason=kept.reason,
        p=kept.p,
    )
