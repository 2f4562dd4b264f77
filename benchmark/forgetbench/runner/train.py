"""Job functions for everything but unlearning: prepare a task, train originals and oracles, count FLOPs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetbench.errors import ForgetBenchError, describe_error, printable
from forgetbench.evidence.arrays import write_arrays
from forgetbench.methods._card import TaskFacts
from forgetbench.methods._foreign_code import MethodCodeError, wrapped_errors
from forgetbench.methods._global_state import restored_state
from forgetbench.runner.artifacts import (
    LABELS,
    PREDICTIONS,
    REQUESTS,
    ROWS,
    WEIGHTS,
    make_once,
    read_meta,
    wall_time,
    write_meta,
    write_weights,
)
from forgetbench.runner.context import TaskContext, load_context
from forgetbench.runner.engines import machine_fault
from forgetbench.runner.jobs import (
    CheckMachineJob,
    CountTrainingJob,
    FlopCount,
    MachineFacts,
    MethodFailure,
    ModelPresence,
    PreparedTask,
    PrepareJob,
    TrainedModel,
    TrainJob,
    TrainOutcome,
)
from forgetbench.runner.keys import Role
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.store import file_digest

if TYPE_CHECKING:
    from torch import nn

    from forgetbench.training import Examples, LossFunction

STREAM_OF_ROLE: dict[Role, str] = {
    "original": "original",
    "reference": "reference",
    "control": "control",
    "partial": "partial",
    "audit": "third",
}
"""Role -> the name of its random streams. Seeds derive from these names, so they never change."""


def prepare_task(job: PrepareJob) -> PreparedTask:
    """Load the image set, draw the splits, store the labels, and check which methods apply, before any training."""
    from forgetbench.networks.pretrained import start_notice

    context = load_context(job.task, job.env)
    data, draws = context.data, range(job.task.draws)
    labels = []
    for draw in draws:
        key = context.keys.labels(draw)
        if context.store.read(context.store.key(key)) is None:
            context.store.write(key, lambda folder, draw=draw: _write_lists(context, draw, folder))  # type: ignore[misc]
        labels.append(context.store.key(key))
    card, network, facts = data.partition.card, context.blank_network, task_facts(context)
    reasons = {spec.key: spec.refusal(facts) for spec in job.methods}
    return PreparedTask(
        labels=tuple(labels),
        refusals={key: reason for key, reason in reasons.items() if reason},
        track=data.track,
        features=network.head.in_features if data.probed else 0,
        requests=data.n_requests,
        attributes=data.attributes,
        classes=tuple(data.partition.train.classes),
        counts={str(draw): {name: len(rows.index) for name, rows in data.rows(draw).items()} for draw in draws},
        index_hashes={str(draw): data.row_hashes(draw) for draw in draws},
        image_set={
            "name": card.name,
            "title": card.title,
            "license": card.license,
            "homepage": card.homepage,
            "sha256": data.partition.sha256,
        },
        notices=(*data.partition.notes, *filter(None, [start_notice(data.network_spec), data.precision_notice])),
        precision=data.precision,
    )


TrainCall = Callable[["TaskContext", "nn.Module", "Examples", int], tuple["nn.Module", float]]
"""Trains a new network on examples with a seed; returns the trained one, and the seconds that it took."""


def task_facts(context: TaskContext) -> TaskFacts:
    """What a method may know of a task before any work is done."""
    return TaskFacts(
        network=context.task.network.name,
        like=context.blank_network.body.similar_to,
        scenario=context.task.scenario.name,
        attributes=context.data.attributes,
        outputs=len(context.data.partition.train.classes),
    )


def check_machine(job: CheckMachineJob) -> MachineFacts:
    """What this machine has of a task: its images, and the store with the task's labels."""
    context = load_context(job.task, job.env)
    found = context.store.read(job.labels, expected=True)
    return MachineFacts(images=context.data.partition.sha256, sees_store=found is not None)


