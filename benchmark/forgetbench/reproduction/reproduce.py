"""Reference results: made by one command that can be killed and continued, and run again to be compared."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forgetbench.errors import UsageError
from forgetbench.evidence.environment import environment
from forgetbench.evidence.run import read_run
from forgetbench.reproduction.reference_board import (
    SHIPPED,
    Difference,
    ReferenceBoard,
    ReferenceRow,
    TrialRecord,
    board_of,
    compare,
    evidence_digest,
    write_board,
)
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.method_spec import MethodSpec, choose
from forgetbench.runner.run import run
from forgetbench.scoring.scorer import REFERENCES, RankedRuns, rank_runs
from forgetbench.tasks.task import Task, read_task
from forgetbench.tuning.tune import tune

TASKS = ("digits/cnn/class", "digits/cnn/mislabelled-20", "digits/vit/class", "faces/cnn/identity")
"""The tasks that have reference results."""
SEEDS, TRIALS = 10, 10
QUICK = "digits/cnn/mislabelled-20"
QUICK_ROWS = ("finetune", "neggrad-plus", "random-label", "ssd")
"""What a quick check runs again: rows with their defaults, each seconds long."""
PLATFORM = ("system", "processor", "python", "numpy", "torch", "torchvision", "device")
"""What must be equal for equal bits to be expected."""


@dataclass(frozen=True)
class Reproduced:
    """A reference board, run again."""

    board: ReferenceBoard
    """What was recorded."""
    differences: tuple[Difference, ...]
    """Every metric of every row."""
    changed: dict[str, dict[str, tuple[Any, Any]]]
    """Row -> hyper-parameter -> recorded and present value, where they differ."""
    sources: tuple[str, ...]
    """Rows whose method's source is another one than recorded; for information."""
    same_bits: tuple[str, ...]
    """Rows that gave the recorded evidence, bit by bit."""
    same_platform: bool
    """Whether equal bits were to be expected."""

    @property
    def beyond(self) -> tuple[Difference, ...]:
        """What is beyond tolerance."""
        return tuple(one for one in self.differences if one.beyond)


def make_reference(
    task: Task,
    options: RunConfig,
    *,
    methods: Sequence[str] = ("all",),
    seeds: int = SEEDS,
    trials: int = TRIALS,
    watcher: ProgressCallback | None = None,
    folder: Path = SHIPPED,
) -> Path:
    """Tune all methods of a task, run them with their defaults and as they were tuned, and write its reference file.

    Whatever is in the home already is not made again, so that a killed call continues.

    Args:
        task: The task.
        options: Where and how.
        methods: What is run; all methods.
        seeds: Originals, and oracles in each of the two sets.
        trials: Trials of each method, on development seeds.
        watcher: Is told what goes on.
        folder: Where reference files lie.
    """
    task = task.with_counts(seeds=seeds)
    plain = choose(methods, [], task.network.name)
    found = tune(task, plain, options, trials=trials, watcher=watcher)
    tuned = [one.contestant for one in found]
    named = {one.label for one in tuned}
    rows = tuned + [one for one in plain if one.label not in named]
    [done] = run([task], lambda _: rows, options, watcher)
    if done.pack is None:
        raise UsageError("reference results need the oracles; leave out --skip-oracles.")
    standing = rank_runs(options.results.judge(done.pack), [read_run(path) for path in done.runs])
    tried = {
        one.contestant.label: [
            TrialRecord(parameters=trial.parameters, status=trial.status, value=trial.value) for trial in one.trials
        ]
        for one in found
        if one.best is not None
    }
    board = board_of(
        standing,
        done.pack.card,
        [row.label for row in rows],
        tried,
        command=f"forgetbench reference {task.name}",
        environment=_here(options),
    )
    return write_board(board, folder)


