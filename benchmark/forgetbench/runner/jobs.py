"""Jobs and their results: typed values that cross process boundaries, and the runner that executes a task's jobs.

A job names its task, where it runs and what it makes; a job function takes one job and returns one result. Job
functions look into the store first, so an interrupted run resumes. Results name artifacts by their keys in the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

from forgetbench.datasets.scenarios import make_scenario
from forgetbench.errors import UsageError, describe_error, printable
from forgetbench.evidence.arrays import Logits, read_arrays, stack
from forgetbench.runner.artifacts import PREDICTIONS, require_artifact
from forgetbench.runner.attack_spec import AttackSpec
from forgetbench.runner.config import NullProgress, ProgressCallback, RunConfig
from forgetbench.runner.data import ExecutionEnv
from forgetbench.runner.engines import Engine, Failure, Step, TimeLimit
from forgetbench.runner.failures import FailedJob, error_of, not_shared
from forgetbench.runner.keys import Role
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Job:
    """Base of jobs."""

    task: Task
    """The task with its counts of seeds and draws."""
    env: ExecutionEnv
    """Where the job runs."""


@dataclass(frozen=True, kw_only=True)
class PrepareJob(Job):
    """Load the images, draw the splits, store labels and row numbers, and check which methods apply."""

    methods: tuple[MethodSpec, ...] = ()
    """The rows of the board."""

    @property
    def title(self) -> str:
        """What progress shows."""
        return "images and splits"


@dataclass(frozen=True, kw_only=True)
class CheckMachineJob(Job):
    """Check that a machine has the images and sees the store."""

    labels: str
    """The key of an artifact that is in the store."""

    @property
    def title(self) -> str:
        """What progress shows."""
        return "images and store"


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """What a machine has."""

    images: str
    """SHA-256 of the image set."""
    sees_store: bool
    """Whether it found the artifact."""


@dataclass(frozen=True, kw_only=True)
class TrainJob(Job):
    """Train an original or an oracle and record its predictions."""

    role: Role
    """What the model is trained for."""
    seed: int
    """Position in its population."""
    draw: int = 0
    """The forget set that an oracle is trained without; originals are the same for all draws."""
    trainer: MethodSpec | None = None
    """The method that trains this original with a loss of its own."""

    @property
    def title(self) -> str:
        """What progress shows."""
        trainer = f" of {self.trainer.label}" if self.trainer else ""
        return f"{self.role} {self.seed}{trainer}" + (f", draw {self.draw}" if self.draw else "")


@dataclass(frozen=True, kw_only=True)
class CountTrainingJob(Job):
    """Count the FLOPs of training one oracle, or one original that a method trains for itself."""

    trainer: MethodSpec | None = None
    """The method; None counts an oracle."""

    @property
    def title(self) -> str:
        """What progress shows."""
        return f"FLOPs of training for {self.trainer.name}" if self.trainer else "FLOPs of retraining"


@dataclass(frozen=True, kw_only=True)
class UnlearnJob(Job):
    """Let a method unlearn from one original and record the predictions after each request."""

    method: MethodSpec
    """The method."""
    draw: int
    """The forget set."""
    seed: int
    """The original's position."""
    original: str
    """The original's key in the store."""
    keep_model: bool = False
    """Whether the weights of the unlearned model stay in the store."""

    @property
    def title(self) -> str:
        """What progress shows."""
        return f"{self.method.label}, seed {self.seed}" + (f", draw {self.draw}" if self.draw else "")


@dataclass(frozen=True, kw_only=True)
class CountUnlearningJob(Job):
    """Count the FLOPs of ``unlearn`` in a separate, untimed run on the first seed."""

    method: MethodSpec
    """The method."""
    original: str
    """The original's key in the store."""

    @property
    def title(self) -> str:
        """What progress shows."""
        return f"FLOPs of {self.method.label}"


@dataclass(frozen=True, kw_only=True)
class AttackJob(Job):
    """Attack one model and record its answers."""

    attack: AttackSpec
    """The attack."""
    model: str
    """The model's key in the store."""
    original: str
    """The key of the original that it was unlearned from; of an oracle, the original of its seed."""
    draw: int
    """The forget set."""
    seed: int
    """The original's position."""
    about: str
    """What the model is, for progress: the row's name, or its role."""

    @property
    def title(self) -> str:
        """What progress shows."""
        return f"{self.attack.label} on {self.about}, seed {self.seed}" + (f", draw {self.draw}" if self.draw else "")


