"""What each view's file holds: the tables of its page, with the numbers behind them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from forgetbench._text import latex
from forgetbench.evidence.reference import ReferenceManifest
from forgetbench.leaderboard.boards.compare import Comparison, Line
from forgetbench.leaderboard.boards.directory import Attempts, MethodLine, Placed
from forgetbench.leaderboard.boards.entries import EntryDetail
from forgetbench.leaderboard.boards.queries import Column, Summary
from forgetbench.leaderboard.db.models import Board
from forgetbench.leaderboard.render.board_export import guarded, markdown_text

_RANK = ("rank_low", "rank_high")
_DISTANCE = ("distance [oracle sd]", "distance_low", "distance_high")
_SPEC = ("name", "title", "group", "unit", "direction", "requires", "meaning", "misses", "misuse", "formula", "source")


def overview(summaries: Iterable[Summary]) -> list[Table]:
    """Boards, and their leading entries."""
    boards, leaders = [], []
    for item in summaries:
        board = item.board
        informational = (board.summary or {}).get("informational", "")
        boards.append([board.task, board.title, board.track, board.scenario, item.rows, item.newest, informational])
        leaders += [
            [board.task, entry.id, entry.label, placing.low, placing.high, *_distance(entry)]
            for entry, placing in item.leaders
        ]
    return [
        Table("Boards", ("task", "title", "track", "scenario", "entries", "newest", "why no ranks"), boards),
        Table("Leading entries", ("task", "id", "entry", *_RANK, *_DISTANCE), leaders),
    ]


def methods(lines: Iterable[MethodLine]) -> list[Table]:
    """Every method."""
    rows = [[line.name, line.family, line.entries, line.boards, line.newest] for line in lines]
    return [Table("Methods", ("method", "family", "entries", "boards", "newest"), rows)]


def placed(found: Iterable[Placed]) -> Table:
    """Entries on several boards."""
    rows = []
    for item in found:
        entry, placing = item.entry, item.placing
        ranks = [placing.low, placing.high] if placing else [None, None]
        rows.append(
            [
                *(entry.board.task, entry.board.superseded_at is not None, entry.id, entry.label),
                *(*ranks, *_distance(entry)),
                *(entry.cost, entry.flags or [], entry.tier, entry.submitter, entry.received_at),
            ]
        )
    head = ("task", "superseded", "id", "entry", *_RANK, *_DISTANCE)
    more = ("cost [share of retraining's FLOPs]", "flags", "tier", "submitter", "received")
    return Table("Entries", (*head, *more), rows)


def attempts(found: Iterable[Attempts]) -> Table:
    """What became of a submitter's attempts."""
    rows = [[item.task, state, count] for item in found for state, count in item.states.items()]
    return Table("Attempts", ("task", "state", "attempts"), rows)


def metrics(specs: dict[str, dict[str, Any]]) -> list[Table]:
    """Every metric."""
    return [Table("Metrics", _SPEC, [[spec[name] for name in _SPEC] for spec in specs.values()])]


def metric(spec: dict[str, Any], shown: Iterable[tuple[Board, Column]]) -> list[Table]:
    """One metric, and its bands."""
    rows = [[board.task, *_band(column), column.ranks, column.role, column.why] for board, column in shown]
    head = ("task", "band_mean", "band_low", "band_high", "band_sd", "ranks", "role", "why not")
    return [*metrics({spec["name"]: spec}), Table("On the boards", head, rows)]


def task(board: Board, card: ReferenceManifest) -> list[Table]:
    """One task: its images, and the lists of rows."""
    facts: list[tuple[str, Any]] = [*card.image_set.items(), ("classes", list(card.classes)), ("track", card.track)]
    facts += [("scenario", card.scenario), ("seeds", card.seeds), ("draws", card.draws), ("protocol", card.protocol)]
    facts += [("task key", card.task_key), ("pack", board.pack_sha256)]
    lists = [
        [int(draw), name, card.counts[draw][name], sha]
        for draw, hashes in card.index_hashes.items()
        for name, sha in hashes.items()
    ]
    return [
        Table("Task", ("name", "value"), facts),
        Table("Rows that are asked about", ("forget set", "part", "rows", "SHA-256 of the row numbers"), lists),
    ]


