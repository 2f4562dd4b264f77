"""Amnesiac unlearning as it is usually implemented: train on everything, the forget set with random labels.

    min CE(f(x), y') over D_f joined with CE(f(x), y) over D_r,   y' uniform on the classes other than y

Graves et al. 2021, section 4.1 (unlearning by relabelling), in the form of Foster et al. 2024's code: labels drawn
once, Adam, three epochs over all examples. The second method of the paper, which subtracts recorded gradients, needs a
record of the training and is not this one. Batch-norm statistics move, as in training, and are estimated again at the
end, which that code does not do (`batch_norm=train`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._training import batch_norm_option, clone_model, n_outputs, random_labels, train_loop
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, param
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

    epochs: Duration = param(
        "0.12x", ge=1, paper_default=3, search=("0.04x", "0.25x"), help="Passes over all examples."
    )
    lr: Rate = param("0.5x", gt=0, paper_default=1e-4, search=("0.03x", "5x"), help="Learning rate of Adam.")
    batch_size: int = param(128, ge=2, help="Examples per step.")
    batch_norm: str = batch_norm_option("recalibrate", paper_default="train")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, trained on all examples."""
        network = clone_model(model)
        optimizer = make_optimizer(network.parameters(), "adam", request.resolve_lr(self.lr, "adam"))
        wrong_labels = random_labels(request.forget.labels, n_outputs(model), request.generator(0))
        data = request.forget.relabel(wrong_labels).join(request.retain)
        epochs = request.resolve_epochs(self.epochs, len(data), self.batch_size)
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                for images, labels in data.batches(self.batch_size, request.derive_seed(1, epoch)):
                    with loop.autocast():
                        loss = classification_loss(network(images), labels)
                    loop.step(loss)
        return network
