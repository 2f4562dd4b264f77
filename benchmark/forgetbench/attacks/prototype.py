"""Prototypes: put the mean features of a few forgotten examples in the place of their class's weights in the head.

    w_c <- alpha p_c / |p_c| + (1 - alpha) w_c,   b_c <- (1 - alpha) b_c,   p_c the mean feature of k images of class c

The prototypical relearning attack of Ha et al. 2026, as in the authors' code (cosine, alpha 0.5): no training, and the
features stay as they are. The classes are those of the examples that the attacker holds. Deviation: the code draws its
examples from the test set, ours are forgotten training examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import nn
from torch.nn import functional

from forgetbench.attacks import attacks
from forgetbench.attacks._training import SHOTS, clone, features_of, shots_option
from forgetbench.attacks.base import Attack, AttackCard, Knowledge, param


@attacks.register("prototype")
@dataclass(frozen=True, kw_only=True)
class Prototype(Attack):
    """Mixes mean features of a few forgotten examples into the head."""

    card: ClassVar[AttackCard] = AttackCard(
        name="prototype",
        title="Mixes mean features of a few forgotten examples into the head",
        papers=("ha2026unlearning",),
        holds=("model", "forget"),
        budget="shots",
        budgets=SHOTS,
        attributes=False,
        random=False,
        known_limitations="Features in which the forgotten class is scattered.",
    )

    shots: int = shots_option()
    alpha: float = param(0.5, gt=0, le=1, help="Weight of the prototype.")

    def attack(self, model: nn.Module, knowledge: Knowledge, seed: int) -> nn.Module:
        """A copy of the model with another head."""
        network = clone(model)
        features, labels = features_of(network, knowledge.forget), knowledge.forget.labels
        head = cast("nn.Linear", network.head)
        with torch.no_grad():
            for label in labels.unique():
                prototype = functional.normalize(features[labels == label].mean(0), dim=0)
                head.weight[label] = self.alpha * prototype + (1 - self.alpha) * head.weight[label]
                if head.bias is not None:
                    head.bias[label] *= 1 - self.alpha
        return network
