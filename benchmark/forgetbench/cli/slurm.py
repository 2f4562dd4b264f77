"""The command slurm-script: writes a batch script for Slurm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cyclopts import App

from forgetbench.cli.options import (
    BOARD,
    METHODS,
    RUN,
    BoardOptions,
    Flag,
    MethodOptions,
    RunOptions,
    as_words,
)
from forgetbench.errors import UsageError
from forgetbench.method_label import MethodFile, is_method_file


def add_commands(app: App) -> None:
    """Add this module's commands."""
    app.command(slurm_script, name="slurm-script")


def slurm_script(
    *task: str,
    nodes: int = 2,
    cpus_per_node: int = 8,
    gpus_per_node: int = 0,
    time: str = "24:00:00",
    array: Flag = False,
    sbatch: list[str] | None = None,
    methods: MethodOptions = METHODS,
    board: BoardOptions = BOARD,
    options: RunOptions = RUN,
    output: Path | None = None,
) -> None:
    """Print a batch script for Slurm that runs methods on tasks, on several machines by a Ray cluster of the job's own.

    Submit it with sbatch; submit it again to continue. All options of `run` apply except --engine, --device and
    --workers.

    Example: forgetbench slurm-script faces/cnn/identity --seeds 10 --nodes 4 > job.sbatch

    Args:
        task: Names of tasks (`forgetbench list tasks`), wildcard patterns, or paths of task files.
        nodes: Number of machines; a job on one machine needs no Ray.
        cpus_per_node: Cores of each machine; each model takes one.
        gpus_per_node: GPUs of each machine; without any, models run on the cores.
        time: Time limit of the job: MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS.
        array: One job for each task, in a job array, instead of one job for all.
        sbatch: Further option of sbatch in its long form, such as partition=gpu or mem=64G. Can be repeated.
        output: Write to this file.
    """
    from forgetbench.api.methods import resolve_methods
    from forgetbench.cli.console import write_text
    from forgetbench.runner.slurm_script import SlurmJob, write_script
    from forgetbench.store import home

    _check(options, gpus_per_node)
    machine = {"nodes": nodes, "cpus_per_node": cpus_per_node, "gpus_per_node": gpus_per_node}
    job = SlurmJob(**machine, time=time, options=tuple(sbatch or ()))
    folder = home().resolve()
    for one in board.tasks(task):  # a wrong name is better found now than after hours in a queue
        resolve_methods(methods.names, one, folder, board.preset)
    words = [*as_words(_with_absolute_paths(methods)), *as_words(board)]
    write_text(write_script(job, _names(task), words, as_words(options), folder, array=array), output)


def _check(options: RunOptions, gpus_per_node: int) -> None:
    """Refuse options of runs that a batch script cannot have.

    Raises:
        UsageError: There is one.
    """
    defaults = RunOptions()
    if (options.engine, options.device, options.workers) != (defaults.engine, defaults.device, defaults.workers):
        raise UsageError(
            "slurm-script sets --engine, --device and --workers itself. Use --nodes, --cpus-per-node and "
            "--gpus-per-node."
        )
    if options.jobs_per_gpu > 1 and not gpus_per_node:
        raise UsageError("--jobs-per-gpu needs GPUs. Give --gpus-per-node as well, or omit it.")
    options.config()


def _with_absolute_paths(methods: MethodOptions) -> MethodOptions:
    return replace(methods, method=_absolute(methods.method), method_file=_absolute(methods.method_file))


def _absolute(methods: list[str] | None) -> list[str] | None:
    """The same methods, with absolute paths of files: the job may be submitted from another folder."""
    if methods is None:
        return None
    paths = {text: MethodFile.parse(text).path for text in methods if is_method_file(text)}
    return [
        text.replace(paths[text], str(Path(paths[text]).resolve()), 1) if text in paths else text for text in methods
    ]


def _names(patterns: tuple[str, ...]) -> list[str]:
    """Names of tasks, and absolute paths of task files, each once."""
    from forgetbench.tasks.task import find_tasks

    names: dict[str, None] = {}
    for pattern in patterns:
        for task in find_tasks([pattern]):
            names.setdefault(str(Path(pattern).resolve()) if pattern.endswith(".toml") else task.name)
    return list(names)
