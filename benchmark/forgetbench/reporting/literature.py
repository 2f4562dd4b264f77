"""What papers published: tables as data, with what is known to be wrong in them, beside our own boards.

A file of reference/published/ holds one source. Cells are numbers or ``[mean, standard deviation]``; nan is a cell that
was not printed or not read. Rows bear our methods' names where the method is the same.
"""

from __future__ import annotations

import fnmatch
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from forgetbench.errors import ForgetBenchError, validation_message
from forgetbench.evidence.run import Record
from forgetbench.metrics.accuracy_gap import average_gap
from forgetbench.metrics.erasure import h_mean
from forgetbench.metrics.literature import nomus
from forgetbench.reporting.tables import Table
from forgetbench.scoring.scorecards import Scorecard

FOLDER = Path(__file__).parents[1] / "reference" / "published"
COMPARED = ("UA", "RA", "TA", "MIA")
"""Columns that an average gap is the mean of."""

Cell = float | tuple[float, float]
"""A number, or mean and standard deviation."""


class Column(Record):
    """What stands in a column."""

    metric: str | None = None
    """Our metric of the same meaning; None where we have none."""
    complement: bool = False
    """Whether it is 1 minus our metric."""
    unit: Literal["percent", "share", "minutes", ""] = ""
    """Its unit."""
    formula: Literal["average-gap", "h-mean", "nomus"] | None = None
    """How it follows from other columns of the same table."""


class Wrong(Record):
    """A figure that is known to be wrong."""

    row: str
    """The row."""
    column: str
    """The column."""
    kind: Literal["misprint", "impossible deviation"]
    """Whether it contradicts its own table, or no set of values can have it."""
    note: str
    """Why."""


class PublishedTable(Record):
    """One table."""

    number: str
    """Its number in the source."""
    setting: str
    """Image set, network, what is forgotten, seeds."""
    like: tuple[str, ...]
    """Our tasks of the same setting, wildcards allowed; empty where there are none."""
    trials: int
    """Seeds behind a mean."""
    order: tuple[str, ...]
    """The columns, in order."""
    rows: dict[str, tuple[Cell, ...]]
    """Method -> its cells."""
    before: float | None = None
    """Accuracy of the original on the forgotten classes, which an H-mean needs."""
    tolerance: float | None = None
    """How far a figure may be from its formula, where rounding is not all that is between them."""
    tolerance_note: str = ""
    """Why."""
    wrong: tuple[Wrong, ...] = ()
    """Figures that are known to be wrong."""
    notes: tuple[str, ...] = ()
    """What a reader must know."""

    @model_validator(mode="after")
    def _complete(self) -> PublishedTable:
        for name, cells in self.rows.items():
            if len(cells) != len(self.order):
                raise ValueError(f"{self.number}: row {name} has {len(cells)} cells for {len(self.order)} columns")
        for wrong in self.wrong:
            if wrong.row not in self.rows or wrong.column not in self.order:
                raise ValueError(f"{self.number}: there is no cell {wrong.row}, {wrong.column}")
        return self

    def mean(self, row: str, column: str) -> float:
        """The number, or the mean, in a cell."""
        cell = self.rows[row][self.order.index(column)]
        return cell[0] if isinstance(cell, tuple) else cell

    def deviation(self, row: str, column: str) -> float | None:
        """The standard deviation in a cell, where one is printed."""
        cell = self.rows[row][self.order.index(column)]
        return cell[1] if isinstance(cell, tuple) else None


class Source(Record):
    """A paper, or another place where tables were published."""

    title: str
    """Its title."""
    authors: str
    """Who."""
    year: int
    """When."""
    link: str
    """Where."""
    read: str
    """What exactly was read."""
    notes: tuple[str, ...] = ()
    """What is known of all its tables."""
    columns: dict[str, Column]
    """Every column of its tables."""
    tables: tuple[PublishedTable, ...] = Field(min_length=1)
    """Its tables."""

    @property
    def short(self) -> str:
        """Authors and year, for a head."""
        return f"{self.authors.split(',')[0]} {self.year}"


def sources(folder: Path = FOLDER) -> dict[str, Source]:
    """Every source, by the name of its file.

    Raises:
        ForgetBenchError: A file is not valid.
    """
    found = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            found[path.stem] = Source.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, ValidationError) as error:
            reason = validation_message(error) if isinstance(error, ValidationError) else str(error)
            raise ForgetBenchError(f"{path}: {reason}") from error
    return found


