"""Selective Synaptic Dampening: shrink the weights that matter more for the forget set than for all data.

    theta_i *= min(lambda I_D,i / I_f,i, 1)   where   I_f,i > alpha I_D,i

Foster, Schoepf and Brintrup 2024, equations 3 to 5; I is the diagonal of the empirical Fisher information (true
labels), of D_f and of all training data D. Eval mode, no augmentation, running statistics untouched.

`importance="per-sample"` (default) is the paper's definition, the mean of squared per-example gradients. Since D holds
D_f, I_f/I_D is then at most |D|/|D_f|, so alpha at or above that does nothing, of which the method warns. I_D is the
weighted mean of I_f and I_r, which saves a pass over D_f.
`importance="batch"` is the authors' code: the square of a batch's mean gradient, averaged over batches, D being the
retain set in class order followed by the forget set. It depends on batch size and order, and its alpha is another.
The authors' Pins settings (alpha 50, lambda 0.1) are a comment in their code; 10 and 1 are what it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._dampening import class_sorted, dampen, warn_of_bound, weighted
from forgetbench.methods._fisher import Importance, per_example, squared_batch_means
from forgetbench.methods._training import editable
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param


@methods.register("ssd")
@dataclass(frozen=True, kw_only=True)
class SSD(Method):
    """Dampen the parameters that matter most for the forget set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="ssd",
        title="Selective Synaptic Dampening: shrinks the weights that matter most for the forget set",
        papers=("foster2024fast",),
        family="damping",
        needs=("forget", "retain"),
        random=False,
        known_limitations="Threshold: too small an alpha destroys the model, a slightly larger one does nothing.",
    )

    alpha: float = param(
        6.0, gt=0, paper_default=10.0, search=(1.0, 50.0), help="How many times more a weight must matter for D_f."
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
            forget = squared_batch_means(model, request.forget.batches(self.batch_size))
            return forget, squared_batch_means(model, data.batches(self.batch_size))
        warn_of_bound(self.alpha, request)
        forget = per_example(model, request.forget, batch_size=self.batch_size)
        retain = per_example(model, request.retain, batch_size=self.batch_size)
        return forget, weighted(forget, retain, request)
