"""Masked small gradients: initialize anew the kernels that say least about what tells the forget set from the rest.

    g = gradient of CE(a random part of D_r, as large as D_f) - CE(D_f)
    in each layer the `share` of the weights with the smallest |g| is drawn anew (He, fan out)
    min CE(D_r), where the gradients of the weights that were kept are a tenth

Third place of the NeurIPS 2023 challenge, by Kookmin University; "MSG" in Cadet et al. 2024, which gives the
definition followed here. Kernels of convolutions, as published; `layers="all"` adds linear layers but the head, so
that other networks can be treated likewise. The learning rate rises and falls linearly. Deviations: it does so by step,
where the released codes do so by epoch; gradients of the two sets are means, in eval mode.

`kookmin` is this method under its authors' name and with their values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._finetuning import Repair, triangle
from forgetbench.methods._fisher import mean_gradient, smallest
from forgetbench.methods._training import editable
from forgetbench.methods.base import Examples, ForgetRequest, Method, MethodCard, TaskFacts, param


def screened(network: nn.Module, layers: str) -> list[nn.Conv2d | nn.Linear]:
    """The layers whose weights are screened: "convolutions", or "all", which adds linear ones but the head."""
    return [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
        or (layers == "all" and isinstance(layer, nn.Linear) and layer is not getattr(network, "head", None))
    ]


def draw_anew(layer: nn.Conv2d | nn.Linear, mask: Tensor, generator: torch.Generator) -> None:
    """Draw the masked weights from He's normal distribution, by the fan out."""
    fan_out = layer.weight.shape[0] * (layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1)
    fresh = torch.randn(layer.weight.shape, generator=generator).to(layer.weight) * (2 / fan_out) ** 0.5
    with torch.no_grad():
        layer.weight.copy_(torch.where(mask, fresh, layer.weight))


@contextmanager
def slowed(masks: dict[Tensor, Tensor], factor: float) -> Iterator[None]:
    """Multiply the gradients outside the masks by a factor meanwhile."""
    handles = [
        weight.register_hook(lambda gradient, mask=mask: torch.where(mask, gradient, gradient * factor))
        for weight, mask in masks.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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

    epochs: int = param(10, ge=1, paper_default=5, search=(4, 15), help="Passes over the retain set.")
    lr: float = param(0.05, gt=0, paper_default=1e-3, search=(5e-3, 0.2), help="Highest learning rate.")
    share: float = param(0.3, ge=0, le=1, search=(0.1, 0.6), help="Share of each layer's weights that is drawn anew.")
    slow: float = param(
        0.1, ge=0, le=1, search=(1e-2, 1.0), help="Factor of the gradients of the weights that were kept."
    )
    layers: str = param("convolutions", choices=("convolutions", "all"), help="Layers whose weights are screened.")
    batch_size: int = param(64, ge=2, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")

    def applies_to(self, facts: TaskFacts) -> str | None:
        """Not to networks without convolutions, unless linear layers are screened too."""
        reason = super().applies_to(facts)
        if not reason and self.layers == "convolutions" and {facts.network, facts.like} & {"mlp", "vit"}:
            return f"{self.card.name} with layers=convolutions does not apply to {facts.network}: set layers=all"
        return reason

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, partly drawn anew and trained."""
        edited = editable(model)
        generator = request.generator(0)
        order = torch.randperm(len(request.retain), generator=generator)
        kept = request.retain.take(order[: len(request.forget)])
        masks = self._masks(edited.eval(), kept, request.forget)
        for layer in screened(edited, self.layers):
            draw_anew(layer, masks[layer.weight], generator)
        repair = Repair(
            method=self.card.name,
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=triangle,
        )
        with slowed(masks, self.slow):
            return repair.run(edited, request)

    def _masks(self, network: nn.Module, kept: Examples, forget: Examples) -> dict[Tensor, Tensor]:
        """Weight -> mask of what is drawn anew."""
        gradients: dict[Tensor, Tensor] = dict(zip(network.parameters(), mean_gradient(network, kept), strict=True))
        for parameter, away in zip(network.parameters(), mean_gradient(network, forget), strict=True):
            gradients[parameter] -= away
        return {
            layer.weight: smallest(gradients[layer.weight], round(self.share * layer.weight.numel()))
            for layer in screened(network, self.layers)
        }
