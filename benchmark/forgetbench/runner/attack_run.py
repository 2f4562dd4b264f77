"""Run attacks on a task: on unlearned models, and with the same budgets on the originals and oracles of its board."""

from __future__ import annotations

import datetime
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import read_arrays
from forgetbench.evidence.attacks import (
    MANIFEST,
    REFERENCE_POPULATIONS,
    AttackedModelRecord,
    AttackManifest,
    Population,
    write_attacked,
)
from forgetbench.evidence.environment import environment
from forgetbench.evidence.reference import ReferenceBundle
from forgetbench.evidence.run import describe
from forgetbench.runner.artifacts import PREDICTIONS, read_meta, require_artifact
from forgetbench.runner.attack import attack, attack_refusal, count_attack, shot_rows
from forgetbench.runner.attack_spec import AttackSpec
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.context import TaskContext
from forgetbench.runner.failures import FailedJob
from forgetbench.runner.jobs import (
    AttackedModel,
    AttackJob,
    AttackOutcome,
    CountAttackJob,
    JobRunner,
    MethodFailure,
    TrainedModel,
    UnlearnedModel,
    trained,
)
from forgetbench.runner.keys import Role
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.runner.run import RowModels, check_finished, run_tasks
from forgetbench.scoring.vocabulary import PROTOCOL
from forgetbench.store import replace_folder
from forgetbench.tasks.task import Task

ROLES: dict[Population, str] = {"originals": "original", "references": "reference", "controls": "control"}
"""Reference population -> the role of its models."""


@dataclass(frozen=True)
class AttackRun:
    """What the attacks on one task left on disk."""

    task: Task
    """The task."""
    reference: ReferenceBundle
    """What the task's runs are scored against."""
    runs: tuple[Path, ...]
    """The folders of the rows before the attacks."""
    folders: tuple[Path, ...]
    """One folder for each attack with its budget; below it, one for each attacked population."""
    refusals: Mapping[str, str]
    """Label of an attack -> why it does not apply to the task."""
    jobs: int
    """Number of jobs."""
    failed: tuple[FailedJob, ...] = ()
    """Jobs without a result, whose populations have no folder."""


@dataclass(frozen=True)
class _Models:
    """The models of one population, in the order of draws and seeds."""

    population: Population
    row: MethodSpec | None
    models: Sequence[str]
    """Their keys in the store."""
    originals: Sequence[str]
    """The key of the original of each."""

    @property
    def about(self) -> str:
        """What progress and messages call it."""
        return self.row.label if self.row is not None else ROLES[self.population]


def run_attacks(
    task: Task,
    attacks: Sequence[AttackSpec],
    methods: Callable[[Task], Sequence[MethodSpec]],
    config: RunConfig,
    progress: ProgressCallback | None = None,
) -> AttackRun:
    """Attack the unlearned models of a task, its originals and its oracles; what is missing is trained first.

    Nothing that is in the store is computed again. A method that failed, or does not apply, has nothing to attack.

    Args:
        task: The task with its counts of seeds and draws.
        attacks: The attacks, one for each budget.
        methods: The rows of the task.
        config: Where and how; the weights of unlearned models are kept.
        progress: Progress callback.

    Raises:
        UsageError: A name, an option or a file is wrong, or oracles are to be skipped.
        JobsFailedError: A job of training or unlearning failed.
    """
    if config.skip_oracles:
        raise UsageError("Attacks compare with oracles, which --skip-oracles does not train. Omit it.")
    config = replace(config, keep_models=True)
    done = run_tasks([task], methods, config, progress)
    check_finished(done)
    [task_run] = done
    reference = cast("ReferenceBundle", task_run.reference)  # there is one, since no job failed
    with config.open_engine() as engine:
        runner = JobRunner(task, config, engine, progress)
        return _AttackRunner(runner, attacks, reference, task_run.rows).run(task_run.runs)


