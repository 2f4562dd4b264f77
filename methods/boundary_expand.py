"""Boundary expanding: train the forget set on an additional class, and then remove that class.

    min CE(f'(x), K) over D_f,   f' = the original with one more output, the K-th

Chen et al. 2023: forgotten images move into the space of a shadow class, away from all boundaries between real classes.
The new output starts with zero bias and Xavier's normal weights, as in the released code, and is removed at the end.
Deviations: batch-norm statistics are held fixed (`batch_norm=train` as released); in the released code the very first
step is in eval mode, because the mode is set after its forward pass, which is not reproduced: 0.3 % of the move of the
weights after its 790 steps at rate 1e-5, on a small network. Fan et al. 2024 ran it without this fault, with weight
decay 5e-4 and without removing the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import nn

from forgetbench.errors import UsageError
from forgetbench.methods import methods
from forgetbench.methods._training import batch_norm_option, clone_model, train_loop
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("boundary-expand")
@dataclass(frozen=True, kw_only=True)
class BoundaryExpand(Method):
    """Train the forget set on a class of its own, which is dropped afterwards."""

    card: ClassVar[MethodCard] = MethodCard(
        name="boundary-expand",
        title="Teaches the forget set a class that does not exist, and drops that class",
        papers=("chen2023boundary",),
        family="relabelling",
        needs=("forget",),
        attributes=False,
        known_limitations="Erasing: without the extra output, the old outputs may answer as before.",
    )

    epochs: Duration = param(
        "5steps", ge=1, paper_default=10, search=("2steps", "20steps"), help="Passes over the forget set."
    )
    lr: Rate = param("0.0025x", gt=0, paper_default=1e-5, search=("0.0001x", "0.2x"), help="Learning rate.")
    batch_size: int = param(64, ge=1, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(0.0, ge=0, help="Weight decay of SGD.")
    batch_norm: str = batch_norm_option("eval", paper_default="train", retain=False)

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, without the output that learned the forget set."""
        network = clone_model(model)
        head = cast("nn.Linear", network.head)
        if head.bias is None:
            raise UsageError(f"{self.card.name} adds an output to a linear head; it does not apply to cosines.")
        wide_head = network.head = add_output(head, request.generator(0))
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.forget), self.batch_size)
        optimizer = make_optimizer(network.parameters(), "sgd", lr, self.momentum, self.weight_decay)
        relabeled = request.forget.relabel(torch.full((len(request.forget),), head.out_features))
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                for images, labels in relabeled.batches(self.batch_size, request.derive_seed(1, epoch)):
                    with loop.autocast():
                        loss = classification_loss(network(images), labels)
                    loop.step(loss)
        with torch.no_grad():
            head.weight.copy_(wide_head.weight[:-1])
            head.bias.copy_(wide_head.bias[:-1])
        network.head = head
        return network.eval()


def add_output(head: nn.Linear, generator: torch.Generator) -> nn.Linear:
    """A head with the outputs of the given one and one more, with random weights."""
    # skip_init draws nothing from torch's global generator
    sizes = head.in_features, head.out_features + 1
    wide: nn.Linear = nn.utils.skip_init(nn.Linear, *sizes, device=head.weight.device, dtype=head.weight.dtype)
    deviation = (2 / (head.in_features + head.out_features + 1)) ** 0.5
    row = torch.randn(1, head.in_features, generator=generator) * deviation
    with torch.no_grad():
        wide.weight.copy_(torch.cat([head.weight, row.to(head.weight)]))
        wide.bias.copy_(torch.cat([head.bias, head.bias.new_zeros(1)]))
    return wide
