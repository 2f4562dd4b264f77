"""Published tables as data, with their known errors, for comparison with boards.

A file of reference/published/ holds one source. Cells are numbers or ``[mean, standard deviation]``; nan is a cell that
was not printed or not read. Rows have the names of registered methods where the method is the same.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from forgetbench.errors import ForgetBenchError, validation_message
from forgetbench.evidence.run import Record
from forgetbench.metrics.accuracy_gap import average_gap
from forgetbench.metrics.erasure import h_mean
from forgetbench.metrics.literature import nomus
from forgetbench.reporting.table_writer import Table
from forgetbench.scoring.scorecards import Scorecard
from forgetbench.user_files import read_toml

FOLDER = Path(__file__).parents[1] / "reference" / "published"
AVERAGED = ("UA", "RA", "TA", "MIA")
"""Columns that an average gap averages."""

Cell = float | tuple[float, float]
"""A number, or mean and standard deviation."""


class Column(Record):
    """A column of published tables."""

    metric: str | None = None
    """The metric of the same meaning; None if there is no such metric."""
    transform: Literal["complement", "distance-from-half"] | None = None
    """How it follows from the metric: 1 minus it, or its distance from one half."""
    unit: Literal["percent", "share", "minutes", ""] = ""
    """Its unit."""
    formula: Literal["average-gap", "h-mean", "nomus"] | None = None
    """How it follows from other columns of the same table."""


class KnownError(Record):
    """A published number that is known to be wrong."""

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
    tasks: tuple[str, ...]
    """Tasks of the same setting, wildcards allowed; empty if there are none."""
    obstacle: str = ""
    """Why no task has its setting; "" if one has."""
    request: int | None = None
    """In a stream, the request after which it was measured, counted from 1; None: the end."""
    trials: int
    """Seeds behind a mean."""
    order: tuple[str, ...]
    """The columns, in order."""
    rows: dict[str, tuple[Cell, ...]]
    """Method -> its cells."""
    before: float | None = None
    """Accuracy of the original on the forgotten classes, which an H-mean needs."""
    tolerance: float | None = None
    """Allowed difference of a number from its formula, where rounding does not explain it all."""
    tolerance_note: str = ""
    """Reason of the tolerance."""
    errors: tuple[KnownError, ...] = ()
    """Numbers that are known to be wrong."""
    notes: tuple[str, ...] = ()
    """What a reader must know."""

    @model_validator(mode="after")
    def _complete(self) -> PublishedTable:
        for name, cells in self.rows.items():
            if len(cells) != len(self.order):
                raise ValueError(f"{self.number}: row {name} has {len(cells)} cells for {len(self.order)} columns")
        if bool(self.tasks) == bool(self.obstacle):
            raise ValueError(f"{self.number}: give either tasks or an obstacle")
        for error in self.errors:
            if error.row not in self.rows or error.column not in self.order:
                raise ValueError(f"{self.number}: there is no cell {error.row}, {error.column}")
        return self

    def mean(self, row: str, column: str) -> float:
        """The number in a cell, or its mean."""
        cell = self.rows[row][self.order.index(column)]
        return cell[0] if isinstance(cell, tuple) else cell

    def deviation(self, row: str, column: str) -> float | None:
        """The standard deviation in a cell, or None."""
        cell = self.rows[row][self.order.index(column)]
        return cell[1] if isinstance(cell, tuple) else None


class Source(Record):
    """A paper, or another place where tables were published."""

    title: str
    """Its title."""
    authors: str
    """Its authors."""
    year: int
    """Year of publication."""
    link: str
    """Address."""
    read: str
    """Which version was read."""
    notes: tuple[str, ...] = ()
    """Notes on all its tables."""
    columns: dict[str, Column]
    """Every column of its tables."""
    tables: tuple[PublishedTable, ...] = Field(min_length=1)
    """Its tables."""

    @property
    def short(self) -> str:
        """First author and year, for a title."""
        return f"{self.authors.split(',')[0]} {self.year}"


def sources(folder: Path = FOLDER) -> dict[str, Source]:
    """All sources, by the names of their files.

    Raises:
        ForgetBenchError: A file is not valid.
    """
    loaded = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            loaded[path.stem] = Source.model_validate(read_toml(path))
        except ValidationError as error:
            raise ForgetBenchError(f"{path}: {validation_message(error)}") from error
    return loaded


def page() -> str:
    """The documentation page of the published tables: where their settings can be run, and why others cannot."""
    parts = [_PAGE]
    for source in sources().values():
        parts.append(
            f"## {source.short}\n\n{source.title} ({source.authors}, {source.year}), <{source.link}>; {source.read}.\n"
        )
        parts.append("| table | setting | task, or why there is none |\n| --- | --- | --- |")
        for table in source.tables:
            place = ", ".join(f"`{name}`" for name in table.tasks) or f"none: {table.obstacle}"
            place += f", request {table.request}" if table.request else ""
            parts.append(f"| {table.number} | {table.setting} | {place} |")
        parts.append("")
        parts += [f"- {note}" for note in source.notes]
        parts.append("")
    return "\n".join(parts)


_PAGE = """# Published results

This page is generated from `benchmark/forgetbench/reference/published/`. `forgetbench report TASK --published` shows a
table next to the rows of a task with the same setting; `--preset paper` runs methods with the published values (see
[Tune and reproduce](tune-and-reproduce.md)).

