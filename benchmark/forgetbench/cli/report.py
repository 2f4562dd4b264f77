"""The command report, and boards as every command prints them."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from forgetbench.cli.console import out, print_table, remark
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from forgetbench.reporting.figures.catalog import Drawn
    from forgetbench.reporting.tables import Table
    from forgetbench.scoring.scorecards import Scorecard

Flag = Annotated[bool, Parameter(negative="")]
Format = Literal["table", "markdown", "latex", "csv", "json", "html"]


def add_commands(app: App) -> None:
    """Add this file's commands."""
    app.command(report)


def report(
    *task: str,
    format_: Annotated[Format, Parameter(name="--format")] = "table",
    method: Annotated[list[str] | None, Parameter(negative="")] = None,
    figure: Annotated[list[str] | None, Parameter(negative="")] = None,
    published: Flag = False,
    output: Path | None = None,
) -> None:
    """Print the boards of everything that was run here, or draw them.

    Example: forgetbench report faces/cnn/identity --figure pareto --output pareto.pdf

    Parameters
    ----------
    task
        Names or wildcard patterns of tasks; all that were run, if left out.
    format_
        How. An html report is one file with tables and pictures.
    method
        Names or wildcard patterns of rows to rank among each other; all, if left out. May stand several times.
    figure
        Draw instead: pareto, utility, ranks, seeds, confidence, steps (streams), critical-difference (across tasks),
        or all. May stand several times.
    published
        Set our rows beside what papers published, by like settings only.
    output
        Write to this file instead of the terminal. Pictures: the ending says how (svg, png, pdf, html, or json for
        Vega-Lite); a folder gets each of them in every format.
    """
    from forgetbench.reporting.figures.catalog import chosen

    wanted = chosen(figure or [])
    if wanted and output is None:
        raise UsageError("Name a file or a folder for the pictures with --output.")
    boards = _boards(task or ("*",), method or ["*"])
    if wanted and output is not None:
        _draw(boards, wanted, output)
        return
    if published:
        print_tables([table for board in boards for table in _published(board)], format_, output)
        return
    tables = [_tables(board) for board in boards]
    if format_ == "html":
        _print(_page(boards, tables), output)
    else:
        print_tables([table for of_board in tables for table in of_board], format_, output)


def _boards(tasks: tuple[str, ...], methods: list[str]) -> list[Drawn]:
    """The boards of what was run here, with the rows that were asked for."""
    from forgetbench.evidence.reference import read_pack
    from forgetbench.evidence.run import read_run
    from forgetbench.reporting.figures.catalog import Drawn
    from forgetbench.runner.results import Results

    results, boards = Results(), []
    for pack, folders in results.finished(tasks).items():
        runs = [read_run(folder) for folder in folders]
        kept = [run for run in runs if any(fnmatch.fnmatch(run.manifest.row, pattern) for pattern in methods)]
        if kept:
            boards.append(Drawn(results.scorer(read_pack(pack)), kept))
    if not boards:
        raise UsageError("Nothing was run here yet that matches. `forgetbench run TASK` runs a task.")
    return boards


def _tables(board: Drawn) -> list[Table]:
    from forgetbench.reporting.streams import tables_of

    return tables_of(board.standing, board.judge.pack, board.runs)


def _published(board: Drawn) -> list[Table]:
    """What was published of a board's setting, beside its rows."""
    from forgetbench.reporting.literature import beside
    from forgetbench.scoring.scorer import NO_UNLEARNING, RETRAIN

    cards: dict[str, Scorecard] = {}
    for card, manifest in zip(board.standing.scorecards, board.standing.manifests, strict=True):
        name = manifest.method.name if manifest else {RETRAIN: "retrain", NO_UNLEARNING: "none"}[card.name]
        cards.setdefault(name, card)
    tables = beside(board.task, cards)
    if not tables:
        remark(f"{board.task}: no published table that we hold has this setting.")
    return tables


def _draw(boards: list[Drawn], figures: tuple[str, ...], output: Path) -> None:
    from forgetbench.reporting.figures.catalog import ACROSS, picture_across, pictures_of
    from forgetbench.reporting.figures.export import write

    pictures = [picture for board in boards for picture in pictures_of(board, figures)]
    joined = picture_across({board.task: board.whole for board in boards}) if ACROSS in figures else None
    pictures += [joined] if joined else []
    if not pictures:
        raise UsageError(
            "There is nothing to draw: these boards lack what the figure shows (critical-difference needs two ranked "
            "boards with three methods in common, pareto a cost)."
        )
    for path in write(pictures, output):
        remark(f"written: {path}")
    for picture in pictures:
        out().print(f"{picture.name}: {picture.caption}", markup=False)


def _page(boards: list[Drawn], tables: list[list[Table]]) -> str:
    from forgetbench.reporting.figures.catalog import NAMES, picture_across, pictures_of
    from forgetbench.reporting.figures.export import as_figure
    from forgetbench.reporting.tables import as_html

    figures: list[list[str]] = []
    for board, of_board in zip(boards, tables, strict=True):  # below the last of a board's tables
        figures += [[] for _ in of_board[1:]] + [[as_figure(picture) for picture in pictures_of(board, NAMES)]]
    joined = picture_across({board.task: board.whole for board in boards})
    flat = [table for of_board in tables for table in of_board]
    return as_html(flat, [*figures, [as_figure(joined)] if joined else []])


def print_tables(tables: list[Table], format_: Format, output: Path | None = None) -> None:
    """Print boards in a format, on the terminal or into a file."""
    from forgetbench.reporting import tables as reports

    if format_ == "table" and output is None:
        for table in tables:
            print_table(table.title, table.header, table.rows, right=range(2, len(table.header) - 1))
            for note in table.notes:
                out().print(f"  {note}", markup=False)
            out().print()
        return
    text = {
        "table": lambda: "\n".join(reports.as_markdown(table) for table in tables),
        "markdown": lambda: "\n".join(reports.as_markdown(table) for table in tables),
        "latex": lambda: "\n".join(reports.as_latex(table) for table in tables),
        "csv": lambda: reports.as_csv(tables),
        "json": lambda: reports.as_json(tables),
        "html": lambda: reports.as_html(tables),
    }[format_]()
    _print(text, output)


def _print(text: str, output: Path | None) -> None:
    from forgetbench.store import write_atomically

    if output is None:
        out().print(text, markup=False, end="")
    else:
        write_atomically(output, text.encode())
        remark(f"written: {output}")
