"""Shared by teacher-student methods: a frozen teacher, and divergences between answers.

Classes and attributes are both treated as groups of choices: an image with one label is one group of K classes, and
each of A attributes is a group of two, no and yes. Values of several attributes are averaged, as in
`classification_loss`.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def frozen_copy(model: nn.Module) -> nn.Module:
    """The model as a teacher: in eval mode, without gradients; the given model keeps its mode.

    Both share the same tensors, so the copy needs no memory.
    """
    shared: dict[int, object] = {id(value): nn.Parameter(value.detach(), False) for value in model.parameters()}
    shared |= {id(value): value for value in model.buffers()}
    return copy.deepcopy(model, shared).eval()


def full_precision(logits: Tensor) -> Tensor:
    """Logits in float32 where autocast has left them in half precision; float64 stays."""
    return logits if logits.dtype == torch.float64 else logits.float()


def as_choices(logits: Tensor, *, attributes: bool) -> Tensor:
    """Logits (B, groups, choices) in full precision: (B, 1, K), or for attributes (B, A, 2) of softmax (1 - p, p)."""
    logits = full_precision(logits)
    if not attributes:
        return logits[:, None, :]
    return torch.stack([torch.zeros_like(logits), logits], dim=2)


def kl_divergence(teacher: Tensor, student: Tensor, *, attributes: bool = False, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of each example (B,), in nats, averaged over attributes.

    Args:
        teacher: Logits (B, outputs).
        student: Logits (B, outputs).
        attributes: Whether the outputs are attributes.
        temperature: Divides the logits; the result is not multiplied by its square.
    """
    target = (as_choices(teacher, attributes=attributes) / temperature).log_softmax(2)
    answer = (as_choices(student, attributes=attributes) / temperature).log_softmax(2)
    return (target.exp() * (target - answer)).sum(2).mean(1)


def entropy(logits: Tensor, *, attributes: bool = False) -> Tensor:
    """Entropy of each answer (B,), in nats, averaged over attributes."""
    log_probabilities = as_choices(logits, attributes=attributes).log_softmax(2)
    return -(log_probabilities.exp() * log_probabilities).sum(2).mean(1)
