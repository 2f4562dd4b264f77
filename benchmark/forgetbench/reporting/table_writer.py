"""Tables as CSV, JSON, Markdown and LaTeX, for the command line, reports and the leaderboard."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from forgetbench.errors import printable

Record = Mapping[str, object]
"""Column -> number, text, time, list of these, or None."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Table:
    """A table to print, with the same rows in full precision."""

    title: str
    """A task, or what the rows are."""
    header: tuple[str, ...]
    """Column heads as they are read."""
    rows: tuple[tuple[str, ...], ...]
    """Cells as they are read."""
    notes: tuple[str, ...]
    """What a reader must know, below the table."""
    records: tuple[Record, ...]
    """The rows in full precision; all have the same keys."""
    links: tuple[str, ...] = ()
    """The address of each row, for its cell in the column ``Method``; empty where rows have none."""

    @classmethod
    def of(cls, title: str, columns: Sequence[str], values: Iterable[Sequence[object]]) -> Table:
        """A table that shows its records as they are."""
        records = tuple(dict(zip(columns, row, strict=True)) for row in values)
        rows = tuple(tuple(map(shown, record.values())) for record in records)
        return cls(title, tuple(columns), rows, (), records)


def to_csv(tables: Sequence[Table]) -> str:
    """Tables in full precision, one below the other with an empty line between them."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for place, table in enumerate(tables):
        if place:
            writer.writerow([])
        writer.writerow(table.records[0] if table.records else table.header)
        writer.writerows([_csv_cell(value) for value in record.values()] for record in table.records)
    return stream.getvalue()


def merge(tables: Sequence[Table]) -> Table:
    """Tables of several tasks as one, whose first column is the task; columns that a task lacks are empty."""
    records = [{"task": table.title.partition(":")[0], **record} for table in tables for record in table.records]
    columns = list(dict.fromkeys(name for record in records for name in record))
    return Table.of("", columns, [[record.get(name) for name in columns] for record in records])


def escape_formula(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv_cell(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return escape_formula(shown(value))


def to_json(tables: Sequence[Table]) -> str:
    """A list of tables with their notes and rows in full precision; what is not finite is null."""
    boards = [{"task": table.title, "notes": table.notes, "rows": plain_records(table)} for table in tables]
    return json.dumps(boards, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def plain_records(table: Table) -> list[dict[str, object]]:
    """The records of a table for JSON: times as text, and None for what is not finite."""
    return [{name: _plain(value) for name, value in record.items()} for record in table.records]


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.isoformat() if isinstance(value, datetime) else value


def to_markdown(tables: Sequence[Table]) -> str:
    """Tables in Markdown, each below its title and above its notes."""
    return "\n".join(map(_markdown, tables))


def _markdown(table: Table) -> str:
    lines = [[markdown_text(cell) for cell in row] for row in table.rows]
    for line, address in zip(lines, table.links, strict=False):
        place = table.header.index("Method")
        line[place] = f"[{line[place]}]({address})"
    rule = ["---"] * len(table.header)
    body = ["| " + " | ".join(line) + " |" for line in ([*map(markdown_text, table.header)], rule, *lines)]
    return (
        "\n".join([f"### {markdown_text(table.title)}", "", *body, "", *(f"- {note}" for note in table.notes)]) + "\n"
    )


def markdown_text(text: str) -> str:
    """Text that stays text in Markdown."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*_[]|#~!" else character for character in plain)


def to_latex(tables: Sequence[Table]) -> str:
    """Tables for LaTeX with booktabs; notes are part of the caption."""
    return "\n".join(map(_latex, tables))


def _latex(table: Table) -> str:
    cells = [" & ".join(latex_text(cell) for cell in row) + r" \\" for row in (table.header, *table.rows)]
    label = re.sub(r"[^A-Za-z0-9]+", "-", table.title.partition(":")[0])
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{latex_text(' '.join([f'{table.title}.', *table.notes]))}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{ll{'r' * (len(table.header) - 3)}l}}",
        r"\toprule",
        cells[0],
        r"\midrule",
        *cells[1:],
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_LATEX_SIGNS = {
    "±": r"$\pm$",
    "−": "$-$",
    "∞": r"$\infty$",
    "–": "--",
    "…": r"\dots{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "φ": r"$\varphi$",
}


def escape_latex(text: str) -> str:
    """Text in which LaTeX sees no command."""
    return "".join(_LATEX_SPECIAL.get(character, character) for character in text)


def latex_text(text: str) -> str:
    """Text for LaTeX, with mathematical signs in their LaTeX form; a hyphen before a digit is a minus."""
    signed = "".join(_LATEX_SIGNS.get(character, character) for character in escape_latex(text))
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", signed)


WRITERS: dict[str, Callable[[Sequence[Table]], str]] = {
    "csv": to_csv,
    "json": to_json,
    "markdown": to_markdown,
    "latex": to_latex,
}
"""Format -> writer."""


def shown(value: object) -> str:
    """A value as text: floats with six significant digits, lists with commas, and a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    return printable(value) if isinstance(value, str) else json.dumps(value)
