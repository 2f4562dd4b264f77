"""Nearest class mean: classify by the distance of features to the mean features of each class, without the head.

    logit_c(x) = -|f(x) - m_c|^2,   m_c the mean feature of the attacker's examples of class c

What a head hides, features may still have: the classifier of prototypical networks (Snell et al. 2017), with k examples
of each forgotten class and up to `retained` of each retained one. Nothing is trained. Classes without an example are
never the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from forgetbench.attacks import attacks
from forgetbench.attacks._training import SHOTS, features_of, shots_option
from forgetbench.attacks.base import Attack, AttackCard, Knowledge, param
from forgetbench.training.compute import derive_generator

NEVER = -1e6
"""The logit of a class without an example."""


@attacks.register("nearest-mean")
@dataclass(frozen=True, kw_only=True)
class NearestMean(Attack):
    """Classifies by the nearest class mean in the features of the model."""

    card: ClassVar[AttackCard] = AttackCard(
        name="nearest-mean",
        title="Classifies by the nearest class mean of features",
        papers=("snell2017prototypical",),
        holds=("model", "retain", "forget"),
        budget="shots",
        budgets=SHOTS,
        attributes=False,
        random=None,
        known_limitations="Features of oracles separate unseen classes, too.",
    )

    shots: int = shots_option()
    retained: int = param(100, ge=1, help="Examples of each retained class, at most.")

    def attack(self, model: nn.Module, knowledge: Knowledge, seed: int) -> dict[str, Tensor]:
        """Logits of the queries."""
        order = torch.randperm(len(knowledge.retain), generator=derive_generator(seed))
        retain = knowledge.retain.take(order)
        labels = retain.labels
        rows = [(labels == label).nonzero()[: self.retained, 0] for label in labels.unique()]
        examples = retain.take(torch.cat(rows)).join(knowledge.forget)
        features, known = features_of(model, examples), examples.labels
        outputs = cast("nn.Linear", model.head).out_features
        means = torch.zeros(outputs, features.shape[1], device=features.device)
        for label in known.unique():
            means[label] = features[known == label].mean(0)
        absent = torch.ones(outputs, dtype=torch.bool, device=features.device)
        absent[known] = False

        def answer(images: Tensor, _: Tensor) -> Tensor:
            distances = torch.cdist(model.features(images).float(), means)  # type: ignore[operator]
            return (-distances.square()).masked_fill(absent, NEVER)

        return knowledge.answer(answer)
