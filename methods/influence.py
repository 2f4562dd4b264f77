"""Influence unlearning: one Newton step towards the optimum of the retain set.

    theta += strength (n_f / n_r) (H_r + damping I)^-1 mean grad CE(D_f)

Koh and Liang 2017, equation 1, summed over the forget set; Warnecke et al. 2023, section IV, second-order update. At
an optimum of all data n_r grad_r = -n_f grad_f, so this is Newton's step on the retain loss, exact for a quadratic
loss. H_r is the Hessian of the mean loss on a random part of the retain set; the system is solved by conjugate
gradients on Hessian-vector products (the papers use LiSSA, a truncated series with two more hyper-parameters). The
Hessian of a network is indefinite: damping must outweigh its negative part, and the solver stops where it meets
negative curvature. Deviation from Warnecke et al.: all parameters change, where their code updates the last six weight
tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._curvature import conjugate_gradients, hessian_product
from forgetbench.methods._fisher import mean_gradient
from forgetbench.methods._training import check_finite, clone_model
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, param


@methods.register("influence")
@dataclass(frozen=True, kw_only=True)
class Influence(Method):
    """Take the Newton step that removes the forget set's influence."""

    card: ClassVar[MethodCard] = MethodCard(
        name="influence",
        title="A Newton step by influence functions, solved with conjugate gradients",
        papers=("warnecke2023machine", "koh2017understanding"),
        family="influence",
        needs=("forget", "retain"),
        known_limitations="Networks with zero training loss: the forget set's gradient is zero, and so is the step.",
    )

    damping: float = param(0.03, gt=0, paper_default=1e-4, search=(1e-3, 1.0), help="Added to the Hessian's diagonal.")
    strength: float = param(4.0, gt=0, paper_default=1.0, search=(1.0, 100.0), help="Factor of the step.")
    iterations: int = param(5, ge=1, help="Most iterations of conjugate gradients.")
    hessian_examples: int = param(256, ge=1, help="Retain examples that the Hessian is taken over, drawn at random.")
    batch_size: int = param(128, ge=1, help="Examples per backward; does not shape the result.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model after one Newton step."""
        network = clone_model(model).eval()
        gradient = mean_gradient(network, request.forget, batch_size=self.batch_size)
        order = torch.randperm(len(request.retain), generator=request.generator())
        sample = request.retain.take(order[: self.hessian_examples])
        product = hessian_product(network, sample, self.damping, self.batch_size)
        solution = conjugate_gradients(product, gradient, self.iterations)
        scale = self.strength * len(request.forget) / len(request.retain)
        norm = float(torch.stack([step.norm() for step in solution.vector]).norm()) * scale
        check_finite(norm, self.card.name, 0, scale)
        with torch.no_grad():
            for parameter, step in zip(network.parameters(), solution.vector, strict=True):
                parameter.add_(step, alpha=scale)
        request.log("step norm", norm)
        request.log("iterations", solution.iterations)
        request.log("relative residual", solution.residual)
        request.log("negative curvature", str(solution.negative_curvature).lower())
        return network
