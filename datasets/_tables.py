"""Reading tables of images, with errors that name the row."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, NamedTuple

from forgetbench.datasets._files import ImageFile
from forgetbench.datasets.problems import Problem, collect, problem_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Row(NamedTuple):
    """A row of a table."""

    number: int
    """The line of the file on which it ends; the head is on line 1."""
    values: Mapping[str, str]
    """By the name of the column."""


def read_table(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), problems: list[Problem] | None = None
) -> list[Row]:
    """The rows of a CSV file with a head.

    Args:
        path: The file, in UTF-8.
        columns: Columns that it must have.
        optional: Columns that it may have; others are passed over.
        problems: Where wrong rows are put, which are then left out; none: they are raised.

    Raises:
        FileProblems: The file is missing or no text, a column is missing, or, where nobody collects what is wrong, a
            row has a field too many or too few.
    """
    head, lines = _lines(path)
    missing = [name for name in columns if name not in head]
    if missing:
        raise problem_error(
            "wrong table",
            f"{path} has no column {', '.join(missing)}; its head is {', '.join(head) or 'empty'}",
            _columns_fix(head, columns, optional),
        )
    if not lines:
        raise problem_error("wrong table", f"{path} has no rows", "Add a row for every image.")
    wrong = [
        Problem(
            "wrong row",
            f"row {number} of {path} has {len(fields)} fields; its head has {len(head)}",
            "Give every row as many fields as the head, and put a field with a comma in it into double quotes.",
        )
        for number, fields in lines
        if len(fields) != len(head)
    ]
    collect(wrong, problems)
    places = {name: head.index(name) for name in (*columns, *optional) if name in head}
    return [
        Row(number, {name: fields[at].strip() for name, at in places.items()})
        for number, fields in lines
        if len(fields) == len(head)
    ]


def files_of_rows(
    table: Path, rows: Sequence[Row], folder: Path, column: str, problems: list[Problem] | None = None
) -> list[ImageFile | None]:
    """The image files that the rows of a table name, one for each row; None for a row that names no file.

    Args:
        table: The table, for messages.
        rows: Its rows.
        folder: Where the files lie.
        column: The column that names them.
        problems: Where rows are put that name no file; none: they are raised.

    Raises:
        FileProblems: Rows name no file, and nobody collects what is wrong.
    """
    files: list[ImageFile | None] = []
    missing = []
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for row in rows:
        name = row.values[column]
        if name in there or (name and (folder / name).is_file()):
            files.append(ImageFile(str(folder / name), folder / name))
            continue
        files.append(None)
        where = f"row {row.number} of {table} names no file: {folder / name}"
        fix = "Write paths with / instead of \\." if "\\" in name else "Put the file there, or take the row out."
        missing.append(
            Problem("missing file", where, fix)
            if name
            else Problem("wrong row", f"row {row.number} of {table} has no {column}", "Name the file, or drop the row.")
        )
    collect(missing, problems, f"{len(missing)} of {len(rows)} rows name no file:")
    return files


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The head, and the fields of every other line with its number."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            lines = [(reader.line_num, fields) for fields in reader if fields]
    except UnicodeDecodeError as error:
        where = f"{path} cannot be read as a table: it is not in UTF-8"
        raise problem_error("wrong table", where, "Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        where = f"{path} cannot be read as a table: {error}"
        raise problem_error("wrong table", where, "Save it as CSV in UTF-8.") from error
    except OSError as error:
        where = f"{path} cannot be read as a table: {error.strerror}"
        raise problem_error("missing table", where, "Put it there.") from error
    return [name.strip() for name in lines[0][1]] if lines else [], lines[1:]


def _columns_fix(head: Sequence[str], columns: Sequence[str], optional: Sequence[str]) -> str:
    other = next((mark for mark in (";", "\t", "|") if len(head) == 1 and mark in head[0]), "")
    if other:
        return f"Save it with commas between the fields; here they are separated by {other!r}."
    may = f" (and, if known, {', '.join(optional)})" if optional else ""
    return f"Make the first line name the columns {', '.join(columns)}{may}."
