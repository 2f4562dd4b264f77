"""Visual prompt: a border of learned pixels, added to every image, with which the model answers as before.

    min_d CE(f(x + m d), y) over retained examples + the same over k forgotten ones,   m = 1 on the border, else 0

The model is frozen; only the border is learned, by Adam, and pixels stay in [0, 1]. The padding prompts of Bahng et al.
2022, whose border of 30 of 224 pixels is 13 % of the image here as well. Tayal 2025 shows with prompt tokens of a ViT
that they bring a class back, and with oracles that many examples teach it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.attacks import attacks
from forgetbench.attacks._training import SHOTS, clone, few_shot_batches, few_shot_loss, shots_option, train
from forgetbench.attacks.base import Attack, AttackCard, Knowledge, param


@attacks.register("visual-prompt")
@dataclass(frozen=True, kw_only=True)
class VisualPrompt(Attack):
    """Learns a border of pixels with which the frozen model answers as before."""

    card: ClassVar[AttackCard] = AttackCard(
        name="visual-prompt",
        title="Learns a border of pixels for the frozen model",
        papers=("bahng2022exploring", "tayal2025forgetgate"),
        holds=("model", "retain", "forget"),
        budget="shots",
        budgets=SHOTS,
        known_limitations="Images whose border matters; small images have few pixels to learn.",
    )

    shots: int = shots_option()
    border: float = param(0.13, gt=0, lt=0.5, help="Width of the border as a share of the smaller side.")
    steps: int = param(30, ge=1, help="Steps of Adam.")
    lr: float = param(0.02, gt=0, help="Learning rate, of pixels in [0, 1].")
    batch_size: int = param(64, ge=2, help="Retained examples per step.")

    def attack(self, model: nn.Module, knowledge: Knowledge, seed: int) -> dict[str, Tensor]:
        """Logits of the queries with the border."""
        network = clone(model).eval().requires_grad_(requires_grad=False)
        _, channels, height, width = knowledge.forget.images.shape
        device = knowledge.forget.device
        edge = max(1, round(self.border * min(height, width)))
        mask = torch.ones(1, 1, height, width, device=device)
        mask[..., edge : height - edge, edge : width - edge] = 0
        prompt = nn.Parameter(torch.zeros(1, channels, height, width, device=device))

        def forward(images: Tensor) -> Tensor:
            logits: Tensor = network((images + mask * prompt).clamp(0, 1))
            return logits

        def loss(batch: tuple[Tensor, ...]) -> Tensor:
            return few_shot_loss(forward, batch)

        batches = few_shot_batches(knowledge, self.batch_size, seed)
        with torch.enable_grad():
            train(knowledge, network, batches, loss, steps=self.steps, lr=self.lr, seed=seed, trained=[prompt])
        return knowledge.answer(lambda images, _: forward(images))