def entry(whole: EntryDetail, columns: Sequence[Column]) -> list[Table]:
    """One entry: its metrics, the values of its seeds, and its hyper-parameters."""
    found: dict[str, Any] = whole.score.card["metrics"] if whole.score else {}
    known = [(column, found[column.name]) for column in columns if column.name in found]
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
        [column.name, column.unit, place, number]
        for column, value in known
        for place, number in enumerate(value["seeds"])
    ]
    parameters = [[name, value] for name, value in whole.manifest.method.parameters.items()]
    return [
        Table("Metrics", (*head, "ranks", "reason"), numbers),
        Table("Values of each seed", ("metric", "unit", "seed", "value"), seeds),
        Table("Hyper-parameters", ("name", "value"), parameters),
    ]


def compare(comparison: Comparison) -> list[Table]:
    """Entries side by side: values, and differences from the first."""
    lines: list[Line] = [*([comparison.distance] if comparison.distance else []), *comparison.lines]
    rows = []
    for line in lines:
        for whole, value, apart in zip(comparison.entries, line.values, line.differences, strict=True):
            numbers = [value[key] for key in ("value", "low", "high")] if value else [None] * 3
            difference = [apart.value, apart.low, apart.high, apart.clear] if apart else [None] * 4
            rows.append([line.column.name, line.column.unit, whole.entry.id, whole.entry.label, *numbers, *difference])
    head = ("metric", "unit", "id", "entry", "value", "low", "high")
    more = ("difference", "difference_low", "difference_high", "clear")
    labels = [whole.entry.id for whole in comparison.entries]
    parameters = [[name, differs, *values] for name, values, differs in comparison.parameters]
    return [
        Table("Metrics", (*head, *more), rows),
        Table("Configuration", ("parameter", "differs", *labels), parameters),
    ]


def submit(tables: Iterable[tuple[str, list[tuple[str, str, bool, str]]]]) -> list[Table]:
    """The fields of a manifest."""
    return [Table(title, ("field", "type", "required", "meaning"), rows) for title, rows in tables]


def _distance(item: Any) -> list[float | None]:
    return [item.distance, item.distance_low, item.distance_high]


def _band(column: Column) -> list[float | None]:
    return [column.band.mean, column.band.low, column.band.high, column.band.sd] if column.band else [None] * 4


class Table(NamedTuple):
    """One table of a view."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Sheet(NamedTuple):
    """A view as a file."""

    title: str
    url: str
    tables: Sequence[Table]


def as_json(sheet: Sheet) -> bytes:
    """Each table as a list of objects."""
    tables = {
        table.title: [dict(zip(table.columns, map(_plain, row), strict=True)) for row in table.rows]
        for table in sheet.tables
    }
    return json.dumps({"title": sheet.title, "url": sheet.url, "tables": tables}, indent=1).encode()


def as_csv(sheet: Sheet) -> bytes:
    """The tables one below the other, an empty line between them."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    for place, table in enumerate(sheet.tables):
        if place:
            writer.writerow([])
        writer.writerow(table.columns)
        writer.writerows([_cell(value) for value in row] for row in table.rows)
    return stream.getvalue().encode()


def as_markdown(sheet: Sheet) -> bytes:
    """The tables, each below its title."""
    parts = [f"# {markdown_text(sheet.title)}\n"]
    for table in sheet.tables:
        lines = [table.columns, ["---"] * len(table.columns)]
        lines += [[markdown_text(_shown(value)) for value in row] for row in table.rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts.append(f"## {markdown_text(table.title)}\n\n{body}\n")
    return ("\n".join(parts) + f"\n<{sheet.url}>\n").encode()


def as_latex(sheet: Sheet) -> bytes:
    """Booktabs tables."""
    parts = [f"% {sheet.url}", r"% \usepackage{booktabs}"]
    for table in sheet.tables:
        head = " & ".join(latex(name) for name in table.columns)
        body = [" & ".join(latex(_shown(value)) for value in row) + r" \\" for row in table.rows]
        parts += [
            rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    return ("\n".join(parts) + "\n").encode()


WRITERS: dict[str, Callable[[Sheet], bytes]] = {"json": as_json, "csv": as_csv, "md": as_markdown, "tex": as_latex}
"""Ending of the address -> writer."""


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    return guarded(_shown(value))


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    return value if isinstance(value, str) else json.dumps(value)
