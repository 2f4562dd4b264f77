"""Relearning from few forgotten examples: fine-tune on retained images and k forgotten ones.

    min CE(D_r) + CE(k examples of each forgotten class), starting from the model, for a number of steps

The mixed relearning sets of Siddiqui et al. 2025, with k = 1, 5 and 10. Only the weights are trained: batch-norm keeps
its running statistics, which a batch with copies of a few images would spoil. Adam; the learning rate is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.attacks import attacks
from forgetbench.attacks._training import SHOTS, clone, few_shot_batches, few_shot_loss, shots_option, train
from forgetbench.attacks.base import Attack, AttackCard, Knowledge, param


@attacks.register("relearn-few-shot")
@dataclass(frozen=True, kw_only=True)
class RelearnFewShot(Attack):
    """Fine-tunes the model on retained images and a few forgotten ones."""

    card: ClassVar[AttackCard] = AttackCard(
        name="relearn-few-shot",
        title="Fine-tunes on retained images and a few forgotten ones",
        papers=("siddiqui2025dormant",),
        holds=("model", "retain", "forget"),
        budget="shots",
        budgets=SHOTS,
        known_limitations="With more examples it teaches oracles as well, and proves nothing.",
    )

    shots: int = shots_option()
    steps: int = param(30, ge=1, help="Steps of Adam.")
    lr: float = param(1e-3, gt=0, help="Learning rate.")
    batch_size: int = param(64, ge=2, help="Retained examples per step.")

    def attack(self, model: nn.Module, knowledge: Knowledge, seed: int) -> nn.Module:
        """A copy of the model, trained further."""
        network = clone(model).eval()

        def loss(batch: tuple[Tensor, ...]) -> Tensor:
            return few_shot_loss(network, batch)

        batches = few_shot_batches(knowledge, self.batch_size, seed)
        with torch.enable_grad():
            train(knowledge, network, batches, loss, steps=self.steps, lr=self.lr, seed=seed)
        return network
