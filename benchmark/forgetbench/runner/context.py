"""A task, opened: its data, its cache keys, the store, and how models predict. One per process and task."""

from __future__ import annotations

import copy
import time
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forgetbench.evidence.arrays import FEATURES, RECALIBRATED, Array, encode
from forgetbench.evidence.reference import PROBED
from forgetbench.runner.artifacts import load_model
from forgetbench.runner.data import ExecutionEnv, TaskData
from forgetbench.runner.engines.devices import hardware
from forgetbench.runner.keys import CacheKeys
from forgetbench.tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

    from forgetbench.networks.base import Network


class TaskContext:
    """What a job needs of its task.

    Args:
        task: The task with its counts of seeds and draws.
        env: Where jobs run.

    Raises:
        UsageError: The image set, network or scenario is unknown, or its options or files are wrong.
    """

    def __init__(self, task: Task, env: ExecutionEnv) -> None:
        self.task, self.env = task, env
        self.data = TaskData(task, env)
        self.keys = CacheKeys(self.data)
        self.store = env.open_store()

    @cached_property
    def blank_network(self) -> Network:
        """A newly initialized network, for its shape."""
        return self.data.network_spec.build(0)

    def load_model(self, folder: Path) -> nn.Module:
        """A stored model on the task's device, in eval mode."""
        return load_model(self.data.network_spec, folder, self.data.device)

    def predict(self, network: nn.Module, draw: int, *, features: bool = True) -> dict[str, Array]:
        """The predictions of a model, as evidence: subset -> float16 (n, K).

        Args:
            network: The model.
            draw: Whose lists of rows it is evaluated on.
            features: Whether to record penultimate features too, where the task has a linear probe.
        """
        from forgetbench.training import predict, predict_features

        arrays, data, bfloat16 = {}, self.data, self.task.recipe.bfloat16
        for name, rows in data.rows(draw).items():
            examples = data.examples(rows.part, draw).take(rows.index)
            arrays[name] = encode(predict(network, examples, bfloat16=bfloat16), attributes=data.attributes)
            if features and data.probed and name in PROBED:
                values = predict_features(network, examples, bfloat16=bfloat16)
                arrays[FEATURES + name] = encode(values, attributes=True)
        return arrays

    def evidence(self, network: nn.Module, draw: int) -> dict[str, Array]:
        """The predictions of a model, as it is and after recalibration."""
        return self.predict(network, draw) | self.after_recalibration(network, draw)

    def after_recalibration(
        self, network: nn.Module, draw: int, *, batches: int | None = None, prefix: str = RECALIBRATED
    ) -> dict[str, Array]:
        """The predictions of a copy of a model whose batch-norm statistics were estimated again on retained images.

        Statistics that no longer fit the weights can hide what a model still knows, so every model is tested:
        of originals and oracles as well, on the retained images of the same draw. It needs no labels, no gradients and
        no forgotten images.

        Args:
            network: The model; it is not changed.
            draw: Whose retained images are used, and whose lists of rows the model is evaluated on.
            batches: Maximum number of batches of retained images; None: all of them once.
            prefix: Of the arrays' names.

        Returns:
            Prefix and subset -> float16 (n, K), for the subsets of `TaskData.retested`. Empty if the network has no
            statistics of batch-norm, or if the predictions are not finite any more.
        """
        from forgetbench.training import predict, recalibrate_batch_norm

        data = self.data
        if not data.has_batch_norm:
            return {}
        retained = data.examples("train", draw).take(data.split(draw).given)
        changed = recalibrate_batch_norm(copy.deepcopy(network), retained, self.task.recipe, batches=batches)
        arrays = {}
        for name, rows in data.rows(draw).items():
            if name in data.retested(draw):
                examples = data.examples(rows.part, draw).take(rows.index)
                logits = predict(changed, examples, bfloat16=self.task.recipe.bfloat16)
                arrays[prefix + name] = encode(logits, attributes=data.attributes)
        return arrays if all(np.isfinite(array).all() for array in arrays.values()) else {}

    def conditions(self) -> dict[str, str | bool]:
        """Metadata of an artifact: the processor or GPU, and whether no other job used it at the same time."""
        return {"hardware": hardware(self.env.device), "exclusive": self.env.exclusive}

    def warm_up(self) -> None:
        """Do what torch does once in a process, so that it is not part of a measured time."""
        from forgetbench.runner.warm_up import import_optimizers

        import_optimizers()

    def reset_peak_memory(self) -> None:
        """Begin to measure the peak memory of a GPU."""
        if self.data.device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self.data.device)

    def peak_memory(self) -> int | None:
        """Peak memory of a GPU in bytes since `reset_peak_memory`; None on a CPU."""
        if self.data.device.type != "cuda":
            return None
        import torch

        return int(torch.cuda.max_memory_allocated(self.data.device))

    def clock(self) -> float:
        """Seconds; on a GPU after all work queued before has finished."""
        if self.data.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.data.device)
        return time.perf_counter()


def load_context(task: Task, env: ExecutionEnv) -> TaskContext:
    """The context of a task, kept for the next jobs of the same task in this process."""
    return _context(task.model_dump_json(), env)


@lru_cache(maxsize=1)
def _context(task: str, env: ExecutionEnv) -> TaskContext:
    return TaskContext(Task.model_validate_json(task), env)
