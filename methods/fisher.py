"""Fisher forgetting: add noise to every weight, the more the less it matters for the retain set.

    theta_i += N(0, alpha / F_i^power),   F = diagonal of the Fisher information of D_r

Golatkar, Achille and Soatto 2020. Their equation 8 adds noise with a standard deviation proportional to F^(-1/4),
which is `power=0.5`; their code, and all later code, uses a variance of alpha / F (`power=1`, the default). F is the
true Fisher information, with labels drawn from the model's own predictions; one draw per example approximates the sum
over all classes (`information="exact"`, as in their code), which costs as many passes. Variances are limited to alpha
times `ceiling`, as in their code. True labels are not read.

Their code also averages variances over inputs, limits those of the last layer to a tenth, multiplies those of the last
layer and of all vectors (biases, batch-norm) by 10, and gives the last layer's rows of forgotten classes the weight 0
and the variance 1e-3 (`variances="golatkar"`). Foster et al. 2024 forget classes in the same way, and for subclasses
and random examples leave out the factor of the last layer (`variances="foster"`). Jia et al. 2023 and Fan et al. 2024
take squares of the mean gradients of batches of 32 (`information="batch"`). On a network of 166 weights, runs with
these values equal the three codes to rounding. Relative to the move, plain variances differ by 0.3 to 0.4, without the
erased row and the factor of the last layer by 0.33, drawn labels by 0.05. Not reproduced: their code takes every
parameter with as many rows as there are classes for the last layer, and the code of Jia et al. and Fan et al. erases
the row of the last class if 4,500 random images of CIFAR-10 are forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._fisher import Importance, importance_per_batch, importance_per_example
from forgetbench.methods._training import clone_model, n_outputs
from forgetbench.methods.base import Examples, ForgetRequest, Method, MethodCard, TaskFacts, param
from forgetbench.training import DivergedError, classification_loss, predict


@methods.register("fisher")
@dataclass(frozen=True, kw_only=True)
class FisherForgetting(Method):
    """Add noise to the weights that matter little for the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="fisher",
        title="Fisher forgetting: noise inverse to the Fisher information of the retain set",
        papers=("golatkar2020eternal",),
        family="noise",
        needs=("retain",),
        known_limitations="Selectivity: it never reads the forget set, and noise that removes it damages the rest.",
    )

    alpha: float = param(
        6e-7, gt=0, paper_default=1e-9, search=(1e-9, 1e-5), help="Variance of the noise where the information is 1."
    )
    power: float = param(
        1.0, gt=0, le=1, paper_default=1.0, search=(0.5, 1.0), help="Exponent of the information; 0.5 as in the paper."
    )
    ceiling: float = param(1e3, gt=0, help="Most variance, as a multiple of alpha.")
    information: str = param(
        "drawn",
        choices=("drawn", "exact", "batch"),
        paper_default="exact",
        help="Labels: one drawn per example; all of them; or all of them, with one gradient per batch.",
    )
    variances: str = param(
        "plain",
        choices=("plain", "golatkar", "foster"),
        paper_default="golatkar",
        help="As in the equation, or as in released code.",
    )
    batch_size: int = param(64, ge=1, help="Examples per backward; shapes the result with information=batch only.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model with noise on its weights."""
        network = clone_model(model).eval()
        if self.information == "drawn":
            information = true_fisher(network, request.retain, request.generator(0), self.batch_size)
        else:
            information = exact_fisher(network, request.retain, self.batch_size, per_batch=self.information == "batch")
        last_layer = set(cast("nn.Module", network.head).parameters())
        erased = missing_classes(request.retain, n_outputs(network)) if self.variances == "golatkar" else []
        generator = request.generator(1)
        variances = []
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                variance = self.variance(information[name], last=parameter in last_layer)
                if parameter in last_layer:
                    parameter[erased], variance[erased] = 0.0, 1e-3
                variances.append(variance.sum())
                noise = torch.randn(tuple(parameter.shape), generator=generator).to(parameter)
                parameter.add_(noise.mul_(variance.sqrt_()))
        request.log("expected norm of the noise", float(torch.stack(variances).sum().sqrt()))
        return network

    def variance(self, information: Tensor, *, last: bool) -> Tensor:
        """Variances of the noise of one parameter, in its shape.

        Args:
            information: Diagonal of the Fisher information.
            last: Whether it is a parameter of the last layer.
        """
        ceiling = self.ceiling / 10 if last and self.variances != "plain" else self.ceiling
        variance = (information + 1e-8).pow_(-self.power).clamp_(max=ceiling).mul_(self.alpha)
        if self.variances == "plain":
            return variance
        if variance.ndim > 1:
            variance = variance.mean(1, keepdim=True).expand_as(variance).clone()
        return variance * 10 if variance.ndim == 1 or (last and self.variances == "golatkar") else variance

    def applies_to(self, facts: TaskFacts) -> str | None:
        """Sums over all labels are over classes."""
        if facts.attributes and self.information != "drawn":
            return f"fisher with information={self.information} needs one class per image. Use information=drawn"
        return super().applies_to(facts)


def true_fisher(model: nn.Module, examples: Examples, generator: torch.Generator, batch_size: int = 64) -> Importance:
    """Diagonal Fisher information, with one label per example drawn from the model's prediction.

    Raises:
        DivergedError: The model's logits are not finite.
    """
    logits = torch.from_numpy(predict(model, examples))
    if not torch.isfinite(logits).all():
        raise DivergedError("the given model has diverged: its logits are not finite")
    labels = draw_labels(logits, generator, attributes=examples.attributes)
    return importance_per_example(model, examples.relabel(labels), log_likelihoods, batch_size=batch_size)


def exact_fisher(model: nn.Module, examples: Examples, batch_size: int, *, per_batch: bool) -> Importance:
    """Diagonal Fisher information as a sum over all classes, weighted by their predicted probabilities.

    Args:
        model: Its mode is left unchanged.
        examples: Their labels are not read.
        batch_size: Examples per backward.
        per_batch: Square the mean gradient of a batch, weighted by the mean probability, instead of each example's.
    """
    total: Importance = {}
    for label in range(n_outputs(model)):
        data = examples.relabel(torch.full((len(examples),), label))
        if per_batch:
            part = importance_per_batch(model, data.batches(batch_size), weighted_by_mean_probability)
        else:
            part = importance_per_example(model, data, weighted_by_probability, batch_size=batch_size)
        total = {name: value + total[name] if total else value for name, value in part.items()}
    return total


def log_likelihoods(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p(labels) of each example (B,), in nats; the information of independent attributes is that of their sum."""
    return classification_loss(logits, labels, reduction="none") * (1 if labels.ndim == 1 else labels.shape[1])


def weighted_by_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Losses (B,) whose squared gradients are weighted by the labels' probabilities, which are constants."""
    losses = classification_loss(logits, labels, reduction="none")
    return losses * (-losses.detach()).exp().sqrt()


def weighted_by_mean_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Losses (B,) whose mean's squared gradient is weighted by the mean of the labels' probabilities, a constant."""
    losses = classification_loss(logits, labels, reduction="none")
    return losses * (-losses.detach()).exp().mean().sqrt()


def missing_classes(examples: Examples, classes: int) -> list[int]:
    """Classes without examples, in ascending order; none if labels are attributes."""
    return [] if examples.attributes else sorted(set(range(classes)) - set(examples.labels.tolist()))


def draw_labels(logits: Tensor, generator: torch.Generator, *, attributes: bool) -> Tensor:
    """Labels drawn from the predicted probabilities (n, K): classes (n,), or attributes (n, K)."""
    if attributes:
        return (torch.rand(logits.shape, generator=generator) < logits.sigmoid()).long()
    return torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
