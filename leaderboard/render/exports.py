"""Views as files: the tables of a page, with the numbers behind them in full precision."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from forgetbench.evidence.reference import ReferenceManifest
from forgetbench.leaderboard.boards.compare import Comparison
from forgetbench.leaderboard.boards.directory import Attempts, MethodLine, Placed
from forgetbench.leaderboard.boards.entries import EntryDetail
from forgetbench.leaderboard.boards.queries import Column, Page, Row
from forgetbench.leaderboard.db.models import Board, Entry, Placing
from forgetbench.leaderboard.render import formatting, serializers
from forgetbench.leaderboard.render.matrix import Matrix
from forgetbench.reporting.table_writer import Record, Table, plain_records, to_csv, to_latex, to_markdown
from forgetbench.store import JsonObject

if TYPE_CHECKING:
    from forgetbench.leaderboard.render.significance_page import WinRate
    from forgetbench.reproduction.reference_file import ReferenceBoard

MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "md": "text/markdown; charset=utf-8",
    "tex": "application/x-tex; charset=utf-8",
}
"""Ending of a file -> media type."""
_RANK = ("ranking", "rank_low", "rank_high")
"""Which ranking an entry is part of, since claimed rows have places among themselves only, and its ranks there."""
_DISTANCE = ("distance [oracle sd]", "distance_low", "distance_high")
_EFFECTS = ("verdict", "forgotten [share]", "forgotten_low", "forgotten_high", "harm [share]", "harm_low", "harm_high")
_COST = "cost [share of retraining's FLOPs]"
_SPEC = ("name", "title", "group", "unit", "direction", "requires", "meaning", "misses", "misuse", "formula", "source")


def board_url(board: Board, base: str) -> str:
    """Address of a board on the server."""
    return f"{base}/boards/{board.task}" + (f"?pack={board.pack_sha256[:12]}" if board.superseded_at else "")


def _board_json(page: Page, base: str) -> str:
    """The board's document, as the API gives it."""
    document = serializers.board(page).model_dump(mode="json")
    return json.dumps({**document, "url": board_url(page.board, base)}, indent=1)


BOARD_WRITERS: dict[str, Callable[[Page, str], str]] = {
    "csv": lambda page, base: to_csv([board(page, base)]),
    "json": _board_json,
    "md": lambda page, base: to_markdown([board(page, base)]),
    "tex": lambda page, base: to_latex([board(page, base)]),
}
"""Ending of a file -> writer of a board's view."""


class View(NamedTuple):
    """A view with its tables."""

    title: str
    url: str
    tables: Sequence[Table]


def _view_json(view: View) -> str:
    """Each table as a list of objects."""
    tables = {table.title: plain_records(table) for table in view.tables}
    return json.dumps({"title": view.title, "url": view.url, "tables": tables}, indent=1)


VIEW_WRITERS: dict[str, Callable[[View], str]] = {"csv": lambda view: to_csv(view.tables), "json": _view_json}
"""Ending of a file -> writer of any other view."""


def board(page: Page, base: str) -> Table:
    """The rows and columns of a board's view."""
    board = page.board
    caption = (
        f"Protocol {board.protocol}, {board.seeds} seeds, values ± half of the 95 % interval: {board_url(board, base)}"
    )
    units = [f", {column.shown_unit}" if column.shown_unit else "" for column in page.columns]
    titles = [f"{column.title}{unit}" for column, unit in zip(page.columns, units, strict=True)]
    return Table(
        title=f"{board.task}: {board.title}",
        header=("Rank", "Tier", "Method", "Distance", "Verdict", "Forgotten, %", "Harm, points", *titles, "Cost"),
        rows=tuple(_shown(row, page.columns) for row in _rows(page)),
        notes=(caption,),
        records=tuple(_record(row, page.columns, base) for row in _rows(page)),
        links=tuple(f"{base}/entries/{row.entry.id}" for row in _rows(page)),
    )


def _rows(page: Page) -> Iterator[Row]:
    yield from page.references
    yield from page.rows


def _shown(row: Row, columns: Sequence[Column]) -> tuple[str, ...]:
    """The cells of a row as its page shows them."""
    entry, placing = row.entry, row.placing
    rank = formatting.place_text(placing) if placing else "ref" if entry.baseline else "–"
    distance = formatting.estimate(entry.distance, entry.distance_low, entry.distance_high)
    cells = (formatting.cell_text(row.cells.get(column.name), column) for column in columns)
    forgotten = formatting.estimate(entry.forgotten, entry.forgotten_low, entry.forgotten_high, 100)
    harm = formatting.estimate(entry.harm, entry.harm_low, entry.harm_high, 100)
    verdict = entry.verdict or formatting.MISSING
    effects = (distance, verdict, forgotten, harm)
    return (rank, entry.tier, entry.label, *effects, *cells, formatting.percent(entry.cost))


