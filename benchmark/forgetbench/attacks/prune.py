"""Pruning: set the smallest weights to zero.

    w <- 0 where |w| is among the smallest `ratio` of all weights

What is hidden by many small changes of the weights comes back if these are cut off. Unstructured, by magnitude, over
all weights of linear, convolutional and attention layers together; no training afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from forgetbench.attacks import attacks
from forgetbench.attacks._training import clone
from forgetbench.attacks.base import Attack, AttackCard, Knowledge, param
from forgetbench.attacks.quantize import weight_matrices


@attacks.register("prune")
@dataclass(frozen=True, kw_only=True)
class Prune(Attack):
    """Sets the smallest weights of the whole network to zero."""

    card: ClassVar[AttackCard] = AttackCard(
        name="prune",
        title="Sets the smallest weights to zero",
        holds=("model",),
        budget="ratio",
        budgets=(0.3, 0.5, 0.7),
        random=False,
        known_limitations="At high ratios the model loses what it should know, too.",
    )

    ratio: float = param(0.5, gt=0, lt=1, help="Share of the weights that become zero.")

    def attack(self, model: nn.Module, knowledge: Knowledge, seed: int) -> nn.Module:
        """A copy of the model without its smallest weights."""
        network = clone(model)
        weights = list(weight_matrices(network))
        with torch.no_grad():
            sizes = torch.cat([weight.abs().flatten() for weight in weights])
            count = round(self.ratio * len(sizes))
            keep = torch.ones_like(sizes)
            keep[sizes.argsort(stable=True)[:count]] = 0
            for weight, mask in zip(weights, keep.split([weight.numel() for weight in weights]), strict=True):
                weight.mul_(mask.view_as(weight))
        knowledge.log("pruned", count / len(sizes))
        return network
