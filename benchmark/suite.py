"""The main job as a function: train what is missing, let methods unlearn, gather pack and runs, score them.

`run` is what ``forgetbench run`` calls. It speaks through a `Watcher` only, so that it is quiet in a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from forgetbench.answers import Logits, read_arrays, stack
from forgetbench.artefacts import ANSWERS, find_artefact
from forgetbench.bench import Site
from forgetbench.contestants import Contestant, trained_by
from forgetbench.errors import UsageError
from forgetbench.evidence import CostRecord
from forgetbench.executors import Job, Local, Processes, Result, make_executor
from forgetbench.gathering import Entry, Trained, Unlearned, command, gather_pack, gather_run, method_record
from forgetbench.packs import Pack, read_pack
from forgetbench.pipeline import adopt
from forgetbench.results import Results
from forgetbench.store import Store, digest, home
from forgetbench.tasks import Task


class Watcher(Protocol):
    """Is told what goes on."""

    def begin(self, task: str, jobs: int) -> None:
        """A task begins, with so many jobs as far as is known."""

    def done(self, what: str, *, fresh: bool) -> None:
        """A job ended; ``fresh`` says that it was not in the store already."""

    def end(self, task: str) -> None:
        """A task ended."""


class Silent:
    """A watcher that says nothing."""

    def begin(self, task: str, jobs: int) -> None:
        """Say nothing."""

    def done(self, what: str, *, fresh: bool) -> None:
        """Say nothing."""

    def end(self, task: str) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Options:
    """Where and how a run works; nothing here changes a result."""

    root: Path | None = None
    """Folder of the image sets on disk."""
    device: str = "auto"
    """torch device, or ``auto``: the GPU where there is one."""
    executor: str = "auto"
    """``processes``, ``local`` or ``auto``."""
    workers: int | None = None
    """Processes; None takes one for each core."""
    keep_models: bool = False
    """Keep the weights of unlearned models in the store."""
    evidence_only: bool = False
    """Train no oracle and no original; the originals must be in the store."""
    relearn: bool = False
    """On erase boards, measure how fast what was forgotten is learnt again; keeps the models for it."""
    home: Path = field(default_factory=home)
    """Folder of store, packs and runs."""

    @property
    def store(self) -> Store:
        """The artefacts."""
        return Store(self.home / "store")

    @property
    def results(self) -> Results:
        """Packs and runs."""
        return Results(self.home)

    def site(self) -> Site:
        """Where jobs work.

        Raises:
            UsageError: There is no such device here.
        """
        return Site(str(self.store.root), str(self.root.resolve()) if self.root else None, pick_device(self.device))


@dataclass(frozen=True)
class TaskRun:
    """What one task's run left on disk."""

    task: Task
    pack: Pack | None
    """What its runs are scored against; None where only evidence was asked for."""
    runs: tuple[Path, ...]
    """One folder for each method, in the order in which they were asked for."""
    jobs: int
    """Jobs in all."""
    fresh: int
    """Jobs that were not in the store already."""


def run(
    tasks: Sequence[Task],
    contestants: Callable[[Task], Sequence[Contestant]],
    options: Options,
    watcher: Watcher | None = None,
) -> list[TaskRun]:
    """Run methods on tasks; whatever is in the store is not made again.

    Args:
        tasks: Tasks with their counts of seeds and draws.
        contestants: The rows of a task; a method may have defaults of its own for a network.
        options: Where and how.
        watcher: Is told what goes on.

    Raises:
        UsageError: A name, an option or a file is wrong; found before anything is trained.
        ForgetBenchError: A worker died, or an artefact was damaged while it was needed.
    """
    if options.relearn and options.evidence_only:
        raise UsageError("relearn time is told beside the oracles', which --evidence-only does not train.")
    site = options.site()
    rows = [contestants(task) for task in tasks]  # all names are checked before anything is trained
    with make_executor(options.executor, options.workers, site.device) as executor:
        return [
            _TaskRunner(task, methods, site, options, executor, watcher or Silent()).run()
            for task, methods in zip(tasks, rows, strict=True)
        ]


def extra_oracles(task: Task, options: Options, watcher: Watcher | None = None) -> list[Logits]:
    """The answers of a third set of oracles, which is in no band: for each draw, subset -> logits (S, n, K)."""
    site = options.site()
    with make_executor(options.executor, options.workers, site.device) as executor:
        runner = _TaskRunner(task, [], site, options, executor, watcher or Silent())
        return runner.third()


def train_originals(task: Task, options: Options, watcher: Watcher | None = None) -> list[Path]:
    """Train the originals of a task that are not there; returns the folder of each in the store, by seed."""
    site = options.site()
    with make_executor(options.executor, options.workers, site.device) as executor:
        return _TaskRunner(task, [], site, options, executor, watcher or Silent()).originals()


