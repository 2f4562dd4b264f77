"""What a run would do and need: its jobs and those in the store, operations, hours, disk and memory. Trains nothing."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from forgetbench.errors import ForgetBenchError, UsageError, printable
from forgetbench.evidence.reference import PROBED
from forgetbench.runner.artifacts import META, read_meta
from forgetbench.runner.config import RunConfig
from forgetbench.runner.context import TaskContext
from forgetbench.runner.costs import typical_shares
from forgetbench.runner.data import ExecutionEnv
from forgetbench.runner.engines import LocalEngine, ProcessesEngine, make_engine
from forgetbench.runner.engines.devices import pick_device
from forgetbench.runner.jobs import oracle_roles
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.store import Store
from forgetbench.tasks.task import Task

if TYPE_CHECKING:
    import torch

_PROBE_IMAGES = 2
"""Number of images of the training step that is measured: batch-norm needs two."""
_FLOAT16 = 2
"""Bytes of a recorded answer."""
_SCOPES = ("this task", "the same network", "other networks")
"""What earlier models on a device were trained for, the nearest first."""


@dataclass(frozen=True)
class JobGroup:
    """Jobs of one kind."""

    name: str
    """What they make; a row's label for its unlearning."""
    jobs: int
    """Number of jobs."""
    stored: int | None
    """Number of those whose results are in the store; None if that is not known."""
    flops: float | None = None
    """Floating-point operations of one job; None if they are not known."""
    source: str = ""
    """Where the number of operations comes from."""

    @property
    def missing(self) -> int:
        """Number of jobs to run."""
        return self.jobs - (self.stored or 0)


@dataclass(frozen=True)
class Speed:
    """How fast models were trained on a device, by the store of this machine."""

    flops_per_second: float
    """Median over models, of one job."""
    models: int
    """Number of models."""
    scope: str
    """What these models were trained for, such as ``this task``."""


@dataclass(frozen=True)
class TaskPlan:
    """What the run of one task would do and need."""

    task: Task
    """The task."""
    groups: tuple[JobGroup, ...]
    """Its jobs, in the order in which they depend on each other; unlearning begins with the longest."""
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    """Processor or GPU -> its speed."""
    disk_bytes: int | None = None
    """Bytes that missing jobs would write, at most; None if that is not known."""
    memory_bytes: int | None = None
    """Bytes of images, weights and activations of one job that trains; None if that is not known."""
    refused: tuple[str, ...] = ()
    """Rows that do not apply to the task, and why."""
    unknown: str = ""
    """Why some of this is not known; "" if all is."""

    @property
    def jobs(self) -> int:
        """Number of jobs."""
        return sum(group.jobs for group in self.groups)

    @property
    def stored(self) -> int | None:
        """Number of jobs whose results are in the store; None if that is not known."""
        known = [group.stored for group in self.groups if group.stored is not None]
        return sum(known) if len(known) == len(self.groups) else None

    @property
    def flops(self) -> float | None:
        """Floating-point operations of the missing jobs; None if those of a group are not known."""
        missing = [group for group in self.groups if group.missing]
        known = [group.missing * group.flops for group in missing if group.flops is not None]
        return sum(known) if len(known) == len(missing) else None

    def hours(self) -> dict[str, float]:
        """Processor or GPU -> hours of the missing jobs one after another on it."""
        flops = self.flops
        if flops is None:
            return {}
        return {name: flops / speed.flops_per_second / 3600 for name, speed in self.speeds.items()}


def plan_task(task: Task, methods: Sequence[MethodSpec], config: RunConfig) -> TaskPlan:
    """Plan the run of methods on a task. Loads its images, and computes one training step of two images.

    Without the images only the numbers of jobs are known.

    Args:
        task: The task with its counts of seeds and draws.
        methods: The rows.
        config: Where and how. A device that this machine lacks may be named.
    """
    device = pick_device("auto") if config.device == "auto" else config.device
    root = str(config.root.resolve()) if config.root else None
    store = config.store
    env = ExecutionEnv(str(store.root), root, device, url=config.store_url)
    try:
        return _Planner(TaskContext(task, env), config).plan(methods)
    except ForgetBenchError as error:
        return TaskPlan(task, tuple(_counts(task, methods, config)), unknown=printable(str(error)))


