"""Masked small gradients: initialize the weights anew that distinguish the forget set from the retain set least.

    g = gradient of CE(a random part of D_r, as large as D_f) - CE(D_f)
    in each layer the `mask_ratio` of the weights with the smallest |g| is drawn anew (He, fan out)
    min CE(D_r), with the gradients of the other weights multiplied by `gradient_scale`

Third place of the NeurIPS 2023 challenge, by Kookmin University; "MSG" in Cadet et al. 2024, whose definition is
followed here. It treats kernels of convolutions, as published; `layers="all"` adds linear layers except the head, for
other networks. The learning rate rises and falls linearly. Deviations: it changes per step, in the released codes per
epoch; gradients of the two sets are means, in eval mode.

`kookmin` is this method under its authors' name, with their values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._finetuning import retain_batches, triangle
from forgetbench.methods._fisher import mean_gradient, smallest
from forgetbench.methods._training import augment_option, batch_norm_option, clone_model, set_lr, train_loop
from forgetbench.methods.base import Duration, ForgetRequest, Method, MethodCard, Rate, TaskFacts, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("msg")
@dataclass(frozen=True, kw_only=True)
class MaskedSmallGradients(Method):
    """Initialize the weights with the smallest gradients anew and train on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="msg",
        title="Draws anew the weights with the smallest gradients and trains on the retain set",
        papers=("cadet2024deep", "kookmin2023unlearning"),
        family="re-initialization",
        needs=("forget", "retain"),
        known_limitations="Short training: new weights cost accuracy until the retain set has been seen often enough.",
    )

    epochs: Duration = param(
        "0.35x", ge=1, paper_default=5, search=("0.1x", "0.5x"), help="Passes over the retain set."
    )
    lr: Rate = param("2x", gt=0, paper_default=1e-3, search=("0.1x", "4x"), help="Highest learning rate.")
    mask_ratio: float = param(
        0.55,
        paper_default=0.3,
        ge=0,
        le=1,
        search=(0.1, 0.6),
        aliases=("share",),
        help="Ratio of each layer's weights that are drawn anew.",
    )
    gradient_scale: float = param(
        0.3,
        ge=0,
        le=1,
        paper_default=0.1,
        search=(1e-2, 1.0),
        aliases=("slow",),
        help="Factor of the gradients of the other weights.",
    )
    layers: str = param("convolutions", choices=("convolutions", "all"), help="Layers whose weights are screened.")
    batch_size: int = param(64, ge=2, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")
    augment: bool = augment_option(True)
    batch_norm: str = batch_norm_option("recalibrate", paper_default="train")

    def applies_to(self, facts: TaskFacts) -> str | None:
        """Not to networks without convolutions, unless linear layers are treated too."""
        reason = super().applies_to(facts)
        if not reason and self.layers == "convolutions" and {facts.network, facts.like} & {"mlp", "vit"}:
            return f"{self.card.name} with layers=convolutions does not apply to {facts.network}: set layers=all"
        return reason

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, partly initialized anew and trained."""
        network = clone_model(model)
        generator = request.generator(0)
        masks = self.masks(network.eval(), request, generator)
        for layer in treated_layers(network, self.layers):
            redraw_weights(layer, masks[layer.weight], generator)
        lr = request.resolve_lr(self.lr, "sgd")
        epochs = request.resolve_epochs(self.epochs, len(request.retain), self.batch_size)
        optimizer = make_optimizer(network.parameters(), "sgd", lr, self.momentum, self.weight_decay)
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(epochs):
                for progress, images, labels in retain_batches(
                    request, self.batch_size, epoch, epochs, augment=self.augment
                ):
                    set_lr(optimizer, lr * triangle(progress))
                    with loop.autocast():
                        loss = classification_loss(network(images), labels)
                    loop.backward(loss)
                    for weight, mask in masks.items():
                        if weight.grad is not None:
                            weight.grad.mul_(torch.where(mask, 1.0, self.gradient_scale))
                    optimizer.step()
        return network

    def masks(self, network: nn.Module, request: ForgetRequest, generator: torch.Generator) -> dict[Tensor, Tensor]:
        """Weight -> mask of the entries to draw anew."""
        order = torch.randperm(len(request.retain), generator=generator)
        retain = request.retain.take(order[: len(request.forget)])
        gradients: dict[Tensor, Tensor] = dict(zip(network.parameters(), mean_gradient(network, retain), strict=True))
        for parameter, gradient in zip(network.parameters(), mean_gradient(network, request.forget), strict=True):
            gradients[parameter] -= gradient
        return {
            layer.weight: smallest(gradients[layer.weight], round(self.mask_ratio * layer.weight.numel()))
            for layer in treated_layers(network, self.layers)
        }


def treated_layers(network: nn.Module, layers: str) -> list[nn.Conv2d | nn.Linear]:
    """The convolutions; with layers "all" also the linear layers except the head."""
    return [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
        or (layers == "all" and isinstance(layer, nn.Linear) and layer is not getattr(network, "head", None))
    ]


def redraw_weights(layer: nn.Conv2d | nn.Linear, mask: Tensor, generator: torch.Generator) -> None:
    """Draw the masked weights from He's normal distribution, by the fan out."""
    fan_out = layer.weight.shape[0] * (layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1)
    new_values = torch.randn(layer.weight.shape, generator=generator).to(layer.weight) * (2 / fan_out) ** 0.5
    with torch.no_grad():
        layer.weight.copy_(torch.where(mask, new_values, layer.weight))