class _AttackRunner:
    """The attacks on one task."""

    def __init__(
        self, runner: JobRunner, attacks: Sequence[AttackSpec], reference: ReferenceBundle, rows: Sequence[RowModels]
    ) -> None:
        self.runner, self.reference, self.rows = runner, reference, rows
        self.task, self.config = runner.task, runner.config
        self.context = TaskContext(runner.task, self.config.env())
        reasons = {spec.label: attack_refusal(self.context, spec.build()) for spec in attacks}
        self.refusals = {label: reason for label, reason in reasons.items() if reason}
        self.attacks = [spec for spec in attacks if spec.label not in self.refusals]

    def run(self, runs: Sequence[Path]) -> AttackRun:
        """All jobs, then a folder for each attack."""
        populations = self._populations()
        places = self.runner.places()
        jobs = [
            AttackJob(
                task=self.task,
                env=self.runner.env,
                attack=spec,
                model=model,
                original=original,
                draw=draw,
                seed=seed,
                about=models.about,
            )
            for spec in self.attacks
            for models in populations
            for (draw, seed), model, original in zip(places, models.models, models.originals, strict=True)
        ]
        self.runner.progress.begin(f"{self.task.name}, attacks", len(jobs) + len(self.attacks))
        outcomes = iter(self.runner.try_map(attack, jobs))
        counting = [
            CountAttackJob(task=self.task, env=self.runner.env, attack=spec, original=populations[0].models[0])
            for spec in self.attacks
        ]
        counts = self.runner.try_map(count_attack, counting)
        folders = []
        for spec, count in zip(self.attacks, counts, strict=True):
            folders.append(self.config.results.attack_folder(self.reference.card, spec.label))
            for models in populations:
                found = [next(outcomes) for _ in places]
                if None not in found:
                    self._write(
                        folders[-1], spec, models, [one for one in found if one], count.flops if count else None
                    )
        self.runner.progress.end(self.task.name)
        return AttackRun(
            task=self.task,
            reference=self.reference,
            runs=tuple(runs),
            folders=tuple(folders),
            refusals=self.refusals,
            jobs=self.runner.jobs,
            failed=tuple(self.runner.failed),
        )

    def _populations(self) -> list[_Models]:
        """The originals, both sets of oracles, and the rows. Models of an earlier run come from the store."""
        from forgetbench.runner.train import train_model

        places, found = self.runner.places(), []
        originals: list[TrainedModel] = trained(self.runner.map(train_model, self.runner.originals()))
        by_seed = [originals[seed].model for _, seed in places]
        found.append(_Models("originals", None, by_seed, by_seed))
        for population in REFERENCE_POPULATIONS[1:]:
            role: Role = "reference" if population == "references" else "control"
            oracles = trained(self.runner.map(train_model, self.runner.oracles(role)))
            found.append(_Models(population, None, [model.model for model in oracles], by_seed))
        for row in self.rows:
            models = [model for _, _, model in row.outcomes if isinstance(model, UnlearnedModel)]
            if len(models) == len(places):
                keys = [model.key for model in models]
                found.append(_Models("row", row.spec, keys, row.originals))
        return found

    def _write(
        self, folder: Path, spec: AttackSpec, models: _Models, outcomes: Sequence[AttackOutcome], flops: float | None
    ) -> None:
        failure = next((one for one in outcomes if isinstance(one, MethodFailure)), None)
        sources: dict[str, Path] = {}
        records = []
        if failure is None:
            for (draw, seed), one in zip(self.runner.places(), outcomes, strict=True):
                key = cast("AttackedModel", one).key
                place, name = require_artifact(self.config.store, key), f"d{draw}-s{seed}.npz"
                meta, sources[name] = read_meta(place), place / PREDICTIONS
                arrays = describe(read_arrays(sources[name]))
                records.append(
                    AttackedModelRecord(
                        draw=draw, seed=seed, file=name, arrays=arrays, model=meta["model"], notes=meta["notes"]
                    )
                )
        thing, card, row = spec.build(), self.reference.card, models.row
        shots = (
            {str(draw): tuple(shot_rows(self.context, thing, draw).tolist()) for draw in range(self.task.draws)}
            if "forget" in thing.card.holds and thing.forget_shots is not None
            else {}
        )
        words = ["forgetbench", "attack", self.task.name, *spec.arguments(), *(row.arguments() if row else [])]
        manifest = AttackManifest(
            protocol=PROTOCOL,
            task=card.task,
            task_key=card.task_key,
            attack=spec.record(),
            population=models.population,
            row=row.label if row else "",
            method_fingerprint=row.fingerprint if row else "",
            status=failure.status if failure else "ok",
            reason=failure.reason if failure else "",
            draws=card.draws,
            seeds=card.seeds,
            index_hashes=card.index_hashes,
            shots=shots,
            models=tuple(records),
            flops=flops,
            environment=environment(self.runner.env.device),
            command=shlex.join([*words, "--seeds", str(self.task.seeds)]),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        place = self.config.results.attacked_folder(folder, models.population, manifest.row)
        replace_folder(place, partial(write_attacked, manifest=manifest, copy=partial(_copy, sources)), marker=MANIFEST)


def _copy(sources: Mapping[str, Path], place: Path) -> None:
    for name, source in sources.items():
        shutil.copyfile(source, place / name)
