"""Adaptive SSD: the threshold of SSD chosen from the share of the data that is to be forgotten; nothing to tune.

    p = 100 - ln(1 + 100 |D_f| / |D|),   alpha = p-th percentile of I_f,i / I_D,i over all parameters,   lambda = 1

Schoepf, Foster and Brintrup, "Parameter-tuning-free data entry error unlearning with adaptive selective synaptic
dampening", 2024, equation 6. Ratios that are undefined are left out. Deviations: the importances are per example by
default, as in `ssd`; the authors' notebook takes I_D over the retain set alone (`reference="retain"`), which selects
the same weights but shrinks them more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._dampening import class_sorted, dampen, ratios, weighted
from forgetbench.methods._fisher import per_example, squared_batch_means
from forgetbench.methods._training import editable
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param


@methods.register("assd")
@dataclass(frozen=True, kw_only=True)
class ASSD(Method):
    """Dampen a share of the parameters that follows from the size of the forget set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="assd",
        title="Adaptive SSD: the threshold follows from the share of data to forget",
        papers=("schoepf2024parameter",),
        family="damping",
        needs=("forget", "retain"),
        random=False,
        known_limitations="Small networks, where one or two percent of the weights can be too many or too few.",
    )

    importance: str = param(
        "per-sample",
        choices=("per-sample", "batch"),
        paper_default="batch",
        search=("per-sample", "batch"),
        help="Per example, or per batch as published.",
    )
    reference: str = param(
        "all",
        choices=("all", "retain"),
        paper_default="retain",
        search=("all", "retain"),
        help="Data that I_D is taken over: all, or what is kept.",
    )
    batch_size: int = param(64, ge=1, paper_default=1024, help="Examples per backward.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, dampened."""
        edited = editable(model)
        if self.importance == "batch":
            data = class_sorted(request.retain)
            data = data.join(request.forget) if self.reference == "all" else data
            forget = squared_batch_means(edited, request.forget.batches(self.batch_size))
            everything = squared_batch_means(edited, data.batches(self.batch_size))
        else:
            forget, retain = (
                per_example(edited, examples, batch_size=self.batch_size)
                for examples in (request.forget, request.retain)
            )
            everything = weighted(forget, retain, request) if self.reference == "all" else retain
        known = ratios(forget, everything).cpu().numpy()
        alpha = float(np.percentile(known, percentile(request))) if known.size else math.inf
        request.report("alpha", alpha)
        dampen(edited, forget, everything, alpha, 1.0, request)
        return edited.eval()


def percentile(request: ForgetRequest) -> float:
    """100 - ln(1 + 100 |D_f|/|D|)."""
    forget, retain = len(request.forget), len(request.retain)
    return 100 - math.log(1 + 100 * forget / (forget + retain))