@dataclass(frozen=True)
class Adopted:
    """Originals of a board that were put into the store."""

    count: int
    """How many there are now."""
    replaced: tuple[int, ...]
    """Seeds of those that stand where another original was."""


def adopt_originals(task: Task, pack: Path, options: Options) -> Adopted:
    """Put the originals of a board's pack into the store, so that runs start from them.

    Raises:
        UsageError: The pack is of another definition of the task than the one here.
        ForgetBenchError: It holds no originals.
    """
    card = read_pack(pack, verify=False).card
    if card.task_key != task.key:
        raise UsageError(
            f"The board's {card.task} is defined otherwise than the one here (task keys {card.task_key[:12]} and "
            f"{task.key[:12]}): install the version of forgetbench that the board uses."
        )
    replaced = []
    for seed, sha in enumerate(card.originals):
        done = adopt(
            {
                "task": task.model_dump(mode="json"),
                "site": options.site().__dict__,
                "role": "original",
                "seed": seed,
                "weights": str(pack / "models" / f"s{seed}.safetensors"),
                "sha256": sha,
            }
        )
        if done["replaced"]:
            replaced.append(seed)
    return Adopted(len(card.originals), tuple(replaced))


def pick_device(name: str) -> str:
    """The torch device of a name; ``auto`` takes the GPU where there is one.

    Raises:
        UsageError: There is no such device here.
    """
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} is not to be had here ({str(error).splitlines()[0]}); use cpu") from error
    return name


