"""Sebastian: draw the smallest weights anew, and train on the retain set to be as sure as the original was.

    the `share` of the weights of convolutions and linear layers with the smallest |w|, over all of them, drawn anew
    min CE(D_r; class weights count^-0.1) + (H(p(x)) - H(p_o(x)))^2,  H = entropy

By Sebastian Oleszko, fifth place of the NeurIPS 2023 challenge; "PRMQ" in Cadet et al. 2024. New weights are uniform
in +- 1 / sqrt(fan in), and biases that are among the smallest become zero, as released. The rate is constant.
Deviation: the released code rounds the result to half precision, which the challenge's storage limit asked for.
Attributes are not weighted, and their entropies are summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.methods import methods
from forgetbench.methods._distillation import entropy, teacher_of
from forgetbench.methods._finetuning import Repair, constant
from forgetbench.methods._fisher import smallest
from forgetbench.methods._training import editable, outputs_of
from forgetbench.methods.base import Examples, ForgetRequest, Method, MethodCard, param
from forgetbench.training import classification_loss


def draw_smallest_anew(network: nn.Module, share: float, generator: torch.Generator) -> int:
    """Draw the smallest weights of all convolutions and linear layers anew, in place; returns how many."""
    tensors = [
        (layer, tensor)
        for layer in network.modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
        for tensor in (layer.weight, layer.bias)
        if tensor is not None
    ]
    weights = torch.cat([tensor.detach().flatten() for _, tensor in tensors])
    mask = smallest(weights, round(share * len(weights)))
    parts = mask.split([tensor.numel() for _, tensor in tensors])
    with torch.no_grad():
        for (layer, tensor), part in zip(tensors, parts, strict=True):
            bound = layer.weight[0].numel() ** -0.5 if tensor is layer.weight else 0.0
            fresh = (2 * torch.rand(tensor.shape, generator=generator) - 1) * bound
            tensor.copy_(torch.where(part.view_as(tensor), fresh.to(tensor), tensor))
    return int(mask.sum())


def rarity_weights(examples: Examples, outputs: int, power: float) -> Tensor | None:
    """Weights (outputs,) of the classes: their counts to a power; None for attributes."""
    if examples.attributes:
        return None
    return examples.labels.bincount(minlength=outputs).clamp_min(1).float() ** power


@methods.register("sebastian")
@dataclass(frozen=True, kw_only=True)
class Sebastian(Method):
    """Draw the smallest weights anew and train on the retain set, entropies held to the original's."""

    card: ClassVar[MethodCard] = MethodCard(
        name="sebastian",
        title="Draws the smallest weights anew and trains to the original's entropies on the retain set",
        papers=("oleszko2023unlearning",),
        family="re-initialization",
        needs=("retain",),
        known_limitations="Cost: with most weights new, it is nearly a retraining and needs about as long.",
    )

    epochs: int = param(5, ge=1, paper_default=3, search=(2, 10), help="Passes over the retain set.")
    lr: float = param(0.02, gt=0, paper_default=5e-4, search=(1e-3, 1e-1), help="Learning rate.")
    share: float = param(
        0.9, ge=0, le=1, paper_default=0.99, search=(0.3, 0.99), help="Share of the weights that is drawn anew."
    )
    entropy_weight: float = param(1.0, ge=0, help="Weight of the squared difference of entropies.")
    rarity: float = param(-0.1, help="Power of a class's count that is its weight.")
    batch_size: int = param(64, ge=2, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, mostly drawn anew and trained."""
        original, edited, attributes = teacher_of(model), editable(model), request.retain.attributes
        request.report("weights drawn anew", draw_smallest_anew(edited, self.share, request.generator(0)))
        weights = rarity_weights(request.retain, outputs_of(edited), self.rarity)

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            logits = edited(images)
            with torch.no_grad():
                wanted = entropy(original(images), attributes=attributes)
            surprise = (
                classification_loss(logits, labels)
                if weights is None
                else functional.cross_entropy(logits, labels, weight=weights)
            )
            return surprise + self.entropy_weight * functional.mse_loss(entropy(logits, attributes=attributes), wanted)

        repair = Repair(
            method=self.card.name,
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=constant,
        )
        return repair.run(edited, request, loss=loss)
