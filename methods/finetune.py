"""Fine-tuning: continue training on the retain set, and let the model forget the rest on its own.

    min CE(D_r), starting from the original

The baseline of nearly every paper (as "catastrophic forgetting", for example in Warnecke et al. 2023 and Golatkar et
al. 2020). Batch-norm statistics move, as in training, and are estimated again at the end (`batch_norm=train` in
papers). The learning rate falls by a cosine; most papers keep it constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._finetuning import min_lr_option, schedule_option, scheduled_lr
from forgetbench.methods._training import (
    augment_option,
    augmentation,
    batch_norm_option,
    clip_option,
    clone_model,
    set_lr,
    train_loop,
)
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import classification_loss, make_optimizer
from forgetbench.training.data import batch_sizes


@methods.register("finetune")
@dataclass(frozen=True, kw_only=True)
class FineTune(Method):
    """Train the original on the retain set for a few more epochs."""

    card: ClassVar[MethodCard] = MethodCard(
        name="finetune",
        title="Goes on training on the retain set",
        papers=("warnecke2023machine",),
        family="fine-tuning",
        needs=("retain",),
        known_limitations="Memorized examples: a few epochs at a small learning rate leave them as they were.",
    )

    epochs: Duration = param(
        "0.2x", ge=1, paper_default=10, search=("0.05x", "0.4x"), help="Passes over the retain set."
    )
    lr: Rate = param("1x", gt=0, paper_default=0.01, search=("0.02x", "4x"), help="Highest learning rate.")
    batch_size: int = param(128, ge=2, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")
    schedule: str = schedule_option("cosine", paper_default="constant")
    min_lr: float = min_lr_option()
    clip: float | None = clip_option(None)
    augment: bool = augment_option(True)
    batch_norm: str = batch_norm_option("recalibrate", paper_default="train")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, trained further."""
        network = clone_model(model)
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.retain), self.batch_size)
        optimizer = make_optimizer(network.parameters(), "sgd", lr, self.momentum, self.weight_decay)
        steps = len(batch_sizes(len(request.retain), self.batch_size))
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                batches = request.retain.batches(
                    self.batch_size, request.derive_seed(epoch), *augmentation(request, augment=self.augment)
                )
                for step, (images, labels) in enumerate(batches):
                    progress = (epoch * steps + step) / (epochs * steps)
                    set_lr(optimizer, scheduled_lr(self.schedule, lr, self.min_lr, epoch, epochs, progress))
                    with loop.autocast():
                        loss = classification_loss(network(images), labels)
                    loop.step(loss, clip=self.clip)
        return network