def workers_here(config: RunConfig) -> int | None:
    """Number of jobs that the engine runs at the same time on this machine; None for a cluster, or without the device.

    Raises:
        UsageError: The engine is unknown, or its options do not fit it.
    """
    try:
        device = pick_device(config.device)
    except UsageError:
        return None
    if config.on_cluster:
        return None
    engine = make_engine(config.engine, config.workers, device, config.jobs_per_gpu)
    return engine.workers if isinstance(engine, ProcessesEngine) else 1 if isinstance(engine, LocalEngine) else None


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder that may not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _trainers(methods: Sequence[MethodSpec]) -> list[MethodSpec]:
    """One row for each set of own originals that methods train."""
    from forgetbench.runner.run import own_trainers

    return list({spec.key: spec for spec in own_trainers(methods).values()}.values())


def _counts(task: Task, methods: Sequence[MethodSpec], config: RunConfig) -> Iterator[JobGroup]:
    """The jobs of a task of which nothing else is known."""
    models = task.seeds * task.draws
    yield JobGroup("images and splits", 1, None)
    yield JobGroup("originals", task.seeds, None)
    yield from (JobGroup(f"originals of {spec.label}", task.seeds, None) for spec in _trainers(methods))
    if not config.skip_oracles:
        yield JobGroup("oracles", len(oracle_roles(task)) * models, None)
    yield JobGroup("FLOPs of training", 1 + len(_trainers(methods)), None)
    for spec in methods:
        yield JobGroup(spec.label, models + 1, None)


