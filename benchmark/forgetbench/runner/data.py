"""The data of a task: images, splits, and the lists of rows that every model is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from forgetbench.datasets import load_partition
from forgetbench.datasets.scenarios import make_scenario
from forgetbench.datasets.scenarios.base import Split
from forgetbench.datasets.scenarios.stream import split_of_step
from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import RETESTED, Array, array_digest, index_digest
from forgetbench.evidence.environment import bfloat16_unit
from forgetbench.evidence.reference import TARGETS, TRIGGERED
from forgetbench.object_store import open_store
from forgetbench.store import Store
from forgetbench.tasks.task import Task

if TYPE_CHECKING:
    import torch

    from forgetbench.networks import NetworkSpec
    from forgetbench.training import Examples

RETAIN_SAMPLE = 10_000
"""Maximum number of retain rows that a model is evaluated on; a fixed sample where there are more."""


@dataclass(frozen=True)
class ExecutionEnv:
    """Where jobs run. Nothing here shapes a result but the kind of device."""

    store: str
    """Folder of the artifact store, or of its cache; "" is the one of the machine that runs the job."""
    root: str | None = None
    """Folder of the image sets on disk."""
    device: str = "cpu"
    """The torch device."""
    exclusive: bool = True
    """Whether a job has its device for itself, so that wall times count."""
    url: str | None = None
    """URL of the bucket that has the artifacts; None if the folder has them."""

    def open_store(self) -> Store:
        """The artifact store.

        Raises:
            UsageError: This machine cannot use the bucket.
        """
        return open_store(Path(self.store) if self.store else None, self.url)


class Rows:
    """One list of rows that models are evaluated on: a part of the image set, and row numbers in it."""

    def __init__(self, part: str, index: Array) -> None:
        self.part, self.index = part, np.asarray(index, np.int64)
        self.sha256 = index_digest(self.index)


class TaskData:
    """The images of a task with its splits, labels and lists of rows, loaded when they are first needed.

    Args:
        task: The task.
        env: Where the images are, and the device that they go to.

    Raises:
        UsageError: The image set, network or scenario is unknown, or its options or files are wrong.
    """

    def __init__(self, task: Task, env: ExecutionEnv) -> None:
        self.task, self.env = task, env
        self._scenario = make_scenario(task.scenario.name, task.scenario.options)
        root = Path(env.root) if env.root else None
        loaded = load_partition(task.image_set.name, task.image_set.options, root)
        self.partition = self._scenario.prepare(loaded, task.stream("split"))
        self._splits: dict[int, Split] = {}
        self._steps: dict[int, tuple[Split, ...]] = {}
        self._rows: dict[int, dict[str, Rows]] = {}
        self._label_hashes: dict[int, str] = {}
        self._parts: dict[str, Examples] = {}

    @cached_property
    def device(self) -> torch.device:
        """The torch device. On a CPU every job uses one thread, whatever the engine, so that bits repeat.

        On a GPU, float32 is that of IEEE 754 in matrix products and in convolutions: TF32 has 10 bits of mantissa.
        """
        import torch

        device = torch.device(self.env.device)
        if device.type == "cpu":
            torch.set_num_threads(1)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        return device

    @cached_property
    def network_spec(self) -> NetworkSpec:
        """The network's description; it normalizes by the mean and sd of the training images, rounded to two decimals.

        Rounded, they are a property of the image set that reveals nothing of the forgotten rows.
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

    def split(self, draw: int) -> Split:
        """The forget set of a draw, and what remains."""
        if draw not in self._splits:
            self._splits[draw] = self._scenario.draw(self.partition, draw, self.task.stream("split"))
        return self._splits[draw]

    def oracle_rows(self, role: str, draw: int) -> Array:
        """The training rows of a set of oracles; partial ones have harmful rows that were not found."""
        split = self.split(draw)
        return split.given if role == "partial" else split.retain

    def steps(self, draw: int) -> tuple[Split, ...]:
        """The splits of a stream's requests, in order; for a task that is no stream, its only split."""
        if draw not in self._steps:
            split = self.split(draw)
            steps = tuple(split_of_step(self.partition, split, step) for step in range(len(split.requests)))
            self._steps[draw] = steps or (split,)
        return self._steps[draw]

    @property
    def n_requests(self) -> int:
        """Number of requests of a stream; 0 for a task that is no stream."""
        return len(self.split(0).requests)

    def request_numbers(self, draw: int) -> dict[str, Array]:
        """For a stream: subset -> for each of its rows the request (from 0) that removed it.

        The rows of ``test-forgotten`` are removed together with their class.
        """
        numbers = {}
        for name, rows in self.rows(draw).items():
            if name not in ("forget", "test-forgotten"):
                continue
            request = np.full(len(rows.index), -1, np.int64)
            for step, split in enumerate(self.steps(draw)):
                removed = split.forget if name == "forget" else split.test_forgotten
                request[(request < 0) & np.isin(rows.index, removed)] = step
            numbers[name] = request
        return numbers

    def rows(self, draw: int) -> dict[str, Rows]:
        """Subset -> the rows that every model is evaluated on; empty subsets are omitted.

        The retain rows are a fixed sample, drawn once for each draw whatever the model.
        """
        if draw not in self._rows:
            self._rows[draw] = self._draw_rows(draw)
        return self._rows[draw]

    def _draw_rows(self, draw: int) -> dict[str, Rows]:
        split, retain = self.split(draw), self.split(draw).retain
        unseen, triggered = self.partition.unseen, self.partition.triggered
        if len(retain) > RETAIN_SAMPLE:
            random = np.random.default_rng(self.task.stream("retain-sample", draw))
            retain = np.sort(random.choice(retain, RETAIN_SAMPLE, replace=False))
        lists = {
            "forget": Rows("train", split.forget),
            "retain": Rows("train", retain),
            "withheld": Rows("train", split.withheld),
            "validation": Rows("validation", np.arange(len(self.partition.validation))),
            "test": Rows("test", split.test),
            "test-forgotten": Rows("test", split.test_forgotten),
            "unseen": Rows("unseen", np.arange(0 if unseen is None else len(unseen))),
            TRIGGERED: Rows("triggered", np.arange(0 if triggered is None else len(triggered))),
        }
        return {name: rows for name, rows in lists.items() if len(rows.index)}

    def row_hashes(self, draw: int) -> dict[str, str]:
        """Subset -> SHA-256 of its row numbers."""
        return {name: rows.sha256 for name, rows in self.rows(draw).items()}

    def labels(self, draw: int) -> dict[str, Array]:
        """Subset -> labels: those trained on for training rows, the true ones for all others.

        Where test images show harmful data, ``targets:test-triggered`` has the classes that it makes models answer.
        """
        labels = {name: self._labels_of(rows.part, draw)[rows.index] for name, rows in self.rows(draw).items()}
        if self.partition.targets is not None:
            labels[TARGETS + TRIGGERED] = self.partition.targets
        return labels

    def labels_hash(self, draw: int) -> str:
        """SHA-256 of the labels that are trained on."""
        if draw not in self._label_hashes:
            self._label_hashes[draw] = array_digest(self.split(draw).train_labels)
        return self._label_hashes[draw]

    def examples(self, part: str, draw: int) -> Examples:
        """All rows of a part, on the device; training rows carry the labels that are trained on."""
        from forgetbench.training import Examples

        key = f"{part} {self.labels_hash(draw) if part == 'train' else ''}"
        if key not in self._parts:
            images = getattr(self.partition, part).images
            self._parts[key] = Examples.from_arrays(images, self._labels_of(part, draw), self.device)
        return self._parts[key]

    @cached_property
    def has_batch_norm(self) -> bool:
        """Whether the network has statistics of batch-norm, which can be estimated again."""
        from forgetbench.training import has_batch_norm

        return has_batch_norm(self.network_spec.build(0, load_weights=False))

    @property
    def precision(self) -> str:
        """The precision of matrix products and convolutions in training and unlearning.

        Predictions have float32, unless the recipe's precision is bfloat16: then they have that, too. On a GPU it says
        that float32 is IEEE's, since results of other versions of this package may be in TF32.
        """
        if self.device.type != "cuda":
            return "bfloat16" if self.task.recipe.bfloat16 else "float32"
        return "bfloat16, float32 (IEEE)" if self.task.recipe.mixed_precision else "float32 (IEEE)"

    @property
    def precision_notice(self) -> str:
        """A sentence for a CPU that has to emulate the task's bfloat16, which is slow; "" elsewhere."""
        if self.precision != "bfloat16" or bfloat16_unit() != "none":
            return ""
        return (
            f"{self.task.name} computes in bfloat16, for which this processor has no instructions (AMX or AVX-512): it "
            "is slower than float32 here, and results agree with those of other processors within intervals only."
        )

    def retested(self, draw: int) -> list[str]:
        """Subsets that models answer again after a change of the model, such as recalibration."""
        return [*RETESTED, *([TRIGGERED] if TRIGGERED in self.rows(draw) else [])]

    @property
    def attributes(self) -> bool:
        """Whether labels are several binary attributes rather than one class."""
        return self.partition.train.attributes

    @property
    def track(self) -> Literal["match-oracle", "erase", "corrective"]:
        """What a good method does: the track of the task file, or else of the scenario.

        Raises:
            UsageError: A scenario of correction has another track in the task file.
        """
        if self.split(0).track == "corrective" and self.task.track:
            raise UsageError(
                f"{self.task.name}: scenario {self.task.scenario.name!r} is ranked on a track of its own. Remove "
                f'track = "{self.task.track}" from the task file.'
            )
        return self.task.track or self.split(0).track

    @property
    def probed(self) -> bool:
        """Whether penultimate features are recorded for the linear probe."""
        return self.track == "erase" and not self.attributes

    def _labels_of(self, part: str, draw: int) -> Array:
        labels: Array = self.split(draw).train_labels if part == "train" else getattr(self.partition, part).labels
        return labels
