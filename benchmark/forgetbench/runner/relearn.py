"""What needs the model itself and no record can show again: how fast the forgotten comes back.

Every model of a board is taught its forget set again with one optimizer, one learning rate and one order of batches,
until its forget accuracy is back at 95 % of the original's. Statistics of batch-norm are held, so that a step is a
step on the weights alone. The oracle is taught the same way, for it never knew what it is taught.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from forgetbench.metrics.accuracy_gap import accuracy
from forgetbench.metrics.erasure import relearn_time
from forgetbench.runner.artifacts import WEIGHTS, load_model, read_meta, require_artifact, write_meta
from forgetbench.runner.context import TaskContext, load_context
from forgetbench.runner.engines import Job, Result
from forgetbench.store import file_digest, source_digest

RULE: dict[str, Any] = {"optimizer": "adam", "lr": 1e-4, "batch_size": 64, "limit": 200, "rows": 500}
"""How: ``rows`` is the most rows that the accuracy is read from, ``limit`` the last step."""


def relearn(job: Job) -> Result:
    """Teach a model its forget set again.

    Args:
        job: ``task``, ``site``, ``draw``, ``seed``, and the keys of ``model`` and ``original``.

    Returns:
        ``steps`` until it was back, and whether it came ``back``; where it did not, ``steps`` is the limit.
    """
    bench = load_context(job)
    model, original = (require_artifact(bench.store, job[name]) for name in ("model", "original"))
    made_from = bench.made_from(
        "relearned",
        weights=file_digest(model / WEIGHTS),
        original=read_meta(original)["weights"],
        forget=bench.row_hashes(job["draw"])["forget"],
        seed=job["seed"],
        rule=RULE,
        measure=source_digest(Path(__file__)),
    )
    folder = bench.store.read(bench.store.key(made_from))
    fresh = folder is None
    if folder is None:
        steps = _steps_back(bench, model, original, job["draw"], job["seed"])
        told = {"steps": RULE["limit"] if steps is None else steps, "back": steps is not None}
        folder = bench.store.write(made_from, lambda place: write_meta(place, told))
    return {**read_meta(folder), "fresh": fresh}


def _steps_back(bench: TaskContext, model: Path, original: Path, draw: int, seed: int) -> int | None:
    from forgetbench.training import classification_loss, make_optimizer, predict

    taught = bench.examples("train", draw).take(bench.split(draw).forget)
    asked = taught.take(np.linspace(0, len(taught) - 1, min(len(taught), RULE["rows"])).round().astype(np.int64))
    labels = asked.labels.cpu().numpy()
    before = float(accuracy(predict(load_model(bench, original), asked), labels))
    network = load_model(bench, model)
    optimizer = make_optimizer(network.parameters(), RULE["optimizer"], RULE["lr"])
    order = bench.task.stream("relearn", draw, seed)
    batches = (batch for epoch in count() for batch in taught.batches(RULE["batch_size"], order + epoch))
    curve: list[float] = []
    for images, truth in batches:
        curve.append(float(accuracy(predict(network, asked), labels)))
        if len(curve) > RULE["limit"] or relearn_time(curve, before) is not None:
            break
        optimizer.zero_grad(set_to_none=True)
        classification_loss(network.eval()(images), truth).backward()
        optimizer.step()
    return relearn_time(curve, before)
