"""A task with its images loaded: splits, lists of rows, networks, and what a model answers.

One bench lives in each process that works on a task; whatever it makes is addressed by hashes of what shapes it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from forgetbench.datasets import load_partition
from forgetbench.datasets.scenarios import scenarios
from forgetbench.datasets.scenarios.base import Split
from forgetbench.datasets.scenarios.stream import step_of
from forgetbench.evidence.arrays import FEATURES, Array, array_digest, encode, index_digest
from forgetbench.evidence.reference import PROBED
from forgetbench.store import Store, source_digest
from forgetbench.tasks.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from forgetbench.networks import NetworkSpec
    from forgetbench.training import Examples

RETAIN_SAMPLE = 10_000
"""Most retain rows that a model is asked about; a fixed sample where there are more."""
Role = Literal["original", "reference", "control", "third"]
TRAINING_CODE = ("training/compute.py", "training/data.py", "networks/base.py", "tasks/recipe.py", "training/loop.py")
"""Files of this folder that shape a model."""
ASKING_CODE = (*TRAINING_CODE, "evidence/arrays.py")
"""Files that shape its answers, beside what it is asked."""


@dataclass(frozen=True)
class ExecutionEnv:
    """Where a run works: nothing here shapes a result but the kind of device."""

    store: str
    """Folder of the store."""
    root: str | None = None
    """Folder of the image sets on disk."""
    device: str = "cpu"
    """The torch device."""


class Rows:
    """One list of rows that models are asked about: which part of the image set, and which rows of it."""

    def __init__(self, part: str, index: Array) -> None:
        self.part, self.index = part, np.asarray(index, np.int64)
        self.sha256 = index_digest(self.index)


class TaskContext:
    """A task with its images on the device.

    Raises:
        UsageError: The image set, network or scenario is unknown or its options or files are wrong.
    """

    def __init__(self, task: Task, site: ExecutionEnv) -> None:
        self.task, self.site = task, site
        self.store = Store(Path(site.store))
        self._scenario = scenarios.get(task.scenario.name).from_mapping(task.scenario.options)
        root = Path(site.root) if site.root else None
        self.partition = load_partition(task.image_set.name, task.image_set.options, root)
        self._splits: dict[int, Split] = {}
        self._steps: dict[int, tuple[Split, ...]] = {}
        self._rows: dict[int, dict[str, Rows]] = {}
        self._label_hashes: dict[int, str] = {}
        self._parts: dict[str, Examples] = {}

    @cached_property
    def device(self) -> torch.device:
        """The torch device; on a CPU every job uses one thread, whatever the executor."""
        import torch

        device = torch.device(self.site.device)
        if device.type == "cpu":
            torch.set_num_threads(1)
        return device

    @cached_property
    def spec(self) -> NetworkSpec:
        """The network's description; it normalizes by the training images' mean and sd, rounded to two decimals.

        Rounded, they are a property of the image set that tells nothing of the forgotten rows.
        """
        from forgetbench.networks import NetworkSpec

        images = self.partition.train.images
        means, deviations = self.partition.train.channel_statistics()
        return NetworkSpec(
            name=self.task.network.name,
            options=dict(self.task.network.options),
            channels=images.shape[1],
            height=images.shape[2],
            width=images.shape[3],
            outputs=len(self.partition.train.classes),
            mean=tuple(round(mean, 2) for mean in means),
            std=tuple(max(0.01, round(deviation, 2)) for deviation in deviations),
        )

    def now(self) -> float:
        """Seconds; on a GPU after everything before has finished."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def split(self, draw: int) -> Split:
        """The forget set of a draw."""
        if draw not in self._splits:
            self._splits[draw] = self._scenario.draw(self.partition, draw, self.task.stream("split"))
        return self._splits[draw]

    def steps(self, draw: int) -> tuple[Split, ...]:
        """The splits of a stream's requests, one after another; where the task is no stream, its split alone."""
        if draw not in self._steps:
            split = self.split(draw)
            steps = tuple(step_of(self.partition, split, step) for step in range(len(split.requests)))
            self._steps[draw] = steps or (split,)
        return self._steps[draw]

    @property
    def requests(self) -> int:
        """Number of a stream's requests; 0 where the task is no stream."""
        return len(self.split(0).requests)

    def asked_at(self, draw: int) -> dict[str, Array]:
        """Of a stream: subset -> for each of its rows the request that took it away (from 0).

        The rows of ``test-forgotten`` went with their class.
        """
        found = {}
        for name, rows in self.rows(draw).items():
            if name not in ("forget", "test-forgotten"):
                continue
            number = np.full(len(rows.index), -1, np.int64)
            for step, split in enumerate(self.steps(draw)):
                gone = split.forget if name == "forget" else split.test_forgotten
                number[(number < 0) & np.isin(rows.index, gone)] = step
            found[name] = number
        return found

    def rows(self, draw: int) -> dict[str, Rows]:
        """Subset -> the rows that every model is asked about; empty subsets are left out.

        The retain rows are a fixed sample, drawn once for each draw whatever the model.
        """
        if draw not in self._rows:
            self._rows[draw] = self._draw_rows(draw)
        return self._rows[draw]

    def _draw_rows(self, draw: int) -> dict[str, Rows]:
        split, retain = self.split(draw), self.split(draw).retain
        if len(retain) > RETAIN_SAMPLE:
            random = np.random.default_rng(self.task.stream("retain-sample", draw))
            retain = np.sort(random.choice(retain, RETAIN_SAMPLE, replace=False))
        unseen = self.partition.unseen
        lists = {
            "forget": Rows("train", split.forget),
            "retain": Rows("train", retain),
            "withheld": Rows("train", split.withheld),
            "validation": Rows("validation", np.arange(len(self.partition.validation))),
            "test": Rows("test", split.test),
            "test-forgotten": Rows("test", split.test_forgotten),
            "unseen": Rows("unseen", np.arange(0 if unseen is None else len(unseen))),
        }
        return {name: rows for name, rows in lists.items() if len(rows.index)}

    def labels(self, draw: int) -> dict[str, Array]:
        """Subset -> the labels that count there: those trained on for training rows, the true ones elsewhere."""
        return {name: self._labels_of(rows.part, draw)[rows.index] for name, rows in self.rows(draw).items()}

    def examples(self, part: str, draw: int) -> Examples:
        """All rows of a part on the device; training rows bear the labels that are trained on."""
        from forgetbench.training import Examples

        key = f"{part} {self.labels_hash(draw) if part == 'train' else ''}"
        if key not in self._parts:
            images = getattr(self.partition, part).images
            self._parts[key] = Examples.from_arrays(images, self._labels_of(part, draw), self.device)
        return self._parts[key]

    def observe(self, network: nn.Module, draw: int, *, features: bool = True) -> dict[str, Array]:
        """What a model answers, as evidence: subset -> float16 (n, K).

        Args:
            network: The model.
            draw: Whose rows it is asked about.
            features: Whether to record penultimate features too, where the task probes.
        """
        from forgetbench.training import predict, predict_features

        answers = {}
        for name, rows in self.rows(draw).items():
            examples = self.examples(rows.part, draw).take(rows.index)
            answers[name] = encode(predict(network, examples), attributes=self.partition.train.attributes)
            if features and self.probes and name in PROBED:
                answers[FEATURES + name] = encode(predict_features(network, examples), attributes=True)
        return answers

    @property
    def track(self) -> Literal["match-oracle", "erase"]:
        """What is asked for: the task's own word, or the scenario's."""
        return self.task.track or self.split(0).track

    @property
    def probes(self) -> bool:
        """Whether penultimate features are recorded for the linear probe."""
        return self.track == "erase" and not self.partition.train.attributes

    def made_from(self, kind: str, **facts: Any) -> dict[str, Any]:
        """What an artifact of this task is made from: the task, the images, the code, the libraries, its own facts.

        A trained model depends on the training images alone; whatever asks a model, or lets it unlearn, on all of them.
        """
        return {
            "kind": kind,
            "task": self.task.key,
            "name": self.task.name,
            "images": self.partition.train.sha256 if kind == "model" else self.partition.sha256,
            "device": self.device.type,
            "torch": _version("torch"),
            "timm": _version("timm"),
            "code": _code(*(TRAINING_CODE if kind == "model" else ASKING_CODE), *self._network_files),
            **facts,
        }

    def model_facts(self, role: Role, draw: int, seed: int, loss: Mapping[str, Any] | None) -> dict[str, Any]:
        """What an original or an oracle is made from; originals are the same for all draws."""
        split = self.split(draw)
        facts: dict[str, Any] = {
            "role": role,
            "seed": seed,
            "labels": self.labels_hash(draw),
            "network": {**asdict(self.spec), **self.task.network.shaping()},
        }
        if role != "original":
            facts |= {"draw": draw, "retain": index_digest(split.retain)}
        if loss is not None:
            facts["loss"] = dict(loss)
        return self.made_from("model", **facts)

    def answers_facts(self, weights: str, draw: int) -> dict[str, Any]:
        """What the answers of an original or an oracle are made from: the model's weights, and what it was asked."""
        return self.made_from("answers", weights=weights, asked=self.asked(draw))

    def asked(self, draw: int, *, features: bool = True) -> dict[str, Any]:
        """What a model is asked by `observe`, whatever code asks it."""
        return {
            "rows": self.row_hashes(draw),
            "features": list(PROBED) if features and self.probes else [],
            "attributes": self.partition.train.attributes,
        }

    @cached_property
    def _network_files(self) -> tuple[Path, ...]:
        from forgetbench.networks.base import source_files

        return source_files(self.task.network.name, self.task.network.options)

    def row_hashes(self, draw: int) -> dict[str, str]:
        """Subset -> SHA-256 of its row numbers."""
        return {name: rows.sha256 for name, rows in self.rows(draw).items()}

    def labels_hash(self, draw: int) -> str:
        """SHA-256 of the labels that are trained on."""
        if draw not in self._label_hashes:
            self._label_hashes[draw] = array_digest(self.split(draw).train_labels)
        return self._label_hashes[draw]

    def _labels_of(self, part: str, draw: int) -> Array:
        labels: Array = self.split(draw).train_labels if part == "train" else getattr(self.partition, part).labels
        return labels


def load_context(job: Mapping[str, Any]) -> TaskContext:
    """The bench of a job, kept for the next jobs of the same task in this process."""
    return _bench(json.dumps(job["task"], sort_keys=True), ExecutionEnv(**job["site"]))


@lru_cache(maxsize=1)
def _bench(task: str, site: ExecutionEnv) -> TaskContext:
    return TaskContext(Task.model_validate_json(task), site)


@lru_cache(maxsize=4)
def _code(*files: str | Path) -> str:
    return source_digest(*(Path(__file__).parents[1] / file for file in files))


@cache
def _version(library: str) -> str:
    """A library's version without how it was built; from its metadata, since importing it takes seconds."""
    return version(library).split("+")[0]
