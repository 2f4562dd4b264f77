"""Loss-free SSD: dampening by how much a weight moves the length of the output; no labels are read.

    Omega_i = mean over x of |d ||f(x)||^2 / d theta_i|,   theta_i *= min(lambda Omega_D / Omega_f, 1)
    where Omega_f > alpha Omega_D

Foster, Schoepf and Brintrup, "Loss-Free Machine Unlearning", 2024 (tiny paper), equation 3. Selection and shrinking
are SSD's. As there, `importance="per-sample"` (default) takes absolute values example by example, which bounds
Omega_f / Omega_D by |D|/|D_f|; `"batch"` is the authors' code, the absolute gradient of a batch's mean, averaged over
batches in class order. Attributes: f(x) is the vector of their logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._dampening import class_sorted, dampen, warn_of_bound, weighted
from forgetbench.methods._fisher import Importance, absolute_batch_means, per_example
from forgetbench.methods._training import editable
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param


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
        4.0, gt=0, paper_default=10.0, search=(1.0, 50.0), help="How many times more a weight must matter for D_f."
    )
    dampening: float = param(1.0, gt=0, search=(0.1, 1.0), help="lambda: strength of the shrinking.")
    importance: str = param(
        "per-sample",
        choices=("per-sample", "batch"),
        paper_default="batch",
        help="Per example, or per batch as published.",
    )
    batch_size: int = param(64, ge=1, help="Examples per backward; shapes the result with importance=batch only.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, dampened."""
        edited = editable(model)
        forget, everything = self._importances(edited, request)
        dampen(edited, forget, everything, self.alpha, self.dampening, request)
        return edited.eval()

    def _importances(self, model: nn.Module, request: ForgetRequest) -> tuple[Importance, Importance]:
        if self.importance == "batch":
            data = class_sorted(request.retain).join(request.forget)
            forget = absolute_batch_means(model, request.forget.batches(self.batch_size), squared_length)
            return forget, absolute_batch_means(model, data.batches(self.batch_size), squared_length)
        warn_of_bound(self.alpha, request)
        forget, retain = (
            per_example(model, examples, each_loss=squared_length, power="absolute", batch_size=self.batch_size)
            for examples in (request.forget, request.retain)
        )
        return forget, weighted(forget, retain, request)


def squared_length(logits: Tensor, _: Tensor) -> Tensor:
    """Squared Euclidean length of each example's logits (B,)."""
    return logits.square().sum(1)
