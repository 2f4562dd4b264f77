"""The command tune: hyper-parameters at equal budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from forgetbench.cli.console import ProgressBar, print_json, print_table, remark
from forgetbench.cli.run import Device, ExecutorName, Flag, Selector
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from forgetbench.tuning.tune import TunedMethod


def add_commands(app: App) -> None:
    """Add this file's commands."""
    app.command(tune)


def tune(
    *task: str,
    method: Annotated[list[str] | None, Parameter(negative="")] = None,
    method_file: Annotated[list[str] | None, Parameter(negative="")] = None,
    trials: Literal[1, 10, 50] = 10,
    selector: Selector = "oracle-free",
    root: Path | None = None,
    device: Device = "auto",
    executor: ExecutorName = "auto",
    workers: int | None = None,
    json: Flag = False,
) -> None:
    """Tune methods at equal budget, on development draws and seeds. A killed tuning continues where it stopped.

    Example: forgetbench tune digits/cnn/class --method finetune --method scrub --trials 10

    `forgetbench run TASK --method NAME --tuned` then takes what was found.

    Parameters
    ----------
    task
        Names of tasks (`forgetbench list tasks`), wildcard patterns, or paths of task files.
    method
        NAME[:parameter=value,...], what is named stays as it is; all is the default. May stand several times.
    method_file
        FILE.py:CLASS[:parameter=value,...], a method of your own. May stand several times.
    trials
        Trials of each method; the first is its defaults.
    root
        Folder of the image sets on disk.
    workers
        Processes; one for each core if left out.
    json
        Print every trial as JSON.
    """
    from importlib.util import find_spec

    from forgetbench.runner.config import RunConfig
    from forgetbench.runner.method_spec import parse_methods
    from forgetbench.tasks.task import find_tasks
    from forgetbench.tuning.tune import tune as tune_task

    if find_spec("optuna") is None:
        raise UsageError("tune needs optuna: pip install 'forgetbench[tune]'")
    names = method if method or method_file else ["all"]
    options = RunConfig(root=root, device=device, engine=executor, workers=workers)
    wanted = [(one, parse_methods(names or [], method_file or [], one.network.name)) for one in find_tasks(task)]
    found = {}
    with ProgressBar() as watcher:
        for one, contestants in wanted:
            found[one.name] = tune_task(one, contestants, options, trials=trials, selector=selector, progress=watcher)
    if json:
        print_json([_record(name, one) for name, tuned in found.items() for one in tuned])
        return
    for name, tuned in found.items():
        rows = [_row(one) for one in tuned]
        header = ("method", "chosen", "value", "defaults' value", "trials that did not hold")
        print_table(f"{name}, tuned by {trials} trials, {selector}", header, rows, right=(2, 3, 4))
    remark("`forgetbench run TASK --method NAME --tuned` takes what was chosen.")


def _row(one: TunedMethod) -> tuple[str, ...]:
    if one.best is None:
        return (one.spec.label, "does not apply", "", "", "")
    name, _, chosen = one.spec.label.partition(":")
    values = (one.best.value, one.trials[0].value)
    bad = sum(trial.status != "ok" for trial in one.trials)
    return (name, chosen or "the defaults", *("–" if value is None else f"{value:.3f}" for value in values), str(bad))


def _record(task: str, one: TunedMethod) -> dict[str, object]:
    return {
        "task": task,
        "method": one.spec.label,
        "parameters": one.spec.method.to_dict(),
        "selector": one.spec.selector,
        "chosen": one.best.number if one.best else None,
        "trials": [trial.__dict__ for trial in one.trials],
    }