def train_model(job: TrainJob) -> TrainOutcome:
    """Train an original or an oracle and record its predictions; a method's own training may fail as its row."""
    return train_model_by(job, partial(_train_here, job.trainer))


def train_model_by(job: TrainJob, call: TrainCall) -> TrainOutcome:
    """Do the same with another way to train, such as in a sandbox.

    Args:
        job: The job.
        call: Trains the network.
    """
    context = load_context(job.task, job.env)
    draws = range(job.task.draws) if job.role == "original" else [job.draw]
    key = context.keys.model(job.role, job.draw, job.seed, job.trainer)
    folder = context.store.read(context.store.key(key))
    from_cache = folder is not None
    if folder is None:
        try:
            folder, made = make_once(context.store, key, lambda folder: _train(context, job, call, folder))
            from_cache = not made
        except MethodCodeError as error:
            if job.trainer is None:
                raise
            return method_failure(job.trainer.name, error, "training its own original: ")
    meta = read_meta(folder)
    predictions = {}
    for draw in draws:
        wanted = context.keys.predictions(meta["weights"], draw)
        predictions[draw] = context.store.key(wanted)
        if context.store.read(predictions[draw]) is None:
            arrays = context.evidence(context.load_model(folder), draw)
            context.store.write(wanted, lambda folder, arrays=arrays: write_arrays(folder / PREDICTIONS, arrays))  # type: ignore[misc]
    return TrainedModel(
        model=context.store.key(key),
        weights=meta["weights"],
        predictions=predictions,
        seconds=wall_time(meta),
        from_cache=from_cache,
        hardware=meta.get("hardware", ""),
    )


def find_model(job: TrainJob) -> ModelPresence:
    """Whether the model of a job is in the store."""
    context = load_context(job.task, job.env)
    key = context.keys.model(job.role, job.draw, job.seed, None)
    return ModelPresence(present=context.store.read(context.store.key(key)) is not None)


def import_original(job: TrainJob, weights: Path, sha256: str) -> bool:
    """Put an original that was trained elsewhere into the store, in the place of ours.

    Args:
        job: The original's job.
        weights: The file with its state dict.
        sha256: SHA-256 of the file.

    Returns:
        Whether another original of that seed was replaced.

    Raises:
        ForgetBenchError: The file is missing or damaged.
    """
    context = load_context(job.task, job.env)
    if not weights.is_file() or file_digest(weights) != sha256:
        raise ForgetBenchError(f"{weights} is missing or damaged. Fetch the reference bundle again.")
    key = context.keys.model(job.role, 0, job.seed, None)
    folder = context.store.read(context.store.key(key))
    if folder is not None and read_meta(folder)["weights"] == sha256:
        return False

    def fill(place: Path) -> None:
        shutil.copyfile(weights, place / WEIGHTS)
        write_meta(place, {"seconds": None, "weights": sha256})

    context.store.write(key, fill, replace=True)
    return folder is not None


def count_training(job: CountTrainingJob) -> FlopCount:
    """Count the FLOPs of training one model in a separate, untimed run; of a stream's oracles, the mean per request."""
    context, trainer = load_context(job.task, job.env), job.trainer
    facts = {"loss": trainer.training_identity() if trainer else None}
    return cached_flops(context, facts, lambda: _count_training(context, trainer))


class _NotCountedError(Exception):
    """What was counted raised an error, which the message describes."""


def cached_flops(context: TaskContext, facts: Mapping[str, Any], measure: Callable[[], float]) -> FlopCount:
    """A count of FLOPs from the store, or measured now.

    Args:
        context: The task.
        facts: What is counted.
        measure: Counts. If it raises, the cost is missing and the row is not affected.

    Raises:
        BaseException: A fault of the machine, such as a full disk.
    """
    key = context.keys.flops(facts)
    folder = context.store.read(context.store.key(key))
    if folder is None:

        def count(place: Path) -> None:
            try:
                flops = measure()
            except Exception as error:
                if machine_fault(error) is not None:
                    raise
                raise _NotCountedError(describe_error(error)) from error
            write_meta(place, {"flops": flops})

        try:
            folder, _ = make_once(context.store, key, count)
        except _NotCountedError as error:
            return FlopCount(flops=None, reason=str(error))
    return FlopCount(flops=read_meta(folder)["flops"])


