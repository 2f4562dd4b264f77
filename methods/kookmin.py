"""Kookmin: the third place of the NeurIPS 2023 challenge, by its authors' name and with their values where untuned.

The same as `msg`, which see: 30 % of the convolutions' weights, those with the smallest gradients of ascent on D_f and
descent on an equal part of D_r, are drawn anew; five epochs on D_r, weights that were kept at a tenth of the rate, a
linear warm-up and decay. The authors ran it 512 times from one original, each with a sample of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgetbench.methods.base import MethodCard, param
from forgetbench.methods.msg import CHALLENGE, MaskedSmallGradients


@dataclass(frozen=True, kw_only=True)
class Kookmin(MaskedSmallGradients):
    """Masked small gradients with the values of its authors."""

    card: ClassVar[MethodCard] = MethodCard(
        name="kookmin",
        title="Draws anew the kernels with the smallest gradients and trains on the retain set",
        authors="Team of Kookmin University",
        year=2023,
        venue="NeurIPS 2023 Machine Unlearning Challenge",
        link=CHALLENGE,
        bibtex="@misc{kookmin2023unlearning, title={Targeted Re-initialization and Retraining, third place of the "
        "NeurIPS 2023 Machine Unlearning Challenge}, author={{Kookmin University}}, year={2023}}",
        family="re-initialization",
        needs=frozenset({"forget", "retain"}),
        networks=("cnn", "resnet18"),
        fails_at="small sets: its rate is that of 32,000 images, and too low to repair a network on some hundred",
    )

    epochs: int = param(5, low=1, search=(2, 10), help="Passes over the retain set.")
    lr: float = param(1e-3, above=0, search=(1e-4, 1e-2), help="Highest learning rate.")
