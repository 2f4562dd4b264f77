"""EU-k: exact unlearning of the last k blocks, which are initialized anew and trained on the retain set.

    min CE(D_r)  over the parameters of the last k blocks and the head, from fresh initial values

Goel et al. 2022: those parts hold no trace of the forget set, the frozen ones before them all of theirs.
Fresh values, of batch-norm statistics too, come from the request's fresh network. For what counts as a block see
cf_k.py. The authors train for as long as the original was; so may you, with `epochs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods import methods
from forgetbench.methods.base import ForgetRequest, MethodCard, param
from forgetbench.methods.cf_k import CFK


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
    epochs: int = param(10, ge=1, search=(4, 15), help="Passes over the retain set.")
    lr: float = param(0.05, gt=0, paper_default=0.01, search=(5e-3, 0.2), help="Highest learning rate.")

    def prepare(self, network: nn.Module, request: ForgetRequest, trained: list[str]) -> None:
        """Give the parts that will be trained fresh initial values."""
        fresh = request.fresh_network().state_dict()
        network.load_state_dict({name: fresh[name] for name in trained}, strict=False)