@dataclass(frozen=True, kw_only=True)
class CountAttackJob(Job):
    """Count the FLOPs of an attack in a separate run on the first original."""

    attack: AttackSpec
    """The attack."""
    original: str
    """The original's key in the store."""

    @property
    def title(self) -> str:
        """What progress shows."""
        return f"FLOPs of {self.attack.label}"


@dataclass(frozen=True, kw_only=True)
class PreparedTask:
    """Facts of a task that need its images."""

    labels: tuple[str, ...]
    """By draw, the key of labels and row numbers in the store."""
    refusals: dict[str, str]
    """`MethodSpec.key` -> why the method does not apply to the task."""
    track: Literal["match-oracle", "erase", "corrective"]
    """What a good method does."""
    features: int
    """Number of penultimate features that are recorded; 0 if none are."""
    requests: int
    """Number of requests of a stream; 0 for a task that is no stream."""
    attributes: bool
    """Whether labels are several binary attributes rather than one class."""
    classes: tuple[str, ...]
    """Names of the classes or attributes."""
    counts: dict[str, dict[str, int]]
    """Draw -> subset -> number of rows."""
    index_hashes: dict[str, dict[str, str]]
    """Draw -> subset -> SHA-256 of its row numbers."""
    image_set: dict[str, str]
    """Name, title, license, homepage and SHA-256 of the image set."""
    precision: str
    """The precision of matrix products and convolutions."""
    notices: tuple[str, ...] = ()
    """What a reader of the results should know, such as files of the image set that were ignored."""
    from_cache: bool = True
    """Whether the result was in the store already."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained original or oracle."""

    model: str
    """Its key in the store."""
    weights: str
    """SHA-256 of its weights."""
    predictions: dict[int, str]
    """Draw -> the key of its predictions in the store."""
    seconds: float | None
    """Wall time of training; None for a model that was imported, or trained on a device that other jobs used too."""
    from_cache: bool
    """Whether the result was in the store already."""
    hardware: str = ""
    """The processor or GPU on which it was trained; "" if that is not known."""


@dataclass(frozen=True, kw_only=True)
class UnlearnedModel:
    """The outcome of unlearning from one original."""

    key: str
    """The key of the final predictions in the store, with the weights if they are kept."""
    steps: tuple[str, ...] = ()
    """For a stream, the keys after each request but the last."""
    from_cache: bool = False
    """Whether the result was in the store already."""
    hardware: str = ""
    """The processor or GPU on which it was made; "" if that is not known."""


@dataclass(frozen=True, kw_only=True)
class MethodFailure:
    """A method or an attack raised an error: the state of its row."""

    status: Literal["failed", "diverged"]
    """``diverged`` if the weights or predictions became infinite or NaN."""
    reason: str
    """The error in words."""
    from_cache: bool = False
    """Failures are never cached."""


@dataclass(frozen=True, kw_only=True)
class FlopCount:
    """A count of floating-point operations."""

    flops: float | None
    """The count; None if counting failed, which never fails a row."""
    reason: str = ""
    """Why counting failed."""
    from_cache: bool = True
    """Counting is not reported as work."""


@dataclass(frozen=True, kw_only=True)
class AttackedModel:
    """The outcome of attacking one model."""

    key: str
    """The key of its answers in the store."""
    from_cache: bool
    """Whether the result was in the store already."""


@dataclass(frozen=True, kw_only=True)
class ModelPresence:
    """Whether a model is in the store."""

    present: bool
    """Whether it is."""
    from_cache: bool = True
    """Looking is not reported as work."""


class _Titled(Protocol):
    @property
    def title(self) -> str: ...


class _Result(Protocol):
    @property
    def from_cache(self) -> bool: ...


JobT = TypeVar("JobT", bound=_Titled)
ResultT = TypeVar("ResultT", bound=_Result)
TrainOutcome = TrainedModel | MethodFailure
UnlearnOutcome = UnlearnedModel | MethodFailure
AttackOutcome = AttackedModel | MethodFailure
BoardJob = TrainJob | CountTrainingJob | UnlearnJob | CountUnlearningJob
"""The jobs of a board, which depend on each other."""
BoardResult = TrainedModel | UnlearnedModel | MethodFailure | FlopCount
"""Their results."""


