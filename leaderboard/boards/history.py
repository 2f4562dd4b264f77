"""History of boards: places as of a date, the best distance over time, and a log of changes.

Only what is public now is named. An entry that is no longer public keeps its place in the past, without its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from forgetbench.leaderboard.boards.queries import boards_of_task, row_columns
from forgetbench.leaderboard.db.models import Board, Entry, Event, PastPlacing, Placing
from forgetbench.leaderboard.db.states import PUBLIC_STATES
from forgetbench.leaderboard.errors import Link, Problem
from forgetbench.reporting.figures.style import Spec, Theme, category, finish, layer, quantity

PAGE = 100
"""Changes on one page of the log."""
SIZE = (560, 170)
"""Width and height of the chart, in pixels."""
_TAKEN_DOWN = {"withdrawn": "An entry was withdrawn", "quarantined": "An entry was taken off for review"}
"""State -> what the log says of an entry that is no longer public."""


@dataclass(frozen=True)
class PastRow:
    """The place of an entry on a day."""

    place: PastPlacing
    entry: Entry | None
    """The entry; None if it is no longer public."""
    now: Placing | None
    """Its present place in the same ranking; None if it has none."""


@dataclass(frozen=True)
class PastBoard:
    """A board at the end of a day (UTC)."""

    board: Board
    day: date
    ranked: list[PastRow]
    claimed: list[PastRow]
    own_originals: list[PastRow]

    @property
    def rows(self) -> list[PastRow]:
        """All rows, ranking after ranking."""
        return [*self.ranked, *self.claimed, *self.own_originals]


class Step(NamedTuple):
    """From a day on, the best distance of a board's ranked rows."""

    day: date
    distance: float | None
    """None from the day on which no row was ranked."""
    label: str
    """Name of the row; "" if it is no longer public."""
    entry_id: str
    """Its id; empty if it is no longer public."""


class Change(NamedTuple):
    """A line of the log."""

    at: datetime
    task: str
    what: str
    """What happened, in words."""
    entry: Entry | None
    """The entry; None if it is no longer public."""
    reason: str


class Log(NamedTuple):
    """One page of the log, the newest first."""

    changes: list[Change]
    page: int
    more: bool
    """Whether there is a next page."""


def board_on(session: Session, task: str, day: date) -> Board:
    """The board of a task that was open at the end of a day.

    Raises:
        Problem: 404, the task had no board on that day, or the day is in the future.
    """
    boards = boards_of_task(session, task.replace("\0", ""))
    if not boards:
        raise Problem(404, f"There is no board {task!r} on this server.")
    if day > datetime.now(UTC).date():
        raise Problem(404, f"{day} is in the future.", links=[Link("the board as it is now", f"/boards/{task}")])
    end = datetime.combine(day, time.max, UTC)
    for board in sorted(boards, key=lambda board: board.installed_at, reverse=True):
        if board.installed_at <= end:
            return board
    first = min(board.installed_at for board in boards).date()
    link = Link(f"the board on {first}", f"/boards/{task}?as-of={first}")
    raise Problem(404, f"The board {task!r} did not exist on {day}; its first day is {first}.", links=[link])


def past_board(session: Session, board: Board, day: date) -> PastBoard:
    """The places of a board at the end of a day."""
    last = (
        select(PastPlacing.entry_id, func.max(PastPlacing.day).label("day"))
        .where(PastPlacing.board_id == board.id, PastPlacing.day <= day)
        .group_by(PastPlacing.entry_id)
        .subquery()
    )
    query = (
        select(PastPlacing, Entry, Placing)
        .join(last, (PastPlacing.entry_id == last.c.entry_id) & (PastPlacing.day == last.c.day))
        .join(Entry, Entry.id == PastPlacing.entry_id)
        .outerjoin(Placing, (Placing.entry_id == PastPlacing.entry_id) & (Placing.scope == PastPlacing.scope))
        .where(PastPlacing.position.is_not(None))
        .order_by(PastPlacing.position, PastPlacing.entry_id)
        .options(row_columns())
    )
    rows: dict[str, list[PastRow]] = {}
    for place, entry, now in session.execute(query):
        shown = entry if entry.state in PUBLIC_STATES else None
        rows.setdefault(place.scope, []).append(PastRow(place, shown, now))
    return PastBoard(board, day, rows.get("ranked", []), rows.get("claimed", []), rows.get("own originals", []))


def days_of_change(session: Session, board: Board) -> list[date]:
    """The days on which places of a board changed, the newest first."""
    query = select(PastPlacing.day).where(PastPlacing.board_id == board.id).distinct().order_by(PastPlacing.day.desc())
    return list(session.scalars(query))


