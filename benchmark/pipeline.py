"""A task's jobs: prepare, train originals and oracles, unlearn, count FLOPs. Each is a function of one JSON object.

Every job looks into the store first, so a killed run continues where it stopped. A result is a small JSON object that
names artefacts by their keys.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetbench.answers import array_digest, write_arrays
from forgetbench.bench import Bench, Role, open_bench
from forgetbench.contestants import build, made_of, trained_by
from forgetbench.errors import ForgetBenchError
from forgetbench.evidence import describe
from forgetbench.executors import Job, Result
from forgetbench.methods.base import ForgetRequest, Method, TaskFacts
from forgetbench.store import Store, canonical_json, digest, file_digest

if TYPE_CHECKING:
    from torch import nn

ANSWERS = "answers.npz"
LABELS = "labels.npz"
ROWS = "rows.npz"
META = "meta.json"
WEIGHTS = "weights.safetensors"


def prepare(job: Job) -> Result:
    """Load the image set, draw the splits, store the labels; say which methods do not apply, before any training.

    Args:
        job: ``task``, ``site``, and ``methods``: a list of method specifications.
    """
    bench = open_bench(job)
    draws = range(bench.task.draws)
    labels = []
    for draw in draws:
        made_from = bench.made_from(
            "labels", rows=bench.row_hashes(draw), labels=array_digest(bench.split(draw).train_labels)
        )
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
        "attributes": images.attributes,
        "classes": list(images.classes),
        "counts": {str(draw): {name: len(rows.index) for name, rows in bench.rows(draw).items()} for draw in draws},
        "index_hashes": {str(draw): bench.row_hashes(draw) for draw in draws},
        "image_set": {
            "name": card.name,
            "title": card.title,
            "licence": card.licence,
            "homepage": card.homepage,
            "sha256": images.sha256,
        },
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def train(job: Job) -> Result:
    """Train an original or an oracle and record its answers.

    Args:
        job: ``task``, ``site``, ``role``, ``draw`` (of an oracle), ``seed``; ``method`` where a method trains an
            original of its own.

    Returns:
        ``weights`` (SHA-256), ``answers`` (draw -> key), ``seconds`` of training, ``fresh`` (not from the store).
    """
    bench, role, seed = open_bench(job), job["role"], job["seed"]
    draws = range(bench.task.draws) if role == "original" else [job["draw"]]
    own = job.get("method")
    facts = bench.model_facts(role, draws[0], seed, trained_by(own) if own else None)
    key = bench.store.key(facts)
    folder = bench.store.read(key)
    fresh = folder is None
    if folder is None:
        folder = bench.store.write(facts, lambda place: _train(bench, role, draws[0], seed, own, place))
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
    bench = open_bench(job)
    facts = bench.model_facts(job["role"], job.get("draw", 0), job["seed"], None)
    return {"present": bench.store.read(bench.store.key(facts)) is not None}


def adopt(job: Job) -> Result:
    """Put an original that was trained elsewhere into the store, in the place of our own.

    Args:
        job: ``task``, ``site``, ``role``, ``seed``, ``weights`` (a file) and their ``sha256``.

    Raises:
        ForgetBenchError: The file is missing or damaged.
    """
    bench, source = open_bench(job), Path(job["weights"])
    if not source.is_file() or file_digest(source) != job["sha256"]:
        raise ForgetBenchError(f"{source} is missing or damaged; fetch the pack again.")
    facts = bench.model_facts(job["role"], 0, job["seed"], None)
    key = bench.store.key(facts)
    folder = bench.store.read(key)
    if folder is not None:
        if read_meta(folder)["weights"] == job["sha256"]:
            return {"model": key}
        bench.store.remove(folder)

    def fill(place: Path) -> None:
        shutil.copyfile(source, place / WEIGHTS)
        _write_meta(place, {"seconds": None, "weights": job["sha256"]})

    bench.store.write(facts, fill)
    return {"model": key}


def unlearn(job: Job) -> Result:
    """Let a method unlearn from one original, and record what the unlearned model answers.

    Args:
        job: ``task``, ``site``, ``method``, ``draw``, ``seed``, ``original`` (key), ``keep_model``.

    Returns:
        ``status`` and, when it is ``ok``, the ``key`` of the answers; otherwise the ``reason``.
    """
    from forgetbench.training import Diverged

    bench, method = open_bench(job), build(job["method"])
    facts = bench.made_from(
        "unlearned",
        original=read_meta(_read(bench, job["original"]))["weights"],
        method=made_of(job["method"]),
        draw=job["draw"],
        seed=job["seed"],
        asked=bench.asked(job["draw"]),
    )
    key = bench.store.key(facts)
    folder = bench.store.read(key)
    if folder is not None and (not job.get("keep_model") or (folder / WEIGHTS).is_file()):
        return {"status": "ok", "key": key, "fresh": False}
    if folder is not None:
        bench.store.remove(folder)
    try:
        bench.store.write(facts, lambda place: _unlearn(bench, method, job, place))
    except Diverged as error:
        name, reason = job["method"]["name"], str(error)
        return {"status": "diverged", "reason": reason if reason.startswith(name) else f"{name}: {reason}"}
    except Exception as error:  # noqa: BLE001 - a stranger's method may raise anything; the row says what it was
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    return {"status": "ok", "key": key, "fresh": True}


def count(job: Job) -> Result:
    """Count FLOPs in a separate, untimed run on the first seed: of ``unlearn``, or of training one model.

    Args:
        job: ``task``, ``site``; ``method`` and ``original`` for ``unlearn``, ``trains`` (a method) for training an
            original of its own, nothing more for training an oracle.
    """
    bench = open_bench(job)
    method = build(job["method"]) if job.get("method") else None
    own = job.get("trains")
    told = {"loss": trained_by(own)} if own else {"method": made_of(job["method"]) if method else None}
    facts = bench.made_from("flops", **told, retain=bench.row_hashes(0)["retain"])
    key = bench.store.key(facts)
    folder = bench.store.read(key)
    if folder is None:
        try:
            flops = _count_method(bench, method, job) if method else _count_training(bench, own)
        except Exception as error:  # noqa: BLE001 - counting never stops a row; the cost is then missing
            return {"flops": None, "reason": f"{type(error).__name__}: {error}"}
        folder = bench.store.write(facts, lambda place: _write_meta(place, {"flops": flops}))
    return {"flops": read_meta(folder)["flops"]}


def load_model(bench: Bench, folder: Path) -> nn.Module:
    """A stored model on the bench's device, in eval mode."""
    from safetensors.torch import load_file

    network = bench.spec.build(0, start=False)
    network.load_state_dict(load_file(folder / WEIGHTS, device=str(bench.device)))
    return network.to(bench.device).eval()


