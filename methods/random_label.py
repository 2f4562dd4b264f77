"""Random labels: train the forget set on wrong labels, together with correctly labeled examples of the retain set.

    min CE(f(x), y') over D_f joined with CE(D_r),   y' uniform on the classes other than y

Graves et al. 2021; Zhang, Choshen and Andreas 2024, section 3, who train on random labels alone and draw from all
classes (`retain=0`). By default y' is drawn once per seed and a step holds three retained examples per forget example,
so that the cost follows the size of the forget set. The baseline of this name in the released code of Fan et al. 2024
draws labels from all classes in every epoch (`label_space="all", resample=True`) and augments images (`augment=True`);
an epoch is a pass over D_f and then one over D_r for CIFAR-10 and SVHN (`passes="separate"`), or one over both together
for CIFAR-100 (`passes="joined"`). The released code of Zhao et al. 2024 draws y' modulo the number of forgotten
classes, a bug that is not reproduced. Batch-norm statistics move, and are estimated again at the end, only if retained
examples are used, unless `batch_norm` says otherwise. On a network of 166 weights, runs with the values of Fan et al.
equal theirs to rounding; one pass over both sets instead of two differs by 0.4 of the move, retained examples in each
step by 0.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._training import (
    augment_option,
    augmentation,
    batch_norm_option,
    clone_model,
    cycle,
    n_outputs,
    random_labels,
    train_loop,
)
from forgetbench.methods.base import Duration, Examples, ForgetRequest, Method, MethodCard, Rate, param
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

    epochs: Duration = param(
        "20steps", ge=1, paper_default=10, search=("3steps", "40steps"), help="Passes over the forget set."
    )
    lr: Rate = param("0.05x", gt=0, paper_default=0.01, search=("0.02x", "2x"), help="Learning rate.")
    batch_size: int = param(64, ge=2, paper_default=256, help="Forget examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")
    retain: int = param(3, ge=0, paper_default=0, help="Retained examples per forget example in a step; 0 = none.")
    passes: str = param(
        "step",
        choices=("step", "joined", "separate"),
        help="Where retained examples are: `retain` in each step; all with D_f in one pass; or all after it.",
    )
    augment: bool = augment_option(False)
    label_space: str = param(
        "wrong",
        choices=("wrong", "all"),
        aliases=("over",),
        renamed_values={"other": "wrong"},
        help="Classes to draw labels from.",
    )
    resample: bool = param(False, aliases=("redraw",), help="Whether labels are drawn again in each epoch.")
    batch_norm: str | None = batch_norm_option(None, note="(None: recalibrate with retained examples, else eval)")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, trained on random labels."""
        network = clone_model(model)
        examples = len(request.forget) + (0 if self.passes == "step" else len(request.retain))
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, examples, self.batch_size)
        optimizer = make_optimizer(network.parameters(), "sgd", lr, self.momentum, self.weight_decay)
        augment = augmentation(request, augment=self.augment)
        retain_batch_size = self.retain * min(self.batch_size, len(request.forget))
        in_steps = self.passes == "step" and self.retain > 0
        others = cycle(request.retain, retain_batch_size, request, 1, augment=self.augment) if in_steps else None
        batch_norm = self.batch_norm or ("recalibrate" if self.retain or self.passes != "step" else "eval")
        with train_loop(network, request, optimizer, self.card.name, batch_norm=batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                data = self.data(request, n_outputs(network), epoch)
                for stream, part in enumerate(data, start=2):
                    for images, labels in part.batches(self.batch_size, request.derive_seed(stream, epoch), *augment):
                        if others is not None:
                            retain_images, retain_labels = next(others)
                            images = torch.cat([images, retain_images])  # noqa: PLW2901 - the batch grows
                            labels = torch.cat([labels, retain_labels])  # noqa: PLW2901
                        with loop.autocast():
                            loss = classification_loss(network(images), labels)
                        loop.step(loss)
        return network

    def data(self, request: ForgetRequest, classes: int, epoch: int) -> list[Examples]:
        """The sets that an epoch passes over, one after the other."""
        forget = self.relabeled(request, classes, epoch)
        if self.passes == "step":
            return [forget]
        return [forget.join(request.retain)] if self.passes == "joined" else [forget, request.retain]

    def relabeled(self, request: ForgetRequest, classes: int, epoch: int) -> Examples:
        """The forget set with the labels of an epoch."""
        generator = request.generator(0, epoch if self.resample else 0)
        labels = random_labels(request.forget.labels, classes, generator, label_space=self.label_space)
        return request.forget.relabel(labels)
