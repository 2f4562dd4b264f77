"""Training on one thread: overhead over a bare loop, and bfloat16 against float32: `python benchmarks/training.py`.

The jobs of a ratio alternate in one process, so that other load slows all of them; times are those of the CPU. Names of
networks as arguments (`fast resnet9`) measure only their precisions.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from forgetbench.evidence.environment import bfloat16_unit
from forgetbench.methods._fisher import importance_per_batch
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe, fit, predict
from forgetbench.training.compute import channels_last

CASES = {
    "digits cnn, no augmentation": ("cnn", 1, 8, 2048, ()),
    "faces cnn, crop and flip": ("cnn", 1, 32, 1024, ("crop", "flip")),
    "color cnn, crop and flip": ("cnn", 3, 32, 1024, ("crop", "flip")),
    "digits mlp": ("mlp", 1, 8, 4096, ()),
    "digits vit": ("vit", 1, 8, 512, ()),
}
PRECISIONS = {"fast": 512, "resnet9": 512, "resnet18": 256}
"""Networks whose precisions are compared, on images of 32 pixels, and numbers of these images."""
ROUNDS = 5


def bare_loop(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, size: int) -> None:
    """Minimal training: float images in memory, no augmentation, no seeds, no checks."""
    with channels_last(network):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)
        network.train()
        for start in range(0, len(images), size):
            loss = nn.functional.cross_entropy(network(images[start : start + size]), labels[start : start + size])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def alternating(*jobs: Callable[[], object], rounds: int = ROUNDS) -> list[list[float]]:
    """CPU seconds of each job in each round, run alternately so that other load slows all of them."""
    times: list[list[float]] = [[] for _ in jobs]
    for _ in range(rounds):
        for job, record in zip(jobs, times, strict=True):
            start = time.process_time()
            job()
            record.append(time.process_time() - start)
    return times


def median_ratio(first: list[float], second: list[float]) -> float:
    """Median over rounds of the first job's time over the second's."""
    return statistics.median(left / right for left, right in zip(first, second, strict=True))


def describe(name: str, channels: int, size: int) -> NetworkSpec:
    """A network with ten outputs."""
    return NetworkSpec(
        name=name,
        channels=channels,
        height=size,
        width=size,
        outputs=10,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        options={},
    )


def random_images(count: int, channels: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of ten classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 10, (count,), generator=generator)


def measure_overhead() -> None:
    """Print the overhead over a bare loop."""
    for title, (name, channels, size, count, augment) in CASES.items():
        images, labels = random_images(count, channels, size)
        recipe = Recipe.model_validate({"epochs": 1, "batch_size": 128, "lr": 0.05, "augment": augment})
        examples, floats, network = (
            Examples(images, labels),
            images.float() / 255,
            describe(name, channels, size).build(0),
        )
        ours, bare = alternating(
            lambda network=network, examples=examples, recipe=recipe: fit(network, examples, recipe, 0),
            lambda network=network, floats=floats, labels=labels: bare_loop(network, floats, labels, 128),
            rounds=9,
        )
        speed = count / statistics.median(ours)
        print(f"{title:30s} {speed:9.0f} images/s, {median_ratio(ours, bare):.2f} times the bare loop")


def measure_precisions(networks: list[str]) -> None:
    """Print how many times as fast as float32 bfloat16 trains, predicts and computes importances."""
    print(f"bfloat16 by {bfloat16_unit()}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name in networks:
        count = PRECISIONS[name]
        examples = Examples(*random_images(count, 3, 32))
        recipes = [
            Recipe.model_validate(
                {"epochs": 1, "batch_size": 128, "lr": 0.05, "augment": ("crop", "flip"), "precision": precision}
            )
            for precision in ("by-device", "bfloat16")
        ]
        network = describe(name, 3, 32).build(0)
        train, predicted, importance = (
            alternating(*(lambda job=job, recipe=recipe: job(recipe) for recipe in recipes))
            for job in (
                lambda recipe, network=network, examples=examples: fit(network, examples, recipe, 0),
                lambda recipe, network=network, examples=examples: predict(network, examples, bfloat16=recipe.bfloat16),
                lambda recipe, network=network, examples=examples: importance_per_batch(
                    network, examples.batches(64), bfloat16=recipe.bfloat16
                ),
            )
        )
        speeds = ", ".join(f"{count / statistics.median(times):.0f}" for times in (*train, *predicted, *importance))
        print(
            f"{name:10s} training {median_ratio(*train):.2f}, predictions {median_ratio(*predicted):.2f}, importances "
            f"per batch {median_ratio(*importance):.2f} times float32 (images/s {speeds})",
            flush=True,
        )


def main() -> None:
    torch.set_num_threads(1)
    chosen = sys.argv[1:]
    if not chosen:
        measure_overhead()
    measure_precisions(chosen or list(PRECISIONS))


if __name__ == "__main__":
    main()
