"""The front page's matrix of methods by tasks, of this server's boards or of the results that ship with the package."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple
from urllib.parse import quote

from forgetbench.leaderboard.boards.matrix import BoardRows, MatrixView, parts_of
from forgetbench.leaderboard.render.rows import NO_UNLEARNING, ShownRow, count_of, row_of, shipped_row
from forgetbench.reproduction.reference_file import ReferenceBoard
from forgetbench.scoring.vocabulary import NEARER, Verdict

MAX_COLUMNS = 8
"""Tasks next to each other in a window of 1,280 pixels; more are shown in several parts."""
MOST_NAMED = 3
"""Successes that a headline names."""


class Column(NamedTuple):
    """A task of the matrix."""

    task: str
    title: str
    track: str
    url: str
    """Address of its board."""
    limit: float | None
    note: str
    """Why its rows have no place, or ""."""
    retrain: ShownRow | None
    nothing: ShownRow | None
    rows: Mapping[str, ShownRow]
    """Method -> its row."""
    ranked: int
    """Number of ranked methods."""


class Line(NamedTuple):
    """A method of the matrix."""

    method: str
    cells: Sequence[ShownRow | None]
    """One per task; None where it was not run."""
    reaches: int
    """Tasks on which it reaches retraining."""
    nearer: int
    """Tasks on which it is nearer to retraining than doing nothing, and what it forgot stays forgotten."""
    judged: int
    """Tasks on which it has a verdict."""
    ran: int
    """Tasks on which it was run."""
    place: float | None
    """Median of the middles of its rank intervals; None where a task is missing."""


class Matrix(NamedTuple):
    """Methods by tasks."""

    columns: Sequence[Column]
    lines: Sequence[Line]
    headline: str
    """What the methods achieve, in words."""
    cells: int
    """Cells with a result."""

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """First and last column, exclusive, of each part of the matrix that fits a window; parts of equal size."""
        parts = max(1, math.ceil(len(self.columns) / MAX_COLUMNS))
        size = math.ceil(len(self.columns) / parts)
        return [
            (first, min(first + size, len(self.columns))) for first in range(0, max(len(self.columns), 1), max(size, 1))
        ]

    @property
    def has_results(self) -> bool:
        """Whether any method has a result."""
        return bool(self.lines)


def server_matrix(boards: Iterable[BoardRows], view: MatrixView) -> Matrix:
    """The matrix of this server's boards."""
    columns = []
    for item in boards:
        board, summary = item.board, item.board.summary or {}
        references = {row.label: row for row in (row_of(row) for row in item.references)}
        rows = {row.entry.method: row_of(row) for row in item.rows}
        note = summary.get("informational", "") if summary else "The reference rows are being scored."
        columns.append(
            _column(
                board.task,
                board.title,
                board.track,
                f"/boards/{quote(board.task)}",
                summary.get("family_limit"),
                note,
                references,
                rows,
            )
        )
    return _matrix(columns, view)


def shipped_matrix(boards: Iterable[ReferenceBoard], view: MatrixView) -> Matrix:
    """The matrix of the results that ship with the package."""
    columns = []
    for board in boards:
        if not view.shows(board.task, board.track):
            continue
        shown = [shipped_row(row, baseline=place < board.references) for place, row in enumerate(board.rows)]
        rows: dict[str, ShownRow] = {}
        for row in sorted(shown[board.references :], key=lambda row: (not row.place, row.distance is None)):
            tuned = bool(row.place) or (row.trials or 1) > 1
            fits = {"best": True, "tuned": tuned, "defaults": row.label == row.method}[view.variant]
            dear = bool(view.budget) and (row.cost is None or row.cost * 100 > int(view.budget))
            if fits and not dear:
                rows.setdefault(row.method, row)
        references = {row.label: row for row in shown[: board.references]}
        url = f"/shipped/{quote(board.task)}"
        columns.append(
            _column(
                board.task, board.title, board.track, url, board.family_limit, board.unranked_reason, references, rows
            )
        )
    return _matrix(columns, view)


