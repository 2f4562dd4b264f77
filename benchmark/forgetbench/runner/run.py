"""The main job as a function: train what is missing, let methods unlearn, gather pack and runs, score them.

`run` is what ``forgetbench run`` calls. It speaks through a `ProgressCallback` only, so that it is quiet in a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import Logits
from forgetbench.evidence.reference import ReferenceBundle
from forgetbench.evidence.run import CostRecord
from forgetbench.runner.artifacts import require_artifact
from forgetbench.runner.collect import Entry, Trained, Unlearned, command, method_record, write_reference, write_run
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.engines import Job, Result
from forgetbench.runner.jobs import JobRunner, training_name
from forgetbench.runner.method_spec import MethodSpec, trained_by
from forgetbench.store import digest
from forgetbench.tasks.task import Task


@dataclass(frozen=True)
class TaskRun:
    """What one task's run left on disk."""

    task: Task
    pack: ReferenceBundle | None
    """What its runs are scored against; None where only evidence was asked for."""
    runs: tuple[Path, ...]
    """One folder for each method, in the order in which they were asked for."""
    jobs: int
    """Jobs in all."""
    fresh: int
    """Jobs that were not in the store already."""


def run(
    tasks: Sequence[Task],
    contestants: Callable[[Task], Sequence[MethodSpec]],
    options: RunConfig,
    watcher: ProgressCallback | None = None,
) -> list[TaskRun]:
    """Run methods on tasks; whatever is in the store is not made again.

    Args:
        tasks: Tasks with their counts of seeds and draws.
        contestants: The rows of a task; a method may have defaults of its own for a network.
        options: Where and how.
        watcher: Is told what goes on.

    Raises:
        UsageError: A name, an option or a file is wrong; found before anything is trained.
        ForgetBenchError: A worker died, or an artifact was damaged while it was needed.
    """
    if options.measure_relearning and options.skip_oracles:
        raise UsageError("--measure-relearning compares with the oracles, which --skip-oracles does not train.")
    rows = [contestants(task) for task in tasks]  # all names are checked before anything is trained
    with options.open_executor() as executor:
        return [
            _TaskRunner(JobRunner(task, options, executor, watcher), methods).run()
            for task, methods in zip(tasks, rows, strict=True)
        ]


def train_audit_oracles(task: Task, options: RunConfig, watcher: ProgressCallback | None = None) -> list[Logits]:
    """The answers of a third set of oracles, which is in no band: for each draw, subset -> logits (S, n, K)."""
    with options.open_executor() as executor:
        crew = JobRunner(task, options, executor, watcher)
        return crew.answers_of(_train(crew, "third oracles", crew.oracles("third")))


def train_originals(task: Task, options: RunConfig, watcher: ProgressCallback | None = None) -> list[Path]:
    """Train the originals of a task that are not there; returns the folder of each in the store, by seed."""
    with options.open_executor() as executor:
        crew = JobRunner(task, options, executor, watcher)
        return [require_artifact(options.store, made["model"]) for made in _train(crew, "originals", crew.originals())]


def _train(crew: JobRunner, what: str, jobs: Sequence[Job]) -> list[Result]:
    """Train models for themselves, as a piece of work that the watcher is told of."""
    crew.watcher.begin(f"{crew.task.name}, {what}", len(jobs))
    results = crew.train(jobs)
    crew.watcher.end(crew.task.name)
    return results


