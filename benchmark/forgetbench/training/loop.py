"""Training and prediction: images stay on the device, batches are augmented as a whole, equal seeds give equal bits.

A training set of small images fits in memory as bytes, so nothing is loaded during training: a batch is an index, a
gather and a division by 255 (data.py). `fit` trains by a `Recipe`; `predict` computes logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.tasks.recipe import Recipe
from forgetbench.training import graph
from forgetbench.training.compute import autocast, channels_last, derive_seed, fused_attention, seeded
from forgetbench.training.data import Examples

LossFunction = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Loss: (network, images (B, C, H, W) in [0, 1], labels) -> scalar."""


class DivergedError(ForgetBenchError):
    """The loss became NaN or infinite; the message has the epoch and the learning rate."""


def classification_loss(
    logits: Tensor, labels: Tensor, reduction: str = "mean", label_smoothing: float = 0.0
) -> Tensor:
    """Compute the cross-entropy for classes, or the mean over attributes of the binary cross-entropy, in nats.

    The mean is the convention of MUCAC (Choi and Na 2023), so that a published learning rate means the same step.

    Args:
        logits: (B, outputs).
        labels: (B,) classes, or (B, A) zeros and ones.
        reduction: Over examples: "mean", "sum", or "none" for a loss of shape (B,).
        label_smoothing: Fraction of the target spread evenly over the classes.
    """
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, reduction=reduction, label_smoothing=label_smoothing)
    targets = labels.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()


def lower_own_class(logits: Tensor, labels: Tensor, network: nn.Module, recipe: Recipe) -> Tensor:
    """Logits (B, K) for a training loss: with the recipe's margin, that of the own class is lowered by margin x scale.

    Args:
        logits: (B, K).
        labels: (B,) classes.
        network: Has a `CosineHead` if the recipe has a margin.
        recipe: Its margin of 0 leaves the logits as they are.
    """
    if not recipe.margin:
        return logits
    scale = cast("float", network.head.scale)  # type: ignore[union-attr]
    return logits - recipe.margin * scale * functional.one_hot(labels, logits.shape[1]).to(logits.dtype)


