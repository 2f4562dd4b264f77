"""Overhead of the harness: originals, oracles and evidence by the pipeline, compared with bare training loops.

    .venv/bin/python benchmarks/overhead.py [TASK] [SEEDS] [REPEATS]

Both sides train the same networks on the same rows for the same number of steps, one after another in this process,
and compute logits of the same rows. The bare loop uses a tensor of floats, a permutation and SGD. The pipeline adds the
store with its checksums, splits, evidence, and the reference bundle. The sides alternate, because machines drift.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch.nn import functional

from forgetbench.runner.config import RunConfig
from forgetbench.runner.context import ExecutionEnv, TaskContext
from forgetbench.runner.run import run
from forgetbench.tasks.task import Task, read_task


def pipeline(task: Task) -> float:
    """Seconds of a run without methods in an empty home."""
    with tempfile.TemporaryDirectory() as home:
        start = time.perf_counter()
        run([task], lambda _: [], RunConfig(home=Path(home), device="cpu", engine="local"))
        return time.perf_counter() - start


def bare(task: Task) -> float:
    """Seconds of the same training and prediction in plain loops, including loading images and drawing the split."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        bench = TaskContext(task, ExecutionEnv(home))
        split, rows = bench.data.split(0), bench.data.rows(0)
    images = torch.tensor(bench.data.partition.train.images, dtype=torch.float32) / 255
    labels = torch.tensor(split.train_labels)
    subsets = {
        name: torch.tensor(getattr(bench.data.partition, part.part).images[part.index], dtype=torch.float32) / 255
        for name, part in rows.items()
    }
    retain = torch.tensor(split.retain.copy())
    everything = torch.arange(len(images))
    for rows_of, models in ((everything, task.seeds), (retain, 2 * task.seeds)):
        for seed in range(models):
            network = bench.data.network_spec.build(seed)
            train(network, images[rows_of], labels[rows_of], task)
            network.eval()
            with torch.inference_mode():
                for batch in subsets.values():
                    network(batch)
    return time.perf_counter() - start


def train(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, task: Task) -> None:
    """The loop of a tutorial, with the task's recipe (SGD, cosine)."""
    recipe = task.recipe
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    steps = recipe.epochs * math.ceil(len(images) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(images)).split(recipe.batch_size):
            if len(rows) < 2:
                continue
            loss = functional.cross_entropy(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "faces/cnn/identity"
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    repeats = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    task = read_task(name).with_counts(seeds=seeds)
    torch.set_num_threads(1)
    bare(task.model_copy(update={"recipe": task.recipe.model_copy(update={"epochs": 1})}))  # first calls are slow
    ours, theirs = [], []
    for repeat in range(repeats):
        ours.append(pipeline(task))
        theirs.append(bare(task))
        print(f"{repeat + 1}: pipeline {ours[-1]:.1f} s, bare loops {theirs[-1]:.1f} s, {ours[-1] / theirs[-1]:.3f}")
    print(f"{name}, {3 * seeds} models: pipeline / bare = {median(ours) / median(theirs):.3f} (goal: at most 1.10)")


if __name__ == "__main__":
    main()