Whatever the task, some things differ from every publication, because they would make a comparison unfair: models are
those of the last epoch and not of the epoch that is best on test images, oracles are trained from scratch with the
recipe of the originals, and test images are never training images. A task's description lists what else differs.

Some papers have no table here. The tables of Selective Synaptic Dampening and of Influence Approximation Unlearning,
and SalUn's for single classes and for CIFAR-100, could not be read in a form whose numbers are certain; their
settings are tasks (`cifar20/resnet18/subclass`, `pins/resnet18/class`, `cifar10/lenet/random-5`,
`cifar100/resnet18/random-10` and others). The learning rate of SSD's vision transformers is not published; the tasks'
rate is ours.
"""


def matching_tables(task: str, folder: Path = FOLDER) -> list[tuple[Source, PublishedTable]]:
    """The published tables of a task's setting."""
    return [
        (source, table)
        for source in sources(folder).values()
        for table in source.tables
        if any(fnmatch.fnmatch(task, pattern) for pattern in table.tasks)
    ]


def recomputed(source: Source, table: PublishedTable) -> dict[tuple[str, str], tuple[float, float]]:
    """(row, column) -> the printed number, and the number that follows from other columns of the table.

    Cells whose other columns were not read are missing.
    """
    numbers = {}
    for column in table.order:
        formula = source.columns[column].formula
        for row in table.rows:
            printed = table.mean(row, column)
            computed = _formula(formula, table, row) if formula else math.nan
            if not math.isnan(printed) and not math.isnan(computed):
                numbers[row, column] = (printed, computed)
    return numbers


def largest_deviation(mean: float, seeds: int, top: float) -> float:
    """The largest sample standard deviation that values between 0 and ``top`` with this mean can have.

    The bound is sqrt(n (top - m) m / (n - 1)); near an end of the range, sqrt(n) times the distance to that end.
    """
    inner = math.sqrt(max(seeds * (top - mean) * mean / (seeds - 1), 0.0))
    return min(inner, math.sqrt(seeds) * mean, math.sqrt(seeds) * (top - mean)) if seeds > 1 else 0.0


def compare_with_papers(
    task: str, cards: Mapping[str, Scorecard], requests: Sequence[Mapping[str, Any]] = (), folder: Path = FOLDER
) -> list[Table]:
    """Published tables of a task's setting next to rows of its board; empty if no table has this setting.

    Args:
        task: Name of the task.
        cards: Scorecards of the task by method; for several rows of a method, the first.
        requests: In a stream, the records of `reporting.streams.stream_table`; a record's method is a key of ``cards``.
        folder: Folder of the sources.
    """
    return [
        _comparison(source, table, _values(cards, requests, table.request))
        for source, table in matching_tables(task, folder)
    ]


_IN_STREAMS = {
    "accuracy.test": "retained",
    "accuracy.test-forgotten": "requested",
    "accuracy.earlier": "earlier",
    "h-mean": "h-mean",
}
"""Metric -> its name in the records of a stream."""


def _values(
    cards: Mapping[str, Scorecard], requests: Sequence[Mapping[str, Any]], request: int | None
) -> dict[str, dict[str, float]]:
    """Method -> metric -> value, at the end or after a request."""
    if request is None:
        return {
            method: {name: one.value for name, one in card.metrics.items() if one.value is not None}
            for method, card in cards.items()
        }
    return {
        record["method"]: {metric: record[name] for metric, name in _IN_STREAMS.items() if record[name] is not None}
        for record in requests
        if record["request"] == request
    }


def _comparison(source: Source, table: PublishedTable, values: Mapping[str, Mapping[str, float]]) -> Table:
    shown = [name for name in table.order if source.columns[name].metric]
    rows, records = [], []
    for method in table.rows:
        cells: list[str] = []
        record: dict[str, object] = {"method": method}
        for name in shown:
            published, measured = table.mean(method, name), _measured(source.columns[name], values.get(method, {}))
            wrong = any((error.row, error.column) == (method, name) for error in table.errors)
            cells += [_number(published, table.deviation(method, name)) + ("!" if wrong else ""), _number(measured)]
            record |= {f"{name} published": published, f"{name} measured": measured}
        rows.append(("", method, *cells))
        records.append(record)
    header = ("", "method", *(head for name in shown for head in (f"{name} published", "measured")))
    notes = [
        f"{source.title} ({source.authors}, {source.year}), {source.link}; read from {source.read}.",
        table.setting,
    ]
    notes += [f"! {error.row}, {error.column}: {error.kind}, {error.note}." for error in table.errors]
    notes += [*table.notes, *source.notes]
    return Table(f"{source.short}, {table.number}", header, tuple(rows), tuple(notes), tuple(records))


def _measured(column: Column, values: Mapping[str, float]) -> float:
    value = values.get(column.metric or "", math.nan)
    if column.transform == "complement":
        value = 1 - value
    elif column.transform == "distance-from-half":
        value = abs(value - 0.5)
    return value * (100 if column.unit == "percent" else 1)


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
        retained, forgotten = (table.mean(row, name) for name in names)
        missing = math.isnan(retained + forgotten)
        return math.nan if missing else h_mean([retained], [table.before], [forgotten])
    averaged = [name for name in AVERAGED if name in table.order]
    method, retrain = ({name: [table.mean(label, name)] for name in averaged} for label in (row, "retrain"))
    return average_gap(method, retrain)
