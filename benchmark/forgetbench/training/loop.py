"""Fit a network and ask it: device-resident images, augmentation by the batch, the same bits for the same seed.

A training set of small images fits in memory as bytes, so nothing is loaded while training: a batch is an index, a
gather and a division by 255 (examples.py). `fit` trains by a `Recipe`; `predict` asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.tasks.recipe import Recipe
from forgetbench.training.compute import autocast, channels_last, derived_seed, seeded
from forgetbench.training.data import Examples, batch_sizes

LossFunction = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""What is minimized: (network, images (B,C,H,W) in [0,1], labels) -> a scalar."""


class DivergedError(ForgetBenchError):
    """The loss is no longer a number; the message names what ran, its epoch and its learning rate."""


def classification_loss(
    logits: Tensor, labels: Tensor, reduction: str = "mean", label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy for labels (B,); for attributes (B, A) the binary cross-entropy summed over the attributes.

    `reduction` is over examples: "mean", "sum", or "none" for shape (B,). In nats.
    """
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, reduction=reduction, label_smoothing=label_smoothing)
    targets = labels.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    each = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
    return each if reduction == "none" else each.mean() if reduction == "mean" else each.sum()


def criterion(label_smoothing: float = 0.0) -> LossFunction:
    """The loss that networks are trained with: `classification_loss` of the network's answer."""

    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return classification_loss(network(images), labels, label_smoothing=label_smoothing)

    return loss


def make_optimizer(
    parameters: Sequence[nn.Parameter] | Iterator[nn.Parameter],
    name: str,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    *,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """An optimizer by its name; fused, which on a CPU also saves half of the time of a step."""
    trained = list(parameters)
    if name == "sgd":
        return torch.optim.SGD(
            trained, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True
        )
    if name in ("adam", "adamw"):
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        return kind(trained, lr=lr, weight_decay=weight_decay, fused=True)
    raise UsageError(f"Unknown optimizer {name!r}. Available: sgd, adam, adamw.")


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step (counted from 0): linear warm-up, then the schedule over what is left."""
    total = recipe.epochs * steps_per_epoch
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    done = (step - warmup) / max(total - warmup, 1)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** sum(step // steps_per_epoch >= epoch for epoch in recipe.milestones)
    if recipe.schedule == "one-cycle":
        low, turn = (0.04, done / 0.3) if done < 0.3 else (1e-4, 1 - (done - 0.3) / 0.7)
        return recipe.lr * (low + (1 - low) * 0.5 * (1 - math.cos(math.pi * turn)))
    return recipe.lr


def fit(
    network: nn.Module,
    examples: Examples,
    recipe: Recipe,
    seed: int,
    *,
    loss: LossFunction | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Train a network in place by a recipe, and return it in eval mode.

    On the CPU with one thread the same seed gives the same bits. The caller's random state is neither read nor changed.

    Args:
        network: Takes images in [0,1]; on the same device as the examples.
        examples: At least two, since batch-norm has no variance of one.
        recipe: How.
        seed: Of order, augmentation, and whatever the network draws (dropout).
        loss: What is minimized; None = cross-entropy with the recipe's label smoothing.
        on_epoch: Called after each epoch (counted from 0) with its mean loss.

    Raises:
        DivergedError: The loss became NaN or infinite.
        UsageError: There are fewer than two examples.
    """
    if len(examples) < 2:
        raise UsageError(f"training needs at least two examples, not {len(examples)}")
    minimized = loss if loss is not None else criterion(recipe.label_smoothing)
    optimizer = make_optimizer(
        network.parameters(),
        recipe.optimizer,
        recipe.lr,
        recipe.momentum,
        recipe.weight_decay,
        nesterov=recipe.nesterov,
    )
    with seeded(seed, examples.device), channels_last(network):
        network.train()
        for epoch in range(recipe.epochs):
            mean = _one_epoch(network, examples, recipe, seed, epoch, minimized, optimizer)
            if not math.isfinite(mean):
                lr = optimizer.param_groups[0]["lr"]
                raise DivergedError(
                    f"training diverged in epoch {epoch + 1} of {recipe.epochs} at learning rate {lr:.3g}"
                )
            if on_epoch is not None:
                on_epoch(epoch, mean)
    return network.eval()


def _one_epoch(
    network: nn.Module,
    examples: Examples,
    recipe: Recipe,
    seed: int,
    epoch: int,
    loss: LossFunction,
    optimizer: torch.optim.Optimizer,
) -> float:
    steps = len(batch_sizes(len(examples), recipe.batch_size))
    total = torch.zeros((), device=examples.device)
    batches = examples.batches(recipe.batch_size, derived_seed(seed, epoch), recipe.augment, recipe.crop_padding)
    for position, (images, labels) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch * steps + position, steps)
        with autocast(examples.device, enabled=recipe.mixed_precision):
            value = loss(network, images, labels)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        if recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.grad_clip)
        optimizer.step()
        total += value.detach().float() * len(images)  # read once per epoch: reading a GPU's number waits for it
    return float(total) / len(examples)


def predict(network: nn.Module, examples: Examples, batch_size: int = 512) -> NDArray[np.float32]:
    """Logits (n, outputs) in float32: eval mode, in order, without augmentation; the network's mode is put back."""
    return _ask(network, network, examples, batch_size)


def predict_features(network: nn.Module, examples: Examples, batch_size: int = 512) -> NDArray[np.float32]:
    """Penultimate features (n, F) in float32, asked as `predict` asks."""
    return _ask(network, network.features, examples, batch_size)  # type: ignore[arg-type]


def _ask(
    network: nn.Module, question: Callable[[Tensor], Tensor], examples: Examples, batch_size: int
) -> NDArray[np.float32]:
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            answers = [question(images).float().cpu() for images, _ in examples.batches(batch_size)]
            if not answers:  # an empty view has a shape too
                answers = [question(torch.zeros_like(examples.images, dtype=torch.float32)).cpu()]
    finally:
        network.train(was_training)
    return torch.cat(answers).numpy()