class _TaskRunner:
    """One task: its jobs in the order in which they depend on each other."""

    def __init__(self, crew: JobRunner, methods: Sequence[MethodSpec]) -> None:
        self.crew, self.methods = crew, methods
        self.task, self.options = crew.task, crew.options
        first: dict[str, Job] = {}
        self.trainers = {
            digest(spec): first.setdefault(digest(trained_by(spec)), spec)
            for spec, method in ((method.as_json(), method) for method in methods)
            if method.trains_originals
        }
        """MethodSpec -> the one whose job trains its originals: what only unlearning reads makes no others."""

    def run(self) -> TaskRun:
        """All jobs, then the pack and one folder for each method."""
        specs = [method.as_json() for method in self.methods]
        own = list({digest(spec): spec for spec in self.trainers.values()}.values())
        oracles = [] if self.options.skip_oracles else self.crew.oracles("reference", "control")
        models_each = self.task.seeds * self.task.draws + 1
        self.crew.watcher.begin(
            self.task.name, 2 + len(own) + self.task.seeds * (1 + len(own)) + len(oracles) + models_each * len(specs)
        )
        [facts] = self.crew.do("runner.train:prepare", [{"methods": specs}], ["images and splits"])
        train = self.crew.originals()
        if self.options.skip_oracles:
            self._demand_originals(train)
        train += [job for spec in own for job in self.crew.originals(spec)] + oracles
        trained = self.crew.train(train)
        models = {_training_key(job): result for job, result in zip(train, trained, strict=True)}
        counted, *counted_own = self.crew.do(
            "runner.train:count",
            [{}, *({"method": spec} for spec in own)],
            ["FLOPs of retraining", *(f"FLOPs of training for {spec['name']}" for spec in own)],
        )
        training_flops = {digest(spec): result["flops"] for spec, result in zip(own, counted_own, strict=True)}
        pack = None
        if not self.options.skip_oracles:
            results, place = self.options.results, (self.task.name, self.task.key, self.task.draws, self.task.seeds)
            pack = write_reference(
                self.options.store,
                results.pack_folder(*place),
                self.task,
                facts,
                self._trained(models),
                counted["flops"],
                results.verdict(*place),
            )
        seconds = [models[_training_key(job)]["seconds"] for job in oracles]
        alone = self.crew.alone and seconds and all(result["fresh"] for result in trained)
        cost = CostRecord(
            retrain_flops=counted["flops"], retrain_seconds=sum(seconds) / len(seconds) if alone else None
        )
        runs = self._unlearn(facts, models, cost, training_flops)
        self.crew.watcher.end(self.task.name)
        return TaskRun(self.task, pack, tuple(runs), self.crew.jobs, self.crew.fresh)

    def _trained(self, models: dict[str, Result]) -> Trained:
        def oracles(role: str) -> list[list[Result]]:
            found = [models[_training_key(job)] for job in self.crew.oracles(role)]
            return [found[start : start + self.task.seeds] for start in range(0, len(found), self.task.seeds)]

        originals = [models[_training_key(job)] for job in self.crew.originals()]
        return Trained(originals, oracles("reference"), oracles("control"))

    def _demand_originals(self, jobs: Sequence[Job]) -> None:
        """Refuse to train originals where only evidence is asked for."""
        present = self.crew.do("runner.train:find", jobs, [training_name(job) for job in jobs])
        missing = [job["seed"] for job, result in zip(jobs, present, strict=True) if not result["present"]]
        if missing:
            raise UsageError(
                f"--skip-oracles trains nothing, and the originals of seeds {missing} of {self.task.name} are not in "
                f"the store. Fetch a board's with `forgetbench pack pull {self.task.name} --server URL`."
            )

    def _unlearn(
        self, facts: Result, models: dict[str, Result], cost: CostRecord, training_flops: dict[str, float | None]
    ) -> list[Path]:
        jobs: list[Job] = []
        untrained: dict[str, list[tuple[Job, Result]]] = {}
        for method in self.methods:
            spec = method.as_json()
            if digest(spec) in facts["refusals"]:
                continue
            originals = self._originals(spec, models)
            if bad := next((result for result in originals if "reason" in result), None):
                untrained[digest(spec)] = [({}, bad)]
                continue
            jobs += [
                {"method": spec, **place, "original": originals[place["seed"]]["model"]} for place in self.crew.places()
            ]
        failed, results = set(untrained), untrained
        relearns = self.options.measure_relearning and facts["track"] == "erase"
        for job in jobs:
            job["keep_model"] = self.options.keep_models or relearns
        unlearned = self.crew.do(
            "runner.unlearn:unlearn", jobs, [f"{job['method']['label']}, seed {job['seed']}" for job in jobs]
        )
        if relearns:
            self._relearn(jobs, unlearned, models)
        first = [job for job in jobs if job["draw"] == job["seed"] == 0]
        counted = self.crew.do("runner.unlearn:count", first, [f"FLOPs of {job['method']['label']}" for job in first])
        for job, result in zip(jobs, unlearned, strict=True):
            results.setdefault(digest(job["method"]), []).append((job, result))
        flops = {digest(job["method"]): result["flops"] for job, result in zip(first, counted, strict=True)}
        folders = []
        for method in self.methods:
            key = digest(method.as_json())
            trainer = self.trainers.get(key)
            training = training_flops[digest(trainer)] if trainer else None
            folders.append(self.options.results.runs / self.task.name / method.folder)
            write_run(
                self.options.store,
                folders[-1],
                self.task,
                Entry(
                    method_record(method),
                    command(self.task, method, self.options.root),
                    facts["refusals"].get(key, ""),
                ),
                Unlearned(
                    results.get(key, []),
                    cost.model_copy(
                        update={
                            "flops": flops.get(key),
                            "training_flops": training,
                            "tuning_trials": method.trials,
                            "tuning_selector": method.selector,
                        }
                    ),
                    self._originals(method.as_json(), models) if trainer and key not in failed else (),
                ),
                facts=facts,
                device=self.crew.site.device,
            )
        return folders

    def _relearn(self, jobs: Sequence[Job], unlearned: Sequence[Result], models: dict[str, Result]) -> None:
        """Teach unlearned models and reference oracles their forget set again; results are kept in ``measured``."""
        pairs: list[tuple[Result, Job, Job]] = []
        for job, result in zip(jobs, unlearned, strict=True):
            if result["status"] != "ok":
                continue
            place = {"draw": job["draw"], "seed": job["seed"], "original": job["original"]}
            oracle = models[_training_key({"role": "reference", "draw": job["draw"], "seed": job["seed"]})]
            pairs.append((result, {**place, "model": result["key"]}, {**place, "model": oracle["model"]}))
        asked = {
            digest(job): job for _, mine, oracle in pairs for job in (mine, oracle)
        }  # oracles once for all methods
        found = self.crew.do(
            "runner.relearn:relearn", asked.values(), [f"relearning, seed {job['seed']}" for job in asked.values()]
        )
        measured = dict(zip(asked, found, strict=True))
        for result, *sides in pairs:
            mine, oracle = (measured[digest(job)] for job in sides)
            result["measured"] = {
                "relearn": mine["steps"],
                "relearn.back": mine["back"],
                "relearn.oracle": oracle["steps"],
                "relearn.oracle.back": oracle["back"],
            }

    def _originals(self, spec: Job, models: dict[str, Result]) -> list[Result]:
        """By seed, the originals that a contestant starts from: the board's, or those of its own."""
        return [models[_training_key(job)] for job in self.crew.originals(self.trainers.get(digest(spec)))]


def _training_key(job: Job) -> str:
    return digest({name: job.get(name) for name in ("role", "draw", "seed", "method")})
