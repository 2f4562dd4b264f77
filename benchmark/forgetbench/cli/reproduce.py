"""The command reproduce: the package's reference results, run again or recorded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import App

from forgetbench.cli.console import figure, print_json, print_note, print_table, print_text
from forgetbench.cli.options import RUN, Flag, Json, RunOptions
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from forgetbench.reproduction.reproduce import Reproduction


def add_commands(app: App) -> None:
    """Add this module's command."""
    app.command(reproduce)


def reproduce(
    *task: str,
    method: list[str] | None = None,
    quick: Flag = False,
    no_cache: Flag = False,
    record: Flag = False,
    seeds: int | None = None,
    trials: Literal[1, 10, 50] | None = None,
    results: Path | None = None,
    salt: str | None = None,
    server: str | None = None,
    allow_source: Flag = False,
    options: RunOptions = RUN,
    json: Json = False,
) -> int:
    """Run the reference results again and compare each metric; exit status 1 if one exceeds its tolerance.

    On the platform of the record all bits are equal and every z is 0. Elsewhere z is the difference in units of the
    scatter that both confidence intervals imply. (`forgetbench verify` runs an entry of a leaderboard again.)

    Example: forgetbench reproduce digits/cnn/mislabelled-20 --method finetune --method ssd

    Args:
        task: Names of tasks with reference results (default: all of --results, or all of the package whose
            images are part of it).
        method: Rows to run: labels, or names of methods for all their rows (default: all rows); with --record, labels
            of methods. Can be repeated.
        quick: Run one small task and a few rows, in about a minute.
        no_cache: Train all models again, also those of earlier calls.
        record: Record reference results instead: tune all methods, run them, write one file per task (about an hour).
        seeds: With --record, number of originals, and of oracles in each of the two sets.
        trials: With --record, trials of each method (default: as in the package's record, else 10); 1 means its
            defaults, so that nothing is tuned.
        results: Folder of the reference results (default: the package's).
        salt: Repeat the verified rows of a leaderboard's retired round instead: the salt on the board's page.
        server: With --salt, address of the leaderboard.
        allow_source: With --salt, run submitted source code. Read it first.
    """
    from forgetbench.api import reproduction

    if record:
        return _record_references(task, method, seeds, trials, salt or server, results, options)
    if seeds is not None or trials is not None:
        raise UsageError("--seeds and --trials go with --record: a record that is run again has its own numbers.")
    run = partial(reproduction.reproduce, task, methods=method, results=results, config=options.config())
    found = run(quick=quick, use_cache=not no_cache, salt=salt, server=server, allow_source=allow_source)
    if json:
        print_json([_record(each) for each in found])
    else:
        _print(found)
    return 1 if any(each.exceeding for each in found) else 0


def _record_references(
    task: tuple[str, ...],
    method: list[str] | None,
    seeds: int | None,
    trials: int | None,
    round_: str | None,
    results: Path | None,
    options: RunOptions,
) -> int:
    from forgetbench.api import reproduction

    if round_ is not None:
        raise UsageError("Give either --record or --salt.")
    written = reproduction.record_references(
        task, methods=method, seeds=seeds, trials=trials, results=results, config=options.config()
    )
    print_note("\n".join(f"written: {path}" for path in written))
    return 0


def _print(results: list[Reproduction]) -> None:
    for reproduced in results:
        _print_board(reproduced)


def _print_board(reproduced: Reproduction) -> None:
    rows = []
    for label in dict.fromkeys(difference.row for difference in reproduced.differences):
        of_row = [difference for difference in reproduced.differences if difference.row == label]
        worst = max(of_row, key=lambda difference: (difference.exceeds_tolerance, abs(difference.z or 0.0)))
        outcome = "FAIL" if worst.exceeds_tolerance else "same bits" if label in reproduced.same_bits else "ok"
        values = (figure(worst.recorded), figure(worst.measured), figure(worst.z, "+.2f"))
        rows.append((label, outcome, str(len(of_row)), worst.metric if worst.z else "", *values))
    header = ("row", "", "metrics", "largest difference", "recorded", "measured", "z")
    print_table(f"{reproduced.board.task}, run again", header, rows, right=(2, 4, 5, 6))
    for difference in reproduced.exceeding:
        z = "no z" if difference.z is None else f"z {difference.z:+.1f}"
        then, now = difference.recorded, difference.measured
        print_text(f"  exceeds its tolerance: {difference.row}: {difference.metric} was {then}, is {now} ({z})")
    for label, values_of in reproduced.changed.items():
        listed = ", ".join(f"{name} was {then}, is {now}" for name, (then, now) in values_of.items())
        print_text(f"  other hyper-parameters: {label}: {listed}")
    if reproduced.other_behavior:
        print_text(f"  other behavior of the method, for information: {', '.join(reproduced.other_behavior)}")
    if reproduced.board.lacks:
        print_text(f"  {reproduced.board.lacks}")
    if not reproduced.same_platform:
        print_text("  recorded on another platform: equal bits are not expected")
    print_text(f"  {'NOT reproduced' if reproduced.exceeding else 'reproduced'}\n")


def _record(reproduced: Reproduction) -> dict[str, object]:
    return {
        "task": reproduced.board.task,
        "reproduced": not reproduced.exceeding,
        "same_platform": reproduced.same_platform,
        "same_bits": reproduced.same_bits,
        "changed_parameters": reproduced.changed,
        "other_behavior": reproduced.other_behavior,
        "differences": [difference.model_dump(mode="json") for difference in reproduced.differences],
    }
