"""The main job as a function: train what is missing, let methods unlearn, gather pack and runs, score them.

`run` is what ``forgetbench run`` calls. It speaks through a `Watcher` only, so that it is quiet in a notebook.
"""

from __future__ import annotations

import datetime
import fnmatch
import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from forgetbench.bench import Site
from forgetbench.contestants import Contestant
from forgetbench.environment import environment
from forgetbench.errors import UsageError
from forgetbench.evidence import (
    MANIFEST,
    CostRecord,
    Manifest,
    MethodRecord,
    ModelRecord,
    Status,
    read_run,
    write_manifest,
)
from forgetbench.executors import Job, Local, Processes, Result, make_executor
from forgetbench.judging import Judge
from forgetbench.packs import Pack, read_pack, write_pack
from forgetbench.pipeline import LABELS, answers_file, read_meta
from forgetbench.store import Store, digest, home, replace_folder
from forgetbench.tasks import PROTOCOL, Task


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
    home: Path = field(default_factory=home)
    """Folder of store, packs and runs."""

    @property
    def store(self) -> Store:
        """The artefacts."""
        return Store(self.home / "store")


@dataclass(frozen=True)
class TaskRun:
    """What one task's run left on disk."""

    task: Task
    pack: Pack
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
    device = pick_device(options.device)
    site = Site(str(options.store.root), str(options.root.resolve()) if options.root else None, device)
    rows = [contestants(task) for task in tasks]  # all names are checked before anything is trained
    with make_executor(options.executor, options.workers, device) as executor:
        return [
            _TaskRunner(task, methods, site, options, executor, watcher or Silent()).run()
            for task, methods in zip(tasks, rows, strict=True)
        ]


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

    def run(self) -> TaskRun:
        """All jobs, then the pack and one folder for each method."""
        seeds, draws = range(self.task.seeds), range(self.task.draws)
        specs = [method.as_json() for method in self.methods]
        own = [spec for spec, method in zip(specs, self.methods, strict=True) if method.trains_originals]
        per_method = self.task.seeds * self.task.draws + 1
        total = 2 + self.task.seeds * (1 + 2 * self.task.draws + len(own)) + per_method * len(specs)
        self.watcher.begin(self.task.name, total)
        [facts] = self._do("prepare", [{"methods": specs}], ["images and splits"])
        train = [{"role": "original", "seed": seed} for seed in seeds]
        train += [{"role": "original", "seed": seed, "method": spec} for spec in own for seed in seeds]
        train += [
            {"role": role, "draw": draw, "seed": seed}
            for role in ("reference", "control")
            for draw in draws
            for seed in seeds
        ]
        trained = self._do("train", train, [_training_name(job) for job in train])
        models = {_training_key(job): result for job, result in zip(train, trained, strict=True)}
        [retrain] = self._do("count", [{}], ["FLOPs of retraining"])
        pack = self._write_pack(facts, models, retrain["flops"])
        alone = self.executor.alone and all(result["fresh"] for result in trained)
        oracles = [result["seconds"] for job, result in zip(train, trained, strict=True) if job["role"] != "original"]
        retrain_seconds = sum(oracles) / len(oracles) if alone else None
        runs = self._unlearn(facts, models, pack, retrain_seconds)
        self.watcher.end(self.task.name)
        return TaskRun(self.task, pack, tuple(runs), self.jobs, self.fresh)

    def _unlearn(
        self, facts: Result, models: dict[str, Result], pack: Pack, retrain_seconds: float | None
    ) -> list[Path]:
        jobs: list[Job] = []
        for method in self.methods:
            spec = method.as_json()
            if digest(spec) in facts["refusals"]:
                continue
            for draw in range(self.task.draws):
                for seed in range(self.task.seeds):
                    original = {"role": "original", "seed": seed}
                    if method.trains_originals:
                        original["method"] = spec
                    key = models[_training_key(original)]["model"]
                    jobs.append({"method": spec, "draw": draw, "seed": seed, "original": key})
        for job in jobs:
            job["keep_model"] = self.options.keep_models
        unlearned = self._do("unlearn", jobs, [f"{job['method']['label']}, seed {job['seed']}" for job in jobs])
        first = [job for job in jobs if job["draw"] == job["seed"] == 0]
        counted = self._do("count", first, [f"FLOPs of {job['method']['label']}" for job in first])
        results: dict[str, list[tuple[Job, Result]]] = {}
        for job, result in zip(jobs, unlearned, strict=True):
            results.setdefault(digest(job["method"]), []).append((job, result))
        flops = {digest(job["method"]): result["flops"] for job, result in zip(first, counted, strict=True)}
        folders = []
        for method in self.methods:
            key = digest(method.as_json())
            cost = CostRecord(
                flops=flops.get(key), retrain_flops=pack.card.retrain_flops, retrain_seconds=retrain_seconds
            )
            folders.append(self._write_run(method, results.get(key, []), facts["refusals"].get(key, ""), cost, pack))
        return folders

    def _do(self, work: str, jobs: Iterable[Job], names: Sequence[str]) -> list[Result]:
        full = [{**self.common, **job} for job in jobs]

        def done(number: int, result: Result) -> None:
            fresh = bool(result.get("fresh", False))
            self.jobs += 1
            self.fresh += fresh
            self.watcher.done(names[number], fresh=fresh)

        return self.executor(f"forgetbench.pipeline:{work}", full, done)

    def _write_pack(self, facts: Result, models: dict[str, Result], retrain_flops: float | None) -> Pack:
        """Gather the pack from the store; its folder bears the task's name, key and counts."""
        task, store = self.task, self.options.store
        folder = pack_folder(self.options.home, task)
        originals = [models[_training_key({"role": "original", "seed": seed})] for seed in range(task.seeds)]

        def fill(place: Path) -> None:
            for role in ("originals", "references", "controls"):
                (place / role).mkdir()
            for draw in range(task.draws):
                labels = store.read(facts["labels"][draw])
                if labels is None:
                    raise UsageError("the labels were damaged after they were written; run the same command again.")
                shutil.copyfile(labels / LABELS, place / f"labels-d{draw}.npz")
                for seed in range(task.seeds):
                    name = f"d{draw}-s{seed}.npz"
                    _copy_answers(store, originals[seed]["answers"][str(draw)], place / "originals" / name)
                    for role in ("reference", "control"):
                        model = models[_training_key({"role": role, "draw": draw, "seed": seed})]
                        _copy_answers(store, model["answers"][str(draw)], place / f"{role}s" / name)
            write_pack(
                place,
                {
                    "protocol": PROTOCOL,
                    "task": task.name,
                    "task_key": task.key,
                    "definition": task.model_dump(mode="json"),
                    "title": task.title,
                    "scenario": task.scenario.name,
                    "draws": task.draws,
                    "seeds": task.seeds,
                    "originals": [model["weights"] for model in originals],
                    "retrain_flops": retrain_flops,
                    **{
                        name: facts[name]
                        for name in ("track", "attributes", "classes", "image_set", "counts", "index_hashes")
                    },
                },
            )

        replace_folder(folder, fill)
        return read_pack(folder, verify=False)

    def _write_run(
        self, method: Contestant, results: list[tuple[Job, Result]], refusal: str, cost: CostRecord, pack: Pack
    ) -> Path:
        """One method's run: evidence and manifest in a fresh folder that replaces the one before."""
        store, task = self.options.store, self.task
        folder = self.options.home / "runs" / task.name / method.folder
        bad = next((result for _, result in results if result["status"] != "ok"), None)
        status: Status
        status, reason = ("not-applicable", refusal) if refusal else ("ok", "")
        if bad is not None:
            status, reason = bad["status"], bad["reason"]

        records = []
        for job, result in results if bad is None else []:
            meta = read_meta(answers_file(store, result["key"]).parent)
            name = f"d{job['draw']}-s{job['seed']}.npz"
            records.append(ModelRecord(draw=job["draw"], seed=job["seed"], file=name, **meta))
        seconds = [record.seconds for record in records if record.seconds is not None]
        manifest = Manifest(
            protocol=PROTOCOL,
            task=task.name,
            task_key=task.key,
            method=method_record(method),
            status=status,
            reason=reason,
            draws=task.draws,
            seeds=task.seeds,
            index_hashes=pack.card.index_hashes,
            models=tuple(records),
            cost=cost.model_copy(update={"seconds": sum(seconds) / len(seconds) if seconds else None}),
            environment=environment(self.site.device),
            command=command(task, method, self.options),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        if _is_kept(folder, manifest):
            return folder

        def fill(place: Path) -> None:
            for (_, result), record in zip(results, records, strict=True) if records else ():
                shutil.copyfile(answers_file(store, result["key"]), place / record.file)
            write_manifest(place, manifest)

        replace_folder(folder, fill)
        return folder


def _is_kept(folder: Path, manifest: Manifest) -> bool:
    """Whether a run says the same already: it then stays as it is, and so does its upload.

    The time of writing does not count, nor that a second run, which trains nothing, cannot time retraining.
    """
    try:
        kept = read_run(folder).manifest
    except UsageError:
        return False
    update: dict[str, object] = {"created": manifest.created}
    if manifest.cost.retrain_seconds is None:
        update["cost"] = kept.cost.model_copy(update={"retrain_seconds": None})
    return kept.model_copy(update=update) == manifest and all((folder / model.file).is_file() for model in kept.models)


def judge_of(options: Options, manifest: Manifest, pack: Path | None = None) -> Judge:
    """The judge of a run's task: of the pack given, or of the one that was made here.

    Raises:
        UsageError: There is no such pack.
    """
    folder = pack or options.home / "packs" / manifest.task / _pack_name(
        manifest.task_key, manifest.draws, manifest.seeds
    )
    if not folder.is_dir():
        raise UsageError(
            f"There is no pack of {manifest.task} here with {manifest.seeds} seeds and {manifest.draws} draws. Make it "
            f"with `forgetbench run {manifest.task} --seeds {manifest.seeds}`, or name its folder with --pack."
        )
    return Judge(read_pack(folder), options.home / "bands")


def finished_runs(options: Options, patterns: Iterable[str]) -> dict[tuple[str, str], list[Path]]:
    """Every run that was made here: (task, its definition and counts) -> the runs' folders, sorted."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted((options.home / "runs").rglob(MANIFEST)):
        task = str(path.parent.parent.relative_to(options.home / "runs"))
        if not any(fnmatch.fnmatch(task, pattern) for pattern in patterns):
            continue
        manifest = read_run(path.parent).manifest
        name = _pack_name(manifest.task_key, manifest.draws, manifest.seeds)
        if (options.home / "packs" / task / name).is_dir():
            found.setdefault((task, name), []).append(path.parent)
    return found


def _pack_name(key: str, draws: int, seeds: int) -> str:
    return f"{key[:12]}-g{draws}-s{seeds}"


def pack_folder(base: Path, task: Task) -> Path:
    """Where a task's pack lies: one folder for each definition and each count of draws and seeds."""
    return base / "packs" / task.name / _pack_name(task.key, task.draws, task.seeds)


def method_record(method: Contestant) -> MethodRecord:
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


def command(task: Task, method: Contestant, options: Options) -> str:
    """The command that makes a run again."""
    words = ["forgetbench", "run", task.name, *method.arguments(), "--seeds", str(task.seeds)]
    if task.draws > 1:
        words += ["--draws", str(task.draws)]
    if options.root:
        words += ["--root", "DATA"]
    return shlex.join(words)


def _training_name(job: Job) -> str:
    where = f", draw {job['draw']}" if job.get("draw") else ""
    return f"{job['role']} {job['seed']}{where}"


def _training_key(job: Job) -> str:
    return digest({name: job.get(name) for name in ("role", "draw", "seed", "method")})


def _copy_answers(store: Store, key: str, target: Path) -> None:
    shutil.copyfile(answers_file(store, key), target)