def reproduce(
    board: ReferenceBoard,
    options: RunConfig,
    *,
    rows: Sequence[str] | None = None,
    watcher: ProgressCallback | None = None,
) -> Reproduced:
    """Run the rows of a reference board again by their labels, and compare them with what was recorded.

    The models are made in a folder of their own, so that nothing of the home's store takes part; a killed call
    continues there.

    Args:
        board: What was recorded.
        options: Where and how.
        rows: Labels or names of methods; all rows that could be run, if left out.
        watcher: Is told what goes on.

    Raises:
        UsageError: The task is defined otherwise than it was, or there is no such row.
    """
    task = read_task(board.task).with_counts(seeds=board.seeds, draws=board.draws)
    if task.key != board.task_key:
        raise UsageError(
            f"{board.task} is defined otherwise here than for its reference results (task keys {task.key[:12]} and "
            f"{board.task_key[:12]}): `forgetbench reference {board.task}` makes them anew."
        )
    wanted = _wanted(board, rows)
    contestants = [
        replace(one, trials=row.trials, selector=row.selector)
        for row in wanted
        for one in choose([row.label], [], task.network.name)
    ]
    aside = replace(options, home=options.home / "reproduced")
    [done] = run([task], lambda _: contestants, aside, watcher)
    if done.pack is None:
        raise UsageError("a comparison needs the oracles; leave out --skip-oracles.")
    standing = rank_runs(aside.results.judge(done.pack), [read_run(path) for path in done.runs])
    return _compared(board, wanted, standing, contestants, _here(options))


def forget_reproduced(options: RunConfig) -> None:
    """Remove the models of earlier reproductions, so that the next one makes them again."""
    shutil.rmtree(options.home / "reproduced", ignore_errors=True)


def _here(options: RunConfig) -> dict[str, str]:
    """The environment, without the release of the operating system's kernel."""
    found = environment(options.site().device)
    name, _, machine = found["system"].split(maxsplit=2)
    return {**found, "system": f"{name} {machine}"}


def _wanted(board: ReferenceBoard, rows: Sequence[str] | None) -> list[ReferenceRow]:
    able = [row for row in board.rows if row.label not in REFERENCES and row.status != "not-applicable"]
    if rows is None:
        return able
    labels = {row.label for row in able}
    methods = {label.partition(":")[0] for label in labels}
    exact = labels & set(rows)
    whole = set(rows) - exact  # a method's name stands for all its rows, unless it is a label itself
    wanted = [row for row in able if row.label in exact or row.label.partition(":")[0] in whole]
    unknown = sorted(whole - methods)
    if unknown:
        raise UsageError(
            f"{board.task} has no reference row {', '.join(unknown)}; there are: {', '.join(sorted(labels))}."
        )
    return wanted


def _compared(
    board: ReferenceBoard,
    wanted: Sequence[ReferenceRow],
    standing: RankedRuns,
    contestants: Sequence[MethodSpec],
    here: dict[str, str],
) -> Reproduced:
    recorded = {row.label: row for row in board.rows}
    pairs = [recorded[name] for name in REFERENCES] + list(wanted)
    changed = {}
    for row, contestant in zip(wanted, contestants, strict=True):
        now = contestant.method.to_dict()
        names = sorted(set(now) | set(row.parameters))
        found = {name: (row.parameters.get(name), now.get(name)) for name in names}
        changed[row.label] = {name: values for name, values in found.items() if values[0] != values[1]}
    comparisons = sum(len(row.pseudo) for row in pairs)
    differences: list[Difference] = []
    for row, card in zip(pairs, standing.scorecards, strict=True):
        differences += compare(row, card, comparisons=comparisons, changed=bool(changed.get(row.label)))
    manifests = [manifest for manifest in standing.manifests if manifest is not None]
    both = list(zip(wanted, manifests, strict=True))
    return Reproduced(
        board,
        tuple(differences),
        {label: values for label, values in changed.items() if values},
        tuple(row.label for row, manifest in both if manifest.method.source_sha256 != row.source),
        tuple(row.label for row, manifest in both if evidence_digest(manifest) == row.evidence),
        all(here.get(name) == board.environment.get(name) for name in PLATFORM),
    )