def best_over_time(session: Session, board: Board) -> list[Step]:
    """The best distance among a board's verified and reference rows, whenever it changed; the oldest first."""
    ranked = (PastPlacing.board_id == board.id, PastPlacing.scope == "ranked")
    leaders = select(PastPlacing.entry_id).where(*ranked, PastPlacing.position == 1)
    query = (
        select(PastPlacing.day, PastPlacing.entry_id, PastPlacing.position, PastPlacing.distance)
        .where(*ranked, PastPlacing.entry_id.in_(leaders))
        .order_by(PastPlacing.day)
    )
    names = select(Entry.id, Entry.label).where(Entry.id.in_(leaders), Entry.state.in_(PUBLIC_STATES))
    labels = {row[0]: row[1] for row in session.execute(names)}
    places: dict[str, tuple[int | None, float | None]] = {}
    steps: list[Step] = []
    by_day: dict[date, list[tuple[str, int | None, float | None]]] = {}
    for day, entry_id, position, distance in session.execute(query):
        by_day.setdefault(day, []).append((entry_id, position, distance))
    for day, changed in by_day.items():
        places |= {entry_id: (position, distance) for entry_id, position, distance in changed}
        first = next((entry_id for entry_id, (position, _) in places.items() if position == 1), None)
        distance = places[first][1] if first is not None else None
        label, shown_id = (labels[first], first) if first in labels else ("", "")
        step = Step(day, distance, label, shown_id)
        if not steps or steps[-1][1:] != step[1:]:
            steps.append(step)
    return steps


def chart(steps: Sequence[Step], last: date, limit: float | None, nothing: float | None, theme: Theme) -> Spec | None:
    """The best distance over time as a line of steps, with the limit of retraining and the line of doing nothing.

    Args:
        steps: `best_over_time`.
        last: Last day of the axis.
        limit: Below this, rows are indistinguishable from retraining.
        nothing: Distance of No unlearning.
        theme: Colors.
    """
    known = [step for step in steps if step.distance is not None]
    if not known:
        return None
    first, end = known[0].day, max(last, known[-1].day, known[0].day + timedelta(days=1))
    points = [{"day": step.day.isoformat(), "distance": round(step.distance or 0.0, 4)} for step in known]
    ended = steps[-1].day if steps[-1].distance is None else end
    line = [*points, {**points[-1], "day": ended.isoformat()}]
    top = 1.1 * max([*(step.distance or 0.0 for step in known), nothing or 0.0, 2 * (limit or 0.0)])
    span = [{"year": day.year, "month": day.month, "date": day.day} for day in (first, end)]
    x = {
        "field": "day",
        "type": "temporal",
        "title": None,
        "scale": {"domain": span},
        "axis": {"format": "%Y-%m-%d", "grid": False, "labelOverlap": True, "tickCount": 5},
    }
    y = quantity("distance", title="best distance, oracle sd", scale={"domain": [0, top], "nice": False})
    layers = []
    if limit is not None:
        band = {"y": quantity("low"), "y2": {"field": "high"}}
        layers.append(layer([{"low": 0, "high": limit}], "rect", band, color=theme.oracle, opacity=0.14))
    if nothing is not None:
        level = {"y": quantity("distance")}
        style = {"color": theme.original, "strokeDash": [4, 3]}
        layers.append(layer([{"distance": nothing}], "rule", level, **style))
        name = {**level, "text": category("name"), "x": {"value": 4}}
        layers.append(
            layer(
                [{"distance": nothing, "name": "doing nothing"}],
                "text",
                name,
                align="left",
                dy=-6,
                color=theme.original,
            )
        )
    layers.append(layer(line, "line", {"x": x, "y": y}, color=theme.ranked, interpolate="step-after", strokeWidth=2))
    layers.append(layer(points, "circle", {"x": x, "y": y}, color=theme.ranked, opacity=1, size=36))
    return finish({"height": SIZE[1], "layer": layers, "width": SIZE[0]}, theme, 11)


def chart_text(steps: Sequence[Step], task: str) -> str:
    """The chart in one sentence."""
    known = [step for step in steps if step.distance is not None]
    first, last = known[0], known[-1]
    return (
        f"Best distance among the ranked rows of {task}: {first.distance:.2f} on {first.day}, "
        f"{last.distance:.2f} since {last.day}; {len(steps)} changes"
    )


def log(session: Session, page: int, board_ids: Sequence[int] | None = None) -> Log:
    """What happened to entries that are or were public, the newest first.

    Args:
        session: Where to read.
        page: Number of the page, from 1.
        board_ids: Boards; None for all.

    Raises:
        Problem: 404, there is no such page.
    """
    query = (
        select(Event, Entry, Board.task)
        .join(Entry, Entry.id == Event.entry_id)
        .join(Board, Board.id == Entry.board_id)
        .where(~Entry.baseline, Entry.listed_at.is_not(None))
        .where((Event.after == "listed") | (Event.at >= Entry.listed_at))
        .order_by(Event.id.desc())
        .options(row_columns())
        .limit(PAGE + 1)
        .offset((page - 1) * PAGE)
    )
    if board_ids is not None:
        query = query.where(Entry.board_id.in_(board_ids))
    rows = session.execute(query).all()
    if page > 1 and not rows:
        raise Problem(404, f"There is no page {page} of changes.", links=[Link("the newest changes", "?page=1")])
    changes = [_change(event, entry, task) for event, entry, task in rows[:PAGE]]
    return Log(changes, page, len(rows) > PAGE)


def _change(event: Event, entry: Entry, task: str) -> Change:
    public = entry.state in PUBLIC_STATES
    if not public:
        what = _TAKEN_DOWN.get(event.after, "An entry was erased" if event.after == "purged" else "An entry changed")
        return Change(event.at, task, what, None, event.reason if event.after == "purged" else "")
    what = f"became {event.after}" if event.before is not None else "was noted"
    if event.after == "listed" and event.before in {"scoring", "accepted"}:
        what = f"was listed as {entry.tier}"
    return Change(event.at, task, what, entry, event.reason)
