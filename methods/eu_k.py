"""EU-k: exact unlearning of the last k blocks, which are initialized anew and trained on the retain set.

    min CE(D_r) over the parameters of the last k blocks and the head, from new initial values

Goel et al. 2022: these blocks hold no information on the forget set, the frozen ones before them keep all of theirs.
New values, also of batch-norm statistics, come from the request's new network; the released code initializes only
convolutions and linear layers anew (`reset_batch_norm=False`), all of them from He's normal distribution. See cf_k.py
for what counts as a block, and for the other settings of the released code. The authors train for as long as the
original was trained; set `epochs` for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._training import clone_model
from forgetbench.methods.base import Duration, ForgetRequest, MethodCard, Rate, param
from forgetbench.methods.cf_k import CFK, last_block_names


@methods.register("eu-k")
@dataclass(frozen=True, kw_only=True)
class EUK(CFK):
    """Initialize the last k blocks and the head anew and train them on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="eu-k",
        title="Initializes the last k blocks and the head anew and trains them on the retain set",
        papers=("goel2022toward",),
        family="re-initialization",
        needs=("retain",),
        known_limitations="Features in the frozen blocks that the forget set has shaped.",
    )

    k: int = param(
        1,
        ge=0,
        paper_default=10,
        search=(0, 3),
        help="How many of the last blocks are trained anew, with the head.",
    )
    epochs: Duration = param(
        "0.4x", ge=1, paper_default=62, search=("0.15x", "0.6x"), help="Passes over the retain set."
    )
    lr: Rate = param("2x", gt=0, paper_default=0.1, search=("0.1x", "4x"), help="Highest learning rate.")
    reset_batch_norm: bool = param(
        True, paper_default=False, help="Whether batch-norm of these blocks starts anew, statistics included."
    )

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model whose last blocks are new, and trained on the retain set."""
        network = clone_model(model)
        names = last_block_names(network, self.k, self.card.name)
        reset = set(names) if self.reset_batch_norm else set(names) - batch_norm_names(network)
        new_values = request.new_network().state_dict()
        network.load_state_dict({name: new_values[name] for name in reset}, strict=False)
        del new_values  # frees their memory before the training
        return self.train_last_blocks(network, names, request)


def batch_norm_names(network: nn.Module) -> set[str]:
    """Names of the parameters and buffers of batch-norm."""
    layers = [layer for layer in network.named_modules() if isinstance(layer[1], nn.modules.batchnorm._BatchNorm)]
    return {f"{prefix}.{name}" for prefix, layer in layers for name in layer.state_dict()}
