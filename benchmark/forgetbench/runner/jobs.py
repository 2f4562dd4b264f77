"""A task's jobs: asked of an executor, told to a watcher, counted, and the answers that they made read back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from forgetbench.evidence.arrays import Logits, read_arrays, stack
from forgetbench.runner.artifacts import ANSWERS, require_artifact
from forgetbench.runner.config import NullProgress, ProgressCallback, RunConfig
from forgetbench.runner.engines import Executor, Job, Result
from forgetbench.tasks.task import Task


class JobRunner:
    """Does the jobs of one task.

    Args:
        task: The task with its counts of seeds and draws.
        options: Where and how.
        executor: Runs the jobs.
        watcher: Is told of each.

    Raises:
        UsageError: There is no such device here.
    """

    def __init__(
        self, task: Task, options: RunConfig, executor: Executor, watcher: ProgressCallback | None = None
    ) -> None:
        self.task, self.options = task, options
        self.site = options.site()
        self.watcher = watcher or NullProgress()
        self.alone = executor.alone
        """Nothing runs beside a job, so that its wall time means something."""
        self.jobs = 0
        """Jobs that were done."""
        self.fresh = 0
        """Those of them that were not in the store already."""
        self._executor = executor
        self._common: Job = {"task": task.model_dump(mode="json"), "site": self.site.__dict__}

    def do(self, work: str, jobs: Iterable[Job], names: Sequence[str]) -> list[Result]:
        """The results of jobs that do not depend on each other, in their order.

        Args:
            work: ``module:function`` of this package.
            jobs: What each asks for, beside the task and where to work.
            names: What the watcher is told of each.
        """
        full = [{**self._common, **job} for job in jobs]

        def done(number: int, result: Result) -> None:
            fresh = bool(result.get("fresh", False))
            self.jobs += 1
            self.fresh += fresh
            self.watcher.done(names[number], fresh=fresh)

        return self._executor(f"forgetbench.{work}", full, done)

    def train(self, jobs: Sequence[Job]) -> list[Result]:
        """Train what is not there of `originals` and `oracles`."""
        return self.do("runner.train:train", jobs, [training_name(job) for job in jobs])

    def originals(self, method: Job | None = None) -> list[Job]:
        """The jobs of the originals, by seed: the task's, or those that a method trains for itself."""
        own = {} if method is None else {"method": method}
        return [{"role": "original", "seed": seed, **own} for seed in range(self.task.seeds)]

    def oracles(self, *roles: str) -> list[Job]:
        """The jobs of sets of oracles, by role, draw and seed."""
        return [{"role": role, **place} for role in roles for place in self.places()]

    def places(self) -> list[Job]:
        """Draw and seed of every model of a population, in the order of `population`."""
        return [{"draw": draw, "seed": seed} for draw in range(self.task.draws) for seed in range(self.task.seeds)]

    def population(self, keys: Sequence[str]) -> list[Logits]:
        """Answers of a population: for each draw, subset -> logits (S, n, K).

        Args:
            keys: Its models' answers in the store, in the order of `places`.

        Raises:
            ForgetBenchError: An artifact was damaged since it was made.
        """
        answers = [read_arrays(require_artifact(self.options.store, key) / ANSWERS) for key in keys]
        seeds = self.task.seeds
        return [stack(answers[start : start + seeds]) for start in range(0, len(answers), seeds)]

    def answers_of(self, models: Sequence[Result]) -> list[Logits]:
        """The `population` of trained models: oracles, one for each place, or originals, which serve all draws."""
        places = self.places()
        each = [*models] * (len(places) // len(models))
        return self.population([model["answers"][str(at["draw"])] for model, at in zip(each, places, strict=True)])


def training_name(job: Job) -> str:
    """What a watcher is told of a model that is trained."""
    where = f", draw {job['draw']}" if job.get("draw") else ""
    return f"{job['role']} {job['seed']}{where}"
