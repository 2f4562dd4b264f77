"""fanchuan: forget by a uniform answer, then by contrast with retained images, in turns with the retain set.

    once           min KL(uniform || p(x_f)), one pass over D_f
    e times        min mean of -log softmax(f(x_f) f(x_r)^T / tau) over pairs, f(x_r) constant, one pass over D_f
                   min CE(D_r), one pass over D_r

By the team fanchuan, second on the board of the NeurIPS 2023 challenge (some write-ups count it first); "FCS" in Cadet
et al. 2024. Each row of the softmax is a forgotten image and runs over a batch of retained ones: the loss is least
where an image is as near to all of them. The rate of the forget rounds falls by a cosine over all of them. Deviations:
batch-norm statistics are held in the rounds of the forget set, which train in train mode as released; the retain rate
is as given, where the released code multiplies it by batch_size / 64; the recipe's augmentation is not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._distillation import divergence
from forgetbench.methods._training import descend, editable, endless
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param
from forgetbench.training import classification_loss, make_optimizer

Batch = tuple[Tensor, Tensor]


def contrast(forgotten: Tensor, retained: Tensor, temperature: float) -> Tensor:
    """Mean of -log softmax of the products of logits (F, K) and (R, K), the softmax being over retained images."""
    return -(forgotten @ retained.T / temperature).log_softmax(1).mean()


@methods.register("fanchuan")
@dataclass(frozen=True, kw_only=True)
class Fanchuan(Method):
    """Forget by a uniform answer and by contrast, in turns with training on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="fanchuan",
        title="Uniform answers and contrast on the forget set, in turns with training on the retain set",
        papers=("fanchuan2023unlearning",),
        family="distillation",
        needs=("forget", "retain"),
        known_limitations="Balance of three learning rates: the last pass must repair what the first one damages.",
    )

    epochs: int = param(5, ge=1, paper_default=8, search=(2, 8), help="Turns of a forget round and a retain round.")
    uniform_lr: float = param(0.005, gt=0, search=(5e-4, 2e-2), help="Learning rate of the first pass.")
    forget_lr: float = param(
        1e-3, gt=0, paper_default=3e-4, search=(1e-4, 1e-2), help="Highest learning rate of the forget rounds."
    )
    lr: float = param(0.01, gt=0, paper_default=0.004, search=(1e-3, 3e-2), help="Learning rate of the retain rounds.")
    temperature: float = param(1.15, gt=0, help="Temperature of the contrast.")
    forget_batch_size: int = param(64, ge=1, help="Forget examples per step.")
    batch_size: int = param(64, ge=2, paper_default=256, help="Retain examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, paper_default=0.01, help="Weight decay of the retain rounds.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model after all rounds."""
        edited = editable(model)
        self._make_uniform(edited, request)
        kept = endless(request.retain, self.batch_size, request, 1)
        forgetting = make_optimizer(edited.parameters(), "sgd", self.forget_lr, self.momentum)
        keeping = make_optimizer(edited.parameters(), "sgd", self.lr, self.momentum, self.weight_decay)

        def pairs(turn: int) -> Iterator[Batch]:
            for images, _ in request.forget.batches(self.forget_batch_size, request.seed_of(2, turn)):
                yield images, next(kept)[0]

        def apart(batch: Batch) -> Tensor:
            with torch.no_grad():
                others = edited(batch[1])
            return contrast(edited(batch[0]), others, self.temperature)

        def retained(turn: int) -> Iterator[Batch]:
            yield from request.retain.batches(self.batch_size, request.seed_of(3, turn))

        def surprise(batch: Batch) -> Tensor:
            return classification_loss(edited(batch[0]), batch[1])

        for turn in range(self.epochs):
            for group in forgetting.param_groups:
                group["lr"] = self.forget_lr * 0.5 * (1 + math.cos(math.pi * turn / self.epochs))
            self._round(edited, request, "forget", turn, pairs, apart, forgetting)
            self._round(edited, request, "retain", turn, retained, surprise, keeping)
        return edited

    def _round(
        self,
        edited: nn.Module,
        request: ForgetRequest,
        kind: str,
        turn: int,
        batches: Callable[[int], Iterator[Batch]],
        loss: Callable[[Batch], Tensor],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        descend(
            edited,
            request,
            epochs=1,
            batches=lambda _: batches(turn),
            loss=loss,
            optimizer=optimizer,
            method=f"{self.card.name}, {kind} round {turn + 1},",
            batch_norm="train" if kind == "retain" else "eval",
        )

    def _make_uniform(self, edited: nn.Module, request: ForgetRequest) -> None:
        def loss(batch: Batch) -> Tensor:
            logits = edited(batch[0])
            return divergence(torch.zeros_like(logits), logits, attributes=request.forget.attributes).mean()

        descend(
            edited,
            request,
            epochs=1,
            batches=lambda _: request.forget.batches(self.forget_batch_size, request.seed_of(0)),
            loss=loss,
            optimizer=make_optimizer(edited.parameters(), "sgd", self.uniform_lr, self.momentum),
            method=self.card.name,
        )