def like(task: str, folder: Path = FOLDER) -> list[tuple[Source, PublishedTable]]:
    """The published tables of a task's setting."""
    return [
        (source, table)
        for source in sources(folder).values()
        for table in source.tables
        if any(fnmatch.fnmatch(task, pattern) for pattern in table.like)
    ]


def recomputed(source: Source, table: PublishedTable) -> dict[tuple[str, str], tuple[float, float]]:
    """(row, column) -> the printed figure, and what the table's other columns give for it.

    Cells whose other columns were not read are left out.
    """
    found = {}
    for column in table.order:
        formula = source.columns[column].formula
        for row in table.rows:
            printed = table.mean(row, column)
            given = _formula(formula, table, row) if formula else math.nan
            if not math.isnan(printed) and not math.isnan(given):
                found[row, column] = (printed, given)
    return found


def largest_deviation(mean: float, seeds: int, top: float) -> float:
    """The largest sample standard deviation that values between 0 and ``top`` with this mean can have.

    All but one at an end: sqrt(n (top - m) m / (n - 1)) bounds it, and near an end sqrt(n) times the distance to it.
    """
    inner = math.sqrt(max(seeds * (top - mean) * mean / (seeds - 1), 0.0))
    return min(inner, math.sqrt(seeds) * mean, math.sqrt(seeds) * (top - mean)) if seeds > 1 else 0.0


def beside(task: str, cards: Mapping[str, Scorecard], folder: Path = FOLDER) -> list[Table]:
    """Published tables of a task's setting beside our own rows; empty where there is no like setting.

    Args:
        task: Name of the task.
        cards: Our scorecards of it by method; of several rows of a method the first.
        folder: Where the tables lie.
    """
    return [_beside(source, table, cards) for source, table in like(task, folder)]


def _beside(source: Source, table: PublishedTable, cards: Mapping[str, Scorecard]) -> Table:
    shown = [name for name in table.order if source.columns[name].metric]
    rows, records = [], []
    for method in table.rows:
        cells: list[str] = []
        record: dict[str, object] = {"method": method}
        for name in shown:
            theirs, ours = table.mean(method, name), _ours(source.columns[name], cards.get(method))
            wrong = any((one.row, one.column) == (method, name) for one in table.wrong)
            cells += [_number(theirs, table.deviation(method, name)) + ("!" if wrong else ""), _number(ours)]
            record |= {f"{name} published": theirs, f"{name} ours": ours}
        rows.append(("", method, *cells))
        records.append(record)
    header = ("", "method", *(head for name in shown for head in (f"{name} published", "ours")))
    notes = [
        f"{source.title} ({source.authors}, {source.year}), {source.link}; read from {source.read}.",
        table.setting,
    ]
    notes += [f"! {wrong.row}, {wrong.column}: {wrong.kind}, {wrong.note}." for wrong in table.wrong]
    notes += [*table.notes, *source.notes]
    return Table(f"{source.short}, {table.number}", header, tuple(rows), tuple(notes), tuple(records))


def _ours(column: Column, card: Scorecard | None) -> float:
    value = card.metrics[column.metric].value if card and column.metric and column.metric in card.metrics else None
    if value is None:
        return math.nan
    return (1 - value if column.complement else value) * (100 if column.unit == "percent" else 1)


def _number(value: float, deviation: float | None = None) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4g}" + (f"±{deviation:.2g}" if deviation is not None else "")


def _formula(formula: str, table: PublishedTable, row: str) -> float:
    if formula == "nomus":
        return nomus(table.mean(row, "test accuracy"), 0.5 + table.mean(row, "FS"))
    if formula == "h-mean":
        names = ("Acc_r", "Acc_f")
        if table.before is None or not set(names) <= set(table.order):
            return math.nan
        kept, left = (table.mean(row, name) for name in names)
        return math.nan if math.isnan(kept + left) else h_mean([kept], [table.before], [left])
    compared = [name for name in COMPARED if name in table.order]
    own, best = ({name: [table.mean(one, name)] for name in compared} for one in (row, "retrain"))
    return average_gap(own, best)
