"""The command import-checkpoints: evidence from models that other code unlearned."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from forgetbench.cli.console import ProgressBar, out, remark
from forgetbench.cli.report import print_tables
from forgetbench.errors import UsageError


def add_commands(app: App) -> None:
    """Add this file's command."""
    app.command(import_checkpoints)


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
    root: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> None:
    """Record what models answer that were unlearned elsewhere, or write out the originals that they start from.

    Example: forgetbench import-checkpoints digits/cnn/class --checkpoints unlearned --name "my method" --seeds 6

    Parameters
    ----------
    task
        Name of the task, or the path of a task file.
    checkpoints
        Folder with one state dict for each draw and seed, d<draw>-s<seed>.safetensors.
    name
        The row's name.
    export_originals
        Write originals, index lists and a guide into this folder instead.
    seeds
        Originals that were unlearned; ranks need 6.
    draws
        Forget sets.
    title
        The method in words.
    link
        Address of its paper or code.
    flops
        FLOPs of one unlearning, if they are known.
    seconds
        Wall time of one unlearning, if it is known.
    root
        Folder of the image sets on disk.
    device
        torch device; auto takes the GPU where there is one.
    workers
        Processes that train originals; one for each core if left out.
    """
    from forgetbench.evidence.run import read_run
    from forgetbench.importers.checkpoints import ExternalMethod, import_checkpoints
    from forgetbench.importers.checkpoints import export_originals as write_originals
    from forgetbench.reporting.tables import board_table
    from forgetbench.runner.config import RunConfig
    from forgetbench.scoring.scorer import rank_runs
    from forgetbench.tasks.task import read_task

    wanted = read_task(task).with_counts(seeds=seeds, draws=draws)
    options = RunConfig(root=root, device=device, workers=workers)
    if export_originals is not None and checkpoints is None:
        with ProgressBar() as watcher:
            write_originals(wanted, export_originals, options, watcher)
        out().print(f"{export_originals / 'README.md'} says how to go on.", markup=False)
        return
    if checkpoints is None or name is None or export_originals is not None:
        raise UsageError("give --checkpoints DIR and --name NAME to record models, or --export-originals DIR alone.")
    told = ExternalMethod(name, title=title, link=link, flops=flops, seconds=seconds)
    run = read_run(import_checkpoints(wanted, checkpoints, told, options))
    try:
        judge = options.results.scorer_of(run.manifest)
    except UsageError as missing:
        remark(f"not scored: {missing}")
    else:
        print_tables([board_table(rank_runs(judge, [run]), judge.pack.card)], "table")
    remark(f"evidence: {run.folder}")
