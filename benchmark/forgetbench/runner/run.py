"""Run methods on tasks: train what is missing, unlearn, and write the reference bundle and the runs.

`run` is what ``forgetbench run`` calls. It reports through a `ProgressCallback` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.arrays import Logits
from forgetbench.evidence.reference import ReferenceBundle
from forgetbench.evidence.run import CostRecord
from forgetbench.runner.artifacts import require_artifact
from forgetbench.runner.collect import (
    RunInfo,
    RunOutcome,
    TrainedPopulations,
    check_records,
    method_record,
    repeat_command,
    write_reference,
    write_run,
)
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.costs import expected_share
from forgetbench.runner.engines import Failure, Step, machine_fault
from forgetbench.runner.engines.base import FailureKind
from forgetbench.runner.failures import FailedJob, error_of
from forgetbench.runner.jobs import (
    BoardJob,
    BoardResult,
    CountTrainingJob,
    CountUnlearningJob,
    FlopCount,
    JobRunner,
    MethodFailure,
    PreparedTask,
    PrepareJob,
    TrainedModel,
    TrainJob,
    TrainOutcome,
    UnlearnedModel,
    UnlearnJob,
    UnlearnOutcome,
    hardware_text,
    oracle_roles,
    trained,
)
from forgetbench.runner.keys import Role
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.store import digest
from forgetbench.tasks.task import Task


@dataclass(frozen=True)
class RowModels:
    """The models of one row in the store."""

    spec: MethodSpec
    """The row."""
    outcomes: tuple[tuple[int, int, UnlearnOutcome], ...]
    """Draw, seed and outcome of each unlearning."""
    originals: tuple[str, ...]
    """The key of the original that each started from."""


@dataclass(frozen=True)
class TaskRun:
    """What the run of one task left on disk."""

    task: Task
    """The task."""
    reference: ReferenceBundle | None
    """What its runs are scored against; None if oracles were skipped."""
    runs: tuple[Path, ...]
    """One folder for each method, in the order of the methods."""
    jobs: int
    """Number of jobs."""
    computed: int
    """Number of jobs whose result was not in the store already."""
    failed: tuple[FailedJob, ...] = ()
    """Jobs without a result. Rows that need one of them have no folder, and without an oracle there is no bundle."""
    rows: tuple[RowModels, ...] = ()
    """The models of the rows that could be unlearned, in the order of the methods."""


def run(
    tasks: Sequence[Task],
    methods: Callable[[Task], Sequence[MethodSpec]],
    config: RunConfig,
    progress: ProgressCallback | None = None,
) -> list[TaskRun]:
    """Run methods on tasks; nothing that is in the store is computed again.

    Args:
        tasks: Tasks with their counts of seeds and draws.
        methods: The rows of a task; a method may have other defaults for another network.
        config: Where and how.
        progress: Progress callback.

    Raises:
        UsageError: A name, an option or a file is wrong; raised before anything is trained.
        JobsFailedError: Jobs failed; raised when all others are finished.
    """
    done = run_tasks(tasks, methods, config, progress)
    check_finished(done)
    return done


def check_finished(runs: Sequence[TaskRun]) -> None:
    """Raise an error if jobs failed.

    Raises:
        UsageError: A call is wrong.
        JobsFailedError: Jobs failed; the message lists them.
    """
    failed = [job for one in runs for job in one.failed]
    if failed:
        raise error_of(failed, sum(one.jobs for one in runs))


def run_tasks(
    tasks: Sequence[Task],
    methods: Callable[[Task], Sequence[MethodSpec]],
    config: RunConfig,
    progress: ProgressCallback | None = None,
) -> list[TaskRun]:
    """`run` without an error for jobs that failed: `TaskRun.failed` lists them, and everything else is done.

    Args:
        tasks: See `run`.
        methods: See `run`.
        config: See `run`.
        progress: See `run`.

    Raises:
        UsageError: A name, an option or a file is wrong; raised before anything is trained.
    """
    rows = [methods(task) for task in tasks]  # all names are checked before anything is trained
    for specs in rows:
        check_records(specs)
    with config.open_engine() as engine:
        return [
            _run_task(JobRunner(task, config, engine, progress), specs) for task, specs in zip(tasks, rows, strict=True)
        ]


def _run_task(runner: JobRunner, specs: Sequence[MethodSpec]) -> TaskRun:
    """Run one task; what ends it does not end the tasks after it."""
    try:
        return _TaskRunner(runner, specs).run()
    except _TaskStoppedError:
        pass
    except (ForgetBenchError, OSError) as error:
        _note_failure(runner, "the results", error)
    return TaskRun(runner.task, None, (), runner.jobs, runner.computed, tuple(runner.failed))


def train_audit_oracles(task: Task, config: RunConfig, progress: ProgressCallback | None = None) -> list[Logits]:
    """The predictions of a third set of oracles, which is in no band: for each draw, subset -> logits (S, n, K)."""
    with config.open_engine() as engine:
        jobs = JobRunner(task, config, engine, progress)
        return jobs.predictions_of(_train_alone(jobs, "audit oracles", "audit"))


def train_originals(task: Task, config: RunConfig, progress: ProgressCallback | None = None) -> list[Path]:
    """Train the originals of a task that are missing; returns the folder of each in the store, by seed."""
    with config.open_engine() as engine:
        jobs = JobRunner(task, config, engine, progress)
        models = _train_alone(jobs, "originals", "original")
    return [require_artifact(config.store, model.model) for model in models]


def _train_alone(runner: JobRunner, title: str, role: Role) -> list[TrainedModel]:
    """Train one population as a piece of work of its own."""
    from forgetbench.runner.train import train_model

    jobs = runner.originals() if role == "original" else runner.oracles(role)
    runner.progress.begin(f"{runner.task.name}, {title}", len(jobs))
    models = trained(runner.map(train_model, jobs))
    runner.progress.end(runner.task.name)
    return models


def own_trainers(methods: Sequence[MethodSpec]) -> dict[str, MethodSpec]:
    """Row that trains its own originals -> the row that does it for all rows with the same originals."""
    first: dict[str, MethodSpec] = {}
    return {
        spec.key: first.setdefault(digest(spec.training_identity()), spec) for spec in methods if spec.trains_originals
    }


ModelKey = tuple[Role, int, int, str]
"""Role, draw, seed and, for a method's own original, the hash of what trains it."""


