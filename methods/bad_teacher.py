"""Bad teaching: a student that learns from an untrained teacher on the forget set, and from the original elsewhere.

    min  l KL(T_bad(x) || S(x)) + (1 - l) KL(T(x) || S(x)),   l = 1 on D_f and 0 on a part of D_r

Chundawat et al. 2023; the bad teacher is a network that was never trained (`new_network` of the request), and the
student starts as the original. Deviation: the divergence is averaged over examples, where the released code also
divides by the number of classes, which hardly matters to Adam (1e-3 of the move of the weights, on a small network).
Batch-norm statistics move, as in the released code, because batches are a mixture of both sets, and are estimated again
at the end (`batch_norm=train` as released).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._distillation import frozen_copy, kl_divergence
from forgetbench.methods._training import batch_norm_option, clone_model, train_loop
from forgetbench.methods.base import Duration, Examples, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import make_optimizer


@methods.register("bad-teacher")
@dataclass(frozen=True, kw_only=True)
class BadTeacher(Method):
    """Learn from a random network on the forget set and from the original on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="bad-teacher",
        title="Distils a random network on the forget set and the original on the retain set",
        papers=("chundawat2023can",),
        family="distillation",
        needs=("forget", "retain"),
        known_limitations="Privacy: random answers, which no retrained model would give, reveal the forget set.",
    )

    epochs: Duration = param(
        "0.2x",
        ge=1,
        paper_default=1,
        search=("0.04x", "0.3x"),
        help="Passes over the forget set and a part of the retain set.",
    )
    lr: Rate = param("0.5x", gt=0, paper_default=1e-4, search=("0.03x", "5x"), help="Learning rate of Adam.")
    retain_ratio: float = param(
        0.3, gt=0, le=1, aliases=("retain_share",), help="Ratio of the retain set that is used, drawn once."
    )
    temperature: float = param(1.0, gt=0, search=(0.5, 4.0), help="Temperature of the divergences.")
    batch_size: int = param(64, ge=2, paper_default=256, help="Examples per step.")
    batch_norm: str = batch_norm_option("recalibrate", paper_default="train")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """The student; both teachers are frozen."""
        good_teacher, bad_teacher = frozen_copy(model), frozen_copy(request.new_network())
        student = clone_model(model)
        optimizer = make_optimizer(student.parameters(), "adam", request.resolve_lr(self.lr, "adam"))
        data = forget_and_part_of_retain(request, self.retain_ratio)
        epochs = request.resolve_epochs(self.epochs, len(data), self.batch_size)
        with train_loop(student, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                for images, is_forget in data.batches(self.batch_size, request.derive_seed(1, epoch)):
                    with loop.autocast():
                        with torch.no_grad():
                            teacher_logits = torch.where(
                                is_forget[:, None].bool(), bad_teacher(images), good_teacher(images)
                            )
                        kl = kl_divergence(
                            teacher_logits,
                            student(images),
                            attributes=request.forget.attributes,
                            temperature=self.temperature,
                        )
                        loss = kl.mean()
                    loop.step(loss)
        return student


def forget_and_part_of_retain(request: ForgetRequest, retain_ratio: float) -> Examples:
    """The forget set with labels 1 and a random part of the retain set with labels 0; the true labels are not used."""
    order = torch.randperm(len(request.retain), generator=request.generator(0))
    retain = request.retain.take(order[: max(1, int(retain_ratio * len(order)))])
    return request.forget.relabel(torch.ones(len(request.forget), dtype=torch.int64)).join(
        retain.relabel(torch.zeros(len(retain), dtype=torch.int64))
    )