class _Planner:
    """The plan of a task whose images are here."""

    def __init__(self, context: TaskContext, config: RunConfig) -> None:
        self.context, self.config = context, config
        self.task, self.data, self.keys, self.store = context.task, context.data, context.keys, context.store
        self.history = _History(config.store)
        self.places = [(draw, seed) for draw in range(self.task.draws) for seed in range(self.task.seeds)]
        self._per_image: float | None = None
        self._activations = 0

    def plan(self, methods: Sequence[MethodSpec]) -> TaskPlan:
        """Plan all jobs."""
        from forgetbench.runner.train import task_facts

        facts = task_facts(self.context)
        reasons = {spec.key: spec.refusal(facts) for spec in methods}
        rows = [spec for spec in methods if not reasons[spec.key]]
        own = _trainers(methods)  # a row that does not apply trains its originals all the same, as in a run
        training, counts = [self._training(None), *map(self._training, own)], len(own) + 1
        retraining, source = self._retraining()
        unlearning = sorted((self._unlearning(spec, retraining, source) for spec in rows), key=_longest_first)
        counted = sum(self._has(self.keys.flops({"loss": spec and spec.training_identity()})) for spec in (None, *own))
        groups = [
            JobGroup(
                "images and splits", 1, int(all(self._has(self.keys.labels(d)) for d in range(self.task.draws))), 0
            ),
            *training,
            *self._oracles(retraining, source),
            JobGroup("FLOPs of training", counts, counted, retraining / self.task.recipe.epochs, source),
            *unlearning,
        ]
        return TaskPlan(
            self.task,
            tuple(groups),
            self.history.speeds(self.task),
            self._disk(groups),
            self._memory(),
            tuple(f"{spec.label}: {reasons[spec.key]}" for spec in methods if reasons[spec.key]),
        )

    def _has(self, key: Mapping[str, Any]) -> bool:
        return self.store.has(self.store.key(key))

    def _meta(self, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """An artifact's metadata; None if it is not in the store."""
        folder = self.store.read(self.store.key(key)) if self._has(key) else None
        return None if folder is None else read_meta(folder)

    def _retraining(self) -> tuple[float, str]:
        """FLOPs of training one oracle, and where the number comes from."""
        meta = self._meta(self.keys.flops({"loss": None}))
        if meta is not None:
            return float(meta["flops"]), "counted"
        images = [len(split.retain) for split in self.data.steps(0)]
        return self._of_images(sum(images) / len(images)), "from a step of two images"

    def _of_images(self, images: float) -> float:
        """FLOPs of training on a number of images, by a step of two of them."""
        return self._probe()[0] * images * self.task.recipe.epochs

    def _training(self, trainer: MethodSpec | None) -> JobGroup:
        """The originals of the task, or those that a method trains for itself."""
        stored = sum(self._has(self.keys.model("original", 0, seed, trainer)) for seed in range(self.task.seeds))
        meta = self._meta(self.keys.flops({"loss": trainer.training_identity()})) if trainer else None
        if meta is not None:
            flops, source = float(meta["flops"]), "counted"
        else:
            retraining, source = self._retraining()
            retained = sum(len(split.retain) for split in self.data.steps(0)) / len(self.data.steps(0))
            flops = retraining * len(self.data.partition.train) / retained
            source = f"{source}, as an ordinary loss" if trainer else source
        name = f"originals of {trainer.label}" if trainer else "originals"
        return JobGroup(name, self.task.seeds, stored, flops, source)

    def _oracles(self, flops: float, source: str) -> list[JobGroup]:
        if self.config.skip_oracles or self.config.results.development_bundle(self.task):
            return []
        stored = sum(
            self._has(self.keys.model(role, draw, seed))
            for role in oracle_roles(self.task)
            for draw, seed in self.places
        )
        return [JobGroup("oracles", len(oracle_roles(self.task)) * len(self.places), stored, flops, source)]

    def _unlearning(self, spec: MethodSpec, retraining: float, source: str) -> JobGroup:
        """Unlearning by a row from each original and draw, and the count of its operations."""
        count_key = self.keys.flops({"method": spec.identity()})
        meta, requests = self._meta(count_key), len(self.data.steps(0))
        share = typical_shares().get(spec.name)
        if meta is not None:
            flops, source = requests * float(meta["flops"]), "counted"
        elif share is not None:
            flops, source = requests * share * retraining, f"a typical share of retraining ({share:.3g})"
        else:
            flops, source = None, ""
        stored = sum(self._has_unlearned(spec, draw, seed) for draw, seed in self.places) + (meta is not None)
        return JobGroup(spec.label, len(self.places) + 1, stored, flops, source)

    def _has_unlearned(self, spec: MethodSpec, draw: int, seed: int) -> bool:
        """Whether a row's last model of a draw and seed is in the store."""
        from forgetbench.runner.artifacts import WEIGHTS
        from forgetbench.store import recorded_digest

        trainer = spec if spec.trains_originals else None
        original = self._meta(self.keys.model("original", 0, seed, trainer))
        if original is None:
            return False
        previous, source = list[str](), None
        for number in range(len(self.data.steps(draw))):
            key = self.keys.unlearned(spec, original["weights"], draw, seed, previous, source)
            last = number == len(self.data.steps(draw)) - 1
            if last:
                return self._has(key)
            folder = self.store.read(self.store.key(key)) if self._has(key) else None
            if folder is None or not (folder / WEIGHTS).is_file():
                return False
            previous.append(self.store.key(key))
            source = recorded_digest(folder, WEIGHTS)
        return False

    def _probe(self) -> tuple[float, int]:
        """FLOPs of one training step per image, and bytes that it keeps for the backward pass per image."""
        if self._per_image is None:
            self._per_image, self._activations = _measure_step(self.context)
        return self._per_image, self._activations

    def _weights(self) -> int:
        state = self.context.blank_network.state_dict().values()
        return sum(tensor.numel() * tensor.element_size() for tensor in state)

    def _memory(self) -> int:
        """Images, and weights with gradients and the optimizer's state, and activations of one batch."""
        _, activations = self._probe()
        recipe = self.task.recipe
        parts = [images for _, images in self.data.partition.parts()]
        images = sum(math.prod(part.images.shape) for part in parts)
        copies = 4 if recipe.optimizer.startswith("adam") else 3
        return images + copies * self._weights() + activations * min(recipe.batch_size, len(self.data.partition.train))

    def _disk(self, groups: Sequence[JobGroup]) -> int:
        """Bytes of missing artifacts, and of the copies in runs and reference bundles."""
        answers, weights = self._answers(), self._weights()
        requests = len(self.data.steps(0))
        size = 0
        for group in groups:
            if group.name.startswith("originals"):
                size += group.missing * (2 * weights + 2 * self.task.draws * answers)
            elif group.name == "oracles":
                size += group.missing * (weights + 2 * answers)
            elif not group.name.startswith(("images", "FLOPs")):
                kept = requests if self.config.keep_models else requests - 1
                size += group.missing * (2 * requests * answers + kept * weights)
        return size

    def _answers(self) -> int:
        """Bytes of what is recorded of one model."""
        outputs = len(self.data.partition.train.classes)
        rows = {name: len(rows.index) for name, rows in self.data.rows(0).items()}
        values = sum(rows.values()) * outputs
        if self.data.has_batch_norm:
            values += sum(count for name, count in rows.items() if name in self.data.retested(0)) * outputs
        if self.data.probed:
            width = int(self.context.blank_network.head.in_features)
            values += sum(count for name, count in rows.items() if name in PROBED) * width
        return _FLOAT16 * values


def _longest_first(group: JobGroup) -> float:
    return -math.inf if group.flops is None else -group.flops


def _measure_step(context: TaskContext) -> tuple[float, int]:
    """FLOPs of a training step, and bytes that it keeps for the backward pass, both for one image, on a CPU."""
    import torch

    from forgetbench.training import Examples, count_flops, fit

    partition, recipe = context.data.partition.train, context.task.recipe
    images, labels = partition.images[:_PROBE_IMAGES], context.data.split(0).train_labels[:_PROBE_IMAGES]
    step = recipe.model_copy(update={"epochs": 1, "warmup_epochs": 0.0, "batch_size": _PROBE_IMAGES})
    network = context.data.network_spec.build(0, load_weights=False)
    fixed = {tensor.data_ptr() for tensor in network.state_dict().values()}
    with count_flops() as counted, _counting_saved(fixed) as saved:
        fit(network, Examples.from_arrays(images, labels, torch.device("cpu")), step, 0)
        flops = counted.total
    return flops / _PROBE_IMAGES, math.ceil(saved() / _PROBE_IMAGES)


@contextmanager
def _counting_saved(fixed: set[int]) -> Iterator[Callable[[], int]]:
    """Count the bytes of tensors that are kept for a backward pass, except those at some addresses."""
    import torch

    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in fixed:
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(sizes.values())


class _History:
    """How fast models were trained before, by the artifacts on this machine."""

    def __init__(self, store: Store) -> None:
        flops: dict[tuple[str, str], float] = {}
        models: list[tuple[str, str, str, str, float]] = []
        for folder, key in store.artifacts():
            if key.get("kind") == "flops" and "loss" in key and key["loss"] is None:
                flops[key["task"], key["device"]] = float(read_meta(folder)["flops"])
            elif key.get("kind") == "model" and "loss" not in key and (folder / META).is_file():
                meta = read_meta(folder)
                if meta.get("seconds") and meta.get("hardware"):
                    models.append(
                        (key["task"], key["device"], key["network"]["name"], meta["hardware"], float(meta["seconds"]))
                    )
        self._models = [
            (task, network, hardware, flops[task, device] / seconds)
            for task, device, network, hardware, seconds in models
            if (task, device) in flops
        ]

    def speeds(self, task: Task) -> dict[str, Speed]:
        """Processor or GPU -> its speed, by the models that are nearest to a task's: of the task, network, or any."""
        found: dict[str, dict[str, list[float]]] = {}
        for key, network, hardware, speed in self._models:
            scope = _SCOPES[0 if key == task.key else 1 if network == task.network.name else 2]
            found.setdefault(hardware, {}).setdefault(scope, []).append(speed)
        speeds = {}
        for hardware, by_scope in sorted(found.items()):
            scope = next(scope for scope in _SCOPES if scope in by_scope)
            speeds[hardware] = Speed(median(by_scope[scope]), len(by_scope[scope]), scope)
        return speeds
