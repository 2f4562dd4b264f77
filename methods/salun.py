"""SalUn: random labels, learned by the weights that the forget set's gradient singles out, and by no other.

    m = 1 where |grad CE(D_f)| is among its largest `share` over all weights,   theta = m theta_new + (1 - m) theta_o

Fan et al. 2024, equations 3 to 5, with the hard threshold at a quantile; labels as in `random-label`, trained together
with all of the retain set. Masked weights are put back after every step, so that neither weight decay nor momentum
moves them; in the authors' code before February 2026 both did (`as_published=True`: only gradients are masked).
Their code draws labels from all classes, anew in each epoch (`over="all", redraw=True`), and accumulates the means of
batches, where ours is the gradient of the mean. Batch-norm statistics move, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._fisher import mean_gradient, smallest
from forgetbench.methods._training import descend, editable, outputs_of, random_labels
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param
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

    epochs: int = param(3, ge=1, paper_default=10, search=(1, 6), help="Passes over all examples.")
    lr: float = param(0.01, gt=0, paper_default=0.013, search=(1e-3, 1e-1), help="Learning rate.")
    share: float = param(0.5, gt=0, le=1, search=(0.1, 0.9), help="Share of the weights that may move.")
    batch_size: int = param(128, ge=2, paper_default=256, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")
    over: str = param("other", choices=("other", "all"), paper_default="all", help="Classes to draw labels from.")
    redraw: bool = param(False, paper_default=True, help="Whether labels are drawn anew in each epoch.")
    as_published: bool = param(False, paper_default=True, help="Mask gradients alone, so that weight decay moves all.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model of which only salient weights have moved."""
        edited = editable(model)
        masks = saliency(edited.eval(), request, self.share)
        request.report("weights that may move", sum(int(mask.sum()) for mask in masks))
        optimizer = make_optimizer(edited.parameters(), "sgd", self.lr, self.momentum, self.weight_decay)
        if self.as_published:
            optimizer.register_step_pre_hook(lambda *_: _mask_gradients(edited, masks))
        else:
            optimizer.register_step_post_hook(lambda *_: _put_back(edited, model, masks))

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            generator = request.generator(0, epoch if self.redraw else 0)
            labels = random_labels(request.forget.labels, outputs_of(model), generator, over=self.over)
            data = request.forget.relabel(labels).join(request.retain)
            yield from data.batches(self.batch_size, request.seed_of(1, epoch))

        return descend(
            edited,
            request,
            epochs=self.epochs,
            batches=batches,
            loss=lambda batch: classification_loss(edited(batch[0]), batch[1]),
            optimizer=optimizer,
            method=self.card.name,
            batch_norm="train",
        )


def saliency(model: nn.Module, request: ForgetRequest, share: float) -> list[Tensor]:
    """Boolean masks, one per parameter: the `share` of all weights with the largest gradient on the forget set."""
    gradients = torch.cat([gradient.flatten() for gradient in mean_gradient(model, request.forget)])
    mask = ~smallest(gradients, len(gradients) - max(1, round(share * len(gradients))))
    parameters = list(model.parameters())
    parts = mask.split([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]


def _mask_gradients(edited: nn.Module, masks: list[Tensor]) -> None:
    for parameter, mask in zip(edited.parameters(), masks, strict=True):
        if parameter.grad is not None:
            parameter.grad.mul_(mask)


def _put_back(edited: nn.Module, original: nn.Module, masks: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, before, mask in zip(edited.parameters(), original.parameters(), masks, strict=True):
            parameter.copy_(torch.where(mask, parameter, before))