def _record(row: Row, columns: Sequence[Column], base: str) -> Record:
    """A row in full precision: every metric as value, ends of its interval, and z; units in the names."""
    entry, metrics = row.entry, dict[str, object]()
    for column in columns:
        cell = row.cells.get(column.name)
        unit = f" [{column.unit}]" if column.unit else ""
        values = (cell.value, cell.low, cell.high, cell.z) if cell else (None,) * 4
        names = (f"{column.name}{unit}", *(f"{column.name}_{part}" for part in ("low", "high", "z")))
        metrics |= dict(zip(names, values, strict=True))
    return {
        "id": entry.id,
        **dict(zip(_RANK, _ranks(row.placing), strict=True)),
        "tier": entry.tier,
        "method": entry.method,
        "label": entry.label,
        **dict(zip(_DISTANCE, _distance(entry), strict=True)),
        **dict(zip(_EFFECTS, _effects(entry), strict=True)),
        **metrics,
        _COST: entry.cost,
        "flags": " ".join(entry.flags or []),
        "status": entry.status or "",
        "reasons": "; ".join(entry.reasons or []),
        "reproductions": entry.reproductions,
        "submitter": entry.submitter,
        "received": entry.received_at,
        "url": f"{base}/entries/{entry.id}",
    }


def overview(boards: Iterable[Board], counts: Mapping[int, int], *matrices: Matrix | None) -> list[Table]:
    """Boards, and the cells of the matrices: those of this server's boards, then those that ship with the package."""
    facts = [
        [
            board.task,
            board.title,
            board.track,
            board.scenario,
            counts.get(board.id, 0),
            (board.summary or {}).get("informational", ""),
        ]
        for board in boards
    ]
    cells = [
        [
            *(column.task, line.method, row.tier, row.id, row.label, row.scope, row.place),
            *(*(row.distance or none), row.verdict, *(row.forgotten or none), *(row.harm or none), row.cost),
        ]
        for matrix in matrices
        if matrix is not None
        for line in matrix.lines
        for column, row in zip(matrix.columns, line.cells, strict=True)
        if row is not None
        for none in [(None,) * 3]
    ]
    head = ("task", "method", "tier", "id", "entry", "ranking", "rank interval", *_DISTANCE, *_EFFECTS, _COST)
    return [
        Table.of("Boards", ("task", "title", "track", "scenario", "entries", "why no ranks"), facts),
        Table.of("Methods by tasks", head, cells),
    ]


def win_rates(rates: Iterable[WinRate]) -> list[Table]:
    """Win rates across tasks."""
    rows = [[item.method, *item.rate, item.tasks] for item in rates]
    return [Table.of("Win rates", ("method", "win rate [share]", "low", "high", "tasks"), rows)]


def methods(lines: Iterable[MethodLine]) -> list[Table]:
    """All methods."""
    rows = [[line.name, line.family, line.entries, line.boards, line.newest] for line in lines]
    return [Table.of("Methods", ("method", "family", "entries", "boards", "newest"), rows)]


def placed(entries: Iterable[Placed]) -> Table:
    """Entries on several boards."""
    rows = [
        [
            *(entry.board.task, entry.board.superseded_at is not None, entry.id, entry.tier, entry.label),
            *(*_ranks(placing), *_distance(entry), *_effects(entry)),
            *(entry.cost, entry.flags or [], entry.submitter, entry.received_at),
        ]
        for entry, placing in ((item.entry, item.placing) for item in entries)
    ]
    head = ("task", "superseded", "id", "tier", "entry", *_RANK, *_DISTANCE, *_EFFECTS)
    return Table.of("Entries", (*head, _COST, "flags", "submitter", "received"), rows)


def shipped_tasks(tasks: Iterable[tuple[str, str]]) -> list[Table]:
    """The tasks whose results ship with the package, with their titles."""
    return [Table.of("Shipped results", ("task", "title"), [list(task) for task in tasks])]


def shipped(board: ReferenceBoard) -> list[Table]:
    """Results that ship with the package; their tier says so."""
    none = (None, None, None, None)
    rows = [
        [
            *(*(row.rank or (None, None)), "shipped", row.label),
            *((row.distance or none)[:3]),
            *(row.verdict, *(row.forgotten or none)[:3], *(row.harm or none)[:3]),
            *(row.cost.get("flops"), row.trials, list(row.flags), row.reason),
        ]
        for row in board.rows
    ]
    head = (*_RANK[1:], "tier", "entry", *_DISTANCE, *_EFFECTS, _COST, "trials", "flags", "reason")
    return [Table.of(f"Shipped results of {board.task}", head, rows)]


def attempts(lines: Iterable[Attempts]) -> Table:
    """A submitter's attempts by board and state."""
    rows = [[line.task, state, count] for line in lines for state, count in line.states.items()]
    return Table.of("Attempts", ("task", "state", "attempts"), rows)


def metrics(specs: dict[str, JsonObject]) -> list[Table]:
    """All metrics."""
    return [Table.of("Metrics", _SPEC, [[spec[name] for name in _SPEC] for spec in specs.values()])]


def metric(spec: JsonObject, columns: Iterable[tuple[Board, Column]]) -> list[Table]:
    """One metric, and its bands."""
    rows = [[board.task, *_band(column), column.ranks, column.role, column.why] for board, column in columns]
    head = ("task", "band_mean", "band_low", "band_high", "band_sd", "ranks", "role", "why not")
    return [*metrics({spec["name"]: spec}), Table.of("On the boards", head, rows)]


