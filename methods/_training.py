"""Plumbing of the methods' training loops: shared hyper-parameters, modes, seeds, precision and a check of the loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from forgetbench.errors import UsageError
from forgetbench.methods.base import ForgetRequest, param
from forgetbench.training import DivergedError, Examples, recalibrate_batch_norm
from forgetbench.training.compute import autocast, channels_last, seeded

BATCH_NORM = ("train", "eval", "recalibrate")
"""Values of the shared hyper-parameter `batch_norm`; see `batch_norm_option`."""


def batch_norm_option(
    default: str | None, *, paper_default: str | None = None, note: str = "", retain: bool = True
) -> Any:
    """Declare the hyper-parameter `batch_norm`: how layers of batch-norm work while a method trains.

    "train": layers normalize by the mean and variance of the batch, and their running statistics move, as in ordinary
    training. "eval": layers normalize by the running statistics, which stay as they are; weights and biases of the
    layers are trained like all others. "recalibrate": as "train", and at the end the running statistics of all layers
    are estimated again by one pass over the retained images, since they lag behind the weights; methods that need no
    retained images do not offer it. All are the same for networks without batch-norm.

    Args:
        default: The method's default.
        paper_default: The value of the paper or its code, where it differs.
        note: What is special in this method, such as "in the forget rounds".
        retain: Whether the method needs retained images, as its card says, and thus offers "recalibrate".
    """
    recalibrate = "; recalibrate = as train, then estimated again on retained images" if retain else ""
    return param(
        default,
        choices=BATCH_NORM if retain else BATCH_NORM[:2],
        paper_default=paper_default,
        help=f"Batch-norm{note and f' {note}'}: train = by the batch, moving the statistics; eval = by fixed ones"
        f"{recalibrate}.",
    )


def clip_option(default: float | None, *, paper_default: float | None = None) -> Any:
    """Declare the hyper-parameter `clip`: the largest norm of a gradient over all weights; larger ones are scaled."""
    return param(default, gt=0, paper_default=paper_default, help="Largest norm of the gradient; None = not clipped.")


def augment_option(default: bool, *, paper_default: bool | None = None) -> Any:
    """Declare the hyper-parameter `augment`: whether training images are augmented as in the recipe of the original."""
    return param(default, paper_default=paper_default, help="Whether training images are augmented as in the recipe.")


def augmentation(request: ForgetRequest, *, augment: bool) -> tuple[tuple[str, ...], int]:
    """The last two arguments of `Examples.batches`: the recipe's augmentation, or none."""
    return (request.recipe.augment if augment else ()), request.recipe.crop_padding


def clone_model(model: nn.Module) -> nn.Module:
    """A deep copy in which all parameters take gradients; the given model is never changed."""
    return copy.deepcopy(model).requires_grad_(requires_grad=True)


def set_mode(network: nn.Module, *, batch_norm: str) -> None:
    """Set train mode, with batch-norm as `batch_norm_option` says."""
    network.train()
    if batch_norm == "eval":
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


class TrainLoop:
    """One training loop in progress; see `train_loop`."""

    def __init__(
        self, network: nn.Module, request: ForgetRequest, optimizer: torch.optim.Optimizer, method: str, batch_norm: str
    ) -> None:
        self._network, self._optimizer, self._method, self._batch_norm = network, optimizer, method, batch_norm
        self._device, self._recipe = request.device, request.recipe
        self._epoch = 0
        self._total = torch.zeros((), device=self._device)

    def epochs(self, count: int) -> Iterator[int]:
        """Epoch numbers from 0; each sets the network's mode before it and checks the sum of its losses after it.

        Raises:
            DivergedError: A loss is NaN or infinite.
        """
        for self._epoch in range(count):
            set_mode(self._network, batch_norm=self._batch_norm)
            self._total.zero_()
            yield self._epoch
            self.check()

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the recipe, for the forward pass and the loss."""
        return autocast(self._device, self._recipe)

    def backward(self, loss: Tensor) -> None:
        """Replace all gradients by those of a loss; a method may change them before it calls `optimizer.step()`."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._total += loss.detach().float()

    def step(self, loss: Tensor, *, clip: float | None = None) -> None:
        """Take one step of the optimizer on a loss, with a gradient of norm `clip` at most."""
        self.backward(loss)
        if clip is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), clip)
        self._optimizer.step()

    def check(self) -> None:
        """Raise `DivergedError` if a loss of the current epoch was NaN or infinite."""
        # once per epoch, because reading a number from a GPU waits for all work on it
        check_finite(float(self._total), self._method, self._epoch, self._optimizer.param_groups[0]["lr"])