def method_failure(method: str, error: MethodCodeError, where: str = "") -> MethodFailure:
    """The state of a row whose method raised; the reason names the method if its loss diverged.

    Raises:
        BaseException: A fault of the machine, such as a full disk, made the method raise: it is no failure of the row.
    """
    from forgetbench.training import DivergedError

    cause = error.__cause__
    if machine_fault(error) is not None:
        raise cause or error
    reason = printable(str(cause)) if isinstance(cause, ForgetBenchError) else str(error)
    if not isinstance(cause, DivergedError):
        return MethodFailure(status="failed", reason=where + reason)
    named = reason if reason.startswith(method) else f"{method}: {reason}"
    return MethodFailure(status="diverged", reason=where + named)


def _train(context: TaskContext, job: TrainJob, call: TrainCall, folder: Path) -> None:
    data, stream = context.data, STREAM_OF_ROLE[job.role]
    rows = data.examples("train", job.draw)
    indices: tuple[int, ...] = (job.seed,)
    if job.role != "original":
        rows = rows.take(data.oracle_rows(job.role, job.draw))
        indices = (job.draw, job.seed)
    network = data.network_spec.build(job.task.stream(f"{stream}-init", *indices)).to(data.device)
    trained, seconds = call(context, network, rows, job.task.stream(f"{stream}-order", *indices))
    write_weights(folder, trained)
    meta = {"seconds": seconds, "weights": file_digest(folder / WEIGHTS)}
    write_meta(folder, {**meta, **context.conditions()})


def _train_here(
    trainer: MethodSpec | None, context: TaskContext, network: nn.Module, rows: Examples, seed: int
) -> tuple[nn.Module, float]:
    """Train in this process, with the loss of a method if there is one."""
    from forgetbench.training import fit

    context.warm_up()
    with _trainer_code(trainer, seed) as loss:
        start = context.clock()
        fit(network, rows, context.task.recipe, seed, loss=loss)
        return network, context.clock() - start


@contextmanager
def _trainer_code(trainer: MethodSpec | None, seed: int) -> Iterator[LossFunction | None]:
    """The loss of a method that trains its own originals, guarded like its unlearning; None for the ordinary loss."""
    if trainer is None:
        yield None
        return
    with restored_state(seed), wrapped_errors():
        yield trainer.method.training_loss


def _count_training(context: TaskContext, trainer: MethodSpec | None) -> float:
    """FLOPs of training one oracle, or one original of a method's own: of one epoch, times the epochs."""
    from forgetbench.training import count_flops, fit

    data, recipe = context.data, context.task.recipe
    one_epoch = recipe.model_copy(update={"epochs": 1, "warmup_epochs": 0.0})
    everything = data.examples("train", 0)
    models = [everything] if trainer else [everything.take(split.retain) for split in data.steps(0)]
    with count_flops() as counted, _trainer_code(trainer, 0) as loss:
        for rows in models:
            fit(data.network_spec.build(0).to(data.device), rows, one_epoch, 0, loss=loss)
    return float(counted.total) * recipe.epochs / len(models)


def _write_lists(context: TaskContext, draw: int, folder: Path) -> None:
    data = context.data
    write_arrays(folder / LABELS, data.labels(draw))
    write_arrays(folder / ROWS, {name: rows.index for name, rows in data.rows(draw).items()})
    if data.n_requests:
        write_arrays(folder / REQUESTS, data.request_numbers(draw))