def read_meta(folder: Path) -> dict[str, Any]:
    """What an artefact says of itself."""
    meta: dict[str, Any] = json.loads((folder / META).read_bytes())
    return meta


def answers_file(store: Store, key: str) -> Path:
    """The evidence file of an artefact.

    Raises:
        ForgetBenchError: It is gone or damaged; the same command makes it again.
    """
    folder = store.read(key)
    if folder is None:
        raise ForgetBenchError(f"artefact {key[:12]} was damaged after it was made; run the same command again.")
    return folder / ANSWERS


def _train(bench: Bench, role: Role, draw: int, seed: int, method: dict[str, Any] | None, place: Path) -> None:
    from forgetbench.training import fit

    rows = bench.examples("train", draw)
    if role != "original":
        rows = rows.take(bench.split(draw).retain)
    indices = (seed,) if role == "original" else (draw, seed)
    network = bench.spec.build(bench.task.stream(f"{role}-init", *indices)).to(bench.device)
    loss = build(method).training_loss if method else None
    start = _now(bench)
    fit(network, rows, bench.task.recipe, bench.task.stream(f"{role}-order", *indices), loss=loss)
    seconds = _now(bench) - start
    _write_weights(place, network)
    _write_meta(place, {"seconds": seconds, "weights": file_digest(place / WEIGHTS)})


