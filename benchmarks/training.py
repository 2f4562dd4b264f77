"""Overhead of the training loop over a bare loop, ratios of medians on one thread: `python benchmarks/training.py`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe, fit
from forgetbench.training.compute import channels_last

CASES = {
    "digits cnn, no augmentation": ("cnn", 1, 8, 2048, ()),
    "faces cnn, crop and flip": ("cnn", 1, 32, 1024, ("crop", "flip")),
    "color cnn, crop and flip": ("cnn", 3, 32, 1024, ("crop", "flip")),
    "digits mlp": ("mlp", 1, 8, 4096, ()),
    "digits vit": ("vit", 1, 8, 512, ()),
}


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


def alternating(first: Callable[[], None], second: Callable[[], None], rounds: int = 9) -> tuple[float, float]:
    """Median seconds of both, run alternately so that other load slows both."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for job, record in zip((first, second), times, strict=True):
            start = time.perf_counter()
            job()
            record.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    for title, (name, channels, size, count, augment) in CASES.items():
        images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 10, (count,), generator=generator)
        spec = NetworkSpec(
            name=name,
            channels=channels,
            height=size,
            width=size,
            outputs=10,
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
            options={},
        )
        recipe = Recipe.model_validate({"epochs": 1, "batch_size": 128, "lr": 0.05, "augment": augment})
        examples, floats, network = Examples(images, labels), images.float() / 255, spec.build(0)
        ours, bare = alternating(
            lambda network=network, examples=examples, recipe=recipe: fit(network, examples, recipe, 0),
            lambda network=network, floats=floats, labels=labels: bare_loop(network, floats, labels, 128),
        )
        print(f"{title:30s} {count / ours:9.0f} images/s, {ours / bare:.2f} times the bare loop")


if __name__ == "__main__":
    main()
