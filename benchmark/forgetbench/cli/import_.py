"""The command import-checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from forgetbench.cli.console import print_note, print_text
from forgetbench.cli.options import RUN, RunOptions
from forgetbench.cli.report import print_tables
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from forgetbench.api.board import BoardResult


def add_commands(app: App) -> None:
    """Add this module's command."""
    app.command(import_checkpoints, name="import-checkpoints")


def import_checkpoints(
    task: str,
    *,
    checkpoints: Path | None = None,
    name: str | None = None,
    export_originals: Path | None = None,
    seeds: int | None = None,
    draws: int | None = None,
    title: str = "",
    link: str | None = None,
    flops: float | None = None,
    seconds: float | None = None,
    options: RunOptions = RUN,
) -> None:
    """Record evidence of models that other code unlearned, or export the originals that it starts from.

    Example: forgetbench import-checkpoints digits/cnn/class --checkpoints unlearned --name "my method" --seeds 6

    Args:
        task: Name of the task, or path of a task file.
        checkpoints: Folder with one state dict for each draw and seed, d<draw>-s<seed>.safetensors (or .pt, .pth,
            .bin, .ckpt).
        name: Name of the row.
        export_originals: Write originals, index lists and a guide to this folder instead.
        seeds: Number of originals that were unlearned; ranks need 6.
        draws: Number of forget sets.
        title: One line about the method.
        link: Address of its paper or code.
        flops: FLOPs of unlearning one model, if known.
        seconds: Wall time of unlearning one model, if known.
    """
    from forgetbench import load_task
    from forgetbench.api import importing

    loaded, config = load_task(task, seeds=seeds, draws=draws), options.config()
    if export_originals is not None and checkpoints is None:
        importing.export_originals(loaded, export_originals, config=config)
        print_text(f"Next steps: {export_originals / 'README.md'}")
        return
    if checkpoints is None or name is None or export_originals is not None:
        raise UsageError("Give --checkpoints DIR and --name NAME to import models, or only --export-originals DIR.")
    board = importing.import_checkpoints(
        loaded, checkpoints, name, title=title, link=link, flops=flops, seconds=seconds, config=config
    )
    _print(board, task)


def _print(board: BoardResult, task: str) -> None:
    if board.is_scored:
        print_tables(board.tables, "table")
    else:
        print_note(f"Not scored: the oracles are not on this machine; `forgetbench run {task}` trains them.")
    print_note(f"evidence: {board.runs[0]}")
