"""CF-k: let the last k blocks forget, by training them on the retain set while all before them is frozen.

    min CE(D_r)  over the parameters of the last k blocks and the head

Goel et al. 2022, who count layers; we count the network's blocks (a convolution, a residual block, a
transformer block) and train the head, and any normalization between it and the last block, always. Batch-norm
statistics of frozen blocks are frozen too; in the code of Choi and Na 2023, which freezes weights alone, they move.
The learning rate falls by a cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.errors import UsageError
from forgetbench.methods import methods
from forgetbench.methods._finetuning import Repair
from forgetbench.methods._training import editable
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param


def last_parts(network: nn.Module, k: int, method: str) -> list[str]:
    """Names of the parameters and buffers of the last k blocks and of all that comes behind them.

    Raises:
        UsageError: The network has fewer blocks.
    """
    blocks: list[nn.Module] = network.blocks  # type: ignore[assignment]
    if k > len(blocks):
        raise UsageError(f"{method}: k must be at most {len(blocks)}, the number of the network's blocks, not {k}")
    owners = {id(module): name for name, module in network.named_modules()}
    kept = tuple(f"{owners[id(block)]}." for block in blocks[: len(blocks) - k])
    names = list(network.state_dict())
    if not kept:  # every block, but not the stem before them
        kept_until = next(place for place, name in enumerate(names) if name.startswith(f"{owners[id(blocks[0])]}."))
        return names[kept_until:]
    return names[1 + max(place for place, name in enumerate(names) if name.startswith(kept)) :]


@methods.register("cf-k")
@dataclass(frozen=True, kw_only=True)
class CFK(Method):
    """Train the last k blocks and the head on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="cf-k",
        title="Trains the last k blocks and the head on the retain set",
        papers=("goel2022toward",),
        family="fine-tuning",
        needs=("retain",),
        known_limitations="Information in frozen blocks, and memorized examples, as with fine-tuning.",
    )

    k: int = param(
        2,
        ge=0,
        paper_default=10,
        search=(0, 3),
        help="How many of the last blocks are trained, with the head.",
    )
    epochs: int = param(5, ge=1, search=(2, 10), help="Passes over the retain set.")
    lr: float = param(0.02, gt=0, paper_default=0.01, search=(1e-3, 2e-1), help="Highest learning rate.")
    batch_size: int = param(128, ge=2, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")

    def prepare(self, network: nn.Module, request: ForgetRequest, trained: list[str]) -> None:
        """What happens to the parts that will be trained, before they are."""

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model whose last parts were trained further."""
        edited = editable(model)
        trained = last_parts(edited, self.k, self.card.name)
        self.prepare(edited, request, trained)
        for name, parameter in edited.named_parameters():
            parameter.requires_grad_(name in trained)
        frozen = [module for name, module in edited.named_modules() if not any(t.startswith(name) for t in trained)]
        repair = Repair(
            method=self.card.name,
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
        return repair.run(edited, request, still=frozen).requires_grad_(requires_grad=True)
