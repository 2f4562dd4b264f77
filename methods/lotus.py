"""LoTUS: smooth the teacher's predictions on the forget set, until the student knows it no better than unseen images.

    min H(t, S(x)),   t = gumbel-softmax(T(x), tau) on D_f, and with tau -> 0 (one-hot) on a part of D_r
    tau = exp(alpha (accuracy of S on D_f - accuracy of T on validation)), updated after each epoch

Spartalis et al. 2025: the temperature rises with what is left to forget, and falls as the accuracy on D_f approaches
the bound, the accuracy of the teacher T on unseen images; below it (by `tolerance`) training stops. If whole classes
are forgotten, the bound is zero. AdamW and train mode as in the released code. Deviation: attributes are treated as
pairs of logits, which extends the method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._distillation import as_choices, frozen_copy
from forgetbench.methods._training import accuracy, batch_norm_option, clone_model, finish_batch_norm, train_loop
from forgetbench.methods.bad_teacher import forget_and_part_of_retain
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import make_optimizer


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

    epochs: Duration = param(
        "0.4x",
        ge=1,
        paper_default=10,
        search=("0.1x", "0.6x"),
        help="Most passes over the forget set and a part of the retain set.",
    )
    lr: Rate = param("1x", gt=0, paper_default=1e-4, search=("0.05x", "5x"), help="Learning rate of AdamW.")
    alpha: float = param(
        8.0, ge=0, search=(2.0, 32.0), help="How fast the temperature rises with the gap of accuracies; 2 to 32."
    )
    retain_ratio: float = param(
        0.3, gt=0, le=1, aliases=("retain_share",), help="Ratio of the retain set that is used, drawn once."
    )
    gumbel: bool = param(True, help="Whether Gumbel noise is added to the teacher's logits.")
    tolerance: float = param(0.01, ge=0, help="How far below the bound the accuracy stops the loop.")
    batch_size: int = param(64, ge=2, paper_default=128, help="Examples per step.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of AdamW.")
    batch_norm: str = batch_norm_option("recalibrate", paper_default="train")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """The student, which starts as a copy of the original."""
        teacher, student, attributes = frozen_copy(model), clone_model(model), request.forget.attributes
        optimizer = make_optimizer(
            student.parameters(), "adamw", request.resolve_lr(self.lr, "adamw"), weight_decay=self.weight_decay
        )
        data = forget_and_part_of_retain(request, self.retain_ratio)
        epochs = request.resolve_epochs(self.epochs, len(data), self.batch_size, "most epochs")
        bound = 0.0 if forgets_whole_classes(request) else accuracy(teacher, request.validation)
        gap = accuracy(student, request.forget) - bound
        request.log("bound", bound)
        if gap <= -self.tolerance:
            finish_batch_norm(student, request, self.batch_norm)
            return student.eval()
        with train_loop(student, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                batches = data.batches(self.batch_size, request.derive_seed(1, epoch))
                for step, (images, is_forget) in enumerate(batches):
                    with torch.no_grad():
                        teacher_logits = as_choices(teacher(images), attributes=attributes)
                    noise = gumbel_noise(teacher_logits, request.generator(2, epoch, step)) * float(self.gumbel)
                    target = soft_targets(teacher_logits, noise, is_forget.bool(), math.exp(self.alpha * gap))
                    with loop.autocast():
                        log_probabilities = as_choices(student(images), attributes=attributes).log_softmax(2)
                        loss = -(target * log_probabilities).sum(2).mean()
                    loop.step(loss)
                loop.check()
                gap = accuracy(student, request.forget) - bound
                request.log("epochs", epoch + 1)
                if gap <= -self.tolerance:
                    break
        return student


def gumbel_noise(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise of the logits' shape and type."""
    uniform = torch.rand(logits.shape, generator=generator).clamp(1e-9, 1 - 1e-7)
    return -torch.log(-torch.log(uniform)).to(logits)


def soft_targets(logits: Tensor, noise: Tensor, is_forget: Tensor, temperature: float) -> Tensor:
    """Targets (B, groups, choices): soft for the forget set, one-hot for the others.

    Args:
        logits: Logits of the teacher (B, groups, choices).
        noise: Gumbel noise of the same shape; zeros give an ordinary softmax.
        is_forget: Boolean (B,).
        temperature: Temperature of the soft targets.
    """
    noisy = logits + noise
    hard = nn.functional.one_hot(noisy.argmax(2), noisy.shape[2]).to(noisy.dtype)
    return torch.where(is_forget[:, None, None], (noisy / temperature).softmax(2), hard)


def forgets_whole_classes(request: ForgetRequest) -> bool:
    """Whether no class of the forget set is retained."""
    if request.forget.attributes:
        return False
    return not set(request.forget.labels.tolist()) & set(request.retain.labels.tolist())
