"""What a GPU does, in parts that fit into ten minutes each: `python benchmarks/gpu.py PART [--device cuda]`.

`speed`: images a second in training, as float32 without and with graphs, and in bfloat16. `models`: models of a task
in a minute, with 1, 2 and 4 jobs at a time. `oracles`: all models of a board with 64 seeds. `accuracy`: two originals
and their oracles. The last two keep their models in the store and resume there after an interruption; the tasks are
those of the paper's size unless `--task` names another. `--device cpu` tries the script itself.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from training import describe, random_images

from forgetbench.runner.config import RunConfig
from forgetbench.runner.engines.devices import hardware
from forgetbench.runner.run import TaskRun, run
from forgetbench.store import home
from forgetbench.tasks.task import read_task
from forgetbench.training import Examples, Recipe, fit, graph

IMAGES = {"fast": 50_000, "resnet9": 50_000, "resnet18": 20_000}
"""Networks whose speed is measured, and images of 32 pixels in an epoch; a CPU takes a hundredth."""
TASKS = {
    "models": ("cifar10-jpeg/fast/random-10", 4),
    "oracles": ("cifar10-jpeg/fast/random-10", 64),
    "accuracy": ("cifar10-jpeg/resnet18/random-10", 2),
}
"""Part -> its task, and seeds: a seed is three models."""
JOBS = (1, 2, 4)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of work, with all that it has queued on a GPU."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure_speed(device: torch.device) -> None:
    """Print images a second of an epoch, after one to warm up."""
    for name, count in IMAGES.items():
        images, labels = random_images(count if device.type == "cuda" else count // 100, 3, 32)
        examples = Examples(images.to(device), labels.to(device))
        speeds = []
        for precision, graphed in (("by-device", False), ("by-device", True), ("bfloat16", True)):
            recipe = Recipe.model_validate(
                {"epochs": 1, "batch_size": 256, "lr": 0.05, "augment": ("crop", "flip"), "precision": precision}
            )
            network = describe(name, 3, 32).build(0).to(device)
            supported = graph.is_supported if graphed else lambda _device: False
            with mock.patch.object(graph, "is_supported", supported):
                fit(network, examples, recipe, 0)
                took = seconds(partial(fit, network, examples, recipe, 1), device)
            speeds.append(len(images) / took)
        print(
            f"{name:9s} {speeds[0]:8.0f} images/s, with graphs {speeds[1] / speeds[0]:.2f} times, in bfloat16 "
            f"{speeds[2] / speeds[1]:.2f} times that",
            flush=True,
        )


def train(task: str, seeds: int, folder: Path, options: argparse.Namespace, jobs: int = 1) -> TaskRun:
    """Train the originals and oracles of a task; print how long it took."""
    config = RunConfig(
        root=options.root,
        device=options.device,
        engine="processes" if jobs > 1 else "auto",
        workers=None if options.device != "cpu" else jobs,
        jobs_per_gpu=1 if options.device == "cpu" else jobs,
        home=folder,
    )
    start = time.perf_counter()
    [done] = run([read_task(task).with_counts(seeds=seeds)], lambda _: [], config)
    took = time.perf_counter() - start
    print(
        f"{task}: {seeds} seeds, {jobs} at a time: {done.computed} of {done.jobs} jobs in {took:.0f} s, "
        f"{60 * 3 * seeds / took:.1f} models a minute if none was in the store",
        flush=True,
    )
    return done


def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["speed", *TASKS])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--root", type=Path, help="folder of the image sets on disk")
    parser.add_argument("--task", help="another task")
    parser.add_argument("--seeds", type=int, help="another number of seeds")
    parser.add_argument("--home", type=Path, default=home(), help="folder of the kept models")
    options = parser.parse_args()
    device = torch.device(options.device)
    print(hardware(options.device), flush=True)
    if options.part == "speed":
        measure_speed(device)
        return
    task, seeds = TASKS[options.part]
    task, seeds = options.task or task, options.seeds or seeds
    if options.part == "models":
        for jobs in JOBS:
            with tempfile.TemporaryDirectory() as folder:
                train(task, seeds, Path(folder), options, jobs)
        return
    done = train(task, seeds, options.home, options)
    if done.reference is not None:
        pairs = zip(done.reference.population("originals"), done.reference.labels, strict=True)
        right = [(logits["test"].argmax(-1) == labels["test"]).mean() for logits, labels in pairs]
        print(f"accuracy of originals on test images: {100 * sum(right) / len(right):.2f} %")


if __name__ == "__main__":
    main()
