"""Loss-free SSD: shrink the weights that change the norm of the outputs on the forget set most; no labels are read.

    Omega_i = mean over x of |d ||f(x)||^2 / d theta_i|
    theta_i *= min(lambda Omega_D / Omega_f, 1)  where  Omega_f > alpha Omega_D

Foster, Schoepf and Brintrup, "Loss-Free Machine Unlearning", 2024 (tiny paper), equation 3; selection and shrinking as
in ssd.py. With `importance="per-sample"` (the default, as in the paper) absolute values are taken per example, which
bounds Omega_f / Omega_D by |D|/|D_f|. With `importance="batch"` (as in the authors' code) they are taken of the
gradient of a batch's mean, and averaged over batches, whose order is that of ssd.py. For attributes f(x) is the vector
of their logits. On a network of 166 weights, runs per batch equal the released ones to rounding; those per example
differ by 0.9 to 1.0 of the move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._dampening import ORDERS, average_importances, in_order, warn_if_alpha_too_large
from forgetbench.methods._fisher import importance_per_batch, importance_per_example
from forgetbench.methods._training import clone_model
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param
from forgetbench.methods.ssd import dampen


@methods.register("lfssd")
@dataclass(frozen=True, kw_only=True)
class LFSSD(Method):
    """Dampen the parameters that move the outputs on the forget set most."""

    card: ClassVar[MethodCard] = MethodCard(
        name="lfssd",
        title="Loss-free SSD: dampens by the gradient of the squared output norm, without labels",
        papers=("foster2024loss",),
        family="damping",
        needs=("forget", "retain"),
        random=False,
        known_limitations="Threshold, as for SSD; and single examples of retained classes.",
    )

    alpha: float = param(
        3.0, gt=0, paper_default=10.0, search=(1.0, 50.0), help="How many times more a weight must matter for D_f."
    )
    dampening: float = param(1.0, gt=0, search=(0.1, 1.0), help="lambda: strength of the shrinking.")
    importance: str = param(
        "per-sample",
        choices=("per-sample", "batch"),
        paper_default="batch",
        help="Per example, or per batch as published.",
    )
    order: str = param("auto", choices=ORDERS, help="Order of the data, for importance=batch.")
    batch_size: int = param(64, ge=1, help="Examples per backward; shapes the result with importance=batch only.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model with dampened weights."""
        network = clone_model(model)
        if self.importance == "batch":
            forget_data, retain_data = in_order(request, self.order)
            bfloat16 = request.recipe.bfloat16
            forget, everything = (
                importance_per_batch(
                    network, part.batches(self.batch_size), squared_norms, "absolute", bfloat16=bfloat16
                )
                for part in (forget_data, retain_data.join(forget_data))
            )
        else:
            warn_if_alpha_too_large(self.alpha, request)
            forget, retain = (
                importance_per_example(network, part, squared_norms, "absolute", batch_size=self.batch_size)
                for part in (request.forget, request.retain)
            )
            everything = average_importances(forget, retain, request)
        dampen(network, forget, everything, self.alpha, self.dampening, request)
        return network.eval()


def squared_norms(logits: Tensor, _: Tensor) -> Tensor:
    """Squared Euclidean norm of each example's logits (B,)."""
    return logits.square().sum(1)
