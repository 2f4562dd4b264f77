"""Random-label unlearning: teach wrong labels for the forget set, and the right ones for as much of the retain set.

    min CE(f(x), y') over D_f joined with CE(D_r), y' uniform on the classes other than y

Graves et al. 2021; Zhang, Choshen and Andreas 2024, section 3, who train on random labels alone and draw from all
classes (`retain=0`). By default y' is drawn once per seed and a step holds three retained examples per forget example,
so that the work follows the size of the forget set.
The released code of Fan et al. 2024 draws from all classes anew each epoch (`over="all", redraw=True`). The one of
Zhao et al. 2024 draws y' modulo the number of forgotten classes, a fault that we do not reproduce.
Batch-norm statistics move only if retained examples are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._training import descend, editable, endless, outputs_of, random_labels
from forgetbench.methods.base import Examples, ForgetRequest, Method, MethodCard, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("random-label")
@dataclass(frozen=True, kw_only=True)
class RandomLabel(Method):
    """Train on random wrong labels for the forget set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="random-label",
        title="Teaches random wrong labels for the forget set",
        papers=("zhang2024unforgettable", "graves2021amnesiac"),
        family="relabelling",
        needs=("forget", "retain"),
        known_limitations="Privacy: wrong answers reveal the forget set; and forgetting may not generalize.",
    )

    epochs: int = param(10, ge=1, search=(3, 15), help="Passes over the forget set.")
    lr: float = param(0.005, gt=0, paper_default=0.01, search=(1e-3, 1e-1), help="Learning rate.")
    batch_size: int = param(64, ge=2, paper_default=256, help="Forget examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")
    retain: int = param(3, ge=0, paper_default=0, help="Retained examples per forget example in a step; 0 = none.")
    over: str = param("other", choices=("other", "all"), help="Classes to draw labels from.")
    redraw: bool = param(False, help="Whether labels are drawn anew in each epoch.")

    def relabelled(self, model: nn.Module, request: ForgetRequest, epoch: int) -> Examples:
        """The forget set with the labels that an epoch trains on."""
        generator = request.generator(0, epoch if self.redraw else 0)
        labels = random_labels(request.forget.labels, outputs_of(model), generator, over=self.over)
        return request.forget.relabel(labels)

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model that was taught otherwise."""
        edited = editable(model)
        together = min(self.batch_size, len(request.forget))
        kept = endless(request.retain, self.retain * together, request, 1) if self.retain else None

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for images, labels in self.relabelled(model, request, epoch).batches(
                self.batch_size, request.seed_of(2, epoch)
            ):
                if kept is None:
                    yield images, labels
                else:
                    kept_images, kept_labels = next(kept)
                    yield torch.cat([images, kept_images]), torch.cat([labels, kept_labels])

        return descend(
            edited,
            request,
            epochs=self.epochs,
            batches=batches,
            loss=lambda batch: classification_loss(edited(batch[0]), batch[1]),
            optimizer=make_optimizer(edited.parameters(), "sgd", self.lr, self.momentum, self.weight_decay),
            method=self.card.name,
            batch_norm="train" if self.retain else "eval",
        )
