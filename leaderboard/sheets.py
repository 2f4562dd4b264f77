"""Any view but a board's as a file: its tables with their rows and columns, in full precision.

(Boards have writers of their own in ``exports``, which know ranks, intervals and units.)
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from forgetbench.latex import latex
from forgetbench.leaderboard.exports import guarded, markdown_text


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
