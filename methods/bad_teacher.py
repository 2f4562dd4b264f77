"""Bad teaching: a student that learns from an incompetent teacher on the forget set, and from the original elsewhere.

    min  l KL(T_bad(x) || S(x)) + (1 - l) KL(T(x) || S(x)),  l = 1 on D_f and 0 on a part of D_r

Chundawat et al. 2023, where the bad teacher is a network that was never trained; the student starts as the
original. Deviations: the divergence is averaged over examples, where the released code divides by the number of
classes too, which Adam hardly notices; `fresh_network` of the request is the bad teacher. Batch-norm statistics move,
as in the released code: batches are a mixture of both sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._distillation import divergence, teacher_of
from forgetbench.methods._training import descend, editable
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param
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

    epochs: int = param(
        5, ge=1, paper_default=1, search=(1, 8), help="Passes over the forget set and a part of the retain set."
    )
    lr: float = param(5e-4, gt=0, paper_default=1e-4, search=(5e-5, 5e-3), help="Learning rate of Adam.")
    retain_share: float = param(0.3, gt=0, le=1, help="Share of the retain set that is used, drawn once.")
    temperature: float = param(1.0, gt=0, search=(0.5, 4.0), help="Temperature of the divergences.")
    batch_size: int = param(64, ge=2, paper_default=256, help="Examples per step.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """The student; neither teacher can move."""
        good, bad, student = teacher_of(model), teacher_of(request.fresh_network()), editable(model)
        forget = request.forget
        order = torch.randperm(len(request.retain), generator=request.generator(0))
        taken = request.retain.take(order[: max(1, int(self.retain_share * len(order)))])
        # the labels are not used, so that they can say which examples are to be forgotten
        both = forget.relabel(torch.ones(len(forget), dtype=torch.int64)).join(
            taken.relabel(torch.zeros(len(taken), dtype=torch.int64))
        )

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            yield from both.batches(self.batch_size, request.seed_of(1, epoch))

        def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
            images, forgotten = batch
            with torch.no_grad():
                wanted = torch.where(forgotten[:, None].bool(), bad(images), good(images))
            apart = divergence(wanted, student(images), attributes=forget.attributes, temperature=self.temperature)
            return apart.mean()

        return descend(
            student,
            request,
            epochs=self.epochs,
            batches=batches,
            loss=loss,
            optimizer=make_optimizer(student.parameters(), "adam", self.lr),
            method=self.card.name,
            batch_norm="train",
        )
