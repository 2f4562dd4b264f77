"""The reference results of the package: run again and compared, or recorded anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forgetbench.api.progress import open_progress
from forgetbench.errors import UsageError
from forgetbench.runner.config import ProgressCallback, RunConfig

if TYPE_CHECKING:
    from forgetbench.reproduction.reproduce import Reproduction


def reproduce(  # noqa: PLR0913 - one function for the records of the package and of a leaderboard
    tasks: str | Sequence[str] = (),
    *,
    methods: str | Sequence[str] | None = None,
    quick: bool = False,
    use_cache: bool = True,
    results: str | Path | None = None,
    salt: str | None = None,
    server: str | None = None,
    allow_source: bool = False,
    config: RunConfig | None = None,
    progress: bool | ProgressCallback = True,
) -> list[Reproduction]:
    """Run the reference results again, and compare them metric by metric with what was recorded.

    On the platform of the record all bits are equal. Elsewhere a difference is measured in units of the scatter that
    both confidence intervals imply. With a salt, the records are the verified rows of a leaderboard's retired round:
    their sealed draws are drawn, trained and scored again.

    Args:
        tasks: Names of tasks with reference results; by default all of ``results``, or all of the package whose images
            are part of it.
        methods: Rows to run: labels, or names of methods for all their rows; all rows by default.
        quick: Run one small task and a few rows, in about a minute, instead of naming tasks and methods.
        use_cache: Use models of earlier calls; False trains all of them again.
        results: Folder of reference results; the package's by default.
        salt: Salt of the retired round, as the board's page shows it; needs one task and the server.
        server: Address of that leaderboard.
        allow_source: With a salt, run submitted source code. Read it first.
        config: Device, worker processes and folders.
        progress: Show progress bars, or a progress callback.

    Returns:
        One comparison per task.

    Raises:
        UsageError: There are no reference results of that name, or the task's definition has changed.
        ForgetBenchError: A worker process died, or a file was damaged.

    Example:
        >>> [one] = reproduce(quick=True)  # doctest: +SKIP
        >>> one.exceeding  # doctest: +SKIP
        ()
    """
    from forgetbench.reproduction.reference_file import read_board, reference_tasks
    from forgetbench.reproduction.reproduce import QUICK, QUICK_ROWS, included, remove_reproduced
    from forgetbench.reproduction.reproduce import reproduce as reproduce_board
    from forgetbench.runner.costs import SHIPPED

    names, rows = _several(tasks), None if methods is None else _several(methods)
    if quick and (names or rows):
        raise UsageError("A quick check chooses its task and methods itself: give no tasks and no methods with it.")
    if salt is not None or server is not None:
        if salt is None or server is None or len(names) != 1 or quick or results is not None:
            raise UsageError(
                "Repeating a retired round needs one task, --salt and --server, and takes no --quick and no --results."
            )
        return [_reproduce_sealed(names[0], server, salt, rows, config, progress, allow_source=allow_source)]
    folder = Path(results) if results is not None else SHIPPED
    known = reference_tasks(folder)
    names = [QUICK] if quick else names or (included(known) if results is None else known)
    if not names:
        raise UsageError(f"No reference results in {folder}. `forgetbench reproduce --record` writes some.")
    chosen = config or RunConfig()
    boards = [read_board(name, folder) for name in names]
    if not use_cache:
        remove_reproduced(chosen)
    with open_progress(progress) as callback:
        return [
            reproduce_board(board, chosen, rows=QUICK_ROWS if quick else rows, progress=callback) for board in boards
        ]


def _reproduce_sealed(
    task: str,
    server: str,
    salt: str,
    rows: Sequence[str] | None,
    config: RunConfig | None,
    progress: bool | ProgressCallback,
    *,
    allow_source: bool,
) -> Reproduction:
    from forgetbench.remote.sealed import reproduce_sealed
    from forgetbench.tasks.seal import parse_salt

    with open_progress(progress) as callback:
        return reproduce_sealed(
            task,
            server,
            parse_salt(salt),
            config or RunConfig(),
            rows=rows,
            allow_source=allow_source,
            progress=callback,
        )


def record_references(
    tasks: str | Sequence[str] = (),
    *,
    methods: str | Sequence[str] | None = None,
    seeds: int | None = None,
    trials: int | None = None,
    results: str | Path | None = None,
    config: RunConfig | None = None,
    progress: bool | ProgressCallback = True,
) -> list[Path]:
    """Record reference results: tune all methods of each task, run them, and write one file per task. Resumable.

    Args:
        tasks: Names or wildcard patterns of tasks; by default those of the package's reference results whose images are
            part of the package.
        methods: Labels of the methods; all of them by default.
        seeds: Number of originals, and of oracles in each of the two sets; by default that of the package's record.
        trials: Trials of each method, by default as in the package's record; 1 means its defaults, so that nothing is
            tuned.
        results: Folder for the files; the package's by default.
        config: Device, worker processes and folders.
        progress: Show progress bars, or a progress callback.

    Returns:
        The files.

    Raises:
        UsageError: A task or an option is wrong.
        ForgetBenchError: A worker process died, or a file was damaged.
    """
    from forgetbench.reproduction.reproduce import TASKS, included, record_reference
    from forgetbench.runner.costs import SHIPPED
    from forgetbench.tasks.task import find_tasks

    folder = Path(results) if results is not None else SHIPPED
    with open_progress(progress) as callback:
        return [
            record_reference(
                task,
                config or RunConfig(),
                methods=_several(methods or "all"),
                seeds=seeds,
                trials=trials,
                progress=callback,
                folder=folder,
            )
            for task in find_tasks(_several(tasks) or included(TASKS))
        ]


def _several(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
