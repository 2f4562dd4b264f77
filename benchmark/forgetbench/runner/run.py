"""Run methods on tasks: train what is missing, unlearn, and write the reference bundle and the runs.

`run` is what ``forgetbench run`` calls. It reports through a `ProgressCallback` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from forgetbench.runner.engines import Failure, machine_fault
from forgetbench.runner.engines.base import FailureKind
from forgetbench.runner.failures import FailedJob, error_of
from forgetbench.runner.jobs import (
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


class _TaskRunner:
    """One task: its jobs in the order in which they depend on each other."""

    def __init__(self, runner: JobRunner, methods: Sequence[MethodSpec]) -> None:
        self.runner, self.methods = runner, methods
        self.task, self.config, self.env = runner.task, runner.config, runner.env
        self.trainers = own_trainers(methods)
        """Row -> the row whose job trains its originals: parameters that only unlearning reads change no original."""
        self.models: dict[ModelKey, TrainOutcome] = {}
        """The models that could be trained."""
        self.unfinished: set[str] = set()
        """Rows that need a job that failed; they are not written."""
        self.rows: list[RowModels] = []
        """The models of the rows that could be unlearned."""

    def run(self) -> TaskRun:
        """All jobs, then the reference bundle and one folder for each method."""
        from forgetbench.runner.train import prepare_task, train_or_count

        runner, config = self.runner, self.config
        own = list({spec.key: spec for spec in self.trainers.values()}.values())
        present = config.results.development_bundle(self.task)
        oracles = [] if config.skip_oracles or present else runner.oracles(*oracle_roles(self.task))
        models_each = self.task.seeds * self.task.draws + 1
        total = 2 + len(own) + self.task.seeds * (1 + len(own)) + len(oracles) + models_each * len(self.methods)
        runner.progress.begin(self.task.name, total)
        prepare = PrepareJob(task=self.task, env=self.env, methods=tuple(self.methods))
        [facts] = runner.try_map(prepare_task, [prepare])
        if facts is None:
            raise _TaskStoppedError
        runner.check_machines(facts)
        originals = runner.originals()
        if present:
            self._import_originals(present)
        if config.skip_oracles:
            self._require_originals()
        jobs = [*originals, *(job for spec in own for job in runner.originals(spec)), *oracles]
        counting = [CountTrainingJob(task=self.task, env=self.env, trainer=trainer) for trainer in (None, *own)]
        everything: list[TrainJob | CountTrainingJob] = [*jobs, *counting]  # a count is short: it comes last
        done = runner.try_map(train_or_count, everything)
        outcomes = [None if isinstance(result, FlopCount) else result for result in done[: len(jobs)]]
        counts = [result if isinstance(result, FlopCount) else None for result in done[len(jobs) :]]
        self.models = {
            (job.role, job.draw, job.seed, job.trainer.key if job.trainer else ""): outcome
            for job, outcome in zip(jobs, outcomes, strict=True)
            if outcome is not None
        }
        counted, *counted_own = [count.flops if count else None for count in counts]
        finished = None not in outcomes and counts[0] is not None
        reference = None
        if not config.skip_oracles:
            reference = present or (self._try_write_reference(facts, counted) if finished else None)
        seconds = [model.seconds for model in trained(outcomes[len(outcomes) - len(oracles) :])] if oracles else []
        timed = runner.exclusive and seconds and not any(outcome is None or outcome.from_cache for outcome in outcomes)
        timed = timed and len(runner.hardware) == 1
        retrain_seconds = sum(second or 0.0 for second in seconds) / len(seconds) if timed else None
        cost = CostRecord(retrain_flops=counted, retrain_seconds=retrain_seconds)
        if counts[0] is None:
            self.unfinished |= {spec.key for spec in self.methods}
        self.unfinished |= {
            row
            for spec, count in zip(own, counts[1:], strict=True)
            for row, trainer in self.trainers.items()
            if count is None and trainer.key == spec.key
        }
        runs = self._unlearn(facts, cost, {spec.key: flops for spec, flops in zip(own, counted_own, strict=True)})
        if len(runner.hardware) > 1:
            runner.progress.note(
                f"{self.task.name}: models were made on different hardware ({hardware_text(runner.hardware)}). The "
                "same training differs in bits between them, and so may scores; wall times are not comparable."
            )
        runner.progress.end(self.task.name)
        return TaskRun(
            self.task, reference, tuple(runs), runner.jobs, runner.computed, tuple(runner.failed), tuple(self.rows)
        )

    def _population(self, role: Role) -> list[list[TrainedModel]]:
        """The models of a set of oracles, by draw and seed."""
        models = trained(self.models[role, draw, seed, ""] for draw, seed in self.runner.places())
        return [models[start : start + self.task.seeds] for start in range(0, len(models), self.task.seeds)]

    def _originals(self, spec: MethodSpec | None = None) -> dict[int, TrainOutcome]:
        """Seed -> the original that a row starts from: the board's, or its own. Those that have failed are missing."""
        trainer = self.trainers.get(spec.key) if spec else None
        keys: dict[int, ModelKey] = {
            seed: ("original", 0, seed, trainer.key if trainer else "") for seed in range(self.task.seeds)
        }
        return {seed: self.models[key] for seed, key in keys.items() if key in self.models}

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
            trained(self._originals().values()), self._population("reference"), self._population("control"), partials
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

    def _unlearn(self, facts: PreparedTask, cost: CostRecord, training_flops: Mapping[str, float | None]) -> list[Path]:
        from forgetbench.runner.unlearn import unlearn_or_count

        jobs: list[UnlearnJob] = []
        results: dict[str, list[tuple[int, int, UnlearnOutcome]]] = {}
        for spec in self.methods:
            if spec.key in facts.refusals:
                continue
            originals = self._originals(spec)
            failure = next((model for model in originals.values() if isinstance(model, MethodFailure)), None)
            if failure is not None:
                results[spec.key] = [(0, 0, failure)]
                continue
            keys = {seed: model.model for seed, model in originals.items() if isinstance(model, TrainedModel)}
            if len(keys) < self.task.seeds:
                self.unfinished.add(spec.key)
            jobs += [
                UnlearnJob(
                    task=self.task,
                    env=self.env,
                    method=spec,
                    draw=draw,
                    seed=seed,
                    original=keys[seed],
                    keep_model=self.config.keep_models,
                )
                for draw, seed in self.runner.places()
                if seed in keys
            ]
        untrained = set(results)
        first = [job for job in jobs if job.draw == job.seed == 0]
        counting = [
            CountUnlearningJob(task=job.task, env=job.env, method=job.method, original=job.original) for job in first
        ]
        everything: list[UnlearnJob | CountUnlearningJob] = [*jobs, *counting]
        ordered = sorted(everything, key=lambda job: -expected_share(job.method.name))  # the longest first
        done = dict(zip(map(id, ordered), self.runner.try_map(unlearn_or_count, ordered), strict=True))
        outcomes = [None if isinstance(result := done[id(job)], FlopCount) else result for job in jobs]
        counts = [result if isinstance(result := done[id(job)], FlopCount) else None for job in counting]
        for job, outcome in zip(jobs, outcomes, strict=True):
            if outcome is not None:
                results.setdefault(job.method.key, []).append((job.draw, job.seed, outcome))
            else:
                self.unfinished.add(job.method.key)
        flops = {job.method.key: count.flops for job, count in zip(first, counts, strict=True) if count is not None}
        self.unfinished |= {job.method.key for job in first if job.method.key not in flops}
        folders = []
        originals_of = {(job.method.key, job.draw, job.seed): job.original for job in jobs}
        for spec in self.methods:
            if spec.key in self.unfinished:
                continue
            if spec.key in results and spec.key not in untrained:
                outcomes_of = tuple(results[spec.key])
                keys_of = tuple(originals_of[spec.key, draw, seed] for draw, seed, _ in outcomes_of)
                self.rows.append(RowModels(spec, outcomes_of, keys_of))
            trainer = self.trainers.get(spec.key)
            row_cost = cost.model_copy(
                update={
                    "flops": flops.get(spec.key),
                    "training_flops": training_flops[trainer.key] if trainer else None,
                    "tuning_trials": spec.trials,
                    "tuning_selector": spec.selector,
                }
            )
            own = trained(self._originals(spec).values()) if trainer and spec.key not in untrained else []
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
                RunOutcome(results.get(spec.key, []), row_cost, own),
                facts=facts,
                device=self.env.device,
            )
        return folders
