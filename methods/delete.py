"""DELETE: distil the original with the label's logit masked out, so that the other classes keep their proportions.

    min KL(p_o(. | not y) || p(x))  over D_f,  p_o(. | not y) = softmax of the original's logits with that of y at -inf

Zhou et al. 2025 (mask distillation): the target holds nothing of class y, and of
the others what the original saw in the image. No retained example is read. Deviation: batch-norm statistics are held
(the released code lets them move, with `disable_bn` to hold them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.methods import methods
from forgetbench.methods._distillation import teacher_of
from forgetbench.methods._training import descend, editable
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param
from forgetbench.training import make_optimizer


def masked_target(logits: Tensor, labels: Tensor) -> Tensor:
    """Probabilities (B, K) of the classes other than the label, in the proportions of the logits (B, K)."""
    return logits.float().scatter(1, labels[:, None], float("-inf")).softmax(1)


@methods.register("delete")
@dataclass(frozen=True, kw_only=True)
class Delete(Method):
    """Distil the original's answers on the forget set with the label's logit masked out."""

    card: ClassVar[MethodCard] = MethodCard(
        name="delete",
        title="Distils the original's answers on the forget set with the label masked out",
        papers=("zhou2025decoupled",),
        family="distillation",
        needs=("forget",),
        attributes=False,
        known_limitations="Single examples of retained classes: a retrained model is still right on most of them.",
    )

    epochs: int = param(10, ge=1, paper_default=20, search=(3, 20), help="Passes over the forget set.")
    lr: float = param(1e-4, gt=0, paper_default=1e-3, search=(1e-5, 1e-2), help="Learning rate.")
    batch_size: int = param(64, ge=1, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, distilled."""
        teacher, edited = teacher_of(model), editable(model)

        def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
            images, labels = batch
            with torch.no_grad():
                target = masked_target(teacher(images), labels)
            # where the target is zero so is its term: functional.kl_div takes 0 log 0 as 0
            return functional.kl_div(edited(images).float().log_softmax(1), target, reduction="batchmean")

        return descend(
            edited,
            request,
            epochs=self.epochs,
            batches=lambda epoch: request.forget.batches(self.batch_size, request.seed_of(epoch)),
            loss=loss,
            optimizer=make_optimizer(edited.parameters(), "sgd", self.lr, self.momentum),
            method=self.card.name,
        )
