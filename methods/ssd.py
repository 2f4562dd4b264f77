"""Selective Synaptic Dampening: shrink the weights that matter more for the forget set than for all data.

Foster, Schoepf and Brintrup 2024, equations 3 to 5. I is the diagonal of the empirical Fisher information (with the
true labels) of D_f or of all training data D, in eval mode and without augmentation; running statistics do not change:

    I_i = mean over x of (d CE(f(x), y) / d theta_i)^2                       (equation 3)
    theta_i is selected  where  I_f,i > alpha I_D,i                          (equation 4)
    theta_i *= min(lambda I_D,i / I_f,i, 1)  for the selected weights        (equation 5)

With `importance="per-sample"` (the default, as in the paper) gradients are squared per example. D contains D_f, so
I_f/I_D is at most |D|/|D_f|, and an alpha of at least that selects nothing: the method warns.
With `importance="batch"` (as in the authors' code) the mean gradient of a batch is squared and averaged over batches,
those of D being the retain set followed by the forget set. The result depends on batch size and order, and suitable
values of alpha are different. The authors sort the retain set by class to forget classes, by fine class to forget fine
classes, and shuffle both sets to forget random examples; so does `order="auto"`. Gradients of one class add up and
those of many cancel, so that shuffled batches have smaller importances of D and select more: on digits, with a tenth of
the images forgotten, alpha 1.5 and batches of 16, it is 17 % of the weights instead of 1 %. The authors' settings for
Pins (alpha 50, lambda 0.1) are only a comment in their code, which runs with 10 and 1. On a network of 166 weights,
runs per batch equal the released ones to rounding in all three scenarios; relative to the move, those per example
differ by 0.3 (class, subclass) and 1.2 (random), those per batch in class order by 1.2 (random).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._dampening import ORDERS, average_importances, in_order, warn_if_alpha_too_large
from forgetbench.methods._fisher import Importance, importance_per_batch, importance_per_example
from forgetbench.methods._training import clone_model
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param

_log = logging.getLogger(__name__)


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
        8.0, gt=0, paper_default=10.0, search=(1.0, 50.0), help="How many times more a weight must matter for D_f."
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
        # equation 3: the importances of the forget set and of all data
        if self.importance == "batch":
            forget_data, retain_data = in_order(request, self.order)
            all_data, bfloat16 = retain_data.join(forget_data), request.recipe.bfloat16
            forget = importance_per_batch(network, forget_data.batches(self.batch_size), bfloat16=bfloat16)
            everything = importance_per_batch(network, all_data.batches(self.batch_size), bfloat16=bfloat16)
        else:
            warn_if_alpha_too_large(self.alpha, request)
            forget = importance_per_example(network, request.forget, batch_size=self.batch_size)
            retain = importance_per_example(network, request.retain, batch_size=self.batch_size)
            everything = average_importances(forget, retain, request)
        dampen(network, forget, everything, self.alpha, self.dampening, request)
        return network.eval()


def dampen(
    network: nn.Module,
    forget: Importance,
    everything: Importance,
    alpha: float,
    dampening: float,
    request: ForgetRequest,
) -> None:
    """Select and shrink weights in place, and log how many.

    Args:
        network: A copy that may be changed.
        forget: I_f by parameter name.
        everything: I_D by parameter name.
        alpha: Weights are selected whose importance for the forget set exceeds that for all data by this factor.
        dampening: lambda.
        request: Receives the log.
    """
    n_selected = n_weights = 0
    factors = []
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # equation 4
            selected = forget[name] > alpha * everything[name]
            # equation 5; NaN where I_f is 0, which is never selected
            beta = (dampening * everything[name]).div_(forget[name]).clamp_(max=1)
            factors.append(beta[selected])
            parameter.mul_(beta.masked_fill_(~selected, 1.0))
            n_selected += int(selected.sum())
            n_weights += selected.numel()
    ratio = n_selected / n_weights
    request.log("ratio of selected weights", ratio)
    if n_selected:
        request.log("median factor", float(torch.cat(factors).median()))
        request.log("ratio of zero factors", float((torch.cat(factors) == 0).float().mean()))
    if n_selected == 0 or ratio > 0.5:
        warning = "no weight was selected: nothing changed" if n_selected == 0 else f"{ratio:.0%} were selected"
        request.log("warning", warning)
        _log.warning("%s at alpha = %.4g", warning, alpha)