def _column(
    task: str,
    title: str,
    track: str,
    url: str,
    limit: float | None,
    note: str,
    references: Mapping[str, ShownRow],
    rows: Mapping[str, ShownRow],
) -> Column:
    ranked = sum(bool(row.place) for row in rows.values())
    nothing = references.get(NO_UNLEARNING)
    return Column(task, title, track, url, limit, note, references.get("Retrain"), nothing, rows, ranked)


def _matrix(columns: Sequence[Column], view: MatrixView) -> Matrix:
    names = sorted({name for column in columns for name in column.rows})
    lines = [_line(name, columns) for name in names]
    tasks = [column.task for column in columns]
    if view.sort in tasks:
        index = tasks.index(view.sort)
        lines.sort(key=lambda line: _order_of(line.cells[index]))
    elif view.sort != "method":
        lines.sort(key=lambda line: (line.place is None, line.place or 0.0, -line.nearer, -line.ran))
    cells = sum(cell is not None and cell.distance is not None for line in lines for cell in line.cells)
    judged = sum(any(row.verdict for row in column.rows.values()) for column in columns)
    return Matrix(columns, lines, headline(lines, judged, tasks), cells)


def _line(method: str, columns: Sequence[Column]) -> Line:
    cells = [column.rows.get(method) for column in columns]
    verdicts = [cell.verdict for cell in cells if cell is not None and cell.verdict]
    places = [place for cell in cells if (place := middle(cell)) is not None]
    complete = bool(cells) and len(places) == len(cells)
    return Line(
        method=method,
        cells=cells,
        reaches=sum(verdict == Verdict.REACHES_RETRAINING for verdict in verdicts),
        nearer=sum(cell is not None and cell.verdict in NEARER and not cell.caveat for cell in cells),
        judged=len(verdicts),
        ran=sum(cell is not None for cell in cells),
        place=median(places) if complete else None,
    )


def middle(row: ShownRow | None) -> float | None:
    """The middle of a rank interval; None for a row without one."""
    if row is None or row.scope not in {"ranked", "claimed"}:
        return None
    low, _, high = row.place.lstrip("CO").partition("–")
    return (int(low) + int(high or low)) / 2


def _order_of(row: ShownRow | None) -> tuple[bool, bool, float, bool, float]:
    """Ranked rows by place, then claimed ones, then others by distance, then what was not run."""
    place = middle(row)
    distance = row.distance.value if row is not None and row.distance else 0.0
    return (
        row is None or row.distance is None,
        place is None,
        place or distance,
        row is not None and row.tier == "claimed",
        distance,
    )


def headline(lines: Sequence[Line], tasks: int, names: Sequence[str]) -> str:
    """What the methods achieve, in words; "" where no method has a verdict. What is only claimed does not count.

    Args:
        lines: The methods.
        tasks: Number of tasks with verdicts.
        names: The task of each cell.
    """
    judged = [
        (line.method, name, cell.verdict)
        for line in lines
        for name, cell in zip(names, line.cells, strict=True)
        if cell is not None and cell.verdict and cell.tier != "claimed"
    ]
    if not judged:
        return ""
    counts = Counter(method for method, _, _ in judged)
    reached = [(method, name) for method, name, verdict in judged if verdict == Verdict.REACHES_RETRAINING]
    reach = len({method for method, _ in reached})
    everywhere = [line for line in lines if counts[line.method] == line.nearer == tasks]
    boards, every = "this board", "it"
    if tasks > 1:
        boards = f"{'at least one' if reach else 'any'} of the {tasks} boards"
        every = "both" if tasks == 2 else f"all {tasks}"
    first = f"{count_of(reach, len(counts))} methods {'reaches' if reach <= 1 else 'reach'} retraining on {boards}."
    where = [f"{method} on {name}" for method, name in reached]
    if 0 < len(where) <= MOST_NAMED:
        first = f"{first[:-1]}: {', '.join(where)}."
    verb = "is" if len(everywhere) <= 1 else "are"
    return f"{first} {len(everywhere) or 'None'} {verb} nearer to it than doing nothing on {every}."


def choices(tasks: Iterable[str]) -> tuple[list[str], list[str]]:
    """Image sets and networks of tasks, sorted."""
    parts = [parts_of(task) for task in tasks]
    return sorted({images for images, _ in parts}), sorted({network for _, network in parts if network})
