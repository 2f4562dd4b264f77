"""Linear probe: a new linear classifier on the frozen features, fitted with all forgotten examples.

    L2 logistic regression on standardized penultimate features; C by accuracy on validation examples

Alain and Bengio 2017; the metric `probe` of erase boards as an attack, on the same at most 100 examples of each class.
The attacker holds the whole forget set, so the features of oracles separate the class as well: what counts is the band.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from forgetbench.attacks import attacks
from forgetbench.attacks.base import Attack, AttackCard, Knowledge
from forgetbench.errors import ForgetBenchError
from forgetbench.metrics.probes import Rows, fit_probe
from forgetbench.training import Examples, predict_features


@attacks.register("linear-probe")
@dataclass(frozen=True, kw_only=True)
class LinearProbe(Attack):
    """Fits a new linear classifier on the frozen features."""

    card: ClassVar[AttackCard] = AttackCard(
        name="linear-probe",
        title="Fits a new linear classifier on the features",
        papers=("alain2017understanding",),
        holds=("model", "retain", "forget", "validation"),
        attributes=False,
        random=None,
        known_limitations="What only a non-linear classifier reads; features that never saw a class separate it too.",
    )

    def attack(self, model: nn.Module, knowledge: Knowledge, seed: int) -> dict[str, Tensor]:
        """Log-probabilities of the queries."""

        def rows(examples: Examples) -> Rows:
            features = predict_features(model, examples).astype(np.float64)
            return Rows(features, examples.labels.cpu().numpy())

        probe = fit_probe(rows(knowledge.retain.join(knowledge.forget)), rows(knowledge.validation), seed)
        if probe is None:
            raise ForgetBenchError("no feature varies between training examples: there is nothing to read")
        outputs = cast("nn.Linear", model.head).out_features

        def answer(images: Tensor, _: Tensor) -> Tensor:
            features = model.features(images).double().cpu().numpy()  # type: ignore[operator]
            return torch.tensor(probe.scores(features, outputs))

        return knowledge.answer(answer)
