"""Amnesiac unlearning as it is usually implemented: random labels on the forget set, trained with all of the rest.

    min CE(f(x), y') over D_f joined with CE(f(x), y) over D_r, y' uniform on the classes other than y

Graves et al. 2021, section 4.1 (unlearning by relabelling), in the form of Foster et al. 2024's code: labels drawn
once, Adam, three epochs over everything. Their other method, replaying recorded gradients backwards, needs a record of
the training and is not this one. Batch-norm statistics move, as in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._training import descend, editable, outputs_of, random_labels
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("amnesiac")
@dataclass(frozen=True, kw_only=True)
class Amnesiac(Method):
    """Train on everything, the forget set under random labels."""

    card: ClassVar[MethodCard] = MethodCard(
        name="amnesiac",
        title="Trains on everything, the forget set under random wrong labels",
        papers=("graves2021amnesiac",),
        family="relabelling",
        needs=("forget", "retain"),
        known_limitations="Privacy: confident wrong answers reveal the forget set.",
    )

    epochs: int = param(3, ge=1, search=(1, 6), help="Passes over all examples.")
    lr: float = param(1e-3, gt=0, paper_default=1e-4, search=(1e-4, 1e-2), help="Learning rate of Adam.")
    batch_size: int = param(128, ge=2, help="Examples per step.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model that was taught otherwise."""
        edited = editable(model)
        labels = random_labels(request.forget.labels, outputs_of(model), request.generator(0))
        data = request.forget.relabel(labels).join(request.retain)
        return descend(
            edited,
            request,
            epochs=self.epochs,
            batches=lambda epoch: data.batches(self.batch_size, request.seed_of(1, epoch)),
            loss=lambda batch: classification_loss(edited(batch[0]), batch[1]),
            optimizer=make_optimizer(edited.parameters(), "adam", self.lr),
            method=self.card.name,
            batch_norm="train",
        )
