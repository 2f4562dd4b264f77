"""A task's jobs but unlearning: prepare, train originals and oracles, count FLOPs. Each takes one JSON object.

Every job looks into the store first, so a killed run continues where it stopped. A result is a small JSON object that
names artifacts by their keys.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.arrays import write_arrays
from forgetbench.methods._card import TaskFacts
from forgetbench.runner.artifacts import (
    ANSWERS,
    LABELS,
    REQUESTS,
    ROWS,
    WEIGHTS,
    cached_flops,
    failure,
    load_model,
    read_meta,
    write_meta,
    write_weights,
)
from forgetbench.runner.context import Role, TaskContext, load_context
from forgetbench.runner.engines import Job, Result
from forgetbench.runner.method_spec import build, trained_by
from forgetbench.store import digest, file_digest


def prepare(job: Job) -> Result:
    """Load the image set, draw the splits, store the labels; say which methods do not apply, before any training.

    Args:
        job: ``task``, ``site``, and ``methods``: a list of method specifications.
    """
    bench = load_context(job)
    draws = range(bench.task.draws)
    labels = []
    for draw in draws:
        made_from = bench.made_from("labels", rows=bench.row_hashes(draw), labels=bench.labels_hash(draw))
        key = bench.store.key(made_from)
        if bench.store.read(key) is None:
            bench.store.write(made_from, lambda folder, draw=draw: _write_lists(bench, draw, folder))  # type: ignore[misc]
        labels.append(key)
    card, images = bench.partition.card, bench.partition.train
    network = bench.spec.build(0)
    facts = TaskFacts(
        network=bench.task.network.name,
        like=network.body.like,
        scenario=bench.task.scenario.name,
        attributes=images.attributes,
        outputs=len(images.classes),
    )
    reasons = {digest(spec): build(spec).applies_to(facts) for spec in job["methods"]}
    return {
        "labels": labels,
        "refusals": {spec: reason for spec, reason in reasons.items() if reason},
        "track": bench.track,
        "features": network.head.in_features if bench.probes else 0,
        "requests": bench.requests,
        "attributes": images.attributes,
        "classes": list(images.classes),
        "counts": {str(draw): {name: len(rows.index) for name, rows in bench.rows(draw).items()} for draw in draws},
        "index_hashes": {str(draw): bench.row_hashes(draw) for draw in draws},
        "image_set": {
            "name": card.name,
            "title": card.title,
            "license": card.license,
            "homepage": card.homepage,
            "sha256": bench.partition.sha256,
        },
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def train(job: Job) -> Result:
    """Train an original or an oracle and record its answers.

    Args:
        job: ``task``, ``site``, ``role``, ``draw`` (of an oracle), ``seed``; ``method`` where a method trains an
            original of its own.

    Returns:
        ``weights`` (SHA-256), ``answers`` (draw -> key), ``seconds`` of training, ``fresh`` (not from the store). Where
        a method's own training failed, ``status`` and ``reason`` instead.
    """
    bench, role, seed = load_context(job), job["role"], job["seed"]
    draws = range(bench.task.draws) if role == "original" else [job["draw"]]
    own = job.get("method")
    facts = bench.model_facts(role, draws[0], seed, trained_by(own) if own else None)
    key = bench.store.key(facts)
    folder = bench.store.read(key)
    fresh = folder is None
    if folder is None:
        try:
            folder = bench.store.write(facts, lambda place: _train(bench, role, draws[0], seed, own, place))
        except Exception as error:
            if own is None:
                raise
            return failure(own["name"], error, "training an original of its own: ")
    answers = {}
    for draw in draws:
        told = bench.answers_facts(read_meta(folder)["weights"], draw)
        answers[str(draw)] = bench.store.key(told)
        if bench.store.read(answers[str(draw)]) is None:
            arrays = bench.observe(load_model(bench, folder), draw)
            bench.store.write(told, lambda place, arrays=arrays: write_arrays(place / ANSWERS, arrays))  # type: ignore[misc]
    meta = read_meta(folder)
    return {"model": key, "weights": meta["weights"], "seconds": meta["seconds"], "answers": answers, "fresh": fresh}


def find(job: Job) -> Result:
    """Whether a model is in the store; the job is one of ``train``."""
    bench = load_context(job)
    facts = bench.model_facts(job["role"], job.get("draw", 0), job["seed"], None)
    return {"present": bench.store.read(bench.store.key(facts)) is not None}


def adopt(job: Job) -> Result:
    """Put an original that was trained elsewhere into the store, in the place of our own.

    Args:
        job: ``task``, ``site``, ``role``, ``seed``, ``weights`` (a file) and their ``sha256``.

    Returns:
        ``model`` (key), and whether another original of that seed was ``replaced``.

    Raises:
        ForgetBenchError: The file is missing or damaged.
    """
    bench, source = load_context(job), Path(job["weights"])
    if not source.is_file() or file_digest(source) != job["sha256"]:
        raise ForgetBenchError(f"{source} is missing or damaged; fetch the pack again.")
    facts = bench.model_facts(job["role"], 0, job["seed"], None)
    key = bench.store.key(facts)
    folder = bench.store.read(key)
    if folder is not None:
        if read_meta(folder)["weights"] == job["sha256"]:
            return {"model": key, "replaced": False}
        bench.store.remove(folder)

    def fill(place: Path) -> None:
        shutil.copyfile(source, place / WEIGHTS)
        write_meta(place, {"seconds": None, "weights": job["sha256"]})

    bench.store.write(facts, fill)
    return {"model": key, "replaced": folder is not None}


def count(job: Job) -> Result:
    """Count the FLOPs of training one model in a separate, untimed run; of a stream's oracles, the mean of a request.

    Args:
        job: ``task``, ``site``; ``method`` for an original of its own, nothing more for an oracle.
    """
    bench, own = load_context(job), job.get("method")
    return cached_flops(bench, {"loss": trained_by(own) if own else None}, lambda: _count_training(bench, own))


def _train(bench: TaskContext, role: Role, draw: int, seed: int, method: dict[str, Any] | None, place: Path) -> None:
    from forgetbench.training import fit

    rows = bench.examples("train", draw)
    if role != "original":
        rows = rows.take(bench.split(draw).retain)
    indices = (seed,) if role == "original" else (draw, seed)
    network = bench.spec.build(bench.task.stream(f"{role}-init", *indices)).to(bench.device)
    loss = build(method).training_loss if method else None
    start = bench.now()
    fit(network, rows, bench.task.recipe, bench.task.stream(f"{role}-order", *indices), loss=loss)
    seconds = bench.now() - start
    write_weights(place, network)
    write_meta(place, {"seconds": seconds, "weights": file_digest(place / WEIGHTS)})


def _count_training(bench: TaskContext, own: dict[str, Any] | None) -> float:
    """FLOPs of training one oracle, or one original of a method's own: of one epoch, times the epochs."""
    from forgetbench.training import count_flops, fit

    one = bench.task.recipe.model_copy(update={"epochs": 1, "warmup_epochs": 0.0})
    everything = bench.examples("train", 0)
    models = [everything] if own else [everything.take(split.retain) for split in bench.steps(0)]
    loss = build(own).training_loss if own else None
    with count_flops() as counted:
        for rows in models:
            fit(bench.spec.build(0).to(bench.device), rows, one, 0, loss=loss)
    return float(counted.total) * bench.task.recipe.epochs / len(models)


def _write_lists(bench: TaskContext, draw: int, place: Path) -> None:
    write_arrays(place / LABELS, bench.labels(draw))
    write_arrays(place / ROWS, {name: rows.index for name, rows in bench.rows(draw).items()})
    if bench.requests:
        write_arrays(place / REQUESTS, bench.asked_at(draw))