def _note_failure(runner: JobRunner, title: str, error: BaseException) -> None:
    """Note what failed outside of jobs, such as writing the results of several."""
    kind: FailureKind = "machine" if machine_fault(error) else "job"
    runner.failed.append(FailedJob(runner.task.name, title, Failure(kind, error)))


class _TaskStoppedError(Exception):
    """A job failed that all others of its task need; the runner has noted it."""


def _model_key(job: TrainJob) -> ModelKey:
    return job.role, job.draw, job.seed, job.trainer.key if job.trainer else ""


def _usable(originals: Sequence[BoardResult | None]) -> TrainedModel | None:
    """The first of the models that a job needs; None if it is missing, or a method's training has failed."""
    first = originals[0]
    if any(isinstance(model, MethodFailure) for model in originals):
        return None
    return first if isinstance(first, TrainedModel) else None


@dataclass
class _Unlearned:
    """What became of the jobs of a row."""

    outcomes: list[tuple[int, int, UnlearnOutcome]] = field(default_factory=list)
    """Draw, seed and outcome of each unlearning."""
    originals: list[str] = field(default_factory=list)
    """The key of the original that each started from; empty if the row's own originals have failed."""
    flops: float | None = None
    """FLOPs of unlearning."""


@dataclass
class _Plan:
    """The jobs of a task, which depend on each other; numbers are positions in `steps`."""

    steps: list[Step[BoardJob, BoardResult]] = field(default_factory=list)
    """The jobs."""
    training: dict[ModelKey, int] = field(default_factory=dict)
    """Model -> the job that trains it."""
    counts: dict[str, int] = field(default_factory=dict)
    """Row that trains its own originals -> the job that counts a training; "" is an oracle's."""
    unlearning: dict[str, list[int]] = field(default_factory=dict)
    """Row -> its jobs, by draw and seed."""
    unlearning_counts: dict[str, int] = field(default_factory=dict)
    """Row -> the job that counts its unlearning."""

    def add(self, step: Step[BoardJob, BoardResult]) -> int:
        """Add a job; returns its number."""
        self.steps.append(step)
        return len(self.steps) - 1


