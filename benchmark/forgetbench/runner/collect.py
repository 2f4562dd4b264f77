"""What a task's jobs left in the store, gathered into the folders that are scored and submitted: pack and runs."""

from __future__ import annotations

import datetime
import shlex
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import read_arrays
from forgetbench.evidence.environment import environment
from forgetbench.evidence.reference import AuditVerdict, ReferenceBundle, read_pack, with_verdict, write_pack
from forgetbench.evidence.run import (
    CostRecord,
    Manifest,
    MethodRecord,
    ModelRecord,
    OriginalRecord,
    Status,
    StepRecord,
    describe,
    read_run,
    write_manifest,
)
from forgetbench.runner.artifacts import ANSWERS, LABELS, REQUESTS, ROWS, WEIGHTS, read_meta, require_artifact
from forgetbench.runner.engines import Job, Result
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.store import Store, replace_folder
from forgetbench.tasks.task import INDICES, PROTOCOL, Task


@dataclass(frozen=True)
class Trained:
    """The models of one task, as results of ``train`` jobs."""

    originals: Sequence[Result]
    """By seed."""
    references: Sequence[Sequence[Result]]
    """By draw, then by seed."""
    controls: Sequence[Sequence[Result]]
    """By draw, then by seed."""


@dataclass(frozen=True)
class Entry:
    """What the manifest says of a row, whoever made it."""

    method: MethodRecord
    """The method."""
    command: str
    """The command that makes the run again."""
    refusal: str = ""
    """Why the method does not apply to the task; "" where it does."""


@dataclass(frozen=True)
class Unlearned:
    """What came of one row on one task."""

    results: Sequence[tuple[Job, Result]]
    """Its ``unlearn`` jobs and what came of them."""
    cost: CostRecord
    """What is known of its cost; mean wall times that were measured are filled in when it is gathered."""
    own: Sequence[Result] = ()
    """The originals that it trained for itself, by seed, as results of ``train`` jobs."""


def write_reference(
    store: Store,
    folder: Path,
    task: Task,
    facts: Result,
    trained: Trained,
    retrain_flops: float | None,
    verdict: AuditVerdict | None = None,
) -> ReferenceBundle:
    """Write a task's pack: labels, row numbers, the originals with their answers, and the answers of all oracles.

    Args:
        store: Where the artifacts are.
        folder: The pack's folder; what was there is replaced.
        task: The task.
        facts: Result of its ``prepare`` job.
        trained: Its models.
        retrain_flops: FLOPs of training one oracle.
        verdict: What an audit found; it goes into the pack if it was this one that was audited.

    Raises:
        ForgetBenchError: An artifact was damaged since it was made.
    """

    def fill(place: Path) -> None:
        for name in ("originals", "references", "controls", "models"):
            (place / name).mkdir()
        for seed, model in enumerate(trained.originals):
            shutil.copyfile(
                require_artifact(store, model["model"]) / WEIGHTS, place / "models" / f"s{seed}.safetensors"
            )
        for draw in range(task.draws):
            lists = require_artifact(store, facts["labels"][draw])
            shutil.copyfile(lists / LABELS, place / f"labels-d{draw}.npz")
            shutil.copyfile(lists / ROWS, place / f"rows-d{draw}.npz")
            if facts["requests"]:
                shutil.copyfile(lists / REQUESTS, place / f"requests-d{draw}.npz")
            for seed in range(task.seeds):
                name = f"d{draw}-s{seed}.npz"
                original = trained.originals[seed]["answers"][str(draw)]
                shutil.copyfile(require_artifact(store, original) / ANSWERS, place / "originals" / name)
                for role in ("references", "controls"):
                    oracle = getattr(trained, role)[draw][seed]["answers"][str(draw)]
                    shutil.copyfile(require_artifact(store, oracle) / ANSWERS, place / role / name)
        originals = [model["weights"] for model in trained.originals]
        about = {**_about(task, facts), "originals": originals, "retrain_flops": retrain_flops}
        with_verdict(ReferenceBundle(place, write_pack(place, about)), verdict)

    replace_folder(folder, fill)
    return read_pack(folder, verify=False)


