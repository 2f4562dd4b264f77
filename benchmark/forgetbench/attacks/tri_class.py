"""Tri-class membership: forgotten, retained or unseen, for an attacker who holds the model before and after unlearning.

    logistic regression on the losses, margins and entropies of both models, and their differences

Fu et al. 2026 (TC-UMIA) let an attacker tell the three apart from predictions before and after unlearning. Their attack
judges whole populations; here the attacker holds k forgotten examples, and retained and unseen ones to fit it on, and
judges single examples. The score that counts is that of the forgotten. Read in its abstract, since its code was not
available: features and classifier are ours.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.attacks import attacks
from forgetbench.attacks._training import SHOTS, shots_option
from forgetbench.attacks.base import Attack, AttackCard, Examples, Knowledge, param
from forgetbench.training.compute import derive_generator


@attacks.register("tri-class")
@dataclass(frozen=True, kw_only=True)
class TriClass(Attack):
    """Tells forgotten, retained and unseen images apart by both models' answers."""

    card: ClassVar[AttackCard] = AttackCard(
        name="tri-class",
        title="Tells forgotten, retained and unseen images apart by the model before and after",
        papers=("fu2026revisiting",),
        holds=("model", "original", "retain", "forget", "validation"),
        budget="shots",
        budgets=SHOTS,
        outcomes=("forgotten", "retained", "unseen"),
        attributes=False,
        random=None,
        known_limitations="The original alone tells members from others, of oracles as well: what counts is the band.",
    )

    shots: int = shots_option()
    known: int = param(200, ge=1, help="Retained and unseen examples that the attack is fitted on, at most.")

    def attack(self, model: nn.Module, knowledge: Knowledge, seed: int) -> dict[str, Tensor]:
        """Log-probabilities of the outcomes (n, 3)."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        original = knowledge.original

        def features(images: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                after, before = _statistics(model(images), labels), _statistics(original(images), labels)
            return torch.cat([after, before, after - before], 1)

        parts = (knowledge.forget, self._drawn(knowledge.retain, seed), self._drawn(knowledge.validation, seed))
        rows = [torch.cat([features(*batch) for batch in part.batches(512)]).double().cpu().numpy() for part in parts]
        known = np.concatenate(rows)
        center, spread = known.mean(0), known.std(0)
        spread[spread == 0] = 1.0
        outcomes = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an attack that has nearly converged is good enough
            fitted = LogisticRegression(class_weight="balanced", max_iter=200).fit((known - center) / spread, outcomes)

        def score(images: Tensor, labels: Tensor) -> Tensor:
            queried = features(images, labels).double().cpu().numpy()
            with np.errstate(divide="ignore"):  # a probability of 0 has the logarithm -inf, which is clamped
                scores = fitted.predict_log_proba((queried - center) / spread)
            return torch.tensor(scores).clamp(min=-60_000)

        return knowledge.answer(score)

    def _drawn(self, examples: Examples, seed: int) -> Examples:
        order = torch.randperm(len(examples), generator=derive_generator(seed))
        return examples.take(order[: self.known])


def _statistics(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss, margin of the own class, and entropy of each example, (B, 3)."""
    losses = functional.cross_entropy(logits, labels, reduction="none")
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    log_shares = logits.log_softmax(1)
    return torch.stack([losses, own - others, -(log_shares.exp() * log_shares).sum(1)], 1)
