"""The loop that methods share: modes, seeds, precision, zeroed gradients, and an honest word when the loss blows up."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from forgetbench.errors import UsageError
from forgetbench.methods.base import ForgetRequest
from forgetbench.training import DivergedError, Examples
from forgetbench.training.compute import autocast, channels_last, seeded

T = TypeVar("T")


def editable(model: nn.Module) -> nn.Module:
    """A copy whose parameters all take gradients; the model given is never touched."""
    edited = copy.deepcopy(model)
    return edited.requires_grad_(requires_grad=True)


def set_mode(network: nn.Module, *, batch_norm: str) -> None:
    """Train mode, batch-norm statistics moving (`train`) or held as the original has them (`eval`)."""
    network.train()
    if batch_norm == "eval":
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def descend(
    network: nn.Module,
    request: ForgetRequest,
    *,
    epochs: int,
    batches: Callable[[int], Iterable[T]],
    loss: Callable[[T], Tensor],
    optimizer: torch.optim.Optimizer,
    method: str,
    batch_norm: str = "eval",
    after_epoch: Callable[[int], bool] | None = None,
) -> nn.Module:
    """Minimize a loss over batches for some epochs, in place; the network comes back in eval mode.

    Args:
        network: A copy of one's own.
        request: For its seed, precision and device.
        epochs: Passes.
        batches: Epoch -> its batches, of whatever the loss takes.
        loss: A scalar of one batch.
        optimizer: Holds the parameters that may change.
        method: Its name, for the message of `DivergedError`.
        batch_norm: "eval" holds the running statistics, "train" lets them move as in training.
        after_epoch: Called with the epoch; stops the loop by returning True.

    Raises:
        DivergedError: The loss is no longer a number.
    """
    device = request.device
    with seeded(request.seed, device), channels_last(network):
        for epoch in range(epochs):
            set_mode(network, batch_norm=batch_norm)
            total = torch.zeros((), device=device)
            for batch in batches(epoch):
                with autocast(device, enabled=request.recipe.mixed_precision):
                    value = loss(batch)
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                optimizer.step()
                total += value.detach().float()
            check_finite(float(total), method, epoch, optimizer.param_groups[0]["lr"])
            if after_epoch is not None and after_epoch(epoch):
                break
    optimizer.zero_grad(set_to_none=True)
    return network.eval()


def check_finite(value: float, method: str, epoch: int, lr: float) -> None:
    """Raise `DivergedError`, naming method, epoch (from 1) and learning rate, unless the loss is a number."""
    if not math.isfinite(value):
        raise DivergedError(f"{method} diverged in epoch {epoch + 1} at learning rate {lr:.3g}: the loss is {value}")


def endless(examples: Examples, size: int, request: ForgetRequest, stream: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches without end, another order each time round."""
    turn = 0
    while True:
        yield from examples.batches(size, request.seed_of(stream, turn))
        turn += 1


def accuracy(network: nn.Module, examples: Examples, batch_size: int = 512) -> float:
    """Share of right answers, in eval mode (mean over attributes); the network's mode is put back."""
    was_training = network.training
    network.eval()
    right = torch.zeros((), device=examples.device)
    with torch.no_grad():
        for images, labels in examples.batches(batch_size):
            logits = network(images)
            hits = logits.argmax(1) == labels if labels.ndim == 1 else ((logits > 0) == labels.bool()).float().mean(1)
            right += hits.sum()
    network.train(was_training)
    return float(right) / len(examples)


def outputs_of(network: nn.Module) -> int:
    """How many classes, or attributes, a network answers for."""
    return int(cast("nn.Linear", network.head).out_features)


def random_labels(labels: Tensor, classes: int, generator: torch.Generator, *, over: str = "other") -> Tensor:
    """Labels drawn at random for (N,) classes or (N, A) attributes; the ones given are left alone.

    Args:
        labels: int64, the true ones.
        classes: Number of classes; not read for attributes.
        generator: On the CPU.
        over: "other" draws uniformly from the wrong classes, "all" from all of them, the true one among them. Each
            attribute is flipped with probability one half either way.
    """
    if labels.ndim == 2:
        return torch.randint(0, 2, tuple(labels.shape), generator=generator).to(labels.device)
    if over == "all":
        return torch.randint(0, classes, (len(labels),), generator=generator).to(labels.device)
    if classes < 2:
        raise UsageError("a random wrong label needs at least two classes")
    shift = torch.randint(1, classes, (len(labels),), generator=generator).to(labels.device)
    return (labels + shift) % classes


def forgotten_classes(request: ForgetRequest, method: str) -> list[int]:
    """The classes of the forget set that no retained example has.

    Raises:
        UsageError: There is none: the request does not forget whole classes.
    """
    gone = set(request.forget.labels.tolist()) - set(request.retain.labels.tolist())
    if not gone:
        raise UsageError(f"{method} forgets whole classes, and every class of the forget set is also retained")
    return sorted(gone)
