"""Convolution transpose: swap height and width in every kernel, and train on the retain set.

    W[o, i, h, w] <- W[o, i, w, h] for every convolution, then min CE(D_r)

By toshi_k and marvelworld, sixth place of the NeurIPS 2023 challenge; "CT" in Cadet et al. 2024. Weights and scales
stay in place, so that the network is damaged as little as possible while every kernel is wrong. Only square kernels
can be swapped; those of 1 x 1 do not change. The team submitted a mixture of such models and of others fine-tuned on
estimated mistakes of a retrained model; the latter half is not included, because the estimate is not published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._finetuning import min_lr_option, retain_batches, schedule_option, scheduled_lr
from forgetbench.methods._training import augment_option, batch_norm_option, clone_model, set_lr, train_loop
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("ct")
@dataclass(frozen=True, kw_only=True)
class ConvolutionTranspose(Method):
    """Transpose all kernels and train on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="ct",
        title="Swaps height and width of every kernel and trains on the retain set",
        papers=("cadet2024deep", "toshi2023unlearning"),
        family="re-initialization",
        needs=("retain",),
        networks=("cnn", "resnet18", "vit"),
        known_limitations="Information outside kernels: batch-norm, linear layers and symmetric kernels do not change.",
    )

    epochs: Duration = param(
        "0.35x", ge=1, paper_default=3, search=("0.1x", "0.5x"), help="Passes over the retain set."
    )
    lr: Rate = param(0.13, gt=0, paper_default=1e-3, search=(1e-3, 0.4), help="Highest learning rate.")
    batch_size: int = param(64, ge=2, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")
    schedule: str = schedule_option("cosine")
    min_lr: float = min_lr_option()
    augment: bool = augment_option(True)
    batch_norm: str = batch_norm_option("recalibrate", paper_default="train")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, transposed and trained."""
        network = clone_model(model)
        request.log("transposed kernels", transpose_kernels(network))
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.retain), self.batch_size)
        optimizer = make_optimizer(network.parameters(), "sgd", lr, self.momentum, self.weight_decay)
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                for progress, images, labels in retain_batches(
                    request, self.batch_size, epoch, epochs, augment=self.augment
                ):
                    set_lr(optimizer, scheduled_lr(self.schedule, lr, self.min_lr, epoch, epochs, progress))
                    with loop.autocast():
                        loss = classification_loss(network(images), labels)
                    loop.step(loss)
        return network


def transpose_kernels(network: nn.Module) -> int:
    """Swap height and width of every square kernel in place.

    Returns:
        How many kernels were swapped.
    """
    count = 0
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] == layer.kernel_size[1] > 1:
            with torch.no_grad():
                layer.weight.copy_(layer.weight.transpose(2, 3).clone())
            count += 1
    return count