@contextmanager
def train_loop(
    network: nn.Module,
    request: ForgetRequest,
    optimizer: torch.optim.Optimizer,
    method: str,
    *,
    batch_norm: str = "eval",
    last: bool = True,
) -> Iterator[TrainLoop]:
    """Prepare a network for a training loop, and return it to eval mode afterwards.

    A method writes its loop in the block::

        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(self.epochs):
                for images, labels in request.retain.batches(self.batch_size, request.derive_seed(epoch)):
                    with loop.autocast():
                        loss = classification_loss(network(images), labels)
                    loop.step(loss)

    Args:
        network: A copy that may be changed in place.
        request: Gives seed, precision and device.
        optimizer: Holds the parameters that may change.
        method: Name, for the message of `DivergedError`.
        batch_norm: See `batch_norm_option`.
        last: Whether no other loop trains the network afterwards: only then statistics are estimated again.

    Raises:
        DivergedError: A loss is NaN or infinite.
        UsageError: Batch-norm in train mode got a batch of one value per channel.
    """
    with seeded(request.seed, request.device), channels_last(network):
        loop = TrainLoop(network, request, optimizer, method, batch_norm)
        try:
            yield loop
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                raise UsageError(f"{method}: one example has no variance. Set batch_norm=eval.") from None
            raise
        loop.check()
    optimizer.zero_grad(set_to_none=True)
    network.eval()
    if last:
        finish_batch_norm(network, request, batch_norm)


def finish_batch_norm(network: nn.Module, request: ForgetRequest, batch_norm: str) -> None:
    """Estimate the statistics of a network again, in place, if `batch_norm` is "recalibrate"; `train_loop` does it."""
    if batch_norm == "recalibrate":
        recalibrate_batch_norm(network, request.retain, request.recipe)


def check_finite(value: float, method: str, epoch: int, lr: float) -> None:
    """Raise `DivergedError` with method, epoch (counted from 1) and learning rate if a loss is NaN or infinite."""
    if not math.isfinite(value):
        raise DivergedError(f"{method} diverged in epoch {epoch + 1} at learning rate {lr:.3g}: the loss is {value}")


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def cycle(
    examples: Examples, size: int, request: ForgetRequest, stream: int, *, augment: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless shuffled batches, in a new order in each pass, with the recipe's augmentation if wanted."""
    turn = 0
    while True:
        yield from examples.batches(size, request.derive_seed(stream, turn), *augmentation(request, augment=augment))
        turn += 1


def accuracy(network: nn.Module, examples: Examples, batch_size: int = 512) -> float:
    """Fraction of correct answers in eval mode (mean over attributes); the network's mode is restored."""
    was_training = network.training
    network.eval()
    correct = torch.zeros((), device=examples.device)
    with torch.no_grad():
        for images, labels in examples.batches(batch_size):
            logits = network(images)
            hits = logits.argmax(1) == labels if labels.ndim == 1 else ((logits > 0) == labels.bool()).float().mean(1)
            correct += hits.sum()
    network.train(was_training)
    return float(correct) / len(examples)


def n_outputs(network: nn.Module) -> int:
    """Number of classes or attributes that a network predicts."""
    return int(cast("nn.Linear", network.head).out_features)


def random_labels(labels: Tensor, classes: int, generator: torch.Generator, *, label_space: str = "wrong") -> Tensor:
    """Random labels for (N,) classes or (N, A) attributes, as a new tensor.

    Args:
        labels: int64, the true ones.
        classes: Number of classes; not used for attributes.
        generator: On the CPU.
        label_space: "wrong" draws uniformly from the wrong classes, "all" from all classes. With either, each attribute
            is flipped with probability one half.
    """
    if labels.ndim == 2:
        return torch.randint(0, 2, tuple(labels.shape), generator=generator).to(labels.device)
    if label_space == "all":
        return torch.randint(0, classes, (len(labels),), generator=generator).to(labels.device)
    if classes < 2:
        raise UsageError("A random wrong label needs at least two classes.")
    shift = torch.randint(1, classes, (len(labels),), generator=generator).to(labels.device)
    return (labels + shift) % classes


def forgotten_classes(request: ForgetRequest) -> list[int]:
    """The classes of the forget set that no retained example has, in ascending order."""
    return sorted(set(request.forget.labels.tolist()) - set(request.retain.labels.tolist()))