def make_optimizer(
    parameters: Sequence[nn.Parameter] | Iterator[nn.Parameter],
    name: str,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    *,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """Make an optimizer, fused, which halves the time of a step on a CPU, too.

    Args:
        parameters: Parameters to train.
        name: "sgd", "adam" or "adamw".
        lr: Learning rate.
        momentum: Momentum of SGD.
        weight_decay: Weight decay.
        nesterov: Whether SGD uses Nesterov momentum.

    Raises:
        UsageError: The name is unknown.
    """
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
    """Compute the learning rate of a step: linear warm-up, then the schedule over the remaining steps.

    Args:
        recipe: Schedule, learning rate and number of epochs.
        step: Number of the step, from 0.
        steps_per_epoch: Steps per epoch.
    """
    total = recipe.epochs * steps_per_epoch
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** sum(step // steps_per_epoch >= epoch for epoch in recipe.milestones)
    if recipe.schedule == "one-cycle":
        # half a cosine from 0.04 of the highest rate up to it over 0.3 of the steps, and another down to 1e-4 of it
        low, phase = (0.04, progress / 0.3) if progress < 0.3 else (1e-4, 1 - (progress - 0.3) / 0.7)
        return recipe.lr * (low + (1 - low) * 0.5 * (1 - math.cos(math.pi * phase)))
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

    On a CPU with one thread, equal seeds give equal bits. The caller's random state is neither used nor changed. On a
    GPU the step is replayed as a graph (graph.py), unless the loss is given, whose code may not allow that.

    Args:
        network: A network for images in [0, 1], on the same device as the examples.
        examples: At least two, since batch-norm needs the variance of at least two.
        recipe: Epochs, batch size, optimizer, schedule and augmentation.
        seed: Seed of order, augmentation, and the network's own randomness (dropout).
        loss: Loss to minimize; None: `classification_loss` with the recipe's label smoothing.
        on_epoch: Called after each epoch with its number, from 0, and its mean loss.

    Raises:
        DivergedError: The loss became NaN or infinite.
        UsageError: There are fewer than two examples.
    """
    if len(examples) < 2:
        raise UsageError(f"Training needs at least two examples, not {len(examples)}.")
    device = examples.device
    with seeded(seed, device), channels_last(network), fused_attention(network, device):
        network.train()
        training = _Training(network, examples, recipe, loss if loss is not None else _recipe_loss(recipe))
        run = training.step
        if loss is None and graph.is_supported(device):
            run = graph.GraphedStep(training.step, training.optimizer, device, recipe.batch_size)
        for epoch in range(recipe.epochs):
            mean = training.epoch(epoch, seed, run)
            if not math.isfinite(mean):
                raise DivergedError(
                    f"Training diverged in epoch {epoch + 1} of {recipe.epochs} at learning rate {training.lr:.3g}."
                )
            if on_epoch is not None:
                on_epoch(epoch, mean)
    return network.eval()


def _recipe_loss(recipe: Recipe) -> LossFunction:
    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        logits = lower_own_class(network(images), labels, network, recipe)
        return classification_loss(logits, labels, label_smoothing=recipe.label_smoothing)

    return loss


class _Training:
    """The optimizer, learning rate and sum of losses of one training."""

    def __init__(self, network: nn.Module, examples: Examples, recipe: Recipe, loss: LossFunction) -> None:
        self._network, self._examples, self._recipe, self._loss = network, examples, recipe, loss
        self.optimizer = make_optimizer(
            network.parameters(),
            recipe.optimizer,
            recipe.lr,
            recipe.momentum,
            recipe.weight_decay,
            nesterov=recipe.nesterov,
        )
        self._total = torch.zeros((), device=examples.device)
        self.lr = recipe.lr

    def step(self, rows: Tensor, draws: Tensor | None) -> None:
        """Take one step on the examples of these rows."""
        recipe, device = self._recipe, self._examples.device
        images, labels = self._examples.gather(rows, draws, recipe.augment, recipe.crop_padding)
        with autocast(device, recipe):
            value = self._loss(self._network, images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        if recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), recipe.grad_clip)
        self.optimizer.step()
        self._total += value.detach().float() * len(images)

    def epoch(self, epoch: int, seed: int, run: graph.Step) -> float:
        """Train for one epoch, each step by `run`, and return the mean loss."""
        recipe = self._recipe
        plan = self._examples.plan(recipe.batch_size, derive_seed(seed, epoch), recipe.augment, recipe.crop_padding)
        self._total.zero_()
        for position, (rows, draws) in enumerate(plan.steps()):
            self.lr = learning_rate(recipe, epoch * len(plan.sizes) + position, len(plan.sizes))
            graph.set_lr(self.optimizer, self.lr)
            run(rows, draws)
        return float(self._total) / len(self._examples)  # read once per epoch: reading a value waits for the GPU


def predict(
    network: nn.Module, examples: Examples, batch_size: int = 512, *, bfloat16: bool = False
) -> NDArray[np.float32]:
    """Compute logits (n, outputs) in float32, in eval mode and in order; the network's mode is restored.

    Args:
        network: A network for images in [0, 1].
        examples: Images to predict.
        batch_size: Images per batch.
        bfloat16: Whether features are computed in bfloat16, by a network with `features` and `head`. Logits are float32
            all the same: those of bfloat16 have 8 bits, so that many examples would have equal ones.
    """
    if not bfloat16:
        return _predict(network, network, examples, batch_size)
    features = _bfloat16_features(network, examples.device)
    with channels_last(network):
        return _predict(network, lambda images: network.head(features(images)), examples, batch_size)  # type: ignore[operator]


def predict_features(
    network: nn.Module, examples: Examples, batch_size: int = 512, *, bfloat16: bool = False
) -> NDArray[np.float32]:
    """Compute penultimate features (n, F) in float32, in the same way as `predict`."""
    if not bfloat16:
        return _predict(network, network.features, examples, batch_size)  # type: ignore[arg-type]
    with channels_last(network):
        return _predict(network, _bfloat16_features(network, examples.device), examples, batch_size)


def _bfloat16_features(network: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    def features(images: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            computed: Tensor = network.features(images)  # type: ignore[operator]
        return computed.float()

    return features


def _predict(
    network: nn.Module, forward: Callable[[Tensor], Tensor], examples: Examples, batch_size: int
) -> NDArray[np.float32]:
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode(), fused_attention(network, examples.device):
            outputs = [forward(images).float().cpu() for images, _ in examples.batches(batch_size)]
            if not outputs:  # an array of no rows needs the number of columns
                outputs = [forward(torch.zeros_like(examples.images, dtype=torch.float32)).cpu()]
    finally:
        network.train(was_training)
    return torch.cat(outputs).numpy()
