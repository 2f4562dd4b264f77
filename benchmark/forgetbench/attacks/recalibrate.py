"""Recalibration: estimate the statistics of batch-norm again on retained images, without labels and gradients.

    mean, var of each batch-norm layer <- mean over b batches of D_r of the batch's mean and variance

While weights change, the running statistics of batch-norm lag behind, and a method that changes weights without
training leaves those of the original in place. Either can hide what the weights still know. The check of ForgetBench's
boards, with a budget: they use all retained images, this attack the first `batches` of one fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.attacks import attacks
from forgetbench.attacks._training import clone
from forgetbench.attacks.base import Attack, AttackCard, Knowledge, TaskFacts, param
from forgetbench.training import has_batch_norm, recalibrate_batch_norm


@attacks.register("recalibrate")
@dataclass(frozen=True, kw_only=True)
class Recalibrate(Attack):
    """Estimates the statistics of batch-norm again on a few batches of retained images."""

    card: ClassVar[AttackCard] = AttackCard(
        name="recalibrate",
        title="Estimates the statistics of batch-norm again on retained images",
        holds=("model", "retain"),
        budget="batches",
        budgets=(1, 4, 16),
        random=False,
        known_limitations="Networks without batch-norm; what is hidden by weights rather than by statistics.",
    )

    batches: int = param(16, ge=1, help="Batches of retained images, of the size of the recipe's.")

    def attack(self, model: nn.Module, knowledge: Knowledge, seed: int) -> nn.Module:
        """A copy of the model with new statistics."""
        network = clone(model)
        return recalibrate_batch_norm(network, knowledge.retain, knowledge.recipe, batches=self.batches)

    def applies_to(self, facts: TaskFacts, network: nn.Module) -> str | None:
        """It needs batch-norm."""
        if not has_batch_norm(network):
            return "the network has no batch-norm statistics"
        return super().applies_to(facts, network)
