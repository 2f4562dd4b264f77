"""Low-rank adapters on linear layers: put beside them, trained alone, and merged into their weights."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from forgetbench.errors import UsageError


class AdaptedLinear(nn.Module):
    """x W' + b + x A' B' / r, with W and b frozen, A (r, in) drawn at random and B (out, r) zero.

    Hu et al. 2022; the scale is 1/r, as loralib's default.
    """

    def __init__(self, linear: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = linear
        bound = 1 / math.sqrt(linear.in_features)  # Kaiming's uniform bound with a = sqrt(5)
        down = (torch.rand(rank, linear.in_features, generator=generator) * 2 - 1) * bound
        self.down = nn.Parameter(down.to(linear.weight))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank).to(linear.weight))

    @property
    def update(self) -> Tensor:
        """What merging adds to the weight (out, in)."""
        return self.up @ self.down / self.down.shape[0]

    def forward(self, inputs: Tensor) -> Tensor:
        """The layer's answer with the adapter beside it."""
        beside = nn.functional.linear(nn.functional.linear(inputs, self.down), self.up)
        return cast("Tensor", self.linear(inputs)) + beside / self.down.shape[0]


def adapt(network: nn.Module, rank: int, generator: torch.Generator) -> list[list[AdaptedLinear]]:
    """Put an adapter on both feed-forward layers of each block, and freeze all else, the head included.

    Returns:
        One group of adapters per block, in order.

    Raises:
        UsageError: A block has no feed-forward layers `mlp.fc1` and `mlp.fc2`: it is no transformer of timm's kind.
    """
    network.requires_grad_(requires_grad=False)
    groups = []
    for block in cast("list[nn.Module]", network.blocks):
        group = []
        for name in ("fc1", "fc2"):
            mlp = getattr(block, "mlp", None)
            linear = getattr(mlp, name, None)
            if not isinstance(mlp, nn.Module) or not isinstance(linear, nn.Linear):
                raise UsageError("low-rank adapters need transformer blocks with mlp.fc1 and mlp.fc2: use network vit")
            adapter = AdaptedLinear(linear, rank, generator)
            setattr(mlp, name, adapter)
            group.append(adapter)
        groups.append(group)
    return groups


def merge(network: nn.Module) -> None:
    """Add every adapter to the weight that it stands beside, and take it away."""
    with torch.no_grad():
        for block in cast("list[nn.Module]", network.blocks):
            mlp = cast("nn.Module", block.mlp)
            for name in ("fc1", "fc2"):
                adapter = getattr(mlp, name)
                adapter.linear.weight.add_(adapter.update)
                setattr(mlp, name, adapter.linear)
    network.requires_grad_(requires_grad=True)


def group_norms(groups: list[list[AdaptedLinear]]) -> Tensor:
    """The joint Frobenius norm of each group's matrices (groups,)."""
    matrices = [[part.flatten() for adapter in group for part in (adapter.down, adapter.up)] for group in groups]
    return torch.stack([torch.cat(group).norm() for group in matrices])


def relative_updates(groups: list[list[AdaptedLinear]]) -> Tensor:
    """The norm of each group's update over the norm of the weights that it changes (groups,)."""
    with torch.no_grad():
        return torch.stack(
            [
                torch.stack([adapter.update.norm() for adapter in group]).norm()
                / torch.stack([adapter.linear.weight.norm() for adapter in group]).norm()
                for group in groups
            ]
        )
