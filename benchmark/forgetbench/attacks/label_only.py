"""Label-only membership: images that were trained on keep their label under noise more often than unseen ones.

    score(x, y) = share of n noisy copies of x that the model labels y

Choquette-Choo et al. 2021, with Gaussian noise (their "robustness to random noise"), for an attacker who sees labels
only. They fit noise and threshold on a shadow model; here both are open: the noise is an option, and the AUC needs no
threshold. Tang et al. 2025 (Apollo) ask whether an image was unlearned, with shadow models that are unlearned too; that
is not done here: the oracle band takes their place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.attacks import attacks
from forgetbench.attacks.base import Attack, AttackCard, Knowledge, param
from forgetbench.training.compute import derive_generator


@attacks.register("label-only")
@dataclass(frozen=True, kw_only=True)
class LabelOnly(Attack):
    """Tells images that were trained on by how often their label survives noise."""

    card: ClassVar[AttackCard] = AttackCard(
        name="label-only",
        title="Tells forgotten from unseen images by how their label survives noise",
        papers=("choquette2021label", "tang2025apollo"),
        holds=("labels",),
        budget="copies",
        budgets=(5, 20),
        outcomes=("trained on",),
        random=None,
        known_limitations="Images far from every decision boundary: all scores are 1.",
    )

    copies: int = param(20, ge=1, help="Noisy copies of each image.")
    noise: float = param(0.1, gt=0, help="Standard deviation of the noise, of pixels in [0, 1].")

    def attack(self, model: nn.Module, knowledge: Knowledge, seed: int) -> dict[str, Tensor]:
        """Scores of the queries (n, 1)."""
        generator = derive_generator(seed)

        def score(images: Tensor, labels: Tensor) -> Tensor:
            hits = torch.zeros(len(images), device=images.device)
            for _ in range(self.copies):
                noise = torch.randn(images.shape, generator=generator).to(images.device)
                right = model((images + self.noise * noise).clamp(0, 1)) == labels
                hits += right.float() if right.ndim == 1 else right.float().mean(1)
            return hits[:, None] / self.copies

        return knowledge.answer(score)
