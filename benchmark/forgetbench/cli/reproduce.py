"""The commands reference and reproduce: known-good numbers, made by one command and checked by another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from forgetbench.cli.console import ProgressBar, out, print_json, print_table, remark
from forgetbench.cli.run import Device, ExecutorName, Flag
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from forgetbench.reproduction.reproduce import Reproduction


def add_commands(app: App) -> None:
    """Add this file's commands."""
    app.command(reference)
    app.command(reproduce)


def reference(
    *task: str,
    output: Path | None = None,
    root: Path | None = None,
    device: Device = "auto",
    executor: ExecutorName = "auto",
    workers: int | None = None,
) -> None:
    """Make the reference results again: tune all methods, run them, and write one file for each task.

    It may be killed at any time; the same command continues. On two cores it takes about an hour in all.

    Example: forgetbench reference digits/cnn/class --output my-reference

    Parameters
    ----------
    task
        Names of tasks; those that have reference results, if left out.
    output
        Folder for the files; those of the package, if left out.
    root
        Folder of the image sets on disk.
    workers
        Processes; one for each core if left out.
    """
    from forgetbench.reproduction.reference_board import SHIPPED
    from forgetbench.reproduction.reproduce import TASKS, record_reference
    from forgetbench.runner.config import RunConfig
    from forgetbench.tasks.task import find_tasks

    options = RunConfig(root=root, device=device, engine=executor, workers=workers)
    for one in find_tasks(task or TASKS):
        with ProgressBar() as watcher:
            path = record_reference(one, options, progress=watcher, folder=output or SHIPPED)
        remark(f"written: {path}")


def reproduce(
    *task: str,
    method: Annotated[list[str] | None, Parameter(negative="")] = None,
    quick: Flag = False,
    again: Flag = False,
    submission: str | None = None,
    server: str | None = None,
    allow_source: Flag = False,
    results: Path | None = None,
    root: Path | None = None,
    device: Device = "auto",
    executor: ExecutorName = "auto",
    workers: int | None = None,
    json: Flag = False,
) -> int:
    """Run the reference results again and compare metric by metric; exit status 1 where one is beyond tolerance.

    Example: forgetbench reproduce digits/cnn/mislabelled-20 --method finetune --method ssd

    On the platform of the record bits are equal and every z is 0. Elsewhere z is the difference over the scatter that
    both intervals tell of.

    Parameters
    ----------
    task
        Names of tasks that have reference results; all of them, if left out.
    method
        Rows to run: labels, or names of methods for all their rows. All rows, if left out.
    quick
        One small task and a few rows, in about a minute.
    again
        Make every model again, also those that an earlier call has made.
    submission
        Instead of our own results, run an entry of a leaderboard again, and post nothing.
    server
        The leaderboard's address.
    allow_source
        Run the source that was submitted, after reading it.
    results
        Folder of reference results; those of the package, if left out.
    root
        Folder of the image sets on disk.
    workers
        Processes; one for each core if left out.
    json
        Print every comparison as JSON.
    """
    from forgetbench.reproduction.reference_board import SHIPPED, read_board, reference_tasks
    from forgetbench.reproduction.reproduce import QUICK, QUICK_ROWS, remove_reproduced
    from forgetbench.reproduction.reproduce import reproduce as reproduce_board
    from forgetbench.runner.config import RunConfig

    if submission is not None or server is not None:
        if submission is None or server is None or task or method or quick:
            raise UsageError("an entry is named by --submission and --server, and by nothing else.")
        return _reproduce_submission(submission, server, root, allow_source=allow_source, json=json)
    if quick and (task or method):
        raise UsageError("--quick chooses task and rows itself; leave them out.")
    folder = results or SHIPPED
    names = (QUICK,) if quick else task or reference_tasks(folder)
    if not names:
        raise UsageError(f"There are no reference results in {folder}; `forgetbench reference` makes them.")
    rows = QUICK_ROWS if quick else method
    options = RunConfig(root=root, device=device, engine=executor, workers=workers)
    boards = [read_board(name, folder) for name in names]
    if again:
        remove_reproduced(options)
    found = []
    for board in boards:
        with ProgressBar() as watcher:
            found.append(reproduce_board(board, options, rows=rows, progress=watcher))
    if json:
        print_json([_record(one) for one in found])
    else:
        for one in found:
            _print(one)
    return 1 if any(one.exceeding for one in found) else 0


def _reproduce_submission(submission: str, server: str, root: Path | None, *, allow_source: bool, json: bool) -> int:
    from forgetbench.remote.verify import compare_rerun

    with ProgressBar() as watcher:
        same, differences = compare_rerun(submission, server, root, watcher, remark, allow_source=allow_source)
    beyond = [difference for difference in differences if difference.exceeds_tolerance]
    if json:
        print_json({"same_bits": same, "differences": [one.model_dump(mode="json") for one in differences]})
    else:
        rows = [
            (
                one.metric,
                "BEYOND" if one.exceeds_tolerance else "",
                _figure(one.recorded),
                _figure(one.measured),
                _figure(one.z),
            )
            for one in differences
        ]
        print_table(f"{submission} of {server}", ("metric", "", "listed", "found", "z"), rows, right=(2, 3, 4))
        out().print("  the same bits" if same else "  other bits", markup=False)
        out().print(f"  {'NOT reproduced' if beyond else 'reproduced'}", markup=False)
    return 1 if beyond else 0


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _print(one: Reproduction) -> None:
    rows = []
    for label in dict.fromkeys(difference.row for difference in one.differences):
        mine = [difference for difference in one.differences if difference.row == label]
        worst = max(mine, key=lambda difference: (difference.exceeds_tolerance, abs(difference.z or 0.0)))
        z = "–" if worst.z is None else f"{worst.z:+.2f}"
        verdict = "BEYOND" if worst.exceeds_tolerance else "same bits" if label in one.same_bits else "ok"
        figures = [_figure(value) for value in (worst.recorded, worst.measured)]
        rows.append((label, verdict, str(len(mine)), worst.metric if worst.z else "", *figures, z))
    header = ("row", "", "metrics", "farthest", "recorded", "found", "z")
    print_table(f"{one.board.task}, run again", header, rows, right=(2, 4, 5, 6))
    say = out()
    for difference in one.exceeding:
        z = "no z" if difference.z is None else f"z {difference.z:+.1f}"
        then, now = difference.recorded, difference.measured
        say.print(f"  beyond tolerance: {difference.row}: {difference.metric} was {then}, is {now} ({z})", markup=False)
    for label, values in one.changed.items():
        listed = ", ".join(f"{name} was {then}, is {now}" for name, (then, now) in values.items())
        say.print(f"  another recipe: {label}: {listed}", markup=False)
    if one.other_behavior:
        say.print(f"  another source, for information: {', '.join(one.other_behavior)}", markup=False)
    if not one.same_platform:
        say.print("  another platform than the record's: equal bits are not expected", markup=False)
    say.print(f"  {'NOT reproduced' if one.exceeding else 'reproduced'}", markup=False)
    say.print()


def _record(one: Reproduction) -> dict[str, object]:
    return {
        "task": one.board.task,
        "reproduced": not one.exceeding,
        "same_platform": one.same_platform,
        "same_bits": one.same_bits,
        "changed_parameters": one.changed,
        "changed_sources": one.other_behavior,
        "differences": [difference.model_dump(mode="json") for difference in one.differences],
    }