class JobRunner:
    """Executes the jobs of one task: passes them to an engine, reports progress, and counts.

    Args:
        task: The task with its counts of seeds and draws.
        config: Where and how.
        engine: Runs the jobs.
        progress: Progress callback.

    Raises:
        UsageError: The device is not available.
    """

    def __init__(self, task: Task, config: RunConfig, engine: Engine, progress: ProgressCallback | None = None) -> None:
        self.task, self.config = task, config
        self.env = config.env(engine)
        self.progress = progress or NullProgress()
        self.exclusive = engine.exclusive
        """Whether a job has its device for itself, so that wall times count."""
        self.hardware = Counter[str]()
        """Name of a processor or GPU -> number of models that were made on it."""
        self.jobs = 0
        """Number of jobs done."""
        self.computed = 0
        """Number of jobs whose result was not in the store."""
        self.failed: list[FailedJob] = []
        """Jobs that have no result."""
        self._engine = engine

    def map(self, function: Callable[[JobT], ResultT], jobs: Iterable[JobT]) -> list[ResultT]:
        """The results of jobs, in the order of the jobs.

        Args:
            function: A job function: importable by its name, since other processes call it.
            jobs: The jobs, which do not depend on each other.

        Raises:
            JobsFailedError: Jobs failed, in other ways than a method may fail; the others are finished.
            UsageError: The call is wrong.
        """
        before = len(self.failed)
        results = self.try_map(function, jobs)
        if len(self.failed) > before:
            raise error_of(self.failed[before:], self.jobs)
        return [result for result in results if result is not None]

    def try_map(
        self, function: Callable[[JobT], ResultT], jobs: Iterable[JobT | Step[JobT, ResultT]]
    ) -> list[ResultT | None]:
        """`map`, with None for each job that failed; `failed` lists them.

        Args:
            function: A job function: importable by its name, since other processes call it.
            jobs: The jobs. One that needs others is a `Step`; it has no result if it could not be made.
        """
        made: dict[int, Any] = {}
        plan = [_noted(one, number, made) for number, one in enumerate(jobs)]
        results: dict[int, ResultT] = {}

        def on_done(number: int, outcome: ResultT | Failure) -> None:
            if isinstance(outcome, Failure) and outcome.kind == "blocked":
                return
            job = made[number]
            result: Any = outcome
            if isinstance(outcome, Failure):
                result = failed_result(job, _blame(outcome)) if outcome.by_job else None
                if result is None:
                    self.failed.append(FailedJob(self.task.name, job.title, outcome))
                    self.progress.note(f"failed: {self.failed[-1]}")
                    return
            results[number] = result
            self.jobs += 1
            if isinstance(result, TrainedModel | UnlearnedModel) and result.hardware:
                self.hardware[result.hardware] += 1
            self.computed += not result.from_cache
            self.progress.done(job.title, from_cache=result.from_cache)
            for notice in result.notices if isinstance(result, PreparedTask) else ():
                self.progress.note(f"{self.task.name}: {notice}")

        seconds = self.config.time_limit
        limit: TimeLimit[Any, Any] | None = None
        if seconds is not None:
            reason = f"stopped at the time limit of {seconds:g} s for one job (--time-limit)"
            limit = TimeLimit(seconds, lambda job: failed_result(job, reason))
        self._engine.map(function, plan, on_done, limit)
        return [results.get(number) for number in range(len(plan))]

    def check_machines(self, facts: PreparedTask) -> None:
        """Check that every other machine has the task's images, and uses the same store.

        Raises:
            UsageError: One does not; the message names it.
        """
        from forgetbench.runner.train import check_machine

        job = CheckMachineJob(task=self.task, env=self.env, labels=facts.labels[0])
        machines = self._engine.on_each_worker(check_machine, job)
        if machines and self.config.store.read(facts.labels[0], expected=True) is None:
            raise UsageError(f"This machine: {not_shared(self.config.store)}")
        for machine, found in machines.items():
            if isinstance(found, Failure):
                raise UsageError(f"{machine} cannot work on {self.task.name}: {printable(str(found.error))}")
            if found.images != facts.image_set["sha256"]:
                raise UsageError(
                    f"{machine} has other images of {facts.image_set['name']} than the machine that began. Copy them "
                    "there, or give a folder that all machines see with --root."
                )
            if not found.sees_store:
                raise UsageError(f"{machine}: {not_shared(self.config.store)}")

    def originals(self, trainer: MethodSpec | None = None) -> list[TrainJob]:
        """The jobs of the originals, by seed: the task's, or those that a method trains for itself."""
        return [
            TrainJob(task=self.task, env=self.env, role="original", seed=seed, trainer=trainer)
            for seed in range(self.task.seeds)
        ]

    def oracles(self, *roles: Role) -> list[TrainJob]:
        """The jobs of sets of oracles, by role, draw and seed."""
        return [
            TrainJob(task=self.task, env=self.env, role=role, draw=draw, seed=seed)
            for role in roles
            for draw, seed in self.places()
        ]

    def places(self) -> list[tuple[int, int]]:
        """Draw and seed of every model of a population, in the order of `population`."""
        return [(draw, seed) for draw in range(self.task.draws) for seed in range(self.task.seeds)]

    def population(self, keys: Sequence[str]) -> list[Logits]:
        """The predictions of a population: for each draw, subset -> logits (S, n, K).

        Args:
            keys: The keys of its models' predictions in the store, in the order of `places`.

        Raises:
            ForgetBenchError: An artifact was damaged since it was made.
        """
        arrays = [read_arrays(require_artifact(self.config.store, key) / PREDICTIONS) for key in keys]
        seeds = self.task.seeds
        return [stack(arrays[start : start + seeds]) for start in range(0, len(arrays), seeds)]

    def predictions_of(self, models: Sequence[TrainedModel]) -> list[Logits]:
        """The `population` of trained models: oracles, one for each place, or originals, which serve all draws."""
        places = self.places()
        repeated = [*models] * (len(places) // len(models))
        return self.population([model.predictions[draw] for model, (draw, _) in zip(repeated, places, strict=True)])


def oracle_roles(task: Task) -> tuple[Role, ...]:
    """The sets of oracles of a task's reference bundle: one more where harmful rows were found only in part.

    Raises:
        UsageError: The scenario is unknown, or its options are wrong.
    """
    corrective = make_scenario(task.scenario.name, task.scenario.options).corrective
    return ("reference", "control", "partial") if corrective else ("reference", "control")


def _noted(one: Any, number: int, made: dict[int, Any]) -> Step[Any, Any]:
    """A step that notes its job under its number when it is made."""
    step = one if isinstance(one, Step) else Step.of(one)

    def make(results: Sequence[Any]) -> Any:
        job = step.make(results)
        if job is not None:
            made[number] = job
        return job

    return replace(step, make=make)


def failed_result(job: object, reason: str) -> MethodFailure | FlopCount | None:
    """The result of a job in which a method failed from outside; None for jobs that run no method.

    Args:
        job: The job.
        reason: Why it has no other result.
    """
    match job:
        case UnlearnJob() | AttackJob():
            return MethodFailure(status="failed", reason=reason)
        case TrainJob(trainer=MethodSpec()):
            return MethodFailure(status="failed", reason=f"training its own original: {reason}")
        case CountUnlearningJob() | CountTrainingJob(trainer=MethodSpec()) | CountAttackJob():
            return FlopCount(flops=None, reason=reason)
    return None


def hardware_text(models: Mapping[str, int]) -> str:
    """Names of processors and GPUs; with the number of models that were made on each if there are several."""
    if len(models) == 1:
        return next(iter(models))
    return "; ".join(f"{name}: {count} models" for name, count in sorted(models.items()))


def _blame(failure: Failure) -> str:
    """The reason of a row whose job killed its workers or used up the memory."""
    if failure.kind == "lost":
        return f"{failure.attempts} attempts, the last one alone: {printable(str(failure.error))}"
    return f"out of memory while it ran alone: {describe_error(failure.error)}"


def trained(outcomes: Iterable[TrainOutcome | None]) -> list[TrainedModel]:
    """The models of `train_model` jobs without a trainer, which fail by raising and never by their result."""
    return [outcome for outcome in outcomes if isinstance(outcome, TrainedModel)]
