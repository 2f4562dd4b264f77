"""Boundary shrink: teach each forgotten image the wrong class whose boundary is nearest.

    min CE(f(x), y')  over D_f,  y' = argmax_{k != y} f_o(x')_k,  x' = clip(x + bound sign(grad_x CE(f_o(x), y)))

Chen et al. 2023 (neighbor searching): one step of the fast gradient sign method on the original finds the
neighboring class. Deviations: the true class is never y'. In the released code it is where the step does not cross
the boundary, and so that image is remembered (`released=True`); that code also rounds x' to bytes, and lets batch-norm
statistics move, which are held here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.methods import methods
from forgetbench.methods._distillation import teacher_of
from forgetbench.methods._training import descend, editable
from forgetbench.methods.base import Examples, ForgetRequest, Method, MethodCard, param
from forgetbench.training import classification_loss, make_optimizer


def neighboring_classes(
    original: nn.Module, examples: Examples, bound: float, batch_size: int = 256, *, with_true: bool = False
) -> Tensor:
    """The class (n,) that each image falls into when pushed `bound` (pixels in [0,1]) out of its own.

    Args:
        original: In eval mode.
        examples: With classes as labels.
        bound: Length of the step in each pixel.
        batch_size: Images per step.
        with_true: Whether an image that stays in its class gets that class.
    """
    found = []
    for images, labels in examples.batches(batch_size):
        images.requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(original(images), labels), images)
        with torch.no_grad():
            logits = original((images + bound * gradient.sign()).clamp(0, 1))
            if not with_true:
                logits = logits.scatter(1, labels[:, None], float("-inf"))
            found.append(logits.argmax(1))
    return torch.cat(found)


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

    epochs: int = param(5, ge=1, paper_default=10, search=(2, 10), help="Passes over the forget set.")
    lr: float = param(1e-4, gt=0, paper_default=1e-5, search=(1e-6, 1e-2), help="Learning rate.")
    bound: float = param(0.1, gt=0, le=1, search=(0.02, 0.5), help="Step of the attack, in pixels between 0 and 1.")
    batch_size: int = param(64, ge=1, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    released: bool = param(False, help="Whether an image that the attack does not move keeps its label.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, taught the neighboring classes."""
        neighbors = neighboring_classes(teacher_of(model), request.forget, self.bound, with_true=self.released)
        request.report("attack success", float((neighbors != request.forget.labels).float().mean()))
        edited, relabelled = editable(model), request.forget.relabel(neighbors)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            yield from relabelled.batches(self.batch_size, request.seed_of(epoch))

        return descend(
            edited,
            request,
            epochs=self.epochs,
            batches=batches,
            loss=lambda batch: classification_loss(edited(batch[0]), batch[1]),
            optimizer=make_optimizer(edited.parameters(), "sgd", self.lr, self.momentum),
            method=self.card.name,
        )
