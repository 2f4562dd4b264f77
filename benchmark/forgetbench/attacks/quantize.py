"""Quantization: round the weights to few bits, as a model is stored for deployment.

    w <- s_c round(w / s_c),   s_c = max |w_c| / (2^(bits-1) - 1) for each output channel c

Zhang et al. 2025 show for language models that 4 bits bring back what was unlearned by small changes of the weights,
which rounding undoes. Symmetric, per output channel, weights only (biases, normalization and activations keep their
precision); the paper quantizes language models by round-to-nearest, GPTQ and AWQ, of which this is the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.attacks import attacks
from forgetbench.attacks._training import clone
from forgetbench.attacks.base import Attack, AttackCard, Knowledge, param


def weight_matrices(network: nn.Module) -> Iterator[nn.Parameter]:
    """The weights of linear, convolutional and attention layers: those with an output channel as first dimension."""
    for name, parameter in network.named_parameters():
        last = name.rpartition(".")[2]
        if parameter.ndim >= 2 and (last == "weight" or last.endswith("_weight")):
            yield parameter


@attacks.register("quantize")
@dataclass(frozen=True, kw_only=True)
class Quantize(Attack):
    """Rounds the weights to 8 or 4 bits, symmetric per output channel."""

    card: ClassVar[AttackCard] = AttackCard(
        name="quantize",
        title="Rounds the weights to few bits",
        papers=("zhang2025catastrophic",),
        holds=("model",),
        budget="bits",
        budgets=(8, 4),
        random=False,
        known_limitations="Changes of weights that are larger than a step of the rounding.",
    )

    bits: int = param(4, ge=2, le=16, help="Bits of a weight.")

    def attack(self, model: nn.Module, knowledge: Knowledge, seed: int) -> nn.Module:
        """A copy of the model with rounded weights, stored as floats."""
        network = clone(model)
        with torch.no_grad():
            for weight in weight_matrices(network):
                weight.copy_(self._rounded(weight))
        return network

    def _rounded(self, weight: Tensor) -> Tensor:
        largest = weight.abs().flatten(1).amax(1).view(-1, *[1] * (weight.ndim - 1))
        step = largest / (2 ** (self.bits - 1) - 1)
        step = torch.where(step > 0, step, torch.ones_like(step))  # a channel of zeros stays as it is
        return (weight / step).round() * step
