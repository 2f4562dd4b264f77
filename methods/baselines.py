"""No unlearning: the original as it is, a row that stands on every board."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods.base import ForgetRequest, Method, MethodCard
from forgetbench.training import fit


@dataclass(frozen=True, kw_only=True)
class NoUnlearning(Method):
    """Return the original, untouched."""

    card: ClassVar[MethodCard] = MethodCard(
        name="none",
        title="No unlearning: the original, untouched",
        authors="",
        year=None,
        venue="this benchmark",
        link="",
        bibtex="",
        family="reference",
        needs=frozenset(),
        random=False,
        reference=True,
        fails_at="forgetting anything",
    )

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:  # noqa: ARG002
        """A copy of the model."""
        return copy.deepcopy(model)


@dataclass(frozen=True, kw_only=True)
class Retrain(Method):
    """Train a fresh network on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="retrain",
        title="A fresh network, trained on the retain set by the same recipe",
        authors="",
        year=None,
        venue="this benchmark",
        link="",
        bibtex="",
        family="reference",
        needs=frozenset({"retain"}),
        reference=True,
        fails_at="being cheap",
    )

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:  # noqa: ARG002
        """A newly trained network."""
        return fit(request.fresh_network(), request.retain, request.recipe, request.seed)
