"""SalUn: train random labels into the weights with the largest gradient on the forget set, and into no others.

    m = 1 where |grad CE(D_f)| is among its largest `mask_ratio` over all weights
    theta = m theta_new + (1 - m) theta_original

Fan et al. 2024, equations 3 to 5, with the hard threshold at a quantile. Labels are those of random_label.py. Weights
outside the mask are restored after every step, so that neither weight decay nor momentum moves them; in the authors'
code before February 2026, which made their tables, both did (`as_published=True`: only gradients are masked).

Their code draws labels from all classes in each epoch (`label_space="all", resample=True`), augments images
(`augment=True`) and adds up the mean gradients of batches, so that a smaller last batch weighs more
(`saliency="batches"`). For CIFAR-10 and SVHN each epoch is a pass over D_f and then one over D_r (`passes="separate"`),
for CIFAR-100 and Tiny-ImageNet one over both together (`passes="joined"`, the default). On a network of 166 weights,
runs with these values equal the released ones to rounding. Relative to the move, the other order of passes differs by
0.21 to 0.28, the gradient of the mean (batches of 8 and 2) by 0.13 to 0.47, masked weights that decay by 0.01 to 0.02.
Batch-norm statistics move, as in the paper, and are estimated again at the end (`batch_norm=train` as released).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._fisher import mean_gradient, smallest
from forgetbench.methods._training import (
    augment_option,
    augmentation,
    batch_norm_option,
    clone_model,
    n_outputs,
    random_labels,
    train_loop,
)
from forgetbench.methods.base import Duration, Examples, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("salun")
@dataclass(frozen=True, kw_only=True)
class SalUn(Method):
    """Learn random labels with the most salient weights."""

    card: ClassVar[MethodCard] = MethodCard(
        name="salun",
        title="SalUn: random labels learned by the weights with the largest gradient on the forget set",
        papers=("fan2024salun",),
        family="relabelling",
        needs=("forget", "retain"),
        known_limitations="Privacy: random labels reveal the forget set. The range of good learning rates is narrow.",
    )

    epochs: Duration = param(
        "0.12x", ge=1, paper_default=10, search=("0.04x", "0.25x"), help="Passes over all examples."
    )
    lr: Rate = param("0.4x", gt=0, paper_default=0.013, search=("0.02x", "2x"), help="Learning rate.")
    mask_ratio: float = param(
        0.5, gt=0, le=1, search=(0.1, 0.9), aliases=("share",), help="Ratio of the weights that may change."
    )
    batch_size: int = param(128, ge=2, paper_default=256, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")
    passes: str = param(
        "joined", choices=("joined", "separate"), help="Each epoch: D_f and D_r together, or D_f and then D_r."
    )
    augment: bool = augment_option(False, paper_default=True)
    saliency: str = param(
        "mean",
        choices=("mean", "batches"),
        paper_default="batches",
        help="What is masked by: the gradient of the mean loss, or the sum of the batches' mean gradients.",
    )
    label_space: str = param(
        "wrong",
        choices=("wrong", "all"),
        aliases=("over",),
        renamed_values={"other": "wrong"},
        paper_default="all",
        help="Classes to draw labels from.",
    )
    resample: bool = param(
        False, aliases=("redraw",), paper_default=True, help="Whether labels are drawn again in each epoch."
    )
    as_published: bool = param(False, paper_default=True, help="Mask gradients alone, so that weight decay moves all.")
    batch_norm: str = batch_norm_option("recalibrate", paper_default="train")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model in which only salient weights have changed."""
        network = clone_model(model)
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.forget) + len(request.retain), self.batch_size)
        optimizer = make_optimizer(network.parameters(), "sgd", lr, self.momentum, self.weight_decay)
        batch_size = self.batch_size if self.saliency == "batches" else None
        masks = saliency_masks(network.eval(), request, self.mask_ratio, batch_size)
        request.log("weights in the mask", sum(int(mask.sum()) for mask in masks))
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                generator = request.generator(0, epoch if self.resample else 0)
                random = random_labels(request.forget.labels, n_outputs(model), generator, label_space=self.label_space)
                for images, labels in self.batches(request.forget.relabel(random), request, epoch):
                    with loop.autocast():
                        loss = classification_loss(network(images), labels)
                    loop.backward(loss)
                    if self.as_published:
                        mask_gradients(network, masks)
                    optimizer.step()
                    if not self.as_published:
                        restore_unmasked(network, model, masks)
        return network

    def batches(self, forget: Examples, request: ForgetRequest, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of an epoch: of the relabeled forget set and the retain set, together or one after the other."""
        data = [forget.join(request.retain)] if self.passes == "joined" else [forget, request.retain]
        augment = augmentation(request, augment=self.augment)
        for stream, part in enumerate(data, start=1):
            yield from part.batches(self.batch_size, request.derive_seed(stream, epoch), *augment)


def saliency_masks(
    model: nn.Module, request: ForgetRequest, mask_ratio: float, batch_size: int | None = None
) -> list[Tensor]:
    """Boolean masks, one per parameter, of the weights with the largest gradients on the forget set.

    Args:
        model: In the mode in which gradients are taken.
        request: Its forget set.
        mask_ratio: Ratio of the weights in the mask, rounded down to a number of weights, but at least one.
        batch_size: Examples whose mean gradient is one term of the sum; None: all of them.
    """
    parameters = list(model.parameters())
    gradients = torch.zeros(sum(parameter.numel() for parameter in parameters)).to(parameters[0])
    for rows in torch.arange(len(request.forget)).split(batch_size or len(request.forget)):
        gradients += torch.cat([part.flatten() for part in mean_gradient(model, request.forget.take(rows))])
    mask = ~smallest(gradients, len(gradients) - max(1, int(mask_ratio * len(gradients))))
    parts = mask.split([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]


def mask_gradients(network: nn.Module, masks: list[Tensor]) -> None:
    """Set the gradients outside the masks to zero."""
    for parameter, mask in zip(network.parameters(), masks, strict=True):
        if parameter.grad is not None:
            parameter.grad.mul_(mask)


def restore_unmasked(network: nn.Module, original: nn.Module, masks: list[Tensor]) -> None:
    """Set the weights outside the masks to those of the original."""
    with torch.no_grad():
        for parameter, before, mask in zip(network.parameters(), original.parameters(), masks, strict=True):
            parameter.copy_(torch.where(mask, parameter, before))
