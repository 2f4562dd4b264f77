"""Low-rank adapters (LoRA) on linear layers: added, trained alone, and merged into the weights."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from forgetbench.errors import UsageError


class LoRALinear(nn.Module):
    """x W' + b + x A' B' / r, with W and b frozen, A (r, in) random and B (out, r) zero at first.

    Hu et al. 2022; the scale is 1/r, the default of loralib.
    """

    def __init__(self, linear: nn.Linear, rank: int, generator: torch.Generator, scale: float = 1.0) -> None:
        super().__init__()
        self.linear = linear
        bound = scale / math.sqrt(linear.in_features)  # Kaiming's uniform bound with a = sqrt(5)
        down = (torch.rand(rank, linear.in_features, generator=generator) * 2 - 1) * bound
        self.down = nn.Parameter(down.to(linear.weight))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank).to(linear.weight))

    @property
    def update(self) -> Tensor:
        """What merging adds to the weight (out, in)."""
        return self.up @ self.down / self.down.shape[0]

    def forward(self, inputs: Tensor) -> Tensor:
        """Output of the layer plus that of the adapter."""
        low_rank = nn.functional.linear(nn.functional.linear(inputs, self.down), self.up)
        return cast("Tensor", self.linear(inputs)) + low_rank / self.down.shape[0]


Groups = list[list[LoRALinear]]
"""The adapters of each block."""


def add_lora(network: nn.Module, rank: int, generator: torch.Generator, scale: float = 1.0) -> Groups:
    """Add an adapter to both feed-forward layers of each block, and freeze everything else, the head included.

    Args:
        network: A transformer, changed in place.
        rank: Rank of the adapters.
        generator: Draws the matrices A.
        scale: Multiplies their range.

    Returns:
        One group of adapters per block, in order.

    Raises:
        UsageError: A block has no feed-forward layers `mlp.fc1` and `mlp.fc2`, so it is no transformer block of timm.
    """
    network.requires_grad_(requires_grad=False)
    groups = []
    for block in cast("list[nn.Module]", network.blocks):
        group = []
        for name in ("fc1", "fc2"):
            mlp = getattr(block, "mlp", None)
            linear = getattr(mlp, name, None)
            if not isinstance(mlp, nn.Module) or not isinstance(linear, nn.Linear):
                raise UsageError("Low-rank adapters need transformer blocks with mlp.fc1 and mlp.fc2. Use network vit.")
            adapter = LoRALinear(linear, rank, generator, scale)
            setattr(mlp, name, adapter)
            group.append(adapter)
        groups.append(group)
    return groups


def merge_lora(network: nn.Module) -> None:
    """Add every adapter to its layer's weight and remove it; all parameters take gradients again."""
    with torch.no_grad():
        for block in cast("list[nn.Module]", network.blocks):
            mlp = cast("nn.Module", block.mlp)
            for name in ("fc1", "fc2"):
                adapter = getattr(mlp, name)
                adapter.linear.weight.add_(adapter.update)
                setattr(mlp, name, adapter.linear)
    network.requires_grad_(requires_grad=True)


def group_norms(groups: Groups) -> Tensor:
    """Joint Frobenius norm of each group's matrices (groups,)."""
    matrices = [[part.flatten() for adapter in group for part in (adapter.down, adapter.up)] for group in groups]
    return torch.stack([torch.cat(group).norm() for group in matrices])


def relative_updates(groups: Groups) -> Tensor:
    """Norm of each group's update divided by the norm of the weights that it changes (groups,)."""
    with torch.no_grad():
        return torch.stack(
            [
                torch.stack([adapter.update.norm() for adapter in group]).norm()
                / torch.stack([adapter.linear.weight.norm() for adapter in group]).norm()
                for group in groups
            ]
        )
