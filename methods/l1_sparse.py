"""l1-sparse: fine-tune on the retain set with a penalty that makes the weights sparse and fades.

    min CE(D_r) + alpha (1 - e / E) |theta|_1,   e = epoch from 0, E = epochs

Jia et al. 2023, equation 5, with the linear decay of their code (`FT_prune`), over all parameters, batch-norm included.
The alpha of their command line, 0.2, sets the weights of any network to zero; the values searched in their paper and in
later ones are between 1e-6 and 1e-4. Batch-norm statistics move, the recipe's augmentation is used and the learning
rate is constant, as in their code; the statistics are estimated again at the end (`batch_norm=train` as released).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._training import augment_option, augmentation, batch_norm_option, clone_model, train_loop
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("l1-sparse")
@dataclass(frozen=True, kw_only=True)
class L1Sparse(Method):
    """Fine-tune on the retain set with a fading L1 penalty."""

    card: ClassVar[MethodCard] = MethodCard(
        name="l1-sparse",
        title="Fine-tunes on the retain set with a fading L1 penalty on all weights",
        papers=("jia2023model",),
        family="fine-tuning",
        needs=("retain",),
        known_limitations="Small networks, where the penalty costs accuracy before it forgets.",
    )

    epochs: Duration = param(
        "0.2x", ge=1, paper_default=10, search=("0.05x", "0.4x"), help="Passes over the retain set."
    )
    lr: Rate = param("3x", gt=0, paper_default=0.01, search=("0.1x", "4x"), help="Learning rate.")
    alpha: float = param(
        1e-3, ge=0, paper_default=0.2, search=(1e-5, 1e-2), help="Weight of the penalty in the first epoch."
    )
    batch_size: int = param(128, ge=2, paper_default=256, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")
    augment: bool = augment_option(True)
    batch_norm: str = batch_norm_option("recalibrate", paper_default="train")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, trained further and sparser."""
        network = clone_model(model)
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.retain), self.batch_size)
        optimizer = make_optimizer(network.parameters(), "sgd", lr, self.momentum, self.weight_decay)
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                alpha = self.alpha * (1 - epoch / epochs)
                batches = request.retain.batches(
                    self.batch_size, request.derive_seed(epoch), *augmentation(request, augment=self.augment)
                )
                for images, labels in batches:
                    with loop.autocast():
                        l1_norm = torch.stack([parameter.abs().sum() for parameter in network.parameters()]).sum()
                        loss = classification_loss(network(images), labels) + alpha * l1_norm
                    loop.step(loss)
        return network
