"""NegGrad+: descend on the retain set while ascending on the forget set, in one step.

    min a CE(D_r) - (1 - a) CE(D_f)

Kurmanji et al. 2023, equation 2. An epoch is one pass over the retain set, forget batches being cycled. Deviation:
both batches go through the network together, so batch-norm sees their mixture, and a forget batch of one is no trouble;
the authors' code calls the network twice. Their a is 0.9999 on some sets and 0.95 on others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._training import descend, editable, endless
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("neggrad-plus")
@dataclass(frozen=True, kw_only=True)
class NegGradPlus(Method):
    """Descend on the retain set and ascend on the forget set together."""

    card: ClassVar[MethodCard] = MethodCard(
        name="neggrad-plus",
        title="Descends on the retain set while ascending on the forget set",
        papers=("kurmanji2023toward",),
        family="ascent",
        needs=("forget", "retain"),
        known_limitations="Balance: the weight of the ascent needs tuning per task; too much of it over-forgets.",
    )

    epochs: int = param(5, ge=1, search=(2, 10), help="Passes over the retain set.")
    lr: float = param(0.02, gt=0, paper_default=0.01, search=(1e-3, 1e-1), help="Learning rate.")
    alpha: float = param(0.9, ge=0, le=1, paper_default=0.9999, search=(0.2, 0.99), help="Weight of the retain loss.")
    batch_size: int = param(128, ge=2, help="Retain examples per step; as many forget examples, or all there are.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, pushed and pulled."""
        edited = editable(model)
        forget = endless(request.forget, self.batch_size, request, 0)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
            for images, labels in request.retain.batches(self.batch_size, request.seed_of(1, epoch)):
                yield images, labels, *next(forget)

        def loss(batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
            kept_images, kept_labels, images, labels = batch
            logits = edited(torch.cat([kept_images, images]))
            kept = classification_loss(logits[: len(kept_images)], kept_labels)
            return self.alpha * kept - (1 - self.alpha) * classification_loss(logits[len(kept_images) :], labels)

        return descend(
            edited,
            request,
            epochs=self.epochs,
            batches=batches,
            loss=loss,
            optimizer=make_optimizer(edited.parameters(), "sgd", self.lr, self.momentum, self.weight_decay),
            method=self.card.name,
            batch_norm="train",
        )
