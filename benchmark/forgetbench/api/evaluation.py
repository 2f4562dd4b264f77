"""Running methods: evaluation, tuning and the audit of the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from forgetbench.api._main_file import without_main_file
from forgetbench.api.board import BoardResult
from forgetbench.api.methods import as_list, resolve_methods
from forgetbench.api.progress import open_progress
from forgetbench.api.tasks import load_task
from forgetbench.errors import UsageError
from forgetbench.evidence.run import read_run
from forgetbench.runner.config import ProgressCallback, RunConfig

if TYPE_CHECKING:
    from forgetbench.api.methods import MethodLike
    from forgetbench.auditing.run import TaskAudit
    from forgetbench.runner.failures import FailedJob
    from forgetbench.runner.method_spec import MethodSpec
    from forgetbench.runner.run import TaskRun
    from forgetbench.tasks.task import Task
    from forgetbench.tuning.study import Selector
    from forgetbench.tuning.tune import TunedMethod


def evaluate(
    methods: MethodLike | Iterable[MethodLike],
    task: str | Path | Task,
    *,
    seeds: int | None = None,
    draws: int | None = None,
    preset: str | None = None,
    tuned: bool = False,
    selector: Selector = "oracle-free",
    config: RunConfig | None = None,
    progress: bool | ProgressCallback = True,
) -> BoardResult:
    """Run methods on a task, score them and rank them.

    Trains the originals and oracles that are missing, lets each method unlearn from every original, records the logits
    of every model, and scores them. Everything is stored: an interrupted call (Ctrl-C, or a notebook's stop button)
    resumes where it stopped, and a second call with more methods computes only those.

    Args:
        methods: One or several of: a name with hyper-parameters (``"ssd"``, ``"ssd:alpha=3"``), a class in a file
            (``"my_method.py:MyMethod"``), an instance (``get_method("ssd", alpha=3)``, ``MyMethod(lr=0.1)``), or a
            class, also one that a notebook cell defines; ``"all"`` for every method of the package.
        task: Name of a task, path of a task file, or a task.
        seeds: Number of originals, and of oracles in each of the two sets; ranks need 6.
        draws: Number of forget sets.
        preset: Run methods that are given by name with the values of a publication, such as ``"paper"``.
        tuned: Use the best hyper-parameters that `tune` found on this machine.
        selector: The selector that those were tuned with.
        config: Device, worker processes and folders; nothing in it changes a result.
        progress: Show a progress bar, or a progress callback.

    Returns:
        The board of these methods.

    Raises:
        UsageError: A task, method, hyper-parameter or option is wrong; raised before anything is trained.
        ForgetBenchError: Jobs failed for another reason than a method's error; raised when all others are finished.

    Example:
        >>> board = evaluate(["ssd", "finetune:epochs=1"], "digits/cnn/class", seeds=6)  # doctest: +SKIP
        >>> board["ssd"].rank  # doctest: +SKIP
        Rank(low=1, high=2)
    """
    loaded = load_task(task, seeds=seeds, draws=draws)
    [board] = evaluate_tasks(
        as_list(methods),
        [loaded],
        preset=preset,
        tuned=tuned,
        selector=selector,
        config=config,
        progress=progress,
    )
    return board


def evaluate_tasks(
    methods: Sequence[MethodLike],
    tasks: Sequence[Task],
    *,
    preset: str | None = None,
    tuned: bool = False,
    selector: Selector = "oracle-free",
    config: RunConfig | None = None,
    progress: bool | ProgressCallback = True,
) -> list[BoardResult]:
    """`evaluate` on several tasks, with one set of worker processes; all names are checked before the first training.

    Returns:
        One board per task.

    Raises:
        UsageError: See `evaluate`.
        ForgetBenchError: See `evaluate`.
    """
    from forgetbench.runner.run import check_finished

    done = evaluate_finished(
        methods,
        tasks,
        preset=preset,
        tuned=tuned,
        selector=selector,
        config=config,
        progress=progress,
    )
    check_finished([task_run for _, task_run in done])
    return [board for board, _ in done]


def evaluate_finished(
    methods: Sequence[MethodLike],
    tasks: Sequence[Task],
    *,
    preset: str | None = None,
    tuned: bool = False,
    selector: Selector = "oracle-free",
    config: RunConfig | None = None,
    progress: bool | ProgressCallback = True,
) -> list[tuple[BoardResult, TaskRun]]:
    """`evaluate_tasks` without an error for jobs that failed.

    Returns:
        One board per task, and what was run for it: its ``failed`` lists the jobs that failed, whose rows are missing.

    Raises:
        UsageError: See `evaluate`.
    """
    from forgetbench.runner.run import run_tasks
    from forgetbench.tuning.tune import load_best

    chosen = config or RunConfig()
    if preset is not None and tuned:
        raise UsageError("Give either a preset or tuned values, not both: a preset leaves nothing to tune.")

    def specs(task: Task) -> list[MethodSpec]:
        found = resolve_methods(methods, task, chosen.home, preset)
        return load_best(task, found, chosen, selector) if tuned else found

    again: list[list[TaskRun]] = []
    with open_progress(progress) as callback, without_main_file():
        done = run_tasks(tasks, specs, chosen, callback)
        for number in range(1, chosen.repeats):
            others = [one.task.with_method_seeds(f"repeat-{number}") for one in done if not one.failed]
            apart = replace(chosen, repeat=number, skip_oracles=True)  # the originals are there, and oracles the same
            again.append(run_tasks(others, specs, apart, callback))
    return [
        (
            BoardResult(
                task_run.task.name,
                [read_run(folder) for folder in task_run.runs],
                chosen.results.scorer(task_run.reference) if task_run.reference else None,
                [read_run(folder) for each in again for one in each for folder in one.runs if _same(one, task_run)],
            ),
            replace(task_run, failed=(*task_run.failed, *_failures(again, task_run))),
        )
        for task_run in done
    ]


def _same(repeat: TaskRun, first: TaskRun) -> bool:
    """Whether a repeat is of the same task as a first run."""
    return repeat.task.name == first.task.name


def _failures(again: Sequence[Sequence[TaskRun]], first: TaskRun) -> list[FailedJob]:
    """The failed jobs of the repeats of a task."""
    return [job for each in again for one in each if _same(one, first) for job in one.failed]


def tune(
    methods: MethodLike | Iterable[MethodLike],
    task: str | Path | Task,
    *,
    trials: int = 10,
    selector: Selector = "oracle-free",
    config: RunConfig | None = None,
    progress: bool | ProgressCallback = True,
) -> list[TunedMethod]:
    """Tune methods with equal budgets, on forget sets and seeds of their own. Interrupted tuning resumes.

    Args:
        methods: One or several methods (see `evaluate`); hyper-parameters that are given stay fixed.
        task: Name of a task, path of a task file, or a task.
        trials: Trials of each method; the first uses its defaults. Boards compare 1, 10 and 50.
        selector: ``oracle-free`` (no retrained model is used) or ``oracle`` (the distance to retraining).
        config: Device, worker processes and folders.
        progress: Show a progress bar, or a progress callback.

    Returns:
        One result per method, with all trials. `evaluate` with ``tuned=True`` uses the best.

    Raises:
        UsageError: A task or method is wrong, has nothing to search, or optuna is not installed.
        ForgetBenchError: A worker process died, or a file was damaged.

    Example:
        >>> tune("scrub", "digits/cnn/class", trials=10)  # doctest: +SKIP
    """
    return tune_tasks(
        as_list(methods), [load_task(task)], trials=trials, selector=selector, config=config, progress=progress
    )[0]


def tune_tasks(
    methods: Sequence[MethodLike],
    tasks: Sequence[Task],
    *,
    trials: int = 10,
    selector: Selector = "oracle-free",
    config: RunConfig | None = None,
    progress: bool | ProgressCallback = True,
) -> list[list[TunedMethod]]:
    """`tune` on several tasks; all names are checked before the first training.

    Raises:
        UsageError: See `tune`.
        ForgetBenchError: See `tune`.
    """
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise UsageError("Tuning needs optuna: pip install 'forgetbench[tune]'.")
    from forgetbench.tuning.tune import check_tunable
    from forgetbench.tuning.tune import tune as tune_task

    chosen = config or RunConfig()
    specs = [resolve_methods(methods, task, chosen.home) for task in tasks]
    for task in tasks:
        check_tunable(task, chosen, selector)
    with open_progress(progress) as callback, without_main_file():
        return [
            tune_task(task, found, chosen, trials=trials, selector=selector, progress=callback)
            for task, found in zip(tasks, specs, strict=True)
        ]


def audit(
    task: str | Path | Task,
    *,
    seeds: int | None = None,
    config: RunConfig | None = None,
    progress: bool | ProgressCallback = True,
) -> TaskAudit:
    """Test the metrics of a task with contestants whose place is known: which metrics are fit to rank there?

    Metrics that fail are shown and no longer rank on this task, on this machine and wherever its reference bundle is
    installed.

    Args:
        task: Name of a task, path of a task file, or a task.
        seeds: Number of originals, and of oracles in each of the three sets.
        config: Device, worker processes and folders.
        progress: Show a progress bar, or a progress callback.

    Returns:
        The audit, and the scorecards it is based on.

    Raises:
        UsageError: The task or an option is wrong.
        ForgetBenchError: A worker process died, or a file was damaged.

    Example:
        >>> audit("digits/cnn/mislabelled-20").audit.excluded_metrics  # doctest: +SKIP
        ()
    """
    from forgetbench.auditing.run import audit_task

    with open_progress(progress) as callback, without_main_file():
        return audit_task(load_task(task, seeds=seeds), config or RunConfig(), callback)
