"""Fine-tuning: continue training on the retain set, and let the model forget the rest on its own.

    min CE(D_r), starting from the original

The baseline of nearly every paper (as "catastrophic forgetting", for example in Warnecke et al. 2023 and Golatkar et
al. 2020). Batch-norm statistics move, as in training. The learning rate falls by a cosine; most papers keep it
constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from forgetbench.methods import methods
from forgetbench.methods._training import clone_model
from forgetbench.methods.base import ForgetRequest, Method, MethodCard, Recipe, param
from forgetbench.training import fit


@methods.register("finetune")
@dataclass(frozen=True, kw_only=True)
class FineTune(Method):
    """Train the original on the retain set for a few more epochs."""

    card: ClassVar[MethodCard] = MethodCard(
        name="finetune",
        title="Goes on training on the retain set",
        papers=("warnecke2023machine",),
        family="fine-tuning",
        needs=("retain",),
        known_limitations="Memorized examples: a few epochs at a small learning rate leave them as they were.",
    )

    epochs: int = param(5, ge=1, paper_default=10, search=(2, 10), help="Passes over the retain set.")
    lr: float = param(0.02, gt=0, paper_default=0.01, search=(1e-3, 2e-1), help="Highest learning rate.")
    batch_size: int = param(128, ge=2, help="Examples per step.")
    momentum: float = param(0.9, ge=0, lt=1, help="Momentum of SGD.")
    weight_decay: float = param(5e-4, ge=0, help="Weight decay of SGD.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, trained further."""
        recipe = Recipe.model_validate(
            {
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "lr": self.lr,
                "momentum": self.momentum,
                "weight_decay": self.weight_decay,
                "augment": request.recipe.augment,
                "crop_padding": request.recipe.crop_padding,
                "mixed_precision": request.recipe.mixed_precision,
            }
        )
        return fit(clone_model(model), request.retain, recipe, request.seed)
