"""The reference rows of every board: the original as it is, and retraining."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods import methods
from forgetbench.methods.base import ForgetRequest, Method, MethodCard
from forgetbench.training import fit


@methods.register("none")
@dataclass(frozen=True, kw_only=True)
class NoUnlearning(Method):
    """Return the original unchanged."""

    card: ClassVar[MethodCard] = MethodCard(
        name="none",
        title="No unlearning: the original, unchanged",
        family="reference",
        random=False,
        known_limitations="Forgets nothing.",
        reference=True,
    )

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:  # noqa: ARG002
        """A copy of the model."""
        return copy.deepcopy(model)


@methods.register("retrain")
@dataclass(frozen=True, kw_only=True)
class Retrain(Method):
    """Train a new network on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="retrain",
        title="A new network, trained on the retain set with the same recipe",
        family="reference",
        needs=("retain",),
        known_limitations="Expensive.",
        reference=True,
    )

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:  # noqa: ARG002
        """A newly trained network."""
        return fit(request.new_network(), request.retain, request.recipe, request.seed)
