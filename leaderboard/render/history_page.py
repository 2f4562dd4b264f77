"""Pages of the past: variables of their templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple, TypedDict

from markupsafe import Markup
from sqlalchemy.orm import Session

from forgetbench.leaderboard.boards import history, queries
from forgetbench.leaderboard.boards.history import PastBoard, PastRow
from forgetbench.leaderboard.db.models import Board, utc_now
from forgetbench.leaderboard.render.formatting import place_text
from forgetbench.leaderboard.render.rows import NO_UNLEARNING, Interval, ShownRow, axis_of, row_of
from forgetbench.leaderboard.render.vega import inline_svg
from forgetbench.reporting.figures.style import PAGE
from forgetbench.reporting.table_writer import Table

REMOVED = "no longer public"
"""Name of a row that was public on that day."""


class PastLine(NamedTuple):
    """A row of a board in the past."""

    row: ShownRow
    """The row as it was; `REMOVED` as its label if its entry is no longer public."""
    now: str
    """Its present place; "" without one."""


@dataclass
class _Ranks:
    """The ranks of a row that had a place."""

    scope: str
    low: int
    high: int


class BoardHistory(NamedTuple):
    """What the overview of all boards says of one."""

    board: Board
    steps: Sequence[history.Step]


class HistoryPage(TypedDict):
    """Variables of the template of the history of all boards."""

    board: None
    lines: Sequence[BoardHistory]
    log: history.Log


class BoardHistoryPage(TypedDict):
    """Variables of the template of one board's history."""

    board: Board
    steps: Sequence[history.Step]
    chart: Markup
    """Empty where no row has had a place."""
    days: Sequence[date]
    """Days on which places changed, the newest first."""
    versions: Sequence[Board]
    log: history.Log


def as_of_context(session: Session, past: PastBoard) -> dict[str, object]:
    """Variables of the template of a board as of a date."""
    board = past.board
    references = [row_of(row) for row in queries.reference_rows(session, board, [])]
    groups = {
        "Verified and reference rows": [_line(row) for row in past.ranked],
        "Claimed rows, with places among themselves only": [_line(row) for row in past.claimed],
        "Methods with own originals": [_line(row) for row in past.own_originals],
    }
    rows = [line.row for lines in groups.values() for line in lines]
    return {
        "board": board,
        "past": past,
        "references": references,
        "groups": {title: lines for title, lines in groups.items() if lines},
        "axis": axis_of([*references, *rows], (board.summary or {}).get("family_limit")),
        "days": history.days_of_change(session, board),
    }


def _line(item: PastRow) -> PastLine:
    place, entry = item.place, item.entry
    tier = "claimed" if place.scope == "claimed" else entry.tier if entry is not None else "verified"
    row = ShownRow(
        label=entry.label if entry is not None else REMOVED,
        method=entry.method if entry is not None else "",
        tier=tier,
        id=entry.id if entry is not None else "",
        place=place_text(_Ranks(place.scope, place.low or 0, place.high or 0)),
        scope=place.scope,
        verdict=place.verdict,
        distance=Interval.of(place.distance, None, None),
    )
    return PastLine(row, place_text(item.now) if item.now is not None else "")


def as_of_tables(past: PastBoard) -> list[Table]:
    """A board as of a date as a table."""
    rows = [
        [
            *(row.place.scope, row.place.low, row.place.high),
            *((row.entry.id, row.entry.tier, row.entry.label) if row.entry is not None else ("", "", REMOVED)),
            *(row.place.distance, row.place.verdict),
            *((row.now.low, row.now.high) if row.now is not None else (None, None)),
        ]
        for row in past.rows
    ]
    head = ("ranking", "rank_low", "rank_high", "id", "tier", "entry", "distance [oracle sd]", "verdict")
    return [Table.of(f"{past.board.task} on {past.day}", (*head, "rank_low_now", "rank_high_now"), rows)]


def history_context(session: Session, page: int) -> HistoryPage:
    """Variables of the template of the history of all boards."""
    boards = queries.all_boards(session)
    lines = [BoardHistory(board, history.best_over_time(session, board)) for board in boards]
    return {"board": None, "lines": lines, "log": history.log(session, page)}


def board_history_context(session: Session, board: Board, page: int) -> BoardHistoryPage:
    """Variables of the template of one board's history."""
    steps = history.best_over_time(session, board)
    specification = history.chart(steps, last_day(board), *levels(session, board), PAGE)
    text = history.chart_text(steps, board.task) if specification is not None else ""
    return {
        "board": board,
        "steps": steps,
        "chart": inline_svg(specification, text) if specification is not None else Markup(),
        "days": history.days_of_change(session, board),
        "versions": [other for other in queries.boards_of_task(session, board.task) if other.id != board.id],
        "log": history.log(session, page, [board.id]),
    }


def levels(session: Session, board: Board) -> tuple[float | None, float | None]:
    """The limit of retraining on a board, and its distance of No unlearning."""
    rows = queries.reference_rows(session, board, [])
    nothing = next((row.entry.distance for row in rows if row.entry.label == NO_UNLEARNING), None)
    return (board.summary or {}).get("family_limit"), nothing


def last_day(board: Board) -> date:
    """The last day of a board: today, or that on which it was superseded."""
    return (board.superseded_at or utc_now()).date()


def log_tables(log: history.Log) -> list[Table]:
    """A page of the log as a table."""
    rows = [
        [change.at, change.task, change.entry.id if change.entry is not None else "", change.what, change.reason]
        for change in log.changes
    ]
    return [Table.of("Changes", ("at", "task", "id", "change", "reason"), rows)]


def steps_table(steps: Sequence[history.Step]) -> Table:
    """The best distance of a board over time as a table."""
    rows = [[step.day.isoformat(), step.distance, step.entry_id, step.label] for step in steps]
    return Table.of("Best distance among ranked rows", ("day", "distance [oracle sd]", "id", "entry"), rows)