def _unlearn(bench: Bench, method: Method, job: Job, place: Path) -> None:
    import torch

    original = _original(bench, job)
    request = make_request(bench, job["draw"], job["seed"])
    on_gpu = bench.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(bench.device)
    with _heard() as warnings:
        start = _now(bench)
        model = method.unlearn(original, request)
        seconds = _now(bench) - start
    if warnings:
        request.report("warning", "; ".join(warnings))
    if job.get("keep_model"):
        _write_weights(place, model)
    answers = bench.observe(model, job["draw"])
    write_arrays(place / ANSWERS, answers)
    before = _original(bench, job).state_dict()
    changed, total = 0, 0
    for name, parameter in model.named_parameters():
        changed += int((parameter.detach() != before[name]).sum())
        total += parameter.numel()
    meta = {
        "seconds": seconds,
        "peak_memory": torch.cuda.max_memory_allocated(bench.device) if on_gpu else None,
        "share_changed": changed / total,
        "notes": dict(request.notes),
        "arrays": {name: record.model_dump(mode="json") for name, record in describe(answers).items()},
        "original": file_digest(_read(bench, job["original"]) / WEIGHTS),
    }
    _write_meta(place, meta)


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


def make_request(bench: Bench, draw: int, seed: int) -> ForgetRequest:
    """What a method is given: never test data, never an oracle."""
    split, train_rows = bench.split(draw), bench.examples("train", draw)
    fresh = bench.task.stream("method-init", draw, seed)
    return ForgetRequest(
        forget=train_rows.take(split.forget),
        retain=train_rows.take(split.retain),
        validation=bench.examples("validation", draw).take(split.validation),
        seed=bench.task.stream("method", draw, seed),
        recipe=bench.task.recipe,
        fresh_network=lambda: bench.spec.build(fresh).to(bench.device),
    )


def _original(bench: Bench, job: Job) -> nn.Module:
    return load_model(bench, _read(bench, job["original"]))


def _read(bench: Bench, key: str) -> Path:
    folder = bench.store.read(key)
    if folder is None:
        raise ForgetBenchError(f"the original {key[:12]} is missing from the store; run the same command again.")
    return folder


def _count_method(bench: Bench, method: Method, job: Job) -> float:
    from forgetbench.compute import count_flops

    original, request = _original(bench, job), make_request(bench, 0, 0)
    with _heard(), count_flops() as counted:
        method.unlearn(original, request)
    return float(counted.total)


def _count_training(bench: Bench, own: dict[str, Any] | None) -> float:
    """FLOPs of training one oracle, or one original of a method's own: of one epoch, times the epochs."""
    from forgetbench.compute import count_flops
    from forgetbench.training import fit

    network = bench.spec.build(0).to(bench.device)
    one = bench.task.recipe.model_copy(update={"epochs": 1, "warmup_epochs": 0.0})
    rows = bench.examples("train", 0)
    with count_flops() as counted:
        if own:
            fit(network, rows, one, 0, loss=build(own).training_loss)
        else:
            fit(network, rows.take(bench.split(0).retain), one, 0)
    return float(counted.total) * bench.task.recipe.epochs


def _now(bench: Bench) -> float:
    """Seconds; on a GPU after everything before has finished."""
    if bench.device.type == "cuda":
        import torch

        torch.cuda.synchronize(bench.device)
    return time.perf_counter()


def _write_lists(bench: Bench, draw: int, place: Path) -> None:
    write_arrays(place / LABELS, bench.labels(draw))
    write_arrays(place / ROWS, {name: rows.index for name, rows in bench.rows(draw).items()})


def _write_weights(place: Path, network: nn.Module) -> None:
    from safetensors.torch import save_file

    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, place / WEIGHTS
    )


def _write_meta(place: Path, meta: dict[str, Any]) -> None:
    (place / META).write_bytes(canonical_json(meta))
