"""Repair: the training on the retain set that methods end with after they have damaged the original."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from forgetbench.methods._training import descend
from forgetbench.methods.base import ForgetRequest
from forgetbench.training import classification_loss, make_optimizer
from forgetbench.training.data import batch_sizes

BatchLoss = Callable[[Tensor, Tensor], Tensor]
"""(images, labels) -> a scalar."""


def cosine(done: float) -> float:
    """Half a cosine from 1 to 0, of the share of the steps that is done."""
    return 0.5 * (1 + math.cos(math.pi * done))


def triangle(done: float) -> float:
    """A straight line up to 1 at one half of the steps, and down to 0."""
    return 1 - abs(2 * done - 1)


def constant(done: float) -> float:  # noqa: ARG001 - a schedule
    """No schedule."""
    return 1.0


@dataclass(frozen=True, kw_only=True)
class Repair:
    """SGD on the retain set, in train mode and with the recipe's augmentation."""

    method: str
    """Name of the method, for the message of `DivergedError`."""
    epochs: int
    """Passes over the retain set."""
    lr: float
    """Highest learning rate."""
    batch_size: int
    """Examples per step."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 5e-4
    """Of SGD."""
    schedule: Callable[[float], float] = cosine
    """Share of the steps that is done, in (0, 1) -> factor of the learning rate."""

    def run(
        self,
        network: nn.Module,
        request: ForgetRequest,
        *,
        loss: BatchLoss | None = None,
        still: Sequence[nn.Module] = (),
        after_epoch: Callable[[int], None] | None = None,
    ) -> nn.Module:
        """Train a network in place; it comes back in eval mode.

        Args:
            network: A copy of one's own; parameters that take no gradient stay as they are, weight decay included.
            request: For its retain set, seed and recipe.
            loss: What is minimized; None = the classification loss.
            still: Modules that stay in eval mode, so that their batch-norm statistics do not move.
            after_epoch: Called with the epoch, counted from 0.

        Raises:
            DivergedError: The loss is no longer a number.
        """
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = make_optimizer(trained, "sgd", self.lr, self.momentum, self.weight_decay)
        steps = len(batch_sizes(len(request.retain), self.batch_size))
        augment, padding = request.recipe.augment, request.recipe.crop_padding

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            for module in still:
                module.eval()
            shuffled = request.retain.batches(self.batch_size, request.seed_of(101, epoch), augment, padding)
            for position, batch in enumerate(shuffled):
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * self.schedule((epoch + (position + 0.5) / steps) / self.epochs)
                yield batch

        def finished(epoch: int) -> bool:
            if after_epoch is not None:
                after_epoch(epoch)
            return False

        def ordinary(images: Tensor, labels: Tensor) -> Tensor:
            return classification_loss(network(images), labels)

        minimized = loss or ordinary
        return descend(
            network,
            request,
            epochs=self.epochs,
            batches=batches,
            loss=lambda batch: minimized(*batch),
            optimizer=optimizer,
            method=self.method,
            batch_norm="train",
            after_epoch=finished,
        )
