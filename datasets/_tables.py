"""Tables of images (CSV), with errors that name the row."""

from __future__ import annotations

import csv
import re
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from forgetbench.datasets._files import ImageFile
from forgetbench.datasets.problems import Problem, collect_or_raise, problem_error
from forgetbench.user_files import is_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


MAX_MESSAGE = 500
"""Longest message about a row: an unclosed quote makes the rest of a table one field."""
MISSING = frozenset({"nan", "NaN", "NAN", "<NA>", "NaT"})
"""Marks of missing values; a person may be called Nan."""
_DECIMAL = re.compile(r"[+-]?[0-9]+\.[0-9]*(?:[eE][+-]?[0-9]{1,3})?")
"""A number with a decimal point; 12e4 may be a name."""


class Row(NamedTuple):
    """A row of a table."""

    number: int
    """Line of the file on which the row ends; the header is line 1."""
    values: Mapping[str, str]
    """Column name -> value without surrounding spaces."""


def read_table(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), problems: list[Problem] | None = None
) -> list[Row]:
    """Read a CSV file with a header.

    Args:
        path: The file, in UTF-8.
        columns: Required columns.
        optional: Optional columns; all other columns are ignored.
        problems: List to which wrong rows are appended, which are then skipped; None: they are raised.

    Raises:
        ImageSetError: The file is missing or is not text, or a column is missing; or, without a list of problems, a row
            has too many or too few fields.
    """
    header, lines = _read_lines(path)
    missing = [name for name in columns if name not in header]
    if missing:
        raise problem_error(
            "wrong table",
            f"{path} has no column {', '.join(missing)}; its header is {', '.join(header) or 'empty'}",
            _columns_fix(header, columns, optional),
        )
    if not lines:
        raise problem_error("wrong table", f"{path} has no rows", "Add a row for every image.")
    wrong = [
        Problem(
            "wrong row",
            f"row {number} of {path} has {len(fields)} fields; its header has {len(header)}",
            "Give every row as many fields as the header, and put a field that contains a comma into double quotes.",
        )
        for number, fields in lines
        if len(fields) != len(header)
    ]
    collect_or_raise(wrong, problems)
    positions = {name: header.index(name) for name in (*columns, *optional) if name in header}
    return [
        Row(number, {name: fields[position].strip() for name, position in positions.items()})
        for number, fields in lines
        if len(fields) == len(header)
    ]


def category(text: str) -> str:
    """Return a value of a table as the name of a class or person: whole numbers without a decimal point.

    Spreadsheets and pandas write the label 2 as "2.0" where a column has an empty field.
    """
    if not _DECIMAL.fullmatch(text):
        return text
    number = Decimal(text)
    return str(int(number)) if abs(number) < 2**63 and number == int(number) else text


def is_missing(text: str) -> bool:
    """Check whether a value of a table is empty, or the mark that numpy or pandas writes for a missing value."""
    return not text or text.lstrip("+-") in MISSING


def resolve_files(
    table: Path, rows: Sequence[Row], folder: Path, column: str, problems: list[Problem] | None = None
) -> list[ImageFile | None]:
    """Find the image files that the rows of a table name.

    Args:
        table: The table, for messages.
        rows: Its rows.
        folder: Folder of the files.
        column: Column that contains the file name.
        problems: List to which rows without a file are appended; None: they are raised.

    Returns:
        One file per row; None for a row without an existing file.

    Raises:
        ImageSetError: Files are missing, and there is no list of problems.
    """
    files: list[ImageFile | None] = []
    missing = []
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for row in rows:
        name = row.values[column]
        if name in names or (name and is_file(folder / name)):
            files.append(ImageFile(str(folder / name), folder / name))
            continue
        files.append(None)
        if not name:
            message = f"row {row.number} of {table} has no {column}"
            missing.append(Problem("wrong row", message, "Name the file, or remove the row."))
            continue
        fix = "Write paths with / instead of \\." if "\\" in name else "Add the file, or remove the row."
        message = f"row {row.number} of {table} names a missing file: {folder / name}"[:MAX_MESSAGE]
        missing.append(Problem("missing file", message, fix))
    collect_or_raise(missing, problems, f"{len(missing)} of {len(rows)} rows have no file:")
    return files


def _read_lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and (line number, fields) of every other line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            lines = [(reader.line_num, fields) for fields in reader if fields]
    except UnicodeDecodeError as error:
        message = f"{path} cannot be read as a table: it is not in UTF-8"
        raise problem_error("wrong table", message, "Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        message = f"{path} cannot be read as a table: {error}"
        raise problem_error("wrong table", message, "Save it as CSV in UTF-8.") from error
    except OSError as error:
        message = f"{path} cannot be read as a table: {error.strerror}"
        raise problem_error("missing table", message, "Add the table, or name another folder.") from error
    return [name.strip() for name in lines[0][1]] if lines else [], lines[1:]


def _columns_fix(header: Sequence[str], columns: Sequence[str], optional: Sequence[str]) -> str:
    separator = next((mark for mark in (";", "\t", "|") if len(header) == 1 and mark in header[0]), "")
    if separator:
        return f"Save it with commas between the fields; here they are separated by {separator!r}."
    others = f" (and optionally {', '.join(optional)})" if optional else ""
    return f"Make the first line name the columns {', '.join(columns)}{others}."
