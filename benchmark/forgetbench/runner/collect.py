"""Collects artifacts from the store into the folders that are scored and submitted: reference bundle and runs."""

from __future__ import annotations

import datetime
import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from forgetbench.errors import UsageError, printable, validation_message
from forgetbench.evidence.arrays import RECALIBRATED, read_arrays, retested, write_arrays
from forgetbench.evidence.environment import environment
from forgetbench.evidence.reference import (
    PACK,
    AuditFitness,
    BundleKind,
    ReferenceBundle,
    read_pack,
    with_fitness,
    write_pack,
)
from forgetbench.evidence.run import (
    MANIFEST,
    CostRecord,
    Manifest,
    MethodRecord,
    ModelRecord,
    OriginalRecord,
    Status,
    StepRecord,
    describe,
    read_run,
    schema_of,
    write_manifest,
)
from forgetbench.runner.artifacts import (
    CONDITIONS,
    LABELS,
    PREDICTIONS,
    REQUESTS,
    ROWS,
    WEIGHTS,
    read_meta,
    require_artifact,
    wall_time,
)
from forgetbench.runner.jobs import (
    MethodFailure,
    PreparedTask,
    TrainedModel,
    UnlearnedModel,
    UnlearnOutcome,
    hardware_text,
)
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.scoring.vocabulary import PROTOCOL
from forgetbench.store import JsonObject, Store, replace_folder
from forgetbench.tasks.task import DEVELOPMENT, INDICES, SEALED, Task

_EvidenceFile = tuple[ModelRecord | OriginalRecord | StepRecord, Path]
"""What a manifest says of a file, and the artifact that has its arrays."""


@dataclass(frozen=True)
class TrainedPopulations:
    """The trained models of one task."""

    originals: Sequence[TrainedModel]
    """By seed."""
    references: Sequence[Sequence[TrainedModel]]
    """By draw, then by seed."""
    controls: Sequence[Sequence[TrainedModel]]
    """By draw, then by seed."""
    partials: Sequence[Sequence[TrainedModel]] = ()
    """The same of oracles trained without the found part of harmful rows; empty but for tasks of correction."""


@dataclass(frozen=True)
class RunInfo:
    """What the manifest says of a row, whatever produced it."""

    method: MethodRecord
    """The method."""
    command: str
    """The command that repeats the run."""
    refusal: str = ""
    """Why the method does not apply to the task; "" if it does."""


@dataclass(frozen=True)
class RunOutcome:
    """What one row produced on one task."""

    results: Sequence[tuple[int, int, UnlearnOutcome]]
    """Draw, seed and outcome of each unlearning."""
    cost: CostRecord
    """The known costs; the mean wall times that were measured are added when the run is written."""
    own_originals: Sequence[TrainedModel] = ()
    """The originals that the method trained for itself, by seed."""


def write_reference(
    store: Store,
    folder: Path,
    task: Task,
    facts: PreparedTask,
    trained: TrainedPopulations,
    retrain_flops: float | None,
    fitness: AuditFitness | None = None,
) -> ReferenceBundle:
    """Write a task's reference bundle: labels, row numbers, originals, and the predictions of originals and oracles.

    Args:
        store: The artifact store.
        folder: The bundle's folder; previous contents are replaced.
        task: The task.
        facts: Its facts.
        trained: Its models.
        retrain_flops: FLOPs of training one oracle.
        fitness: The result of an audit; it is written into the bundle if it is this bundle that was audited.

    Raises:
        ForgetBenchError: An artifact was damaged since it was made.
    """

    def fill(place: Path) -> None:
        for name in ("originals", "references", "controls", "models", *(["partials"] if trained.partials else [])):
            (place / name).mkdir()
        for seed, model in enumerate(trained.originals):
            shutil.copyfile(require_artifact(store, model.model) / WEIGHTS, place / "models" / f"s{seed}.safetensors")
        for draw in range(task.draws):
            lists = require_artifact(store, facts.labels[draw])
            shutil.copyfile(lists / LABELS, place / f"labels-d{draw}.npz")
            shutil.copyfile(lists / ROWS, place / f"rows-d{draw}.npz")
            if facts.requests:
                shutil.copyfile(lists / REQUESTS, place / f"requests-d{draw}.npz")
            for seed in range(task.seeds):
                name = f"d{draw}-s{seed}.npz"
                models = {
                    "originals": trained.originals[seed],
                    "references": trained.references[draw][seed],
                    "controls": trained.controls[draw][seed],
                }
                if trained.partials:
                    models["partials"] = trained.partials[draw][seed]
                for role, model in models.items():
                    source = require_artifact(store, model.predictions[draw]) / PREDICTIONS
                    shutil.copyfile(source, place / role / name)
        originals = [model.weights for model in trained.originals]
        about = {**_about(task, facts), "originals": originals, "retrain_flops": retrain_flops}
        with_fitness(ReferenceBundle(place, write_pack(place, about)), fitness)

    replace_folder(folder, fill, marker=PACK)
    return read_pack(folder, verify=False)


