"""Kookmin: third place of the NeurIPS 2023 challenge, under its authors' name.

The method of msg.py: the kernels' weights with the smallest gradients of ascent on D_f and descent on an equal part of
D_r are drawn anew; a few epochs on D_r with the other weights at a part of the rate, and a linear warm-up and decay.
The authors drew 30 % anew and took five epochs, a tenth of the rate and a rate for 32,000 images (`preset=paper`); the
defaults suit small sets too. They ran it 512 times from one original, each with its own sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgetbench.methods import methods
from forgetbench.methods.base import Duration, MethodCard, Rate, param
from forgetbench.methods.msg import MaskedSmallGradients


@methods.register("kookmin")
@dataclass(frozen=True, kw_only=True)
class Kookmin(MaskedSmallGradients):
    """Masked small gradients as its authors named it."""

    card: ClassVar[MethodCard] = MethodCard(
        name="kookmin",
        title="Draws anew the kernels with the smallest gradients and trains on the retain set",
        papers=("kookmin2023unlearning",),
        family="re-initialization",
        needs=("forget", "retain"),
        networks=("cnn", "resnet18"),
        known_limitations="Short training: new weights cost accuracy until the retain set has been seen often enough.",
    )

    epochs: Duration = param(
        "0.3x", ge=1, paper_default=5, search=("0.08x", "0.4x"), help="Passes over the retain set."
    )
    lr: Rate = param("2x", gt=0, paper_default=1e-3, search=("0.02x", "4x"), help="Highest learning rate.")
    mask_ratio: float = param(
        0.6,
        ge=0,
        le=1,
        paper_default=0.3,
        search=(0.1, 0.6),
        aliases=("share",),
        help="Ratio of each layer's weights that are drawn anew.",
    )
    gradient_scale: float = param(
        0.03,
        ge=0,
        le=1,
        paper_default=0.1,
        search=(1e-2, 1.0),
        aliases=("slow",),
        help="Factor of the gradients of the other weights.",
    )
