"""A small network with batch-norm, images and labels, all in closed form and in float64.

Released code was executed on them, outside of this repository; tests hold the numbers that it gave.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from forgetbench.methods.base import ForgetRequest
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe

CHANNELS, SIZE, CLASSES = 2, 5, 4
MEAN, STD = (0.45, 0.5), (0.25, 0.2)


def wave(shape: tuple[int, ...], phase: float) -> Tensor:
    """sin(0.7 k + phase) for the k-th entry."""
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 0.7 + phase).reshape(shape)


class ClosedFormNet(nn.Module):
    """Two convolutions of three channels, each with batch-norm, a mean over places and a linear layer."""

    mean: Tensor
    std: Tensor

    def __init__(self, phase: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, -1, 1, 1))
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, 3, 3, padding=1, bias=bias), nn.BatchNorm2d(3))
            for inputs, bias in ((CHANNELS, True), (3, False))
        )
        self.head = nn.Linear(3, CLASSES)
        self.double()
        with torch.no_grad():
            for place, parameter in enumerate(self.parameters()):
                parameter.copy_(0.6 * wave(parameter.shape, place + phase) + (0.8 if place in (2, 5) else 0.0))
            for place, (_, layer) in enumerate(self.blocks):
                layer.running_mean.copy_(0.2 * wave((3,), 9 + place))
                layer.running_var.copy_(1 + 0.4 * wave((3,), 5 + place))

    @property
    def blocks(self) -> list[nn.Sequential]:
        return list(self.stages)  # type: ignore[arg-type]

    def normalized_features(self, inputs: Tensor) -> Tensor:
        """Features of images that are normalized, which is what released code has."""
        for stage in self.stages:
            inputs = torch.relu(stage(inputs))
        return inputs.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.normalized_features((images.double() - self.mean) / self.std))


def closed_form_vit() -> nn.Module:
    """A transformer of six blocks; released code has no other depth."""
    spec = NetworkSpec(
        name="vit",
        channels=CHANNELS,
        height=SIZE,
        width=SIZE,
        outputs=CLASSES,
        mean=MEAN,
        std=STD,
        options={"dim": 8, "heads": 2, "depth": 6, "patch": 1},
    )
    network = spec.build(0).double()
    with torch.no_grad():
        for place, (name, parameter) in enumerate(network.named_parameters()):
            parameter.copy_(0.5 * wave(parameter.shape, place) + (1.0 if "norm" in name and "weight" in name else 0.0))
    return network


def closed_form_images(count: int, phase: float) -> Tensor:
    """uint8 (count, 2, 5, 5)."""
    place = torch.arange(count * CHANNELS * SIZE * SIZE, dtype=torch.float64)
    values = (torch.sin(place * 1.3 + phase) + torch.sin(place * 0.37 + 2 * phase) + 2) * 63
    return values.round().to(torch.uint8).reshape(count, CHANNELS, SIZE, SIZE)


def closed_form_request(
    scenario: str = "random", *, forget: int = 10, retain: int = 26, step: int = 0
) -> ForgetRequest:
    """A request to forget random examples, a class (3), or a fine class (6) of a class that others have too (2)."""
    labels, retain_labels = (
        (torch.arange(forget) * 3 + 1) % CLASSES,
        torch.arange(retain) * 5 + torch.arange(retain) // 7,
    )
    fine: dict[str, Any] = {}
    if scenario == "class":
        labels, retain_labels = torch.full((forget,), 3), (torch.arange(retain) * 5) % 3
    if scenario == "subclass":
        retain_fine = (torch.arange(retain) * 7) % 6
        labels, retain_labels = torch.full((forget,), 2), retain_fine
        fine = {"forget_fine_labels": torch.full((forget,), 6), "retain_fine_labels": retain_fine}
    return ForgetRequest(
        forget=Examples(closed_form_images(forget, 0.3), labels),
        retain=Examples(closed_form_images(retain, 1.1), retain_labels % CLASSES),
        validation=Examples(closed_form_images(4, 2.2), torch.arange(4)),
        seed=5,
        recipe=Recipe(),
        new_network=lambda: ClosedFormNet(0.5),
        step=step,
        **fine,
    )


def signature(network: nn.Module, start: nn.Module) -> NDArray[np.float64]:
    """Six numbers of how parameters and running statistics moved: both norms, and four products with waves."""
    moves = []
    for values in (nn.Module.parameters, nn.Module.buffers):
        pairs = zip(values(network), values(start), strict=True)
        differences = [(after - before).detach().flatten() for after, before in pairs if after.is_floating_point()]
        moves.append(torch.cat(differences))
    move = torch.cat(moves)
    waves = [torch.sin((k + 1) * 0.9 * torch.arange(len(move), dtype=torch.float64)) for k in range(4)]
    return np.array([*(float(part.norm()) for part in moves), *(float(move @ wave / wave.norm()) for wave in waves)])
