"""Training and prediction: examples on the device, the training loop, losses, optimizers, seeds and FLOP counts."""

from forgetbench.tasks.recipe import Recipe
from forgetbench.training.batch_norm import has_batch_norm, recalibrate_batch_norm
from forgetbench.training.compute import count_flops
from forgetbench.training.data import Examples
from forgetbench.training.loop import (
    DivergedError,
    LossFunction,
    classification_loss,
    fit,
    lower_own_class,
    make_optimizer,
    predict,
    predict_features,
)

__all__ = [
    "DivergedError",
    "Examples",
    "LossFunction",
    "Recipe",
    "classification_loss",
    "count_flops",
    "fit",
    "has_batch_norm",
    "lower_own_class",
    "make_optimizer",
    "predict",
    "predict_features",
    "recalibrate_batch_norm",
]
