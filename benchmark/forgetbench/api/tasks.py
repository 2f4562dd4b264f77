"""Tasks, image sets and metrics by name."""

from __future__ import annotations

from pathlib import Path

from forgetbench.tasks.task import Task


def list_tasks(pattern: str = "*") -> list[str]:
    """Names of the tasks of the catalog, as ``image-set/network/scenario``.

    Args:
        pattern: A wildcard pattern.

    Returns:
        Sorted names.

    Example:
        >>> list_tasks("digits/cnn/cl*")
        ['digits/cnn/class']
    """
    from forgetbench.tasks.task import names

    return names(pattern)


def list_datasets(pattern: str = "*") -> list[str]:
    """Names of the image sets.

    Args:
        pattern: A wildcard pattern.

    Returns:
        Sorted names.

    Example:
        >>> list_datasets("muf*")
        ['mufac']
    """
    from forgetbench.datasets import datasets

    return datasets.names(pattern)


def list_metrics(pattern: str = "*") -> list[str]:
    """Names of the metrics.

    Args:
        pattern: A wildcard pattern.

    Returns:
        Sorted names.

    Example:
        >>> list_metrics("gap.t*")
        ['gap.test', 'gap.test-forgotten', 'gap.test-triggered']
    """
    from forgetbench.metrics import metrics

    return metrics.names(pattern)


def load_task(
    task: str | Path | Task,
    *,
    seeds: int | None = None,
    draws: int | None = None,
    forget_indices: str | Path | None = None,
) -> Task:
    """A task of the catalog, or of a task file.

    Args:
        task: Name of a task (see `list_tasks`), path of a ``.toml`` task file, or a task.
        seeds: Number of originals, and of oracles in each of the two sets; ranks need 6.
        draws: Number of forget sets.
        forget_indices: A file (.npy, .npz, .json, .txt, .csv, .pt) of rows of the training images to forget, instead of
            the scenario's forget set. The task gets a name and a board of its own.

    Returns:
        The task.

    Raises:
        UsageError: The task is unknown, a file is missing or not valid, or a number is out of range.

    Example:
        >>> load_task("digits/cnn/class", seeds=4).seeds
        4
    """
    from forgetbench.tasks.task import read_task

    found = task if isinstance(task, Task) else read_task(str(task))
    found = found.with_counts(seeds=seeds, draws=draws)
    return found if forget_indices is None else found.forgetting(Path(forget_indices))


def find_tasks(
    patterns: tuple[str, ...],
    *,
    seeds: int | None = None,
    draws: int | None = None,
    forget_indices: Path | None = None,
) -> list[Task]:
    """All tasks of names, wildcard patterns and task files; see `load_task` for the arguments.

    Raises:
        UsageError: Nothing matches, or see `load_task`.
    """
    from forgetbench.tasks.task import find_tasks as find

    return [load_task(task, seeds=seeds, draws=draws, forget_indices=forget_indices) for task in find(patterns)]
