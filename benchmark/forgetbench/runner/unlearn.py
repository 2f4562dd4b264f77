"""Job functions in which a method unlearns, request by request, and what the method is given.

A stream of requests is a chain: each starts from the model that the method returned for the one before. Every step is
an artifact of its own, addressed by all steps before it, so an interrupted run resumes at the request it had reached.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from forgetbench.errors import printable
from forgetbench.evidence.arrays import Array, write_arrays
from forgetbench.evidence.run import CHANGED_STATE, describe
from forgetbench.methods._foreign_code import MethodCodeError, capture_warnings, wrapped_errors
from forgetbench.methods._global_state import restored_state
from forgetbench.methods.base import ForgetRequest, Method
from forgetbench.runner.artifacts import (
    PREDICTIONS,
    WEIGHTS,
    make_once,
    read_meta,
    require_artifact,
    write_meta,
    write_weights,
)
from forgetbench.runner.context import TaskContext, load_context
from forgetbench.runner.jobs import (
    BoardJob,
    BoardResult,
    CountTrainingJob,
    CountUnlearningJob,
    FlopCount,
    TrainJob,
    UnlearnedModel,
    UnlearnJob,
    UnlearnOutcome,
)
from forgetbench.runner.keys import CacheKey
from forgetbench.runner.train import cached_flops, count_training, method_failure, train_model
from forgetbench.store import JsonObject, recorded_digest

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class StreamStep:
    """One request of a stream; a single request is both first and last."""

    draw: int
    seed: int
    step: int
    """Position of the request, from 0."""
    last: bool
    original: Path
    """Folder of the original."""
    source: Path
    """Folder of the model that is to unlearn: the original's, or that of the step before."""
    keep: bool
    """Whether the weights stay in the store."""


@dataclass(frozen=True)
class CallResult:
    """What one call of a method returned, and what it cost."""

    network: nn.Module
    """The unlearned network, checked by the contract of methods."""
    original: nn.Module
    """The original, loaded once the method had returned."""
    seconds: float
    """Wall time of the call."""
    peak_memory: int | None
    """Peak memory in bytes, where it is measured."""
    notes: dict[str, float | str]
    """What the method logged, as JSON can hold it."""


MethodCall = Callable[[TaskContext, StreamStep], CallResult]
"""Calls a method for one request; raises `MethodCodeError` for whatever goes wrong in it."""


def unlearn(job: UnlearnJob) -> UnlearnOutcome:
    """Let a method unlearn from one original in this process, and record the predictions after each request.

    What the method raises becomes the state of its row; an error of the machine, such as a full disk, is raised.
    """
    return unlearn_by(job, partial(_call_here, job.method.method))


def unlearn_by(job: UnlearnJob, call: MethodCall) -> UnlearnOutcome:
    """Do the same with another way to call the method, such as in a sandbox.

    Args:
        job: The job.
        call: Calls the method.
    """
    context = load_context(job.task, job.env)
    requests = len(context.data.steps(job.draw))
    step_keys: list[str] = []
    from_cache = True
    for number in range(requests):
        key, earlier_key = (_step_key(context, job, step_keys, recalibrated=now) for now in (True, False))
        step = StreamStep(
            draw=job.draw,
            seed=job.seed,
            step=number,
            last=number == requests - 1,
            original=require_artifact(context.store, job.original),
            source=require_artifact(context.store, step_keys[-1] if step_keys else job.original),
            keep=job.keep_model or number < requests - 1,
        )
        where = f"request {number + 1} of {requests}: " if requests > 1 else ""
        try:
            from_cache &= not _make_step(context, call, step, key, earlier_key)
        except MethodCodeError as error:
            return method_failure(job.method.name, error, where)
        step_keys.append(context.store.key(key))
    made_on = read_meta(require_artifact(context.store, step_keys[-1])).get("hardware", "")
    return UnlearnedModel(key=step_keys[-1], steps=tuple(step_keys[:-1]), from_cache=from_cache, hardware=made_on)


def do_job(job: BoardJob) -> BoardResult:
    """Train, unlearn or count: all jobs of a board run side by side."""
    match job:
        case TrainJob():
            return train_model(job)
        case CountTrainingJob():
            return count_training(job)
        case UnlearnJob():
            return unlearn(job)
        case CountUnlearningJob():
            return count_unlearning(job)


def count_unlearning(job: CountUnlearningJob) -> FlopCount:
    """Count the FLOPs of ``unlearn`` in a separate run on the first seed; for a stream, the mean per request."""
    context, method = load_context(job.task, job.env), job.method.method

    def measure() -> float:
        from forgetbench.methods._result import check_result
        from forgetbench.training import count_flops

        folder = require_artifact(context.store, job.original)
        model, original = context.load_model(folder), context.load_model(folder)
        requests = len(context.data.steps(0))
        with capture_warnings(), count_flops() as counted:
            for step in range(requests):
                request = make_request(context, 0, 0, step)
                with restored_state(request.seed), wrapped_errors():
                    model = check_result(method.unlearn(model, request), original)
        return float(counted.total) / requests

    return cached_flops(context, {"method": job.method.identity()}, measure)


def make_request(context: TaskContext, draw: int, seed: int, step: int = 0) -> ForgetRequest:
    """What a method is given: never test data, never an oracle, and in a stream no data of earlier requests."""
    data, task = context.data, context.task
    splits, train_rows = data.steps(draw), data.examples("train", draw)
    fine_labels = data.partition.train.fine_labels
    place = (draw, seed, step) if len(splits) > 1 else (draw, seed)
    init_seed = task.stream("method-init", *place)
    return ForgetRequest(
        forget=train_rows.take(splits[step].forget),
        retain=train_rows.take(splits[step].given),
        validation=data.examples("validation", draw).take(splits[step].validation),
        seed=task.stream("method", *place),
        recipe=task.recipe,
        new_network=lambda: data.network_spec.build(init_seed).to(data.device),
        forget_fine_labels=None if fine_labels is None else torch.tensor(fine_labels[splits[step].forget]),
        retain_fine_labels=None if fine_labels is None else torch.tensor(fine_labels[splits[step].given]),
        step=step,
    )


def _step_key(context: TaskContext, job: UnlearnJob, previous: list[str], *, recalibrated: bool = True) -> CacheKey:
    original = read_meta(require_artifact(context.store, job.original))["weights"]
    source = recorded_digest(require_artifact(context.store, previous[-1]), WEIGHTS) if previous else None
    return context.keys.unlearned(job.method, original, job.draw, job.seed, previous, source, recalibrated=recalibrated)


def _make_step(context: TaskContext, call: MethodCall, step: StreamStep, key: CacheKey, earlier_key: CacheKey) -> bool:
    """Compute one step of a stream unless it is in the store; returns whether it was computed."""
    earlier = context.store.read(context.store.key(earlier_key)) if earlier_key != key else None
    again = earlier is not None and (earlier / WEIGHTS).is_file()

    def write(folder: Path) -> None:
        if earlier is not None and again:
            _predict_again(context, earlier, step, folder)
        else:
            _unlearn(context, call, step, folder)

    made = False
    while True:
        found = context.store.read(context.store.key(key))
        if found is not None and (not step.keep or (found / WEIGHTS).is_file()):
            return made
        _, made = make_once(context.store, key, write, replace=found is not None)  # by one with weights


def _predict_again(context: TaskContext, earlier: Path, step: StreamStep, folder: Path) -> None:
    """Record what a model answers that an earlier version unlearned and kept; its predictions then were fewer."""
    arrays = context.evidence(context.load_model(earlier), step.draw)
    shutil.copyfile(earlier / WEIGHTS, folder / WEIGHTS)
    write_arrays(folder / PREDICTIONS, arrays)
    write_meta(folder, {**read_meta(earlier), "arrays": _described(arrays)})


def _call_here(method: Method, context: TaskContext, step: StreamStep) -> CallResult:
    """Call a method in this process."""
    from forgetbench.methods._result import check_result

    model = context.load_model(step.source)
    request = make_request(context, step.draw, step.seed, step.step)
    context.warm_up()
    with capture_warnings() as warnings, restored_state(request.seed) as state, wrapped_errors():
        context.reset_peak_memory()
        start = context.clock()
        result = method.unlearn(model, request)
        seconds = context.clock() - start
        peak_memory = context.peak_memory()
    original = context.load_model(step.original)
    with wrapped_errors():
        network = check_result(result, original)
    return CallResult(network, original, seconds, peak_memory, plain_notes(request.notes, warnings, state.changed))


def _unlearn(context: TaskContext, call: MethodCall, step: StreamStep, folder: Path) -> None:
    from forgetbench.training import DivergedError

    result = call(context, step)
    model = result.network
    with wrapped_errors():
        arrays = context.evidence(model, step.draw) if step.last else context.predict(model, step.draw, features=False)
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise DivergedError("the predictions of the unlearned model are NaN or infinite")
    if step.keep:
        write_weights(folder, model)
    write_arrays(folder / PREDICTIONS, arrays)
    meta = {
        "seconds": result.seconds,
        "peak_memory": result.peak_memory,
        "share_changed": share_changed(model, result.original),
        "notes": result.notes,
        "arrays": _described(arrays),
        "original": recorded_digest(step.original, WEIGHTS),
        **context.conditions(),
    }
    write_meta(folder, meta)


def _described(arrays: Mapping[str, Array]) -> JsonObject:
    return {name: record.model_dump(mode="json") for name, record in describe(arrays).items()}


def plain_notes(logged: Mapping[Any, Any], warnings: Sequence[str], changed: Sequence[str]) -> dict[str, float | str]:
    """What a method logged, as JSON can hold it, with its warnings and the global state that it changed."""
    notes: dict[str, float | str] = {}
    for name, value in logged.items():
        is_number = isinstance(value, Real) and math.isfinite(value)
        notes[printable(str(name))] = float(value) if is_number else printable(str(value))
    if warnings:
        notes["warning"] = printable("; ".join(warnings))
    if changed:
        notes[CHANGED_STATE] = ", ".join(changed)
    return notes


def share_changed(model: nn.Module, original: nn.Module) -> float:
    """Share of a model's parameters whose value differs from the original's."""
    before, changed, total = original.state_dict(), 0, 0
    for name, parameter in model.named_parameters():
        changed += int((parameter.detach() != before[name]).sum())
        total += parameter.numel()
    return changed / total
