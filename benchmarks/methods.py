"""Cost of methods: importances, loops compared with plain loops, and FLOPs in percent of retraining.

python benchmarks/methods.py    (ratios of medians, alternating sides, one thread; a few minutes)
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable

import torch
from plain_loops import PlainLoops
from torch import nn

from forgetbench.errors import ForgetBenchError
from forgetbench.methods import methods
from forgetbench.methods._fisher import importance_per_example
from forgetbench.methods.base import ForgetRequest, TaskFacts
from forgetbench.networks import NetworkSpec
from forgetbench.options import Scalar
from forgetbench.training import Examples, Recipe, count_flops, fit


def spec(name: str, channels: int, size: int) -> NetworkSpec:
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


def images(count: int, channels: int, size: int) -> Examples:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
    return Examples(pixels, torch.arange(count) % 10)


def ratio(ours: Callable[[], object], plain: Callable[[], object], rounds: int = 5) -> float:
    """Median seconds of the plain version divided by those of ours, run alternately."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for job, record in zip((ours, plain), times, strict=True):
            start = time.perf_counter()
            job()
            record.append(time.perf_counter() - start)
    return statistics.median(times[1]) / statistics.median(times[0])


def importances() -> None:
    """Per-example importances, compared with the loop over batches of one example in released code."""
    for name, size, count in (
        ("mlp", 8, 256),
        ("cnn", 8, 256),
        ("cnn", 32, 128),
        ("vit", 8, 128),
        ("resnet18", 32, 32),
    ):
        network, data = spec(name, 1, size).build(0), images(count, 1, size)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(data.images.float() / 255, data.labels), batch_size=1
        )

        def plain(network: nn.Module = network, loader: torch.utils.data.DataLoader = loader) -> None:
            sums = {key: torch.zeros_like(value) for key, value in network.named_parameters()}
            optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
            for x, y in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x), y).backward()
                for key, value in network.named_parameters():
                    sums[key] += value.grad.clone().pow(2)

        ours = ratio(lambda network=network, data=data: importance_per_example(network, data), plain, rounds=3)
        print(f"importances, {name} at {size:2d} pixels: {ours:.1f} times as fast as batches of one")


def loops(request: ForgetRequest, original: nn.Module, facts: TaskFacts) -> None:
    """A method's loop compared with a plain one of the same steps; on a vit, only methods for transformers."""
    settings: dict[str, dict[str, Scalar]] = {
        "cf-k": {"k": 1},
        "gradient-ascent": {"lr": 1e-6, "floor": 1.0},
        "scrub": {"max_epochs": 3},
        "gs-lora": {"alpha_epoch": 1},
    }
    for name, loop in PlainLoops(original, request, epochs=3).all().items():
        kind = methods.get(name)
        passes = {fact.name: 3 for fact in kind.parameters() if fact.name == "epochs"}
        method = kind.from_dict(passes | settings.get(name, {}))
        if method.applies_to(facts) or (facts.network == "vit") != (kind.card.networks == ("vit",)):
            continue
        value = 1 / ratio(lambda method=method: method.unlearn(original, request), loop)
        print(f"loop of {name:16s} {value:.2f} times a plain one")


def flops(request: ForgetRequest, original: nn.Module, facts: TaskFacts) -> None:
    """FLOPs of every method in percent of retraining's."""
    with count_flops() as whole:
        methods.get("retrain")().unlearn(original, request)
    print(f"{'method':18s} {'FLOPs, % of retraining':>24s} {'seconds':>8s}")
    for name in methods.names():
        method = methods.get(name)()
        reason = method.applies_to(facts)
        if reason:
            print(f"{name:18s} {'-':>24s} {'-':>8s}  {reason}")
            continue
        try:
            with count_flops() as count:
                method.unlearn(original, request)
            start = time.perf_counter()
            method.unlearn(original, request)
            print(f"{name:18s} {100 * count.total / whole.total:24.1f} {time.perf_counter() - start:8.2f}")
        except ForgetBenchError as error:
            print(f"{name:18s} {error}")


def main() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    importances()
    for network in ("cnn", "vit"):
        shape, data = spec(network, 1, 8), images(600, 1, 8)
        forgotten = data.labels == 3
        recipe = Recipe.model_validate({"epochs": 25, "batch_size": 50, "lr": 0.02})
        request = ForgetRequest(
            forget=data.take(torch.nonzero(forgotten)[:, 0]),
            retain=data.take(torch.nonzero(~forgotten)[:, 0]),
            validation=data.take(torch.nonzero(~forgotten)[:200, 0]),
            seed=0,
            recipe=recipe,
            new_network=lambda shape=shape: shape.build(1),
        )
        original = fit(shape.build(0), data, recipe, 0)
        print(f"\n{network}, 600 images of 8 x 8 pixels, one class of ten forgotten, retraining takes 25 epochs")
        facts = TaskFacts(network=network, scenario="class", attributes=False, outputs=10)
        loops(request, original, facts)
        flops(request, original, facts)


if __name__ == "__main__":
    main()
