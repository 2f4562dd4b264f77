"""Products with the Hessian and the empirical Fisher matrix, and conjugate gradients to solve systems with them.

Neither matrix is ever formed: a product costs two or three backward passes. Vectors are lists of tensors, one per
parameter. The model must be in eval mode, in which examples do not affect each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from forgetbench.methods._fisher import losses_of_labels
from forgetbench.training import Examples

Vector = list[Tensor]
Product = Callable[[Vector], Vector]


class Solution(NamedTuple):
    """Result of conjugate gradients."""

    vector: Vector
    iterations: int
    residual: float
    """Norm of the residual, relative to the right-hand side."""
    negative_curvature: bool
    """Whether it stopped because the curvature along a direction was not positive."""


def hessian_product(model: nn.Module, examples: Examples, damping: float, batch_size: int = 128) -> Product:
    """The function v -> (H + damping I) v, with H the Hessian of the mean loss over the examples."""
    parameters = list(model.parameters())

    def product(vector: Vector) -> Vector:
        total = [damping * part for part in vector]
        for images, labels in examples.batches(batch_size):
            loss = losses_of_labels(model(images), labels).sum() / len(examples)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            slope = torch.stack([(g * v).sum() for g, v in zip(gradients, vector, strict=True)]).sum()
            for sums, part in zip(total, torch.autograd.grad(slope, parameters), strict=True):
                sums.add_(part)
        return total

    return product


def fisher_product(model: nn.Module, examples: Examples, damping: float, batch_size: int = 128) -> Product:
    """The function v -> (F + damping I) v, with F the mean over examples of g_i g_i', g_i the gradient of an example.

    F v = 1/n sum_i g_i (g_i . v). A backward pass with weights u gives sum_i u_i g_i; its product with v is linear in
    u with the slopes g_i . v, so that no gradient of a single example is ever held.
    """
    parameters = list(model.parameters())

    def product(vector: Vector) -> Vector:
        total = [damping * part for part in vector]
        for images, labels in examples.batches(batch_size):
            losses = losses_of_labels(model(images), labels)
            weights = torch.zeros_like(losses, requires_grad=True)
            gradients = torch.autograd.grad(losses, parameters, grad_outputs=weights, create_graph=True)
            slope = torch.stack([(g * v).sum() for g, v in zip(gradients, vector, strict=True)]).sum()
            (slopes,) = torch.autograd.grad(slope, weights, retain_graph=True)
            parts = torch.autograd.grad(losses, parameters, grad_outputs=slopes / len(examples))
            for sums, part in zip(total, parts, strict=True):
                sums.add_(part)
        return total

    return product


def conjugate_gradients(product: Product, target: Vector, iterations: int, tolerance: float = 1e-4) -> Solution:
    """Solve product(x) = target from x = 0; stop early at the tolerance, or if the curvature is not positive.

    If the curvature along the first direction is not positive, x is the target itself.
    """
    solution = [torch.zeros_like(part) for part in target]
    residual = [part.clone() for part in target]
    direction = [part.clone() for part in target]
    size = start = _inner(residual, residual)
    for step in range(iterations):
        if size <= tolerance**2 * start or start == 0:
            return Solution(solution, step, (size / start) ** 0.5 if start else 0.0, False)
        image = product(direction)
        curvature = _inner(direction, image)
        if curvature <= 0:
            return Solution(solution if step else list(target), step, (size / start) ** 0.5, True)
        length = size / curvature
        for x, r, d, i in zip(solution, residual, direction, image, strict=True):
            x.add_(d, alpha=length)
            r.sub_(i, alpha=length)
        before, size = size, _inner(residual, residual)
        direction = [r + (size / before) * d for r, d in zip(residual, direction, strict=True)]
    return Solution(solution, iterations, (size / start) ** 0.5, False)


def _inner(first: Vector, second: Vector) -> float:
    return float(torch.stack([(a.double() * b.double()).sum() for a, b in zip(first, second, strict=True)]).sum())
