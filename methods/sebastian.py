"""Sebastian: draw the smallest weights anew, and train on the retain set to be as certain as the original was.

    the `mask_ratio` of the weights of convolutions and linear layers with the smallest |w| is drawn anew
    min CE(D_r; class weights count^-0.1) + (H(p(x)) - H(p_o(x)))^2,   H = entropy

By Sebastian Oleszko, fifth place of the NeurIPS 2023 challenge; "PRMQ" in Cadet et al. 2024. The smallest weights are
those over all layers together. New weights are uniform in +- 1 / sqrt(fan in), and biases among the smallest become
zero, as released. The learning rate is constant. Deviation: the released code rounds the result to half precision, for
the storage limit of the challenge. Attributes are not weighted, and their entropies are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.methods import methods
from forgetbench.methods._distillation import entropy, frozen_copy
from forgetbench.methods._finetuning import retain_batches
from forgetbench.methods._fisher import smallest
from forgetbench.methods._training import augment_option, batch_norm_option, clone_model, n_outputs, train_loop
from forgetbench.methods.base import Duration, Examples, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import classification_loss, make_optimizer


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

    epochs: Duration = param(
        "0.3x", ge=1, paper_default=3, search=("0.05x", "0.4x"), help="Passes over the retain set."
    )
    lr: Rate = param("1x", gt=0, paper_default=5e-4, search=("0.02x", "4x"), help="Learning rate.")
    mask_ratio: float = param(
        0.9,
        ge=0,
        le=1,
        paper_default=0.99,
        search=(0.3, 0.99),
        aliases=("share",),
        help="Ratio of the weights that are drawn anew.",
    )
    entropy_weight: float = param(1.0, ge=0, help="Weight of the squared difference of entropies.")
    class_weight_power: float = param(-0.1, aliases=("rarity",), help="Power of a class's count that is its weight.")
    batch_size: int = param(64, ge=2, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")
    augment: bool = augment_option(True)
    batch_norm: str = batch_norm_option("recalibrate", paper_default="train")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, mostly drawn anew and trained."""
        original, network, attributes = frozen_copy(model), clone_model(model), request.retain.attributes
        request.log("new weights", redraw_smallest(network, self.mask_ratio, request.generator(0)))
        precision = next(network.parameters()).dtype
        weights = class_weights(request.retain, n_outputs(network), self.class_weight_power, precision)
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.retain), self.batch_size)
        optimizer = make_optimizer(network.parameters(), "sgd", lr, self.momentum, self.weight_decay)
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                for _, images, labels in retain_batches(request, self.batch_size, epoch, epochs, augment=self.augment):
                    with loop.autocast():
                        logits = network(images)
                        with torch.no_grad():
                            target_entropy = entropy(original(images), attributes=attributes)
                        if weights is None:
                            retain_loss = classification_loss(logits, labels)
                        else:
                            retain_loss = functional.cross_entropy(logits, labels, weight=weights)
                        entropy_loss = functional.mse_loss(entropy(logits, attributes=attributes), target_entropy)
                        loss = retain_loss + self.entropy_weight * entropy_loss
                    loop.step(loss)
        return network


def redraw_smallest(network: nn.Module, mask_ratio: float, generator: torch.Generator) -> int:
    """Draw the smallest weights of all convolutions and linear layers anew, in place.

    Returns:
        How many weights were drawn.
    """
    tensors = [
        (layer, tensor)
        for layer in network.modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
        for tensor in (layer.weight, layer.bias)
        if tensor is not None
    ]
    weights = torch.cat([tensor.detach().flatten() for _, tensor in tensors])
    mask = smallest(weights, round(mask_ratio * len(weights)))
    parts = mask.split([tensor.numel() for _, tensor in tensors])
    with torch.no_grad():
        for (layer, tensor), part in zip(tensors, parts, strict=True):
            bound = layer.weight[0].numel() ** -0.5 if tensor is layer.weight else 0.0
            new_values = (2 * torch.rand(tensor.shape, generator=generator) - 1) * bound
            tensor.copy_(torch.where(part.view_as(tensor), new_values.to(tensor), tensor))
    return int(mask.sum())


def class_weights(examples: Examples, outputs: int, power: float, dtype: torch.dtype = torch.float32) -> Tensor | None:
    """Weights of the classes (outputs,), their counts to a power; None for attributes."""
    if examples.attributes:
        return None
    return examples.labels.bincount(minlength=outputs).clamp_min(1).to(dtype) ** power