def write_run(
    store: Store,
    folder: Path,
    task: Task,
    info: RunInfo,
    outcome: RunOutcome,
    *,
    facts: PreparedTask,
    device: str,
) -> None:
    """Write one row's run. A run with the same content stays untouched.

    Args:
        store: The artifact store.
        folder: The run's folder; another run in it is replaced.
        task: The task.
        info: What the manifest says of the row.
        outcome: What the row produced.
        facts: The task's facts.
        device: The device on which it ran.

    Raises:
        ForgetBenchError: An artifact was damaged since it was made.
    """
    failure = next((result for _, _, result in outcome.results if isinstance(result, MethodFailure)), None)
    status: Status = "not-applicable" if info.refusal else failure.status if failure else "ok"
    files: list[_EvidenceFile] = []
    if status == "ok":
        for draw, seed, result in outcome.results:
            files += _models(store, draw, seed, cast("UnlearnedModel", result))
        files += [
            _original(store, draw, seed, original)
            for draw in range(task.draws)
            for seed, original in enumerate(outcome.own_originals)
        ]
    files = _all_or_none_recalibrated(files)
    records = [record for record, _ in files]
    models = tuple(record for record in records if isinstance(record, ModelRecord))
    steps = tuple(record for record in records if isinstance(record, StepRecord))
    cost = outcome.cost.model_copy(
        update={
            "seconds": _mean(record.seconds for record in (*models, *steps)) or outcome.cost.seconds,
            "training_seconds": _mean(original.seconds for original in outcome.own_originals),
        }
    )
    manifest = Manifest(
        schema_version=schema_of(facts.track),
        protocol=PROTOCOL,
        task=task.name,
        task_key=task.key,
        method=info.method,
        status=status,
        reason=info.refusal or (failure.reason if failure else ""),
        draws=task.draws,
        seeds=task.seeds,
        index_hashes=facts.index_hashes,
        models=models,
        originals=tuple(record for record in records if isinstance(record, OriginalRecord)),
        steps=steps,
        cost=cost,
        environment={**environment(device), **_hardware(outcome), "precision": facts.precision},
        command=info.command,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    if _is_current(folder, manifest):
        return

    def fill(place: Path) -> None:
        for record, source in files:
            (place / record.file).parent.mkdir(exist_ok=True)
            arrays = read_arrays(source)
            if set(arrays) == set(record.arrays):
                shutil.copyfile(source, place / record.file)
            else:
                write_arrays(place / record.file, {name: arrays[name] for name in record.arrays})
        write_manifest(place, manifest)

    replace_folder(folder, fill, marker=MANIFEST)


def _hardware(outcome: RunOutcome) -> dict[str, str]:
    """The processors or GPUs on which a row's models were made; with numbers of models if there are several."""
    results = [result for _, _, result in outcome.results if isinstance(result, UnlearnedModel)]
    models = Counter(result.hardware for result in results if result.hardware)
    return {"hardware": hardware_text(models)} if models else {}


def _models(store: Store, draw: int, seed: int, result: UnlearnedModel) -> list[_EvidenceFile]:
    """The unlearned model; of a stream also those after each request before the last."""
    name = f"d{draw}-s{seed}.npz"
    folder = require_artifact(store, result.key)
    model = ModelRecord(draw=draw, seed=seed, file=name, **_recorded(folder))
    files: list[_EvidenceFile] = [(model, folder / PREDICTIONS)]
    for step, key in enumerate(result.steps):
        folder = require_artifact(store, key)
        meta = {field: value for field, value in _recorded(folder).items() if field != "original"}
        record = StepRecord(draw=draw, seed=seed, step=step, file=f"steps/k{step}-{name}", **meta)
        files.append((record, folder / PREDICTIONS))
    return files


def _recorded(folder: Path) -> JsonObject:
    """What the manifest says of a model, from its metadata; no wall time if other jobs used the device, too."""
    meta = read_meta(folder)
    return {name: value for name, value in meta.items() if name not in CONDITIONS} | {"seconds": wall_time(meta)}


def _all_or_none_recalibrated(files: Sequence[_EvidenceFile]) -> list[_EvidenceFile]:
    """The evidence without answers after recalibration, if those of some model were not finite."""
    evidence = [record for record, _ in files if not isinstance(record, StepRecord)]
    if all(retested(record.arrays) for record in evidence):
        return [*files]
    plain = []
    for record, source in files:
        again = [name for name in record.arrays if name.startswith(RECALIBRATED)]
        arrays = {name: array for name, array in record.arrays.items() if name not in again}
        plain.append((record.model_copy(update={"arrays": arrays}) if again else record, source))
    return plain


def _original(store: Store, draw: int, seed: int, model: TrainedModel) -> tuple[OriginalRecord, Path]:
    source = require_artifact(store, model.predictions[draw]) / PREDICTIONS
    record = OriginalRecord(
        draw=draw,
        seed=seed,
        file=f"originals/d{draw}-s{seed}.npz",
        weights=model.weights,
        arrays=describe(read_arrays(source)),
    )
    return record, source


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _about(task: Task, facts: PreparedTask) -> JsonObject:
    fields = ("track", "features", "requests", "attributes", "classes", "image_set", "counts", "index_hashes")
    return {
        "schema_version": schema_of(facts.track),
        "protocol": PROTOCOL,
        "kind": kind_of(task),
        "task": task.name,
        "task_key": task.key,
        "definition": task.public(),
        "title": task.title,
        "scenario": task.scenario.name,
        "draws": task.draws,
        "seeds": task.seeds,
        **{name: getattr(facts, name) for name in fields},
    }


def kind_of(task: Task) -> BundleKind:
    """The kind of a task's reference bundle."""
    if task.seal is not None:
        return task.seal.draws
    return "development" if task.name.endswith(DEVELOPMENT) else "local"


def _is_current(folder: Path, manifest: Manifest) -> bool:
    """Whether a folder holds the same run already: it then stays untouched, and so does its upload.

    Ignored are the time of writing, the missing time of retraining in a second run, which trains nothing, and that
    tuned hyper-parameters were now given by hand: the trials spent on them stay in the record.
    """
    try:
        current = read_run(folder).manifest
    except UsageError:
        return False
    costs: dict[str, object] = {}
    if manifest.cost.retrain_seconds is None:
        costs["retrain_seconds"] = None
    if current.cost.tuning_trials > manifest.cost.tuning_trials:
        costs |= {name: getattr(manifest.cost, name) for name in ("tuning_trials", "tuning_selector")}
    update: dict[str, object] = {"created": manifest.created, "cost": current.cost.model_copy(update=costs)}
    files = (record.file for record in (*current.evidence, *current.steps))
    return current.model_copy(update=update) == manifest and all((folder / file).is_file() for file in files)


def method_record(spec: MethodSpec) -> MethodRecord:
    """What the manifest says of a method."""
    card = spec.kind.card
    return MethodRecord(
        name=card.name,
        label=spec.label,
        title=card.title,
        family=card.family,
        needs=tuple(sorted(card.needs)),
        parameters=dict(spec.parameters),
        changes_training=spec.trains_originals,
        sentinel=card.sentinel,
        fingerprint=spec.fingerprint,
        source=spec.source,
        link=card.link or None,
        bibtex=card.bibtex or None,
    )


def check_records(specs: Iterable[MethodSpec]) -> None:
    """Check before anything is trained that the manifest can hold what it says of methods.

    Raises:
        UsageError: A name, title or source is too long or has another form; the message names the method.
    """
    for spec in specs:
        try:
            method_record(spec)
        except ValidationError as error:
            raise UsageError(
                f"Method {printable(spec.label)} cannot be recorded: {validation_message(error)}."
            ) from error


def repeat_command(task: Task, spec: MethodSpec, root: Path | None) -> str:
    """The command that repeats a run."""
    name = task.name.partition(SEALED)[0].partition(INDICES)[0]
    words = ["forgetbench", "run", name, *spec.arguments(), "--seeds", str(task.seeds)]
    if SEALED in task.name:
        words += ["--salt", "SALT"]
    if INDICES in task.name:
        words += ["--forget-indices", Path(task.scenario.options["path"]).name]
    if task.draws > 1:
        words += ["--draws", str(task.draws)]
    if root is not None:
        words += ["--root", "DATA"]
    return shlex.join(words)
