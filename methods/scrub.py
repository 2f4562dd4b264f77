"""SCRUB: a student that diverges from its teacher on the forget set and follows it on the retain set.

    max  KL(teacher || student)                             over D_f, in the first epochs
    min  alpha KL(teacher || student) + gamma CE(student)   over D_r

Kurmanji et al. 2023, section 3.1 and algorithm 1: each epoch is a max-pass over D_f (in the first `max_epochs` only)
followed by a min-pass over D_r; divergences are multiplied by the square of the temperature. Deviations: batch-norm
statistics are held fixed, because batches of the forget set alone would move them (the released code trains in train
mode); the learning rate falls once, after the last max-pass, where the released code has its first fall too; gradients
are clipped, because the divergence is unbounded (in the released code the clipping is commented out). SCRUB+R, which
rewinds to the epoch whose forget error matches a reference, is not included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._distillation import frozen_copy, kl_divergence
from forgetbench.methods._training import batch_norm_option, clone_model, set_lr, train_loop
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
    batch_norm: str = batch_norm_option("eval", paper_default="train")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """The student, which starts as a copy of the teacher."""
        teacher, student = frozen_copy(model), clone_model(model)
        optimizer = make_optimizer(student.parameters(), "sgd", self.lr, self.momentum, self.weight_decay)
        divergence = partial(kl_divergence, attributes=request.retain.attributes, temperature=self.temperature)
        with train_loop(student, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(self.epochs):
                if epoch < self.max_epochs:  # the max-pass
                    batches = request.forget.batches(self.forget_batch_size, request.derive_seed(0, epoch))
                    for images, _ in batches:
                        with loop.autocast():
                            with torch.no_grad():
                                teacher_logits = teacher(images)
                            kl = self.temperature**2 * divergence(teacher_logits, student(images))
                            loss = -kl.mean()
                        loop.backward(loss)
                        nn.utils.clip_grad_norm_(student.parameters(), self.clip)
                        optimizer.step()
                elif epoch == self.max_epochs > 0:
                    set_lr(optimizer, self.lr * self.decay)
                batches = request.retain.batches(self.batch_size, request.derive_seed(1, epoch))
                for images, labels in batches:  # the min-pass
                    with loop.autocast():
                        with torch.no_grad():
                            teacher_logits = teacher(images)
                        logits = student(images)
                        kl = self.temperature**2 * divergence(teacher_logits, logits)
                        loss = self.alpha * kl.mean() + self.gamma * classification_loss(logits, labels)
                    loop.backward(loss)
                    nn.utils.clip_grad_norm_(student.parameters(), self.clip)
                    optimizer.step()
        return student
