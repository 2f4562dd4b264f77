"""NegGrad+: descend on the retain set and ascend on the forget set in the same step.

    min a CE(D_r) - (1 - a) CE(D_f)

Kurmanji et al. 2023, equation 2. An epoch is one pass over the retain set; forget batches are repeated. Deviation:
both batches pass through the network together, so that batch-norm sees their mixture and a forget batch of one example
works; the authors' code calls the network twice (`joint=False`). Their a is 0.9999 on some data sets and 0.95 on
others, and their SGD has neither momentum nor weight decay. Their forget batches are drawn anew in each epoch and
repeated in one order in it, where each pass has a new order here (1.5 % of the move on a small network).

The "advanced NegGrad" of Choi and Na 2023 minimizes CE(D_r) - CE(D_f), which is twice this loss for a = 1/2: the same
step at twice the learning rate without momentum. Their "NegGrad" is a = 0, where retained batches only count the steps.
Both skip a pair of batches of different size (`skip_uneven=True`), and the former ends an epoch with the shorter set in
MUCAC (`repeat_forget=False`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._training import (
    augment_option,
    augmentation,
    batch_norm_option,
    clone_model,
    cycle,
    train_loop,
)
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, param
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

    epochs: Duration = param(
        "0.2x", ge=1, paper_default=5, search=("0.05x", "0.4x"), help="Passes over the retain set."
    )
    lr: Rate = param("0.5x", gt=0, paper_default=0.01, search=("0.02x", "2x"), help="Learning rate.")
    alpha: float = param(0.9, ge=0, le=1, paper_default=0.9999, search=(0.2, 0.99), help="Weight of the retain loss.")
    batch_size: int = param(128, ge=2, help="Retain examples per step.")
    forget_batch_size: int | None = param(
        None,
        ge=1,
        paper_default=16,
        help="Forget examples per step, or all there are; None = as many as retained ones.",
    )
    momentum: float = param(0.9, ge=0, lt=1, paper_default=0.0, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, paper_default=0.0, help="Weight decay of SGD.")
    joint: bool = param(True, paper_default=False, help="Whether both batches pass through the network together.")
    repeat_forget: bool = param(
        True, help="Whether forget batches are repeated until the retain set ends; else the shorter set ends an epoch."
    )
    skip_uneven: bool = param(False, help="Whether a pair of batches is skipped if their sizes differ.")
    augment: bool = augment_option(False)
    batch_norm: str = batch_norm_option("recalibrate", paper_default="train")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model after descent and ascent."""
        network = clone_model(model)
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.retain), self.batch_size)
        optimizer = make_optimizer(network.parameters(), "sgd", lr, self.momentum, self.weight_decay)
        forget_batch_size = self.forget_batch_size or self.batch_size
        forget_batches = cycle(request.forget, forget_batch_size, request, 0, augment=self.augment)
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                retain_batches = request.retain.batches(
                    self.batch_size, request.derive_seed(1, epoch), *augmentation(request, augment=self.augment)
                )
                if not self.repeat_forget:
                    forget_batches = request.forget.batches(
                        forget_batch_size, request.derive_seed(0, epoch), *augmentation(request, augment=self.augment)
                    )
                pairs = zip(retain_batches, forget_batches, strict=False)
                for (retain_images, retain_labels), (forget_images, forget_labels) in pairs:
                    if self.skip_uneven and len(retain_images) != len(forget_images):
                        continue
                    with loop.autocast():
                        if self.joint:
                            logits = network(torch.cat([retain_images, forget_images]))
                            retain_loss = classification_loss(logits[: len(retain_images)], retain_labels)
                            forget_loss = classification_loss(logits[len(retain_images) :], forget_labels)
                        else:
                            retain_loss = torch.zeros(())
                            if self.alpha > 0:
                                retain_loss = classification_loss(network(retain_images), retain_labels)
                            forget_loss = classification_loss(network(forget_images), forget_labels)
                        loss = self.alpha * retain_loss - (1 - self.alpha) * forget_loss
                    loop.step(loss)
        return network
