"""Influence unlearning with the WoodFisher approximation of the inverse Hessian.

    theta += alpha F^-1 v
    v = (n_f / n) (mean grad CE(D_f) - mean grad CE(D_r)),   F = damping I + 1/m sum_i g_i g_i'

Jia et al. 2023, section 3 ("IU", after Singh and Alistarh 2020), with g_i the gradients of m retained examples and
damping 1. The Sherman-Morrison recursion over examples needs F_i^-1 g_{i+1} for every i, hence all earlier vectors;
conjugate gradients on products with F give the same F^-1 v from four vectors. `as_published=True` is the released
recursion, in which the helper vector o is only rescaled, so that the result is v - c g_0, with g_0 the gradient of the
first retained example (m = 1,002 there, in the order of the data). Eval mode, without the augmentation that the
released code leaves on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._curvature import Vector, conjugate_gradients, fisher_product
from forgetbench.methods._fisher import losses_of_labels, mean_gradient
from forgetbench.methods._training import check_finite, clone_model
from forgetbench.methods.base import Examples, ForgetRequest, Method, MethodCard, param


@methods.register("woodfisher")
@dataclass(frozen=True, kw_only=True)
class WoodFisher(Method):
    """Take the step that WoodFisher's inverse gives the difference of mean gradients."""

    card: ClassVar[MethodCard] = MethodCard(
        name="woodfisher",
        title="Influence unlearning with the WoodFisher inverse (IU)",
        papers=("jia2023model",),
        family="influence",
        needs=("forget", "retain"),
        random=False,
        known_limitations="Strength: published values of alpha range from 0.2 to 20, and large ones break the network.",
    )

    alpha: float = param(0.4, gt=0, paper_default=0.2, search=(0.2, 50.0), help="Factor of the step.")
    damping: float = param(1.0, gt=0, search=(0.1, 10.0), help="Added to the Fisher matrix's diagonal.")
    fisher_examples: int = param(256, ge=1, paper_default=1002, help="m: retain examples, spread evenly over the set.")
    iterations: int = param(5, ge=1, help="Most iterations of conjugate gradients.")
    as_published: bool = param(False, paper_default=True, help="Use the released, degenerate recursion.")
    batch_size: int = param(128, ge=1, help="Examples per backward; does not shape the result.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model after one step."""
        network = clone_model(model).eval()
        # v, computed in place to save memory
        difference = mean_gradient(network, request.forget, batch_size=self.batch_size)
        retain_grad = mean_gradient(network, request.retain, batch_size=self.batch_size)
        forget_ratio = len(request.forget) / (len(request.forget) + len(request.retain))
        for part in difference:
            part.sub_(retain_grad.pop(0)).mul_(forget_ratio)
        # F^-1 v
        if self.as_published:
            steps = released_recursion(network, request.retain.take(range(min(1002, len(request.retain)))), difference)
        else:
            rows = torch.linspace(0, len(request.retain) - 1, min(self.fisher_examples, len(request.retain)))
            product = fisher_product(network, request.retain.take(rows.long()), self.damping, self.batch_size)
            solution = conjugate_gradients(product, difference, self.iterations)
            request.log("residual", solution.residual)
            steps = solution.vector
        norm = self.alpha * float(torch.stack([step.norm() for step in steps]).norm())
        check_finite(norm, self.card.name, 0, self.alpha)
        request.log("step norm", norm)
        with torch.no_grad():
            for parameter, step in zip(network.parameters(), steps, strict=True):
                parameter.add_(step, alpha=self.alpha)
        return network


def released_recursion(model: nn.Module, examples: Examples, vector: Vector, count: int = 1000) -> Vector:
    """K -= (k.g) / (N + o.g) o;  o -= (o.g) / (N + o.g) o,  from o = g_0 and k = v, with N = 1000."""
    result = [part.clone() for part in vector]
    helper: Vector | None = None
    for image, label in examples.batches(1):
        gradients = torch.autograd.grad(losses_of_labels(model(image), label).sum(), list(model.parameters()))
        if helper is None:
            helper = [gradient.clone() for gradient in gradients]
            continue
        o_dot_g = float(sum((o * g).sum() for o, g in zip(helper, gradients, strict=True)))
        k_dot_g = float(sum((k * g).sum() for k, g in zip(result, gradients, strict=True)))
        for k, o in zip(result, helper, strict=True):
            k.sub_(o, alpha=k_dot_g / (count + o_dot_g))
            o.mul_(1 - o_dot_g / (count + o_dot_g))
    return result
