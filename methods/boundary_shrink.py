"""Boundary shrink: train each forgotten image on the wrong class whose boundary is nearest.

    min CE(f(x), y') over D_f
    y' = argmax_{k != y} f_o(x')_k,   x' = clip(x + bound sign(grad_x CE(f_o(x), y)))

Chen et al. 2023 (neighbor searching): one step of the fast gradient sign method on the original finds the neighboring
class. Deviations, each with the setting of the released code: y' is never the true class, which it is there if the step
does not cross the boundary, so that this image is remembered (`as_published=True`); x' is not rounded to bytes
(`round_pixels=True`); and batch-norm statistics are held fixed (`batch_norm=train`). The released code also undoes
another normalization of its images than the one it applied, so that its steps of 0.1 are 0.25 of the range of pixels,
and are not clipped to it; `bound=0.25` comes near. Fan et al. 2024 and Zhou et al. 2025 ran it without this fault, the
former with weight decay 5e-4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.methods import methods
from forgetbench.methods._distillation import frozen_copy
from forgetbench.methods._training import batch_norm_option, clone_model, train_loop
from forgetbench.methods.base import Duration, Examples, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("boundary-shrink")
@dataclass(frozen=True, kw_only=True)
class BoundaryShrink(Method):
    """Train the forget set on its nearest wrong classes."""

    card: ClassVar[MethodCard] = MethodCard(
        name="boundary-shrink",
        title="Teaches each forgotten image the wrong class whose boundary is nearest",
        papers=("chen2023boundary",),
        family="relabelling",
        needs=("forget",),
        attributes=False,
        known_limitations="Single examples of retained classes: it moves the boundaries of these classes.",
    )

    epochs: Duration = param(
        "5steps", ge=1, paper_default=10, search=("2steps", "20steps"), help="Passes over the forget set."
    )
    lr: Rate = param("0.0012x", gt=0, paper_default=1e-5, search=("0.0001x", "0.2x"), help="Learning rate.")
    bound: float = param(0.1, gt=0, le=1, search=(0.02, 0.5), help="Step of the attack, in pixels between 0 and 1.")
    batch_size: int = param(64, ge=1, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(0.0, ge=0, help="Weight decay of SGD.")
    as_published: bool = param(
        False,
        aliases=("released",),
        paper_default=True,
        help="Whether an image keeps its label if the attack does not move it.",
    )
    round_pixels: bool = param(False, paper_default=True, help="Whether attacked images are rounded to bytes.")
    batch_norm: str = batch_norm_option("eval", paper_default="train", retain=False)

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, trained on the neighboring classes."""
        original, network = frozen_copy(model), clone_model(model)
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.forget), self.batch_size)
        optimizer = make_optimizer(network.parameters(), "sgd", lr, self.momentum, self.weight_decay)
        neighbors = neighboring_classes(
            original, request.forget, self.bound, allow_true=self.as_published, round_pixels=self.round_pixels
        )
        request.log("attack success", float((neighbors != request.forget.labels).float().mean()))
        relabeled = request.forget.relabel(neighbors)
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                for images, labels in relabeled.batches(self.batch_size, request.derive_seed(epoch)):
                    with loop.autocast():
                        loss = classification_loss(network(images), labels)
                    loop.step(loss)
        return network


def neighboring_classes(
    original: nn.Module,
    examples: Examples,
    bound: float,
    batch_size: int = 256,
    *,
    allow_true: bool = False,
    round_pixels: bool = False,
) -> Tensor:
    """The class (n,) of each image after one step away from its own class.

    Args:
        original: In eval mode.
        examples: Labels are classes.
        bound: Length of the step in each pixel, for pixels in [0,1].
        batch_size: Images per step.
        allow_true: Whether an image that stays in its class gets that class.
        round_pixels: Whether images are rounded to bytes after the step.
    """
    neighbors = []
    for images, labels in examples.batches(batch_size):
        images.requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(original(images), labels), images)
        with torch.no_grad():
            attacked = (images + bound * gradient.sign()).clamp(0, 1)
            logits = original((255 * attacked).round() / 255 if round_pixels else attacked)
            if not allow_true:
                logits = logits.scatter(1, labels[:, None], float("-inf"))
            neighbors.append(logits.argmax(1))
    return torch.cat(neighbors)