def write_run(
    store: Store,
    folder: Path,
    task: Task,
    entry: Entry,
    unlearned: Unlearned,
    *,
    facts: Result,
    device: str,
) -> None:
    """Write one row's run. A run that says the same already stays as it is.

    Args:
        store: Where the artifacts are.
        folder: The run's folder; another run that was there is replaced.
        task: The task.
        entry: What the manifest says of the row.
        unlearned: What came of it.
        facts: Result of the task's ``prepare`` job.
        device: Where it ran.

    Raises:
        ForgetBenchError: An artifact was damaged since it was made.
    """
    bad = next((result for _, result in unlearned.results if result["status"] != "ok"), None)
    status: Status = "not-applicable" if entry.refusal else bad["status"] if bad else "ok"
    files: list[tuple[ModelRecord | OriginalRecord | StepRecord, Path]] = []
    if status == "ok":
        files += [file for job, result in unlearned.results for file in _models(store, job, result)]
        files += [
            _original(store, draw, seed, original)
            for draw in range(task.draws)
            for seed, original in enumerate(unlearned.own)
        ]
    records = [record for record, _ in files]
    models = tuple(record for record in records if isinstance(record, ModelRecord))
    steps = tuple(record for record in records if isinstance(record, StepRecord))
    cost = unlearned.cost.model_copy(
        update={
            "seconds": _mean(record.seconds for record in (*models, *steps)) or unlearned.cost.seconds,
            "training_seconds": _mean(original["seconds"] for original in unlearned.own),
        }
    )
    manifest = Manifest(
        protocol=PROTOCOL,
        task=task.name,
        task_key=task.key,
        method=entry.method,
        status=status,
        reason=entry.refusal or (bad["reason"] if bad else ""),
        draws=task.draws,
        seeds=task.seeds,
        index_hashes=facts["index_hashes"],
        models=models,
        originals=tuple(record for record in records if isinstance(record, OriginalRecord)),
        steps=steps,
        cost=cost,
        environment=environment(device),
        command=entry.command,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    if _is_kept(folder, manifest):
        return

    def fill(place: Path) -> None:
        for record, answers in files:
            (place / record.file).parent.mkdir(exist_ok=True)
            shutil.copyfile(answers, place / record.file)
        write_manifest(place, manifest)

    replace_folder(folder, fill)


def _models(store: Store, job: Job, result: Result) -> list[tuple[ModelRecord | StepRecord, Path]]:
    """The unlearned model; of a stream also those after each request before the last."""
    place = f"d{job['draw']}-s{job['seed']}.npz"
    about = {"draw": job["draw"], "seed": job["seed"]}
    folder = require_artifact(store, result["key"])
    found: list[tuple[ModelRecord | StepRecord, Path]] = [
        (ModelRecord(**about, file=place, **read_meta(folder), measured=result.get("measured", {})), folder / ANSWERS)
    ]
    for step, key in enumerate(result["steps"]):
        folder = require_artifact(store, key)
        meta = {name: value for name, value in read_meta(folder).items() if name != "original"}
        record = StepRecord(**about, step=step, file=f"steps/k{step}-{place}", **meta)
        found.append((record, folder / ANSWERS))
    return found


def _original(store: Store, draw: int, seed: int, trained: Result) -> tuple[OriginalRecord, Path]:
    answers = require_artifact(store, trained["answers"][str(draw)]) / ANSWERS
    record = OriginalRecord(
        draw=draw,
        seed=seed,
        file=f"originals/d{draw}-s{seed}.npz",
        weights=trained["weights"],
        arrays=describe(read_arrays(answers)),
    )
    return record, answers


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _about(task: Task, facts: Result) -> dict[str, Any]:
    known = ("track", "features", "requests", "attributes", "classes", "image_set", "counts", "index_hashes")
    return {
        "protocol": PROTOCOL,
        "task": task.name,
        "task_key": task.key,
        "definition": task.public(),
        "title": task.title,
        "scenario": task.scenario.name,
        "draws": task.draws,
        "seeds": task.seeds,
        **{name: facts[name] for name in known},
    }


def _is_kept(folder: Path, manifest: Manifest) -> bool:
    """Whether a run says the same already: it then stays as it is, and so does its upload.

    The time of writing does not count, nor that a second run, which trains nothing, cannot time retraining, nor that
    hyper-parameters which tuning found were now given by hand: what was spent on them stays told.
    """
    try:
        kept = read_run(folder).manifest
    except UsageError:
        return False
    costs: dict[str, object] = {}
    if manifest.cost.retrain_seconds is None:
        costs["retrain_seconds"] = None
    if kept.cost.tuning_trials > manifest.cost.tuning_trials:
        costs |= {name: getattr(manifest.cost, name) for name in ("tuning_trials", "tuning_selector")}
    update: dict[str, object] = {"created": manifest.created, "cost": kept.cost.model_copy(update=costs)}
    files = (record.file for record in (*kept.evidence, *kept.steps))
    return kept.model_copy(update=update) == manifest and all((folder / file).is_file() for file in files)


def method_record(method: MethodSpec) -> MethodRecord:
    """What the manifest says of a method."""
    card = method.method.card
    return MethodRecord(
        name=card.name,
        label=method.label,
        title=card.title,
        family=card.family,
        needs=tuple(sorted(card.needs)),
        parameters=method.method.to_dict(),
        changes_training=method.trains_originals,
        sentinel=card.sentinel,
        source_sha256=method.method.source_hash(),
        source=method.source,
        link=card.link or None,
        bibtex=card.bibtex or None,
    )


def command(task: Task, method: MethodSpec, root: Path | None) -> str:
    """The command that makes a run again."""
    words = ["forgetbench", "run", task.name.partition(INDICES)[0], *method.arguments(), "--seeds", str(task.seeds)]
    if INDICES in task.name:
        words += ["--forget-indices", Path(task.scenario.options["path"]).name]
    if task.draws > 1:
        words += ["--draws", str(task.draws)]
    if root is not None:
        words += ["--root", "DATA"]
    return shlex.join(words)
