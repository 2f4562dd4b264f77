"""Influence Approximation Unlearning: one Adam step away from the forget set and towards the retain set.

    g = grad mean CE(D_r) - grad mean CE(D_f)
    theta -= lr g / (|g| + 1e-8)                         (the first step of Adam)

Liu et al. 2025: removing an example and learning its negative have the same influence, so the inverse Hessian can be
replaced by a gradient step (incremental approximation, the ascent on D_f), which is bounded by the descent on D_r
(gradient correction). Both losses are means, as in the code. Gradients are accumulated in chunks, which equals the
authors' single batch of the whole set; batch-norm statistics are held fixed, where their network (LeNet) has none.

With `gradient_restriction=True` the original is trained for it, by CE + alpha sum_k ||grad_k CE(batch)||, the sum
being over parameter tensors as in the code (the formula in the README has one norm). The method then needs its own
originals, whose training the published times do not include.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._fisher import mean_gradient
from forgetbench.methods._training import check_finite, clone_model
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.options import Scalar
from forgetbench.training import LossFunction, classification_loss, make_optimizer


@methods.register("iau")
@dataclass(frozen=True, kw_only=True)
class IAU(Method):
    """Take one Adam step along the difference of the mean gradients."""

    card: ClassVar[MethodCard] = MethodCard(
        name="iau",
        title="Influence Approximation Unlearning: one Adam step on the difference of mean gradients",
        papers=("liu2025efficient",),
        family="influence",
        needs=("forget", "retain"),
        changes_training=True,
        random=False,
        known_limitations="Strength: Adam normalizes the step, so one example moves the weights as far as a thousand.",
    )

    lr: Rate = param(
        "0.35x", gt=0, paper_default=1e-3, search=("0.005x", "5x"), help="Learning rate: how far each weight moves."
    )
    gradient_restriction: bool = param(
        False, paper_default=True, help="Whether the original is trained with small gradients."
    )
    restriction: float = param(0.005, ge=0, le=1, help="alpha: weight of the gradient norms in that training.")
    batch_size: int = param(256, ge=1, help="Examples per backward; does not shape the result.")

    @property
    def training_loss(self) -> LossFunction | None:
        """The loss with restricted gradients, if enabled."""
        return self.restricted_loss if self.gradient_restriction else None

    def training_parameters(self) -> dict[str, Scalar]:
        """Only the weight of the restriction shapes the original."""
        return {"restriction": self.restriction}

    def restricted_loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """CE + alpha times the sum over parameter tensors of the norm of its gradient."""
        loss = classification_loss(network(images), labels)
        gradients = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
        return loss + self.restriction * torch.stack([gradient.norm() for gradient in gradients]).sum()

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model after one step."""
        network = clone_model(model).eval()
        lr = request.resolve_lr(self.lr, "adam")
        optimizer = make_optimizer(network.parameters(), "adam", lr)
        # gradient correction: descent on the retain set
        retain_grad = mean_gradient(network, request.retain, batch_size=self.batch_size)
        for parameter, gradient in zip(network.parameters(), retain_grad, strict=True):
            parameter.grad = gradient
        # incremental approximation: ascent on the forget set
        forget_grad = mean_gradient(network, request.forget, batch_size=self.batch_size)
        for gradient in retain_grad:
            gradient.sub_(forget_grad.pop(0))  # frees each tensor at once, so that Adam's state takes its memory
        norm = float(torch.stack([gradient.norm() for gradient in retain_grad]).norm())
        check_finite(norm, self.card.name, 0, lr)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        request.log("gradient norm", norm)
        return network