class _TaskRunner:
    """One task: its jobs in the order in which they depend on each other."""

    def __init__(
        self,
        task: Task,
        methods: Sequence[Contestant],
        site: Site,
        options: Options,
        executor: Local | Processes,
        watcher: Watcher,
    ) -> None:
        self.task, self.methods, self.site, self.options = task, methods, site, options
        self.executor, self.watcher = executor, watcher
        self.common: Job = {"task": task.model_dump(mode="json"), "site": site.__dict__}
        self.jobs = self.fresh = 0
        first: dict[str, Job] = {}
        self.trainers = {
            digest(spec): first.setdefault(digest(trained_by(spec)), spec)
            for spec, method in ((method.as_json(), method) for method in methods)
            if method.trains_originals
        }
        """Contestant -> the one whose job trains its originals: what only unlearning reads makes no others."""

    def run(self) -> TaskRun:
        """All jobs, then the pack and one folder for each method."""
        specs = [method.as_json() for method in self.methods]
        own = list({digest(spec): spec for spec in self.trainers.values()}.values())
        oracles = [] if self.options.evidence_only else self._oracles("reference", "control")
        models_each = self.task.seeds * self.task.draws + 1
        self.watcher.begin(
            self.task.name, 2 + len(own) + self.task.seeds * (1 + len(own)) + len(oracles) + models_each * len(specs)
        )
        [facts] = self._do("pipeline:prepare", [{"methods": specs}], ["images and splits"])
        train = [{"role": "original", "seed": seed} for seed in range(self.task.seeds)]
        if self.options.evidence_only:
            self._demand_originals(train)
        train += [{"role": "original", "seed": seed, "method": spec} for spec in own for seed in range(self.task.seeds)]
        train += oracles
        trained = self._do("pipeline:train", train, [_training_name(job) for job in train])
        models = {_training_key(job): result for job, result in zip(train, trained, strict=True)}
        counted, *counted_own = self._do(
            "pipeline:count",
            [{}, *({"method": spec} for spec in own)],
            ["FLOPs of retraining", *(f"FLOPs of training for {spec['name']}" for spec in own)],
        )
        training_flops = {digest(spec): result["flops"] for spec, result in zip(own, counted_own, strict=True)}
        pack = None
        if not self.options.evidence_only:
            results, place = self.options.results, (self.task.name, self.task.key, self.task.draws, self.task.seeds)
            pack = gather_pack(
                self.options.store,
                results.pack_folder(*place),
                self.task,
                facts,
                self._trained(models),
                counted["flops"],
                results.verdict(*place),
            )
        seconds = [models[_training_key(job)]["seconds"] for job in oracles]
        alone = self.executor.alone and seconds and all(result["fresh"] for result in trained)
        cost = CostRecord(
            retrain_flops=counted["flops"], retrain_seconds=sum(seconds) / len(seconds) if alone else None
        )
        runs = self._unlearn(facts, models, cost, training_flops)
        self.watcher.end(self.task.name)
        return TaskRun(self.task, pack, tuple(runs), self.jobs, self.fresh)

    def third(self) -> list[Logits]:
        """Train a third set of oracles, and give their answers."""
        jobs = self._oracles("third")
        self.watcher.begin(f"{self.task.name}, third oracles", len(jobs))
        results = self._do("pipeline:train", jobs, [_training_name(job) for job in jobs])
        self.watcher.end(self.task.name)
        models = {(job["draw"], job["seed"]): result for job, result in zip(jobs, results, strict=True)}
        return [
            stack(
                [
                    read_arrays(find_artefact(self.options.store, models[draw, seed]["answers"][str(draw)]) / ANSWERS)
                    for seed in range(self.task.seeds)
                ]
            )
            for draw in range(self.task.draws)
        ]

    def originals(self) -> list[Path]:
        """Train the originals; returns the folder of each in the store."""
        jobs: list[Job] = [{"role": "original", "seed": seed} for seed in range(self.task.seeds)]
        self.watcher.begin(f"{self.task.name}, originals", len(jobs))
        results = self._do("pipeline:train", jobs, [_training_name(job) for job in jobs])
        self.watcher.end(self.task.name)
        return [find_artefact(self.options.store, result["model"]) for result in results]

    def _oracles(self, *roles: str) -> list[Job]:
        return [
            {"role": role, "draw": draw, "seed": seed}
            for role in roles
            for draw in range(self.task.draws)
            for seed in range(self.task.seeds)
        ]

    def _trained(self, models: dict[str, Result]) -> Trained:
        seeds, draws = range(self.task.seeds), range(self.task.draws)

        def oracles(role: str) -> list[list[Result]]:
            return [
                [models[_training_key({"role": role, "draw": draw, "seed": seed})] for seed in seeds] for draw in draws
            ]

        originals = [models[_training_key({"role": "original", "seed": seed})] for seed in seeds]
        return Trained(originals, oracles("reference"), oracles("control"))

    def _demand_originals(self, jobs: Sequence[Job]) -> None:
        """Refuse to train originals where only evidence is asked for."""
        present = self._do("pipeline:find", jobs, [_training_name(job) for job in jobs])
        missing = [job["seed"] for job, result in zip(jobs, present, strict=True) if not result["present"]]
        if missing:
            raise UsageError(
                f"--evidence-only trains nothing, and the originals of seeds {missing} of {self.task.name} are not in "
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
                {"method": spec, "draw": draw, "seed": seed, "original": originals[seed]["model"]}
                for draw in range(self.task.draws)
                for seed in range(self.task.seeds)
            ]
        failed, results = set(untrained), untrained
        relearns = self.options.relearn and facts["track"] == "erase"
        for job in jobs:
            job["keep_model"] = self.options.keep_models or relearns
        unlearned = self._do(
            "unlearning:unlearn", jobs, [f"{job['method']['label']}, seed {job['seed']}" for job in jobs]
        )
        if relearns:
            self._relearn(jobs, unlearned, models)
        first = [job for job in jobs if job["draw"] == job["seed"] == 0]
        counted = self._do("unlearning:count", first, [f"FLOPs of {job['method']['label']}" for job in first])
        for job, result in zip(jobs, unlearned, strict=True):
            results.setdefault(digest(job["method"]), []).append((job, result))
        flops = {digest(job["method"]): result["flops"] for job, result in zip(first, counted, strict=True)}
        folders = []
        for method in self.methods:
            key = digest(method.as_json())
            trainer = self.trainers.get(key)
            training = training_flops[digest(trainer)] if trainer else None
            folders.append(self.options.results.runs / self.task.name / method.folder)
            gather_run(
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
                device=self.site.device,
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
        found = self._do(
            "measuring:relearn", asked.values(), [f"relearning, seed {job['seed']}" for job in asked.values()]
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
        own = self.trainers.get(digest(spec))
        about: Job = {"role": "original"} | ({"method": own} if own else {})
        return [models[_training_key(about | {"seed": seed})] for seed in range(self.task.seeds)]

    def _do(self, work: str, jobs: Iterable[Job], names: Sequence[str]) -> list[Result]:
        full = [{**self.common, **job} for job in jobs]

        def done(number: int, result: Result) -> None:
            fresh = bool(result.get("fresh", False))
            self.jobs += 1
            self.fresh += fresh
            self.watcher.done(names[number], fresh=fresh)

        return self.executor(f"forgetbench.{work}", full, done)


def _training_name(job: Job) -> str:
    where = f", draw {job['draw']}" if job.get("draw") else ""
    return f"{job['role']} {job['seed']}{where}"


def _training_key(job: Job) -> str:
    return digest({name: job.get(name) for name in ("role", "draw", "seed", "method")})
