"""Kookmin: third place of the NeurIPS 2023 challenge, under its authors' name and with their values unless tuned.

The method of msg.py: 30 % of the kernels' weights, those with the smallest gradients of ascent on D_f and descent on
an equal part of D_r, are drawn anew; five epochs on D_r with the other weights at a tenth of the rate, and a linear
warm-up and decay. The authors ran it 512 times from one original, each with its own sample.
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
    """Masked small gradients with the values of its authors."""

    card: ClassVar[MethodCard] = MethodCard(
        name="kookmin",
        title="Draws anew the kernels with the smallest gradients and trains on the retain set",
        papers=("kookmin2023unlearning",),
        family="re-initialization",
        needs=("forget", "retain"),
        networks=("cnn", "resnet18"),
        known_limitations="Small data sets: its learning rate suits 32,000 images and is too low for a few hundred.",
    )

    epochs: Duration = param(5, ge=1, search=(2, 10), help="Passes over the retain set.")
    lr: Rate = param(1e-3, gt=0, search=(1e-4, 1e-2), help="Highest learning rate.")
