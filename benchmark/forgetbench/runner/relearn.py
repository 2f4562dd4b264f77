"""Relearning time: how fast a model learns its forget set again. Measured on the model, for no record can show it.

Every model of a board is trained on its forget set with one optimizer, one learning rate and one order of batches until
its forget accuracy reaches 95 % of the original's. Batch-norm statistics are frozen, so that a step changes the weights
alone. Oracles are trained in the same way; they have never seen what they are taught.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TypedDict

import numpy as np

from forgetbench.metrics.accuracy_gap import accuracy
from forgetbench.metrics.erasure import relearn_time
from forgetbench.runner.artifacts import WEIGHTS, make_once, read_meta, require_artifact, write_meta
from forgetbench.runner.context import TaskContext, load_context
from forgetbench.runner.jobs import RelearnJob, RelearnTime
from forgetbench.store import file_digest


class Rule(TypedDict):
    """How models are taught."""

    optimizer: str
    lr: float
    batch_size: int
    limit: int
    """The last step."""
    rows: int
    """Maximum number of rows on which the accuracy is measured."""


RULE: Rule = {"optimizer": "adam", "lr": 1e-4, "batch_size": 64, "limit": 200, "rows": 500}


def relearn(job: RelearnJob) -> RelearnTime:
    """Measure how many steps a model needs to learn its forget set again."""
    context = load_context(job.task, job.env)
    model, original = (require_artifact(context.store, key) for key in (job.model, job.original))
    weights, original_weights = file_digest(model / WEIGHTS), read_meta(original)["weights"]
    key = context.keys.relearned(weights, original_weights, job.draw, job.seed, RULE)
    folder = context.store.read(context.store.key(key))
    from_cache = folder is not None
    if folder is None:

        def measure(folder: Path) -> None:
            steps = _steps_back(context, model, original, job.draw, job.seed)
            write_meta(folder, {"steps": RULE["limit"] if steps is None else steps, "back": steps is not None})

        folder, made = make_once(context.store, key, measure)
        from_cache = not made
    return RelearnTime(**read_meta(folder), from_cache=from_cache)


def _steps_back(context: TaskContext, model: Path, original: Path, draw: int, seed: int) -> int | None:
    from forgetbench.training import classification_loss, make_optimizer, predict

    forget = context.data.examples("train", draw).take(context.data.split(draw).forget)
    sample = forget.take(np.linspace(0, len(forget) - 1, min(len(forget), RULE["rows"])).round().astype(np.int64))
    labels = sample.labels.cpu().numpy()
    before = float(accuracy(predict(context.load_model(original), sample), labels))
    network = context.load_model(model)
    optimizer = make_optimizer(network.parameters(), RULE["optimizer"], RULE["lr"])
    order = context.task.stream("relearn", draw, seed)
    batches = (batch for epoch in count() for batch in forget.batches(RULE["batch_size"], order + epoch))
    curve: list[float] = []
    for images, targets in batches:
        curve.append(float(accuracy(predict(network, sample), labels)))
        if len(curve) > RULE["limit"] or relearn_time(curve, before) is not None:
            break
        optimizer.zero_grad(set_to_none=True)
        classification_loss(network.eval()(images), targets).backward()
        optimizer.step()
    return relearn_time(curve, before)
