"""The jobs in which a method unlearns, request by request, and what it is given for that.

A stream of requests is a chain: each starts from the model that the method returned for the one before. Every link is
an artifact of its own, addressed by all links before it: a killed run continues at the request where it stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.arrays import write_arrays
from forgetbench.evidence.run import describe
from forgetbench.methods.base import ForgetRequest, Method
from forgetbench.runner.artifacts import (
    ANSWERS,
    WEIGHTS,
    cached_flops,
    failure,
    load_model,
    read_meta,
    require_artifact,
    write_meta,
    write_weights,
)
from forgetbench.runner.context import TaskContext, load_context
from forgetbench.runner.engines import Job, Result
from forgetbench.runner.method_spec import build, made_of
from forgetbench.store import file_digest

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Link:
    """One request of a chain; where there is but one, it is first and last."""

    draw: int
    seed: int
    step: int
    """The request, from 0."""
    last: bool
    original: Path
    """Folder of the original."""
    source: Path
    """Folder of the model that is to unlearn: the original's, or that of the link before."""
    keep: bool
    """Whether the weights stay in the store."""


def unlearn(job: Job) -> Result:
    """Let a method unlearn from one original, and record what the unlearned model answers, after each request.

    Args:
        job: ``task``, ``site``, ``method``, ``draw``, ``seed``, ``original`` (key), ``keep_model``.

    Returns:
        ``status`` and, when it is ``ok``, the ``key`` of the answers and those of the ``steps`` before the last
        request; otherwise the ``reason``.
    """
    bench, method = load_context(job), build(job["method"])
    requests, chain, fresh = len(bench.steps(job["draw"])), list[str](), False
    for step in range(requests):
        made_from = _made_from(bench, job, chain, last=step == requests - 1)
        link = Link(
            draw=job["draw"],
            seed=job["seed"],
            step=step,
            last=step == requests - 1,
            original=require_artifact(bench.store, job["original"]),
            source=require_artifact(bench.store, chain[-1] if chain else job["original"]),
            keep=bool(job.get("keep_model")) or step < requests - 1,
        )
        where = f"request {step + 1} of {requests}: " if requests > 1 else ""
        try:
            fresh |= _make(bench, method, link, made_from)
        except Exception as error:  # noqa: BLE001 - a stranger's method may raise anything; the row says what it was
            return failure(job["method"]["name"], error, where)
        chain.append(bench.store.key(made_from))
    return {"status": "ok", "key": chain[-1], "steps": chain[:-1], "fresh": fresh}


def count(job: Job) -> Result:
    """Count the FLOPs of ``unlearn`` in a separate, untimed run on the first seed; of a stream, the mean of a request.

    Args:
        job: ``task``, ``site``, ``method``, ``original`` (key).
    """
    bench, method = load_context(job), build(job["method"])

    def measure() -> float:
        from forgetbench.training import count_flops

        model, requests = load_model(bench, require_artifact(bench.store, job["original"])), len(bench.steps(0))
        with _heard(), count_flops() as counted:
            for step in range(requests):
                model = method.unlearn(model, make_request(bench, 0, 0, step))
        return float(counted.total) / requests

    return cached_flops(bench, {"method": made_of(job["method"])}, measure)


def make_request(bench: TaskContext, draw: int, seed: int, step: int = 0) -> ForgetRequest:
    """What a method is given: never test data, never an oracle, and in a stream nothing of earlier requests."""
    splits, train_rows = bench.steps(draw), bench.examples("train", draw)
    place = (draw, seed, step) if len(splits) > 1 else (draw, seed)
    fresh = bench.task.stream("method-init", *place)
    return ForgetRequest(
        forget=train_rows.take(splits[step].forget),
        retain=train_rows.take(splits[step].retain),
        validation=bench.examples("validation", draw).take(splits[step].validation),
        seed=bench.task.stream("method", *place),
        recipe=bench.task.recipe,
        fresh_network=lambda: bench.spec.build(fresh).to(bench.device),
        step=step,
    )


def _made_from(bench: TaskContext, job: Job, chain: list[str], *, last: bool) -> dict[str, Any]:
    original = read_meta(require_artifact(bench.store, job["original"]))["weights"]
    facts = {"original": original, "method": made_of(job["method"]), "draw": job["draw"], "seed": job["seed"]}
    if len(bench.steps(job["draw"])) > 1:
        facts["after"] = list(chain)
    if chain:
        facts["from"] = file_digest(require_artifact(bench.store, chain[-1]) / WEIGHTS)
    split = bench.split(job["draw"]).sha256
    return bench.made_from("unlearned", **facts, split=split, asked=bench.asked(job["draw"], features=last))


def _make(bench: TaskContext, method: Method, link: Link, made_from: Mapping[str, Any]) -> bool:
    """Make one link of a chain unless it is there; returns whether it was made."""
    folder = bench.store.read(bench.store.key(made_from))
    if folder is not None:
        if not link.keep or (folder / WEIGHTS).is_file():
            return False
        bench.store.remove(folder)
    bench.store.write(made_from, lambda place: _unlearn(bench, method, link, place))
    return True


def _unlearn(bench: TaskContext, method: Method, link: Link, place: Path) -> None:
    import torch

    from forgetbench.training import DivergedError

    model = load_model(bench, link.source)
    request = make_request(bench, link.draw, link.seed, link.step)
    on_gpu = bench.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(bench.device)
    with _heard() as warnings:
        start = bench.now()
        model = method.unlearn(model, request)
        seconds = bench.now() - start
    if warnings:
        request.report("warning", "; ".join(warnings))
    original = load_model(bench, link.original)
    if not link.last and set(model.state_dict()) != set(original.state_dict()):
        raise ForgetBenchError("the next request needs a network with the parameters of the original's, no others.")
    if link.keep:
        write_weights(place, model)
    answers = bench.observe(model, link.draw, features=link.last)
    if not all(np.isfinite(array).all() for array in answers.values()):
        raise DivergedError("the unlearned model answers NaN or infinity")
    write_arrays(place / ANSWERS, answers)
    meta = {
        "seconds": seconds,
        "peak_memory": torch.cuda.max_memory_allocated(bench.device) if on_gpu else None,
        "share_changed": share_changed(model, original),
        "notes": dict(request.notes),
        "arrays": {name: record.model_dump(mode="json") for name, record in describe(answers).items()},
        "original": file_digest(link.original / WEIGHTS),
    }
    write_meta(place, meta)


def share_changed(model: nn.Module, original: nn.Module) -> float:
    """Share of a model's parameters whose value is not the original's."""
    before, changed, total = original.state_dict(), 0, 0
    for name, parameter in model.named_parameters():
        changed += int((parameter.detach() != before[name]).sum())
        total += parameter.numel()
    return changed / total


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What methods warn of meanwhile: it goes into the row's notes rather than into a progress bar."""
    logger, messages = logging.getLogger("forgetbench.methods"), []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    listener, propagate = Listener(logging.WARNING), logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate
