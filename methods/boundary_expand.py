"""Boundary expanding: teach the forget set a class that does not exist, and then drop that class.

    min CE(f'(x), K)  over D_f,  f' = the original with one output more, the K-th

Chen et al. 2023: forgotten images move into the space of a shadow class, away from all boundaries between
real ones. The new output begins with a zero bias and Xavier's normal weights, as in the released code, and is dropped
at the end. Deviation: batch-norm statistics are held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._training import descend, editable
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param
from forgetbench.training import classification_loss, make_optimizer


def widened(head: nn.Linear, generator: torch.Generator) -> nn.Linear:
    """A head with the outputs of this one and another behind them, drawn at random."""
    # skip_init draws nothing from torch's global generator
    wide: nn.Linear = nn.utils.skip_init(nn.Linear, head.in_features, head.out_features + 1, device=head.weight.device)
    deviation = (2 / (head.in_features + head.out_features + 1)) ** 0.5
    row = torch.randn(1, head.in_features, generator=generator) * deviation
    with torch.no_grad():
        wide.weight.copy_(torch.cat([head.weight, row.to(head.weight)]))
        wide.bias.copy_(torch.cat([head.bias, head.bias.new_zeros(1)]))
    return wide


def narrowed(wide: nn.Linear, head: nn.Linear) -> nn.Linear:
    """The head, with the weights of the wider one but for its last output."""
    with torch.no_grad():
        head.weight.copy_(wide.weight[:-1])
        head.bias.copy_(wide.bias[:-1])
    return head


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

    epochs: int = param(5, ge=1, paper_default=10, search=(2, 10), help="Passes over the forget set.")
    lr: float = param(1e-4, gt=0, paper_default=1e-5, search=(1e-6, 1e-2), help="Learning rate.")
    batch_size: int = param(64, ge=1, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, without the output that took the forget set."""
        edited = editable(model)
        head = cast("nn.Linear", edited.head)
        wide = widened(head, request.generator(0))
        edited.head = wide
        shadow = torch.full((len(request.forget),), head.out_features)
        relabelled = request.forget.relabel(shadow)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            yield from relabelled.batches(self.batch_size, request.seed_of(1, epoch))

        descend(
            edited,
            request,
            epochs=self.epochs,
            batches=batches,
            loss=lambda batch: classification_loss(edited(batch[0]), batch[1]),
            optimizer=make_optimizer(edited.parameters(), "sgd", self.lr, self.momentum),
            method=self.card.name,
        )
        edited.head = narrowed(wide, head)
        return edited.eval()
