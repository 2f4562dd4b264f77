"""Retraining, the gold standard: a fresh network trained on the retain set by the recipe of the original.

On boards its row is the control oracles; nothing is trained a third time. Every parameter tensor differs from the
original's. (The released code of Foster et al. 2024 re-initialises the last layer alone and calls it retraining.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods.base import ForgetRequest, Method, MethodCard
from forgetbench.training import fit


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
