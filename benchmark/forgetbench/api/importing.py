"""Models that other code unlearned: export what they start from, and record their evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from forgetbench.api.board import BoardResult
from forgetbench.api.progress import open_progress
from forgetbench.api.tasks import load_task
from forgetbench.errors import UsageError
from forgetbench.evidence.run import read_run
from forgetbench.runner.config import ProgressCallback, RunConfig

if TYPE_CHECKING:
    from forgetbench.tasks.task import Task


def export_originals(
    task: str | Path | Task,
    folder: str | Path,
    *,
    config: RunConfig | None = None,
    progress: bool | ProgressCallback = True,
) -> None:
    """Write the originals of a task, the index lists of its forget sets and a guide; missing originals are trained.

    Args:
        task: Name of a task, path of a task file, or a task.
        folder: A folder that is empty or does not exist.
        config: Device, worker processes and folders.
        progress: Show a progress bar, or a progress callback.

    Raises:
        UsageError: The folder is not empty, or the task is wrong.
    """
    from forgetbench.importers.checkpoints import export_originals as write_originals

    with open_progress(progress) as callback:
        write_originals(load_task(task), Path(folder), config or RunConfig(), callback)


def import_checkpoints(
    task: str | Path | Task,
    checkpoints: str | Path,
    name: str,
    *,
    title: str = "",
    link: str | None = None,
    flops: float | None = None,
    seconds: float | None = None,
    config: RunConfig | None = None,
) -> BoardResult:
    """Record the evidence of models that other code unlearned from the exported originals.

    Args:
        task: Name of a task, path of a task file, or a task.
        checkpoints: Folder with one state dict for each draw and seed, ``d<draw>-s<seed>.safetensors`` (or ``.pt``,
            ``.pth``, ``.bin``, ``.ckpt``).
        name: Name of the row.
        title: One line about the method.
        link: Address of its paper or code.
        flops: FLOPs of unlearning one model, if known.
        seconds: Wall time of unlearning one model, if known.
        config: Device, worker processes and folders.

    Returns:
        A board with this run; scored if the task's oracles are on this machine.

    Raises:
        UsageError: A file is missing, or holds no state dict of the task's network.
        ForgetBenchError: A model's outputs are not finite.
    """
    from forgetbench.importers.checkpoints import ExternalMethod
    from forgetbench.importers.checkpoints import import_checkpoints as record_checkpoints

    chosen = config or RunConfig()
    method = ExternalMethod(name, title=title, link=link, flops=flops, seconds=seconds)
    run = read_run(record_checkpoints(load_task(task), Path(checkpoints), method, chosen))
    try:
        scorer = chosen.results.scorer_of(run.manifest)
    except UsageError:
        scorer = None
    return BoardResult(run.manifest.task, [run], scorer)
