"""Output of the command line: results on standard output, notes and errors on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 240
"""Width of tables where standard output is no terminal."""


def console() -> Console:
    """The console of results; lines are wrapped in a terminal only."""
    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


def print_text(text: str, *, end: str = "\n") -> None:
    """Print text on standard output as it is."""
    console().print(text, markup=False, end=end)


def print_error(message: str) -> None:
    """Print an error message on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]forgetbench:[/] {escape(message)}")


def print_note(message: str) -> None:
    """Print a note on standard error, with control characters spelled out."""
    plain = "".join(
        sign if sign in "\n\t" or sign.isprintable() else sign.encode("unicode_escape").decode() for sign in message
    )
    Console(stderr=True, highlight=False, soft_wrap=True).print(escape(plain))


def print_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = (), caption: str = ""
) -> None:
    """Print a table on standard output; the columns with the numbers in ``right`` are right-aligned."""
    table = Table(title=escape(title) or None, title_justify="left", caption=escape(caption) or None, box=None)
    table.caption_justify = "left"
    table.title_style, table.pad_edge = "bold", False
    aligned = set(right)
    for number, column in enumerate(columns):
        table.add_column(
            column, justify="right" if number in aligned else "left", no_wrap=number in aligned or number < 2
        )
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    output = console()
    if not output.is_terminal:
        output.width = WIDTH
    output.print(table)


def write_text(text: str, output: Path | None) -> None:
    """Write text to a file, or print it on standard output."""
    from forgetbench.store import write_atomically

    if output is None:
        print_text(text, end="")
    else:
        write_atomically(output, text.encode())
        print_note(f"written: {output}")


def figure(value: float | None, form: str = ".4g") -> str:
    """A number for a table; a dash for None."""
    return "–" if value is None else format(value, form)