def task(board: Board, card: ReferenceManifest) -> list[Table]:
    """One task: its images, and its evaluation subsets."""
    facts: list[tuple[str, object]] = [*card.image_set.items(), ("classes", list(card.classes)), ("track", card.track)]
    facts += [("scenario", card.scenario), ("seeds", card.seeds), ("draws", card.draws), ("protocol", card.protocol)]
    facts += [("task key", card.task_key), ("pack", board.pack_sha256)]
    subsets = [
        [int(draw), name, card.counts[draw][name], sha]
        for draw, hashes in card.index_hashes.items()
        for name, sha in hashes.items()
    ]
    return [
        Table.of("Task", ("name", "value"), facts),
        Table.of("Evaluation subsets", ("forget set", "subset", "rows", "SHA-256 of the row indices"), subsets),
    ]


def entry(detail: EntryDetail, columns: Sequence[Column]) -> list[Table]:
    """One entry: its metrics, the values of its seeds, and its hyper-parameters."""
    values: JsonObject = detail.card["metrics"] if detail.card else {}
    known = [(column, values[column.name]) for column in columns if column.name in values]
    numbers = [
        [
            *(column.name, column.title, column.unit),
            *(value["value"], value["low"], value["high"], value["z"]),
            *(*_band(column), column.ranks, value["reason"] or column.why),
        ]
        for column, value in known
    ]
    head = ("metric", "title", "unit", "value", "low", "high", "z", "band_mean", "band_low", "band_high", "band_sd")
    seeds = [
        [column.name, column.unit, seed, number]
        for column, value in known
        for seed, number in enumerate(value["seeds"])
    ]
    parameters = list(detail.manifest.method.parameters.items())
    recovery = detail.recalibration
    changes = [[*change, recovery.recoverable, recovery.reason] for change in formatting.before_after(recovery)]
    return [
        Table.of("Metrics", (*head, "ranks", "reason"), numbers),
        Table.of(
            "After recalibration",
            ("share", "as_it_is", "after_recalibration", "recoverable", "reason"),
            changes or [["", None, None, None, recovery.reason]],
        ),
        Table.of("Values of each seed", ("metric", "unit", "seed", "value"), seeds),
        Table.of("Hyper-parameters", ("name", "value"), parameters),
    ]


def compare(comparison: Comparison) -> list[Table]:
    """Entries next to each other: values, and differences from the first."""
    lines = [*([comparison.distance] if comparison.distance else []), *comparison.lines]
    rows = []
    for line in lines:
        for detail, value, difference in zip(comparison.entries, line.values, line.differences, strict=True):
            numbers = [value[key] for key in ("value", "low", "high")] if value else [None] * 3
            differences = (
                [difference.value, difference.low, difference.high, difference.clear] if difference else [None] * 4
            )
            rows.append(
                [
                    *(line.column.name, line.column.unit, detail.entry.id, detail.entry.tier, detail.entry.label),
                    *(*numbers, *differences),
                ]
            )
    head = ("metric", "unit", "id", "tier", "entry", "value", "low", "high")
    more = ("difference", "difference_low", "difference_high", "clear")
    ids = [detail.entry.id for detail in comparison.entries]
    parameters = [[name, differs, *values] for name, values, differs in comparison.parameters]
    return [
        Table.of("Metrics", (*head, *more), rows),
        Table.of("Configuration", ("parameter", "differs", *ids), parameters),
    ]


def compare_boards(details: Iterable[EntryDetail]) -> Table:
    """Entries of several boards: what can be compared across boards, and their distances."""
    rows = [
        [
            *(detail.board.task, detail.entry.id, detail.entry.tier, detail.entry.label, *_ranks(detail.placing)),
            *(detail.ranked, *_distance(detail.entry), *_effects(detail.entry), detail.entry.cost),
        ]
        for detail in details
    ]
    head = ("task", "id", "tier", "entry", *_RANK, "ranked rows", *_DISTANCE, *_EFFECTS, _COST)
    return Table.of("Entries of several boards", head, rows)


def submit(tables: Iterable[tuple[str, list[tuple[str, str, bool, str]]]]) -> list[Table]:
    """The fields of a manifest."""
    return [Table.of(title, ("field", "type", "required", "meaning"), rows) for title, rows in tables]


def _ranks(placing: Placing | None) -> tuple[str, int | None, int | None]:
    return (placing.scope, placing.low, placing.high) if placing else ("", None, None)


def _distance(entry: Entry) -> tuple[float | None, float | None, float | None]:
    return entry.distance, entry.distance_low, entry.distance_high


def _effects(entry: Entry) -> tuple[str | float | None, ...]:
    """The verdict, how much was forgotten, and how much accuracy was lost."""
    forgotten = (entry.forgotten, entry.forgotten_low, entry.forgotten_high)
    return (entry.verdict, *forgotten, entry.harm, entry.harm_low, entry.harm_high)


def _band(column: Column) -> tuple[float | None, ...]:
    return (column.band.mean, column.band.low, column.band.high, column.band.sd) if column.band else (None,) * 4
