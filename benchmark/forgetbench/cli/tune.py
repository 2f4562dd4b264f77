"""The command tune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cyclopts import App

from forgetbench.cli.console import figure, print_json, print_note, print_table
from forgetbench.cli.options import METHODS, RUN, Json, MethodOptions, RunOptions, Selector
from forgetbench.method_label import MethodLabel

if TYPE_CHECKING:
    from forgetbench.tuning.tune import TunedMethod


HEADER = ("method", "chosen", "value", "value of the defaults", "of No unlearning", "failed trials")


def add_commands(app: App) -> None:
    """Add this module's command."""
    app.command(tune)


def tune(
    *task: str,
    methods: MethodOptions = METHODS,
    trials: Literal[1, 10, 50] = 10,
    selector: Selector = "oracle-free",
    options: RunOptions = RUN,
    json: Json = False,
) -> None:
    """Tune methods with equal budgets, on separate forget sets and seeds. Interrupted tuning resumes.

    `forgetbench run TASK --method NAME --tuned` uses the result.

    Example: forgetbench tune digits/cnn/class --method finetune --method scrub --trials 10

    Args:
        task: Names of tasks (`forgetbench list tasks`), wildcard patterns, or paths of task files.
        trials: Trials of each method; the first uses its defaults. Hyper-parameters in a method's label stay fixed.
    """
    from forgetbench.api.evaluation import tune_tasks
    from forgetbench.api.tasks import find_tasks

    tasks = find_tasks(task)
    results = tune_tasks(methods.names, tasks, trials=trials, selector=selector, config=options.config())
    if json:
        print_json([_record(one.name, each) for one, found in zip(tasks, results, strict=True) for each in found])
        return
    for one, found in zip(tasks, results, strict=True):
        title = f"{one.name}: {trials} trials, selector {selector}"
        print_table(title, HEADER, [_row(each) for each in found], right=(2, 3, 4, 5))
        for note in dict.fromkeys(note for each in found for note in each.notes):
            print_note(f"{one.name}: {note}")
    chosen = "" if selector == "oracle-free" else f" --selector {selector}"
    print_note(f"`forgetbench run {' '.join(task)} --method NAME --tuned{chosen}` uses these hyper-parameters.")


def _row(tuned: TunedMethod) -> tuple[str, ...]:
    if tuned.best is None:
        return (tuned.spec.label, "does not apply", "", "", "", "")
    name, chosen = MethodLabel.parse(tuned.spec.label)
    failed = sum(trial.status != "ok" for trial in tuned.trials)
    values = (figure(tuned.best.value, ".3f"), figure(tuned.trials[0].value, ".3f"), figure(tuned.untouched, ".3f"))
    return (name, chosen or "the defaults", *values, str(failed))


def _record(task: str, tuned: TunedMethod) -> dict[str, object]:
    return {
        "task": task,
        "method": tuned.spec.label,
        "parameters": tuned.spec.method.to_dict(),
        "selector": tuned.spec.selector,
        "chosen": tuned.best.number if tuned.best else None,
        "value_of_no_unlearning": tuned.untouched,
        "notes": list(tuned.notes),
        "trials": [trial.__dict__ for trial in tuned.trials],
    }
