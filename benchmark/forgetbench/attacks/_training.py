"""Shared by attacks that train: a copy of the model, batches without end, and steps of Adam."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from forgetbench.attacks.base import Knowledge, param
from forgetbench.training import DivergedError, Examples, classification_loss, make_optimizer, predict_features
from forgetbench.training.compute import autocast, channels_last, derive_seed, seeded

Batch = TypeVar("Batch")
SHOTS = (1, 5, 10)
"""Budgets of attacks with forgotten examples."""


def shots_option() -> Any:
    """Declare the option `shots`: how many examples of each forgotten class the attacker holds."""
    return param(
        10,
        ge=1,
        help="Examples that the attacker holds of each forgotten class, or in all where no class is forgotten.",
    )


def clone(model: nn.Module) -> nn.Module:
    """A deep copy whose parameters take gradients; the given model is never changed."""
    return copy.deepcopy(model).requires_grad_(requires_grad=True)


def endless(knowledge: Knowledge, examples: Examples, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches in a new order in each pass, with the recipe's augmentation."""
    recipe, turn = knowledge.recipe, 0
    while True:
        yield from examples.batches(size, derive_seed(seed, turn), recipe.augment, recipe.crop_padding)
        turn += 1


def train(
    knowledge: Knowledge,
    network: nn.Module,
    batches: Iterator[Batch],
    loss: Callable[[Batch], Tensor],
    *,
    steps: int,
    lr: float,
    seed: int,
    trained: Sequence[nn.Parameter] = (),
) -> None:
    """Take steps of Adam in place, in the mode that the network is in.

    Args:
        knowledge: Gives the precision, and the attack's name for the message of `DivergedError`.
        network: The network.
        batches: At least as many batches as steps.
        loss: The loss of a batch.
        steps: Number of steps.
        lr: Learning rate.
        seed: Seed of the network's own randomness (dropout).
        trained: What is trained; (): all of the network's parameters.

    Raises:
        DivergedError: A loss is NaN or infinite.
    """
    optimizer = make_optimizer(trained or list(network.parameters()), "adam", lr)
    device = next(network.parameters()).device
    total = torch.zeros((), device=device)
    with seeded(seed, device), channels_last(network):
        for batch in islice(batches, steps):
            with autocast(device, knowledge.recipe):
                value = loss(batch)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            total += value.detach().float()
    optimizer.zero_grad(set_to_none=True)
    if not math.isfinite(float(total)):
        raise DivergedError(f"{knowledge.card.name} diverged within {steps} steps at learning rate {lr:.3g}")


def few_shot_batches(knowledge: Knowledge, size: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
    """Endless batches of retained examples with as many forgotten ones, at most all that the attacker holds.

    Yields:
        (retained images, their labels, forgotten images, their labels).
    """
    shots = min(size, len(knowledge.forget))
    retained = endless(knowledge, knowledge.retain, size, derive_seed(seed, 0))
    for first, second in zip(retained, endless(knowledge, knowledge.forget, shots, derive_seed(seed, 1)), strict=False):
        yield (*first, *second)


def few_shot_loss(forward: Callable[[Tensor], Tensor], batch: tuple[Tensor, ...]) -> Tensor:
    """The loss on retained examples plus that on forgotten ones, each the mean over its examples.

    Args:
        forward: Images to logits.
        batch: See `few_shot_batches`.
    """
    retained, labels, forgotten, forgotten_labels = batch
    logits = forward(torch.cat([retained, forgotten]))
    parts = logits.split([len(retained), len(forgotten)])
    return classification_loss(parts[0], labels) + classification_loss(parts[1], forgotten_labels)


def features_of(network: nn.Module, examples: Examples) -> Tensor:
    """Penultimate features (n, F) of examples in eval mode, float32 and without gradients, on their device."""
    return torch.tensor(predict_features(network, examples), device=examples.device)
