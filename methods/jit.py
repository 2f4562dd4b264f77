"""JiT: flatten the model around each forgotten image, so that it no longer reacts to it; no retained data, no labels.

    min over D_f of  (1/n) sum_{j <= n} ||f(x) - f(x + xi_j)|| / ||xi_j||,   xi_j ~ N(0, sigma^2 I)

Foster et al. 2025, algorithm 1: one pass of plain SGD over D_f, the losses of a batch being summed. As in the released
code, f(x + xi) is a constant, which pulls f(x) towards the predictions at its neighbors; the paper does not say so, but
without it (`constant=False`) small networks keep the forget set and lose the rest. Also as released, x + xi is clamped
to the range of the batch before xi is measured. Noise and norms are in units of the channels' standard deviation, which
is how the authors' inputs are scaled; the range is that of the images, where the released code takes that of normalized
images over all channels (`clamp="normalized"`). Deviations: gradients are zeroed between batches; the released code
never does (`accumulate=True`), so that each step repeats all steps before it. Examples are shuffled, and not in their
stored order. Batch-norm is in eval mode. On a network of 166 weights and relative to the move, the range of the images
differs by 0.01 to 0.4, zeroed gradients by 0.5 to 0.6, and batch-norm in eval mode by 8 to 24; with the released values
2e-7 is left, from a constant in the norms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._training import batch_norm_option, clone_model, train_loop
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import make_optimizer


@methods.register("jit")
@dataclass(frozen=True, kw_only=True)
class JiT(Method):
    """Smooth the model around the forget set by a Lipschitz penalty."""

    card: ClassVar[MethodCard] = MethodCard(
        name="jit",
        title="Flattens the model around each forgotten image, without retained data or labels",
        papers=("foster2025information",),
        family="smoothing",
        needs=("forget",),
        known_limitations="Stability: lr and sigma need tuning per network and scenario; too much breaks the model.",
    )

    epochs: Duration = param(1, ge=1, search=(1, 3), help="Passes over the forget set.")
    lr: Rate = param(
        "0.003x",
        gt=0,
        paper_default=3e-4,
        search=("0.0001x", "0.2x"),
        help="Learning rate of plain SGD, on the sum over a batch.",
    )
    sigma: float = param(
        0.5, gt=0, search=(0.05, 2.0), help="Standard deviation of the noise, in units of the channels' own."
    )
    samples: int = param(25, ge=1, help="Noises per image.")
    batch_size: int = param(64, ge=1, help="Examples per step.")
    constant: bool = param(True, help="Whether the answers at the neighbors take no gradients.")
    accumulate: bool = param(False, paper_default=True, help="Whether gradients of earlier batches are left in.")
    clamp: str = param(
        "images",
        choices=("images", "normalized"),
        paper_default="normalized",
        help="Whose range neighbors are clamped to: that of the images, or of the normalized images.",
    )
    batch_norm: str = batch_norm_option("eval", paper_default="train", retain=False)

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, flatter around the forget set."""
        network = clone_model(model)
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.forget), self.batch_size)
        optimizer = make_optimizer(network.parameters(), "sgd", lr, momentum=0.0)
        deviation = cast("Tensor", model.std).view(1, -1, 1, 1)
        mean = cast("Tensor", model.mean).view(1, -1, 1, 1) if self.clamp == "normalized" else None
        gradient_sums: dict[nn.Parameter, Tensor] = {}
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                batches = request.forget.batches(self.batch_size, request.derive_seed(0, epoch))
                for step, (images, _) in enumerate(batches):
                    # drawn where it is used: noise is `samples` times as large as the images
                    generator = request.generator(1, epoch, step, device=images.device)
                    noises = torch.randn(self.samples, *images.shape, generator=generator, device=images.device)
                    noises = self.sigma * noises.to(images)
                    with loop.autocast():
                        ratios = lipschitz_ratios(network, images, noises, deviation, mean=mean, constant=self.constant)
                        loss = ratios.sum()
                    loop.backward(loss)
                    if self.accumulate:
                        accumulate_gradients(network, gradient_sums)
                    optimizer.step()
        return network


def lipschitz_ratios(
    network: nn.Module,
    images: Tensor,
    noises: Tensor,
    deviation: Tensor,
    *,
    mean: Tensor | None = None,
    constant: bool = False,
) -> Tensor:
    """Mean over noises of the change of the output over the change of the image, for each image (B,).

    Args:
        network: Takes gradients through its outputs.
        images: (B, C, H, W) in [0,1].
        noises: (n, B, C, H, W), in units of `deviation`.
        deviation: Standard deviation of each channel, (1, C, 1, 1).
        mean: Mean of each channel, (1, C, 1, 1), to clamp normalized images; None clamps the images themselves.
        constant: Whether the outputs at the neighbors take no gradients.
    """
    lowest, highest = images.min(), images.max()
    if mean is not None:
        normalized = (images - mean) / deviation
        lowest, highest = mean + normalized.min() * deviation, mean + normalized.max() * deviation
    outputs = network(images)
    total = torch.zeros(len(images), device=images.device)
    for noise in noises:
        neighbors = (images + noise * deviation).clamp(lowest, highest)
        with torch.set_grad_enabled(not constant):
            neighbor_outputs = network(neighbors)
        input_change = ((neighbors - images) / deviation).flatten(1).norm(dim=1)
        # the constant, because a norm has no gradient at zero, where the clamp has removed all noise
        output_change = ((outputs - neighbor_outputs).square().sum(1) + 1e-12).sqrt()
        total = total + output_change / input_change.clamp_min(1e-6)
    return total / len(noises)


def accumulate_gradients(network: nn.Module, sums: dict[nn.Parameter, Tensor]) -> None:
    """Replace the gradients by their sums over all steps so far, as if they were never zeroed."""
    for parameter in network.parameters():
        if parameter.grad is not None:
            sums[parameter] = parameter.grad.clone() + sums.get(parameter, torch.zeros_like(parameter))
            parameter.grad.copy_(sums[parameter])
