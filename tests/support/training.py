"""Small networks, examples and recipes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from forgetbench.networks import Network, NetworkSpec
from forgetbench.training import Examples, Recipe


def make_spec(name: str, size: int = 8, channels: int = 3, outputs: int = 5, **options: Any) -> NetworkSpec:
    """The description of a network for square images, with these options."""
    mean, std = (0.4,) * channels, (0.2,) * channels
    return NetworkSpec(
        name=name, channels=channels, height=size, width=size, outputs=outputs, mean=mean, std=std, options=options
    )


def make_network(name: str = "cnn", outputs: int = 4, seed: int = 0, **options: Any) -> Network:
    """A small network for gray images of 8x8 pixels."""
    options = options or ({"width": 4} if name == "cnn" else {})
    return NetworkSpec(
        name=name, channels=1, height=8, width=8, outputs=outputs, mean=(0.5,), std=(0.3,), options=options
    ).build(seed)


def make_examples(count: int = 21, size: int = 8, seed: int = 0, attributes: int = 0) -> Examples:
    """Random gray images with random labels of four classes, or with binary attributes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, attributes)) if attributes else rng.integers(0, 4, count)
    return Examples.from_arrays(rng.integers(0, 256, (count, 1, size, size), dtype=np.uint8), labels)


def make_recipe(**fields: Any) -> Recipe:
    """A recipe of two epochs."""
    return Recipe.model_validate({"epochs": 2, "batch_size": 8, "lr": 0.05} | fields)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks have equal state dicts, bit by bit."""
    states = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(left, right) for left, right in states)
