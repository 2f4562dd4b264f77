"""Record reference results with one command, and run them again to compare."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from forgetbench.datasets import datasets
from forgetbench.errors import UsageError
from forgetbench.evidence.environment import environment
from forgetbench.evidence.run import read_run
from forgetbench.method_label import MethodLabel
from forgetbench.reproduction.reference_board import (
    Difference,
    board_of,
    compare,
    evidence_digest,
    write_board,
)
from forgetbench.reproduction.reference_file import ReferenceBoard, ReferenceRow, TrialRecord
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.costs import SHIPPED
from forgetbench.runner.method_spec import MethodSpec, parse_methods
from forgetbench.runner.run import run
from forgetbench.scoring.scorer import RankedRuns, rank_runs, reference_rows
from forgetbench.tasks.task import Task, read_task
from forgetbench.tuning.tune import tune

SEEDS, TRIALS = 10, 10


class Counts(NamedTuple):
    """How much of a task is recorded."""

    seeds: int = SEEDS
    """Number of originals, and of oracles in each of the two sets."""
    trials: int = TRIALS
    """Trials of each method; 1 means its defaults."""


TASKS = {
    "celeba/cnn/person": Counts(6, 1),
    "cifar10-jpeg/fast/class-small": Counts(6, 1),
    "cifar10-jpeg/fast/random-10-small": Counts(6, 1),
    "cmu-faces/cnn/class": Counts(20),
    "cmu-faces/cnn/identity": Counts(20),
    "cmu-faces/cnn/mislabelled-20": Counts(20),
    "cmu-faces/cnn/random-10": Counts(20),
    "cmu-faces/vit/class": Counts(20),
    "cmu-faces/vit/stream-3": Counts(20),
    "digits/cnn/class": Counts(),
    "digits/cnn/mislabelled-20": Counts(),
    "digits/vit/class": Counts(),
    "faces/cnn/identity": Counts(),
    "mufac/cnn/clean": Counts(6, 1),
    "mufac/cnn/legacy": Counts(6, 1),
    "mufac/cnn/person": Counts(6, 1),
    "orl/cnn/identity": Counts(6),
}
"""The tasks of the package's reference results, and how much of each is recorded."""
QUICK = "digits/cnn/mislabelled-20"
QUICK_ROWS = ("finetune", "neggrad-plus", "random-label", "ssd")
"""The rows of a quick check: defaults, each seconds long."""
PLATFORM = ("system", "processor", "bfloat16", "python", "numpy", "torch", "torchvision", "device")
"""Facts of the environment that must be equal for equal bits to be expected.

The instructions for bfloat16 tell the generation of a processor, whose name virtual machines shorten ("AMD EPYC"), and
with it the width of the vectors in which float32 is summed.
"""


@dataclass(frozen=True)
class Reproduction:
    """A reference board that was run again."""

    board: ReferenceBoard
    """The record."""
    differences: tuple[Difference, ...]
    """Every metric of every row."""
    changed: dict[str, dict[str, tuple[Any, Any]]]
    """Row -> hyper-parameter -> recorded and present value, for those that differ."""
    other_behavior: tuple[str, ...]
    """Rows whose method has another fingerprint than recorded; for information."""
    same_bits: tuple[str, ...]
    """Rows whose evidence equals the record bit by bit."""
    same_platform: bool
    """Whether equal bits are expected."""

    @property
    def exceeding(self) -> tuple[Difference, ...]:
        """The differences that exceed the tolerance."""
        return tuple(difference for difference in self.differences if difference.exceeds_tolerance)


def record_reference(
    task: Task,
    config: RunConfig,
    *,
    methods: Sequence[str] = ("all",),
    seeds: int | None = None,
    trials: int | None = None,
    progress: ProgressCallback | None = None,
    folder: Path = SHIPPED,
) -> Path:
    """Tune methods on a task, run them with their defaults and tuned, and write the task's reference file.

    Nothing that is in the home already is computed again, so an interrupted call resumes.

    Args:
        task: The task.
        config: Where and how.
        methods: Labels of the methods.
        seeds: Number of originals, and of oracles in each of the two sets; by default that of `TASKS`, or 10.
        trials: Trials of each method, on development seeds; by default that of `TASKS`, or 10; 1 means its defaults,
            so that nothing is tuned.
        progress: Progress callback.
        folder: The folder of reference files.

    Returns:
        The file.
    """
    usual = TASKS.get(task.name, Counts())
    trials = usual.trials if trials is None else trials
    task = task.with_counts(seeds=usual.seeds if seeds is None else seeds)
    defaults = parse_methods(methods, [], task.setting)
    outcomes = tune(task, defaults, config, trials=trials, progress=progress) if trials != 1 else []
    tuned = [outcome.spec for outcome in outcomes]
    labels = {spec.label for spec in tuned}
    rows = tuned + [spec for spec in defaults if spec.label not in labels]
    [done] = run([task], lambda _: rows, config, progress)
    if done.reference is None:
        raise UsageError("Reference results need the oracles. Omit --skip-oracles.")
    ranked = rank_runs(config.results.scorer(done.reference), [read_run(path) for path in done.runs])
    tried = {
        outcome.spec.label: [
            TrialRecord(parameters=trial.parameters, status=trial.status, value=trial.value) for trial in outcome.trials
        ]
        for outcome in outcomes
        if outcome.best is not None
    }
    board = board_of(
        ranked,
        done.reference.card,
        [row.label for row in rows],
        tried,
        command=_command(task, methods, trials),
        environment=_environment(config),
    )
    return write_board(board, folder)


