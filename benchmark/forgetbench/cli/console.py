"""Output of the command line: results on standard output, notes and errors on standard error."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from forgetbench.errors import ForgetBenchError, printable, printable_json

WIDTH = 240
"""Width of tables where standard output is no terminal."""


def console() -> Console:
    """The console of results; lines are wrapped in a terminal only."""
    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


def print_text(text: str, *, end: str = "\n") -> None:
    """Print text on standard output, with control characters spelled out."""
    console().print(printable(text), markup=False, end=end)


def print_error(message: str) -> None:
    """Print an error message on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]forgetbench:[/] {escape(printable(message))}"
    )


def print_note(message: str) -> None:
    """Print a note on standard error, with control characters spelled out."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(escape(printable(message)))


def print_json(value: object) -> None:
    """Print a value as JSON on standard output, with control characters escaped."""
    sys.stdout.write(printable_json(json.dumps(value, indent=1, ensure_ascii=False, default=str)) + "\n")


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = (), caption: str = ""
) -> None:
    """Print a table on standard output; the columns with the numbers in ``right`` are right-aligned."""
    table = Table(title=_cell(title) or None, title_justify="left", caption=_cell(caption) or None, box=None)
    table.caption_justify = "left"
    table.title_style, table.pad_edge = "bold", False
    aligned = set(right)
    for number, column in enumerate(columns):
        table.add_column(
            column, justify="right" if number in aligned else "left", no_wrap=number in aligned or number < 2
        )
    for row in rows:
        table.add_row(*map(_cell, row))
    output = console()
    if not output.is_terminal:
        output.width = WIDTH
    output.print(table)


def _cell(text: str) -> str:
    return escape(printable(text))


def write_text(text: str, output: Path | None) -> None:
    """Write text to a file, or print it on standard output."""
    from forgetbench.store import write_atomically

    if output is None:
        sys.stdout.write(text)
    else:
        with output_errors(output):
            write_atomically(output, text.encode("utf-8", "backslashreplace"))
        print_note(f"written: {output}")


@contextmanager
def output_errors(output: Path) -> Iterator[None]:
    """Explain errors of writing what --output names, without the names of temporary files.

    Raises:
        ForgetBenchError: The file or folder cannot be written; full disks keep their own message.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = "it is a folder" if output.is_dir() else (error.strerror or str(error)).lower()
        above = next((folder for folder in output.parents if folder.exists() and not folder.is_dir()), None)
        reason = f"{above} is a file" if above is not None else reason
        raise ForgetBenchError(f"{output} cannot be written: {reason}. Give another path with --output.") from error


def figure(value: float | None, form: str = ".4g") -> str:
    """A number for a table; a dash for None."""
    return "–" if value is None else format(value, form)
