"""What teacher-student methods share: a teacher that stays as it is, and how far an answer is from the teacher's.

Classes and attributes are treated alike as groups of choices: an image with one label is one group of K classes, and
each of A attributes is a group of two, no and yes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def teacher_of(model: nn.Module) -> nn.Module:
    """The model in eval mode, taking no gradients, so that nothing of it moves; the one given keeps its own mode.

    Both hold the same tensors: a teacher takes no memory.
    """
    shared: dict[int, object] = {id(value): nn.Parameter(value.detach(), False) for value in model.parameters()}
    shared |= {id(value): value for value in model.buffers()}
    return copy.deepcopy(model, shared).eval()


def choices(logits: Tensor, *, attributes: bool) -> Tensor:
    """Logits (B, groups, choices): (B, 1, K) of classes; of attributes (B, A, 2), whose softmax is (1 - p, p)."""
    if not attributes:
        return logits[:, None, :]
    return torch.stack([torch.zeros_like(logits), logits], dim=2)


def divergence(teacher: Tensor, student: Tensor, *, attributes: bool = False, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of each example (B,), in nats, summed over attributes.

    Args:
        teacher: Logits (B, outputs).
        student: Logits (B, outputs).
        attributes: Whether the outputs are attributes.
        temperature: Logits are divided by it; the result is not multiplied by its square.
    """
    wanted = (choices(teacher.float(), attributes=attributes) / temperature).log_softmax(2)
    given = (choices(student.float(), attributes=attributes) / temperature).log_softmax(2)
    return (wanted.exp() * (wanted - given)).sum((1, 2))


def entropy(logits: Tensor, *, attributes: bool = False) -> Tensor:
    """Entropy of each answer (B,), in nats, summed over attributes."""
    logarithms = choices(logits.float(), attributes=attributes).log_softmax(2)
    return -(logarithms.exp() * logarithms).sum((1, 2))


def clip_gradients(network: nn.Module, largest: float) -> None:
    """Cut the gradient, where its norm over all parameters exceeds `largest`, to that norm."""
    nn.utils.clip_grad_norm_(network.parameters(), largest)
