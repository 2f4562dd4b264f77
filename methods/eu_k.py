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

from forgetbench.methods.base import ForgetRequest, MethodCard, param
from forgetbench.methods.cf_k import BIBTEX, CFK


@dataclass(frozen=True, kw_only=True)
class EUK(CFK):
    """Initialize the last k blocks and the head anew and train them on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="eu-k",
        title="Initializes the last k blocks and the head anew and trains them on the retain set",
        authors=CFK.card.authors,
        year=2022,
        venue="arXiv",
        link="https://arxiv.org/abs/2201.06640",
        bibtex=BIBTEX,
        family="re-initialization",
        needs=frozenset({"retain"}),
        fails_at="what the frozen blocks hold: features that the forget set has shaped stay",
    )

    k: int = param(
        1,
        low=0,
        authors=10,
        search=(0, 3),
        help="Blocks, counted from the last, that are trained anew beside the head.",
    )
    epochs: int = param(10, low=1, search=(4, 15), help="Passes over the retain set.")
    lr: float = param(0.05, above=0, authors=0.01, search=(5e-3, 0.2), help="Highest learning rate.")

    def prepare(self, network: nn.Module, request: ForgetRequest, trained: list[str]) -> None:
        """Give the parts that will be trained fresh initial values."""
        fresh = request.fresh_network().state_dict()
        network.load_state_dict({name: fresh[name] for name in trained}, strict=False)
