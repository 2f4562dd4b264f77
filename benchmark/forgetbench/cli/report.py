"""The command report, and tables as all commands print them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from forgetbench.cli.console import output_errors, print_note, print_table, print_text, write_text
from forgetbench.cli.options import Flag
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from forgetbench.api.board import BoardResult
    from forgetbench.reporting.table_writer import Table

Format = Literal["table", "markdown", "latex", "csv", "json", "html"]


def add_commands(app: App) -> None:
    """Add this module's command."""
    app.command(report)


def report(
    *task: str,
    format_: Annotated[Format, Parameter(name="--format")] = "table",
    method: list[str] | None = None,
    figure: list[str] | None = None,
    published: Flag = False,
    output: Path | None = None,
) -> None:
    """Print the boards of everything that was run on this machine, or draw figures of them.

    Example: forgetbench report faces/cnn/identity --figure pareto --output pareto.pdf

    Args:
        task: Names or wildcard patterns of tasks (default: all that were run).
        format_: Output format; html is one file with tables and figures.
        method: Names or wildcard patterns of rows to rank among each other (default: all). Can be repeated.
        figure: Draw instead: pareto, utility, ranks, seeds, confidence, steps (streams), critical-difference and
            verdicts (several tasks), or all. Can be repeated.
        published: Compare with published results of the same settings.
        output: Write to this file instead of the terminal. For figures the file name ends in svg, png, pdf, html, or
            json (Vega-Lite); a folder gets all formats.
    """
    from forgetbench import load_results

    figures = _figure_names(figure, output)
    boards = load_results(task or "*", methods=method or "*")
    if not boards:
        raise UsageError("There are no results of that name here. `forgetbench run TASK` runs a task.")
    if figures and output is not None:
        _draw(boards, figures, output)
    elif format_ == "html" and not published:
        write_text(_page(boards), output)
    else:
        shown = [_published(board) if published else [*board.tables, *board.attack_tables] for board in boards]
        tables = [table for tables in shown for table in tables]
        print_tables(tables, format_, output)


def print_tables(tables: Sequence[Table], format_: Format, output: Path | None = None) -> None:
    """Print tables in a format, on standard output or to a file."""
    from forgetbench.reporting.html_report import to_html
    from forgetbench.reporting.table_writer import WRITERS, merge

    if format_ == "table" and output is None:
        for table in tables:
            print_table(table.title, table.header, table.rows, right=range(2, len(table.header) - 1))
            print_text("\n".join([*(f"  {note}" for note in table.notes), ""]))
    elif format_ == "html":
        write_text(to_html(tables), output)
    else:
        write = WRITERS["markdown" if format_ == "table" else format_]
        write_text(write([merge(tables)] if format_ == "csv" else tables), output)


def _figure_names(names: list[str] | None, output: Path | None) -> tuple[str, ...]:
    if not names:
        return ()
    from forgetbench.reporting.figures.catalog import chosen

    figures = chosen(names)
    if output is None:
        raise UsageError("Figures need a file or a folder: --output ranks.svg.")
    return figures


def _published(board: BoardResult) -> list[Table]:
    """Published results of the board's setting, next to its rows."""
    tables = board.published_tables()
    if not tables:
        print_note(f"{board.task}: no published results of this setting.")
    return tables


def _draw(boards: Sequence[BoardResult], figures: Sequence[str], output: Path) -> None:
    from forgetbench.reporting.figures.catalog import pictures_across, pictures_of
    from forgetbench.reporting.figures.export import write

    pictures = [picture for board in boards for picture in pictures_of(board.figures, figures)]
    pictures += pictures_across({board.task: board.figures.rows for board in boards}, figures)
    if not pictures:
        raise UsageError(
            "Nothing to draw: these boards lack what the figure shows (critical-difference needs two ranked boards "
            "with three methods in common, verdicts two boards, pareto a cost)."
        )
    with output_errors(output):
        written = write(pictures, output)
    for path in written:
        print_note(f"written: {path}")
    for picture in pictures:
        print_text(f"{picture.name}: {picture.caption}")


def _page(boards: Sequence[BoardResult]) -> str:
    from forgetbench.reporting.figures.catalog import NAMES, pictures_across, pictures_of
    from forgetbench.reporting.figures.export import figure_html
    from forgetbench.reporting.html_report import to_html

    tables: list[Table] = []
    figures: list[list[str]] = []
    for board in boards:  # figures follow the last table of each board
        shown = [*board.tables, *board.attack_tables]
        tables += shown
        figures += [[] for _ in shown[1:]]
        figures.append([figure_html(picture) for picture in pictures_of(board.figures, NAMES)])
    joined = pictures_across({board.task: board.figures.rows for board in boards}, NAMES)
    return to_html(tables, [*figures, [figure_html(picture) for picture in joined]])
