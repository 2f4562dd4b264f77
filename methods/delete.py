"""DELETE: distill the original with the label's logit masked, so that the other classes keep their proportions.

    min KL(p_o(. | not y) || p(x)) over D_f
    p_o(. | not y) = softmax of the original's logits with that of y at -inf

Zhou et al. 2025 (mask distillation): the target holds nothing of class y, and the original's relative probabilities of
the other classes. No retained example is read. Deviations: batch-norm statistics are held fixed (in the released code
they move, except when one class of Tiny ImageNet is forgotten: `batch_norm=train`), and images are not augmented
(`augment=True`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.methods import methods
from forgetbench.methods._distillation import frozen_copy, full_precision
from forgetbench.methods._training import augment_option, augmentation, batch_norm_option, clone_model, train_loop
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import make_optimizer


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

    epochs: Duration = param(
        "5steps", ge=1, paper_default=20, search=("3steps", "40steps"), help="Passes over the forget set."
    )
    lr: Rate = param("0.002x", gt=0, paper_default=1e-4, search=("0.0002x", "0.2x"), help="Learning rate.")
    batch_size: int = param(64, ge=1, paper_default=128, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    augment: bool = augment_option(False, paper_default=True)
    batch_norm: str = batch_norm_option("eval", paper_default="train", retain=False)

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """The student, which starts as a copy of the original."""
        teacher, student = frozen_copy(model), clone_model(model)
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.forget), self.batch_size)
        optimizer = make_optimizer(student.parameters(), "sgd", lr, self.momentum)
        with train_loop(student, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                batches = request.forget.batches(
                    self.batch_size, request.derive_seed(epoch), *augmentation(request, augment=self.augment)
                )
                for images, labels in batches:
                    with loop.autocast():
                        with torch.no_grad():
                            target = masked_probabilities(teacher(images), labels)
                        log_probabilities = full_precision(student(images)).log_softmax(1)
                        # kl_div takes 0 log 0 as 0, which is the term of the masked class
                        loss = functional.kl_div(log_probabilities, target, reduction="batchmean")
                    loop.step(loss)
        return student


def masked_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Probabilities (B, K) of the classes other than the label, from logits (B, K)."""
    return full_precision(logits).scatter(1, labels[:, None], float("-inf")).softmax(1)
