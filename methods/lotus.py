"""LoTUS: smooth what the model believes of the forget set, until it knows no more of it than of unseen images.

    min H(t, S(x)),  t = gumbel-softmax(T(x), tau) on D_f, and at tau -> 0 (one-hot) on a part of D_r
    tau = exp(alpha (accuracy of S on D_f - accuracy of T on validation)), anew in each epoch

Spartalis et al. 2025: the temperature rises with what is left to forget, and falls as the accuracy on D_f
comes down to that of the teacher T on unseen images, the bound; below it (by `tolerance`) the loop stops. Where a
whole class is forgotten, the bound is zero. AdamW and train mode as in the released code. Attributes are treated as
pairs of logits, an extension of ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._distillation import choices, teacher_of
from forgetbench.methods._training import accuracy, descend, editable
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param
from forgetbench.training import make_optimizer


def tempered(logits: Tensor, gumbel: Tensor, forgotten: Tensor, temperature: float) -> Tensor:
    """Targets (B, groups, choices): soft for forgotten examples (a bool (B,)), one-hot for the others.

    Args:
        logits: Of the teacher (B, groups, choices).
        gumbel: Standard Gumbel noise of that shape; zeros make it an ordinary softmax.
        forgotten: Which examples are to be forgotten.
        temperature: Of the forgotten ones.
    """
    noisy = logits + gumbel
    hard = nn.functional.one_hot(noisy.argmax(2), noisy.shape[2]).to(noisy.dtype)
    return torch.where(forgotten[:, None, None], (noisy / temperature).softmax(2), hard)


@methods.register("lotus")
@dataclass(frozen=True, kw_only=True)
class LoTUS(Method):
    """Distil the original with a temperature that follows what is left to forget."""

    card: ClassVar[MethodCard] = MethodCard(
        name="lotus",
        title="Distils the original, smoothed on the forget set up to a bound from unseen images",
        papers=("spartalis2025lotus",),
        family="distillation",
        needs=("forget", "retain", "validation"),
        known_limitations="Models that generalize: it stops at once if unseen images do as well as the forget set.",
    )

    epochs: int = param(10, ge=1, search=(3, 15), help="Most passes over the forget set and a part of the retain set.")
    lr: float = param(1e-3, gt=0, paper_default=1e-4, search=(1e-4, 1e-2), help="Learning rate of AdamW.")
    alpha: float = param(
        8.0, ge=0, search=(2.0, 32.0), help="How fast the temperature rises with the gap of accuracies; 2 to 32."
    )
    retain_share: float = param(0.3, gt=0, le=1, help="Share of the retain set that is used, drawn once.")
    gumbel: bool = param(True, help="Whether Gumbel noise is added to the teacher's logits.")
    tolerance: float = param(0.01, ge=0, help="How far below the bound the accuracy stops the loop.")
    batch_size: int = param(64, ge=2, paper_default=128, help="Examples per step.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of AdamW.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """The student."""
        teacher, student, forget = teacher_of(model), editable(model), request.forget
        order = torch.randperm(len(request.retain), generator=request.generator(0))
        taken = request.retain.take(order[: max(1, int(self.retain_share * len(order)))])
        # the labels are not used, so that they can say which examples are to be forgotten
        both = forget.relabel(torch.ones(len(forget), dtype=torch.int64)).join(
            taken.relabel(torch.zeros(len(taken), dtype=torch.int64))
        )
        bound = 0.0 if _whole_classes(request) else accuracy(teacher, request.validation)
        gap = accuracy(student, forget) - bound
        request.report("bound", bound)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for step, (images, flags) in enumerate(both.batches(self.batch_size, request.seed_of(1, epoch))):
                with torch.no_grad():
                    logits = choices(teacher(images).float(), attributes=forget.attributes)
                uniform = torch.rand(logits.shape, generator=request.generator(2, epoch, step)).clamp(1e-9, 1 - 1e-7)
                noise = -torch.log(-torch.log(uniform)) * float(self.gumbel)
                yield images, tempered(logits, noise.to(logits), flags.bool(), math.exp(self.alpha * gap)), flags

        def loss(batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            images, target, _ = batch
            given = choices(student(images).float(), attributes=forget.attributes).log_softmax(2)
            return -(target * given).sum((1, 2)).mean()

        def reached(epoch: int) -> bool:
            nonlocal gap
            gap = accuracy(student, forget) - bound
            request.report("epochs", epoch + 1)
            return gap <= -self.tolerance

        if gap <= -self.tolerance:
            return student.eval()
        return descend(
            student,
            request,
            epochs=self.epochs,
            batches=batches,
            loss=loss,
            optimizer=make_optimizer(student.parameters(), "adamw", self.lr, weight_decay=self.weight_decay),
            method=self.card.name,
            batch_norm="train",
            after_epoch=reached,
        )


def _whole_classes(request: ForgetRequest) -> bool:
    """Whether no class of the forget set is retained."""
    if request.forget.attributes:
        return False
    return not set(request.forget.labels.tolist()) & set(request.retain.labels.tolist())
