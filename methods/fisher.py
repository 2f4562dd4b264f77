"""Fisher forgetting: add noise to every weight, the more the less it matters for the retain set.

    theta_i += N(0, alpha / F_i^power),   F = diagonal of the Fisher information of D_r

Golatkar, Achille and Soatto 2020. Their equation 8 adds noise with a standard deviation proportional to F^(-1/4),
which is `power=0.5`; their code, and all later code, uses a variance of alpha / F (`power=1`, the default). F is the
true Fisher information, with labels drawn from the model's own predictions; one draw per example approximates the sum
over all classes, which would cost as many passes. Variances are limited to alpha times `ceiling`, as in their code.
Deviation: their code also averages variances over inputs and increases those of the last layer. True labels are not
read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._fisher import Importance, importance_per_example
from forgetbench.methods._training import clone_model
from forgetbench.methods.base import Examples, ForgetRequest, Method, MethodCard, param
from forgetbench.training import DivergedError, predict


@methods.register("fisher")
@dataclass(frozen=True, kw_only=True)
class FisherForgetting(Method):
    """Add noise to the weights that matter little for the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="fisher",
        title="Fisher forgetting: noise inverse to the Fisher information of the retain set",
        papers=("golatkar2020eternal",),
        family="noise",
        needs=("retain",),
        known_limitations="Selectivity: it never reads the forget set, and noise that removes it damages the rest.",
    )

    alpha: float = param(
        3e-7, gt=0, paper_default=1e-9, search=(1e-9, 1e-5), help="Variance of the noise where the information is 1."
    )
    power: float = param(
        1.0, gt=0, le=1, paper_default=1.0, search=(0.5, 1.0), help="Exponent of the information; 0.5 as in the paper."
    )
    ceiling: float = param(1e3, gt=0, help="Most variance, as a multiple of alpha.")
    batch_size: int = param(64, ge=1, help="Examples per backward; does not shape the result.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model with noise on its weights."""
        network = clone_model(model).eval()
        information = true_fisher(network, request.retain, request.generator(0), self.batch_size)
        generator = request.generator(1)
        variances = []
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                variance = (information[name] + 1e-8).pow_(-self.power).clamp_(max=self.ceiling).mul_(self.alpha)
                variances.append(variance.sum())
                noise = torch.randn(tuple(parameter.shape), generator=generator).to(parameter)
                parameter.add_(noise.mul_(variance.sqrt_()))
        request.log("expected norm of the noise", float(torch.stack(variances).sum().sqrt()))
        return network


def true_fisher(model: nn.Module, examples: Examples, generator: torch.Generator, batch_size: int = 64) -> Importance:
    """Diagonal Fisher information, with one label per example drawn from the model's prediction.

    Raises:
        DivergedError: The model's logits are not finite.
    """
    logits = torch.from_numpy(predict(model, examples))
    if not torch.isfinite(logits).all():
        raise DivergedError("the given model has diverged: its logits are not finite")
    labels = draw_labels(logits, generator, attributes=examples.attributes)
    return importance_per_example(model, examples.relabel(labels), batch_size=batch_size)


def draw_labels(logits: Tensor, generator: torch.Generator, *, attributes: bool) -> Tensor:
    """Labels drawn from the predicted probabilities (n, K): classes (n,), or attributes (n, K)."""
    if attributes:
        return (torch.rand(logits.shape, generator=generator) < logits.sigmoid()).long()
    return torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
