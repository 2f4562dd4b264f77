"""SCRUB: a student that disobeys its teacher on the forget set and obeys it on the rest.

    min  alpha KL(teacher || student) + gamma CE(student)   over D_r
    max  KL(teacher || student)                             over D_f, in the first epochs

Kurmanji et al. 2023, section 3.1 and algorithm 1: each epoch is a max-pass over D_f (in the first
`max_epochs` only) and then a min-pass over D_r; divergences are multiplied by the square of the temperature.
Deviations: batch-norm statistics are held, since batches of the forget set alone would move them (the released code
trains in train mode); the learning rate falls once, after the last max-pass, where the released code also has its
first fall; gradients are clipped, since the divergence has no ceiling (the released code has a clip, commented out).
SCRUB+R, which rewinds to the epoch whose forget error fits a reference, is not included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._distillation import clip_gradients, divergence, teacher_of
from forgetbench.methods._training import descend, editable
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("scrub")
@dataclass(frozen=True, kw_only=True)
class Scrub(Method):
    """Alternate away from the teacher on the forget set and toward it on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="scrub",
        title="A student that disobeys its teacher on the forget set and obeys it on the retain set",
        papers=("kurmanji2023toward",),
        family="distillation",
        needs=("forget", "retain"),
        known_limitations="Balance: the divergence is unbounded, and the number of max-passes needs tuning per task.",
    )

    epochs: int = param(5, ge=1, paper_default=10, search=(2, 8), help="Passes over the retain set.")
    max_epochs: int = param(
        3, ge=0, search=(1, 5), help="Epochs, from the first, that begin with a pass over the forget set."
    )
    lr: float = param(0.005, gt=0, paper_default=5e-4, search=(5e-4, 1e-1), help="Learning rate.")
    decay: float = param(0.1, gt=0, le=1, help="Factor of the learning rate after the last max-pass.")
    alpha: float = param(0.5, ge=0, help="Weight of the divergence on the retain set.")
    gamma: float = param(1.0, ge=0, help="Weight of the classification loss on the retain set.")
    temperature: float = param(2.0, gt=0, paper_default=4.0, help="Temperature of the divergences.")
    clip: float = param(1.0, gt=0, help="Largest norm of a gradient.")
    forget_batch_size: int = param(16, ge=1, paper_default=512, help="Forget examples per max-step.")
    batch_size: int = param(64, ge=2, paper_default=128, help="Retain examples per min-step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """The student; the optimizer holds its weights, and the teacher's cannot move."""
        teacher, student = teacher_of(model), editable(model)
        optimizer = make_optimizer(student.parameters(), "sgd", self.lr, self.momentum, self.weight_decay)
        optimizer.register_step_pre_hook(lambda *_: clip_gradients(student, self.clip))

        def batches(epoch: int) -> Iterator[tuple[bool, Tensor, Tensor]]:
            if epoch < self.max_epochs:
                for images, labels in request.forget.batches(self.forget_batch_size, request.seed_of(0, epoch)):
                    yield True, images, labels
            for images, labels in request.retain.batches(self.batch_size, request.seed_of(1, epoch)):
                yield False, images, labels

        def loss(batch: tuple[bool, Tensor, Tensor]) -> Tensor:
            maximize, images, labels = batch
            with torch.no_grad():
                wanted = teacher(images)
            logits = student(images)
            apart = self.temperature**2 * divergence(
                wanted, logits, attributes=request.retain.attributes, temperature=self.temperature
            )
            if maximize:
                return -apart.mean()
            return self.alpha * apart.mean() + self.gamma * classification_loss(logits, labels)

        def slower(epoch: int) -> bool:
            if epoch + 1 == self.max_epochs:
                for group in optimizer.param_groups:
                    group["lr"] *= self.decay
            return False

        return descend(
            student,
            request,
            epochs=self.epochs,
            batches=batches,
            loss=loss,
            optimizer=optimizer,
            method=self.card.name,
            after_epoch=slower,
        )
