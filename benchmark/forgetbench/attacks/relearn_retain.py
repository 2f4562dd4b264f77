"""Relearning from retained images alone: fine-tune on them, and see whether the forgotten ones come back.

    min CE(D_r), starting from the model, for a number of steps

Siddiqui et al. 2025: forget accuracy goes from about 50 % to about 100 % for many methods, without a single forgotten
example, while retrained models stay at 50 %. Adam in train mode, with the recipe's augmentation, and batches of 128 as
in the authors' code; its learning rate is 1e-5 over 100 epochs of CIFAR, ours is 1e-3 over far fewer steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from forgetbench.attacks import attacks
from forgetbench.attacks._training import clone, endless, train
from forgetbench.attacks.base import Attack, AttackCard, Knowledge, param
from forgetbench.training import classification_loss


@attacks.register("relearn-retain")
@dataclass(frozen=True, kw_only=True)
class RelearnRetain(Attack):
    """Fine-tunes the model on retained images only."""

    card: ClassVar[AttackCard] = AttackCard(
        name="relearn-retain",
        title="Fine-tunes on retained images only",
        papers=("siddiqui2025dormant",),
        holds=("model", "retain"),
        budget="steps",
        budgets=(10, 30, 100),
        known_limitations="Knowledge that retained images do not bring back.",
    )

    steps: int = param(100, ge=1, help="Steps of Adam.")
    lr: float = param(1e-3, gt=0, paper_default=1e-5, help="Learning rate.")
    batch_size: int = param(128, ge=2, help="Examples per step.")

    def attack(self, model: nn.Module, knowledge: Knowledge, seed: int) -> nn.Module:
        """A copy of the model, trained further."""
        network = clone(model).train()

        def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
            images, labels = batch
            return classification_loss(network(images), labels)

        batches = endless(knowledge, knowledge.retain, self.batch_size, seed)
        train(knowledge, network, batches, loss, steps=self.steps, lr=self.lr, seed=seed)
        return network.eval()