class _TaskRunner:
    """One task: its jobs, each as soon as there are the models that it needs, and then what is written of them."""

    def __init__(self, runner: JobRunner, methods: Sequence[MethodSpec]) -> None:
        self.runner, self.methods = runner, methods
        self.task, self.config, self.env = runner.task, runner.config, runner.env
        self.trainers = own_trainers(methods)
        """Row -> the row whose job trains its originals: parameters that only unlearning reads change no original."""
        self.own = list({spec.key: spec for spec in self.trainers.values()}.values())
        """The rows whose jobs train originals."""
        self.models: dict[ModelKey, TrainOutcome] = {}
        """The models that could be trained."""
        self.unfinished: set[str] = set()
        """Rows that need a job that failed; they are not written."""
        self.rows: list[RowModels] = []
        """The models of the rows that could be unlearned."""

    def run(self) -> TaskRun:
        """All jobs, then the reference bundle and one folder for each method."""
        from forgetbench.runner.train import prepare_task
        from forgetbench.runner.unlearn import do_job

        runner, config = self.runner, self.config
        present = config.results.development_bundle(self.task)
        oracles = [] if config.skip_oracles or present else runner.oracles(*oracle_roles(self.task))
        own, models_each = len(self.own), self.task.seeds * self.task.draws + 1
        total = 2 + own + self.task.seeds * (1 + own) + len(oracles) + models_each * len(self.methods)
        runner.progress.begin(self.task.name, total)
        prepare = PrepareJob(task=self.task, env=self.env, methods=tuple(self.methods))
        [facts] = runner.try_map(prepare_task, [prepare])
        if facts is None:
            raise _TaskStoppedError
        runner.check_machines(facts)
        if present:
            self._import_originals(present)
        if config.skip_oracles:
            self._require_originals()
        plan = self._plan(facts, oracles)
        done = runner.try_map(do_job, plan.steps)
        outcomes = {key: done[number] for key, number in plan.training.items()}
        self.models = {
            key: outcome for key, outcome in outcomes.items() if isinstance(outcome, TrainedModel | MethodFailure)
        }
        counts = {row: done[number] for row, number in plan.counts.items()}
        training_flops = {row: count.flops for row, count in counts.items() if isinstance(count, FlopCount)}
        finished = len(self.models) == len(outcomes) and "" in training_flops
        reference = None
        if not config.skip_oracles:
            reference = present or (self._try_write_reference(facts, training_flops[""]) if finished else None)
        if "" not in training_flops:
            self.unfinished |= {spec.key for spec in self.methods}
        self.unfinished |= {row for row, trainer in self.trainers.items() if trainer.key not in training_flops}
        seconds = self._retrain_seconds(outcomes, oracles)
        cost = CostRecord(retrain_flops=training_flops.get(""), retrain_seconds=seconds)
        runs = self._write_rows(facts, cost, training_flops, self._unlearned(facts, plan, done))
        if len(runner.hardware) > 1:
            runner.progress.note(
                f"{self.task.name}: models were made on different hardware ({hardware_text(runner.hardware)}). The "
                "same training differs in bits between them, and so may scores; wall times are not comparable."
            )
        runner.progress.end(self.task.name)
        return TaskRun(
            self.task, reference, tuple(runs), runner.jobs, runner.computed, tuple(runner.failed), tuple(self.rows)
        )

    def _plan(self, facts: PreparedTask, oracles: Sequence[TrainJob]) -> _Plan:
        """All jobs but those that are measured on finished models. Costs are shares of a retraining."""
        plan, runner = _Plan(), self.runner
        trained_by_own = (job for spec in self.own for job in runner.originals(spec))
        for job in (*runner.originals(), *trained_by_own, *oracles):
            plan.training[_model_key(job)] = plan.add(Step.of(job, 1.0))
        for trainer in (None, *self.own):
            count = CountTrainingJob(task=self.task, env=self.env, trainer=trainer)
            plan.counts[trainer.key if trainer else ""] = plan.add(Step.of(count, 1 / self.task.recipe.epochs))
        for spec in self.methods:
            if spec.key in facts.refusals:
                continue
            share, seeds = expected_share(spec.name), range(self.task.seeds)
            originals = [plan.training[key] for key in self._original_keys(spec)]
            own = spec.key in self.trainers  # a row whose training fails once has failed: all must have ended
            needs = [(originals[seed], *(originals if own else ())) for seed in seeds]
            plan.unlearning[spec.key] = [
                plan.add(Step(partial(self._unlearn_job, spec, draw, seed), needs[seed], share))
                for draw, seed in runner.places()
            ]
            plan.unlearning_counts[spec.key] = plan.add(Step(partial(self._count_job, spec), needs[0], share))
        return plan

    def _unlearn_job(
        self, spec: MethodSpec, draw: int, seed: int, originals: Sequence[BoardResult | None]
    ) -> UnlearnJob | None:
        """The job in which a row unlearns from an original, the first of those given."""
        if (original := _usable(originals)) is None:
            return None
        return UnlearnJob(
            task=self.task,
            env=self.env,
            method=spec,
            draw=draw,
            seed=seed,
            original=original.model,
            keep_model=self.config.keep_models,
        )

    def _count_job(self, spec: MethodSpec, originals: Sequence[BoardResult | None]) -> CountUnlearningJob | None:
        """The job that counts a row's unlearning from an original, the first of those given."""
        if (original := _usable(originals)) is None:
            return None
        return CountUnlearningJob(task=self.task, env=self.env, method=spec, original=original.model)

    def _retrain_seconds(
        self, outcomes: Mapping[ModelKey, BoardResult | None], oracles: Sequence[TrainJob]
    ) -> float | None:
        """The mean wall time of training an oracle; None unless all models were trained now, on devices of one kind."""
        new = not any(outcome is None or outcome.from_cache for outcome in outcomes.values())
        hardware = {model.hardware for model in trained(self.models.values()) if model.hardware}
        if not (self.runner.exclusive and oracles and new and len(hardware) == 1):
            return None
        seconds = [model.seconds or 0.0 for model in trained(self.models[_model_key(job)] for job in oracles)]
        return sum(seconds) / len(seconds)

    def _population(self, role: Role) -> list[list[TrainedModel]]:
        """The models of a set of oracles, by draw and seed."""
        models = trained(self.models[role, draw, seed, ""] for draw, seed in self.runner.places())
        return [models[start : start + self.task.seeds] for start in range(0, len(models), self.task.seeds)]

    def _original_keys(self, spec: MethodSpec | None = None) -> list[ModelKey]:
        """The originals that a row starts from, by seed: the board's, or its own."""
        trainer = self.trainers.get(spec.key) if spec else None
        return [("original", 0, seed, trainer.key if trainer else "") for seed in range(self.task.seeds)]

    def _originals(self, spec: MethodSpec | None = None) -> list[TrainOutcome]:
        """The originals that a row starts from, without those that have failed."""
        return [self.models[key] for key in self._original_keys(spec) if key in self.models]

    def _try_write_reference(self, facts: PreparedTask, retrain_flops: float | None) -> ReferenceBundle | None:
        """The bundle; None if it cannot be written, which keeps no method from unlearning."""
        try:
            return self._write_reference(facts, retrain_flops)
        except OSError as error:
            _note_failure(self.runner, "the reference bundle", error)
            return None

    def _write_reference(self, facts: PreparedTask, retrain_flops: float | None) -> ReferenceBundle:
        results, place = self.config.results, (self.task.name, self.task.key, self.task.draws, self.task.seeds)
        partials = self._population("partial") if "partial" in oracle_roles(self.task) else ()
        populations = TrainedPopulations(
            trained(self._originals()), self._population("reference"), self._population("control"), partials
        )
        folder, fitness = results.reference_folder(*place), results.fitness(*place)
        return write_reference(self.config.store, folder, self.task, facts, populations, retrain_flops, fitness)

    def _import_originals(self, bundle: ReferenceBundle) -> None:
        """Put the originals of a bundle into the store, so that methods start from those that it is about."""
        from forgetbench.runner.train import import_original

        for job, sha256 in zip(self.runner.originals(), bundle.card.originals, strict=True):
            import_original(job, bundle.folder / "models" / f"s{job.seed}.safetensors", sha256)

    def _require_originals(self) -> None:
        """Refuse to train originals where only evidence is wanted."""
        from forgetbench.runner.train import find_model

        jobs = self.runner.originals()
        presences = self.runner.try_map(find_model, jobs)
        if None in presences:
            raise _TaskStoppedError
        missing = [job.seed for job, presence in zip(jobs, presences, strict=True) if presence and not presence.present]
        if missing:
            raise UsageError(
                f"--skip-oracles trains nothing, and the originals of seeds {missing} of {self.task.name} are not in "
                f"the store. Fetch a board's originals with `forgetbench pack pull {self.task.name} --server URL`."
            )

    def _unlearned(self, facts: PreparedTask, plan: _Plan, done: Sequence[BoardResult | None]) -> dict[str, _Unlearned]:
        """Row -> what became of its jobs; a row whose own originals failed has one failure. Notes unfinished rows."""
        rows: dict[str, _Unlearned] = {}
        jobs: list[UnlearnJob] = []
        outcomes: list[UnlearnOutcome | None] = []
        for spec in self.methods:
            if spec.key in facts.refusals:
                continue
            row = rows[spec.key] = _Unlearned()
            failure = next((model for model in self._originals(spec) if isinstance(model, MethodFailure)), None)
            if failure is not None:
                row.outcomes.append((0, 0, failure))
                continue
            for number in plan.unlearning[spec.key]:
                step, outcome = plan.steps[number], done[number]
                job = step.make([done[need] for need in step.needs])
                if isinstance(job, UnlearnJob):
                    jobs.append(job)
                    outcomes.append(outcome if isinstance(outcome, UnlearnedModel | MethodFailure) else None)
                else:  # its original has failed
                    self.unfinished.add(spec.key)
            count = done[plan.unlearning_counts[spec.key]]
            if isinstance(count, FlopCount):
                row.flops = count.flops
            else:
                self.unfinished.add(spec.key)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if outcome is None:
                self.unfinished.add(job.method.key)
            else:
                rows[job.method.key].outcomes.append((job.draw, job.seed, outcome))
                rows[job.method.key].originals.append(job.original)
        return rows

    def _write_rows(
        self,
        facts: PreparedTask,
        cost: CostRecord,
        training_flops: Mapping[str, float | None],
        rows: Mapping[str, _Unlearned],
    ) -> list[Path]:
        """Write the folders of the rows that have all they need."""
        folders = []
        for spec in self.methods:
            if spec.key in self.unfinished:
                continue
            row = rows.get(spec.key, _Unlearned())
            if row.originals:
                self.rows.append(RowModels(spec, tuple(row.outcomes), tuple(row.originals)))
            trainer = self.trainers.get(spec.key)
            row_cost = cost.model_copy(
                update={
                    "flops": row.flops,
                    "training_flops": training_flops[trainer.key] if trainer else None,
                    "tuning_trials": spec.trials,
                    "tuning_selector": spec.selector,
                }
            )
            own = self._originals(spec) if trainer else []
            untrained = any(isinstance(model, MethodFailure) for model in own)
            folders.append(self.config.results.run_folder(self.task.name, spec.label))
            write_run(
                self.config.store,
                folders[-1],
                self.task,
                RunInfo(
                    method_record(spec),
                    repeat_command(self.task, spec, self.config.root),
                    facts.refusals.get(spec.key, ""),
                ),
                RunOutcome(row.outcomes, row_cost, [] if untrained else trained(own)),
                facts=facts,
                device=self.env.device,
            )
        return folders