def _command(task: Task, methods: Sequence[str], trials: int) -> str:
    """The command that records a board."""
    words = ["forgetbench", "reproduce", task.name, "--record"]
    if tuple(methods) != ("all",):
        words += [word for name in methods for word in ("--method", name)]
    usual = TASKS.get(task.name, Counts())
    if task.seeds != usual.seeds:
        words += ["--seeds", str(task.seeds)]
    if trials != usual.trials:
        words += ["--trials", str(trials)]
    return shlex.join(words)


def reproduce(
    board: ReferenceBoard,
    config: RunConfig,
    *,
    rows: Sequence[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Reproduction:
    """Run the rows of a reference board again by their labels, and compare them with the record.

    The models are made in a folder of their own, so that nothing of the home's store takes part; an interrupted call
    resumes there.

    Args:
        board: The record.
        config: Where and how.
        rows: Labels or names of methods; None is all rows that can be run.
        progress: Progress callback.

    Raises:
        UsageError: The definition of the task changed, or there is no such row.
    """
    task = read_task(board.task).with_counts(seeds=board.seeds, draws=board.draws)
    if task.key != board.task_key:
        raise UsageError(
            f"The definition of {board.task} differs from the one of its reference results (task keys "
            f"{task.key[:12]} and {board.task_key[:12]}). Record them again: forgetbench reproduce {board.task} "
            "--record."
        )
    selected = _select_rows(board, rows)
    specs = [
        replace(spec, trials=row.trials, selector=row.selector)
        for row in selected
        for spec in parse_methods([row.label], [], task.setting)
    ]
    separate = replace(config, home=config.home / "reproduced")
    [done] = run([task], lambda _: specs, separate, progress)
    if done.reference is None:
        raise UsageError("A comparison needs the oracles. Omit --skip-oracles.")
    ranked = rank_runs(separate.results.scorer(done.reference), [read_run(path) for path in done.runs])
    same_platform = is_same_platform(_environment(config), board.environment)
    return _compared(board, selected, ranked, specs, same_platform=same_platform)


def is_same_platform(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    """Whether models are expected to have equal bits in two environments."""
    return all(first.get(name) == second.get(name) for name in PLATFORM)


def included(tasks: Iterable[str]) -> list[str]:
    """Those tasks whose images are part of the package."""
    return [name for name in tasks if datasets.get(read_task(name).image_set.name).card.embedded]


def remove_reproduced(config: RunConfig) -> None:
    """Remove the models of earlier reproductions, so that the next one computes them again."""
    shutil.rmtree(config.home / "reproduced", ignore_errors=True)


def platform_of(facts: Mapping[str, str]) -> dict[str, str]:
    """An environment without the release of the operating system's kernel."""
    words = facts.get("system", "").split()
    return {**facts, "system": f"{words[0]} {words[-1]}"} if words else dict(facts)


def _environment(config: RunConfig) -> dict[str, str]:
    return platform_of(environment(config.env().device))


def _select_rows(board: ReferenceBoard, rows: Sequence[str] | None) -> list[ReferenceRow]:
    runnable = [
        row for row in board.rows if row.label not in reference_rows(board.track) and row.status != "not-applicable"
    ]
    if rows is None:
        return runnable
    labels = {row.label for row in runnable}
    methods = {MethodLabel.parse(label).name for label in labels}
    exact = labels & set(rows)
    whole = set(rows) - exact  # the name of a method selects all its rows, unless it is itself a label
    unknown = sorted(whole - methods)
    if unknown:
        raise UsageError(
            f"{board.task} has no reference row {', '.join(unknown)}. Available: {', '.join(sorted(labels))}."
        )
    return [row for row in runnable if row.label in exact or MethodLabel.parse(row.label).name in whole]


def _compared(
    board: ReferenceBoard,
    selected: Sequence[ReferenceRow],
    ranked: RankedRuns,
    specs: Sequence[MethodSpec],
    *,
    same_platform: bool,
) -> Reproduction:
    recorded = {row.label: row for row in board.rows}
    pairs = [recorded[name] for name in reference_rows(board.track)] + list(selected)
    changed = {}
    for row, spec in zip(selected, specs, strict=True):
        # a hyper-parameter that is younger than the record has the value that the method then had: its default
        recorded_values = {**spec.kind().to_dict(), **row.parameters}
        names = sorted({*spec.parameters, *recorded_values})
        values = {name: (recorded_values.get(name), spec.parameters.get(name)) for name in names}
        changed[row.label] = {name: pair for name, pair in values.items() if pair[0] != pair[1]}
    comparisons = sum(len(row.pseudo) for row in pairs)
    differences: list[Difference] = []
    for row, card in zip(pairs, ranked.scorecards, strict=True):
        differences += compare(row, card, comparisons=comparisons, changed=bool(changed.get(row.label)))
    manifests = [manifest for manifest in ranked.manifests if manifest is not None]
    both = list(zip(selected, manifests, strict=True))
    return Reproduction(
        board,
        tuple(differences),
        {label: values for label, values in changed.items() if values},
        tuple(row.label for row, manifest in both if manifest.method.fingerprint != row.fingerprint),
        tuple(row.label for row, manifest in both if evidence_digest(manifest) == row.evidence),
        same_platform,
    )
