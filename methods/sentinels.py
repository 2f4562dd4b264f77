"""Sentinels: methods whose place is known in advance, which test the metrics (protocol, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.errors import UsageError
from forgetbench.methods import methods
from forgetbench.methods._training import (
    accuracy,
    check_finite,
    clone_model,
    cycle,
    forgotten_classes,
    n_outputs,
    train_loop,
)
from forgetbench.methods.base import Examples, ForgetRequest, Method, MethodCard, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("no-op")
@dataclass(frozen=True, kw_only=True)
class NoOp(Method):
    """A random update of a small relative norm: must not be separable from no unlearning."""

    card: ClassVar[MethodCard] = MethodCard(
        name="no-op",
        title="A random update of 1 % relative norm",
        family="sentinel",
        known_limitations="Forgets nothing.",
        sentinel=True,
    )

    size: float = param(0.01, ge=0, help="Norm of the update divided by the norm of each parameter tensor.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, slightly changed."""
        network = clone_model(model)
        generator = request.generator()
        with torch.no_grad():
            for parameter in network.parameters():
                update = torch.randn(tuple(parameter.shape), generator=generator).to(parameter)
                parameter.add_(update * (self.size * parameter.norm() / update.norm().clamp_min(1e-12)))
        return network.eval()


@methods.register("collapse")
@dataclass(frozen=True, kw_only=True)
class Collapse(Method):
    """Gradient ascent until validation accuracy is at chance: must be gated, and flagged over-forgotten."""

    card: ClassVar[MethodCard] = MethodCard(
        name="collapse",
        title="Gradient ascent until validation accuracy is at chance",
        family="sentinel",
        needs=("forget", "validation"),
        known_limitations="Destroys the model.",
        sentinel=True,
    )

    lr: float = param(0.05, gt=0, help="Length of a step; gradients are clipped to a norm of 1.")
    steps: int = param(2000, ge=1, help="Maximum number of steps.")
    batch_size: int = param(64, ge=1, help="Forget examples per step.")
    margin: float = param(0.02, ge=0, le=1, help="How close to chance the validation accuracy must be.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A destroyed copy of the model."""
        network = clone_model(model).eval()
        chance = best_constant_accuracy(request.validation, n_outputs(model))
        optimizer = make_optimizer(network.parameters(), "sgd", self.lr, momentum=0.0)
        batches = cycle(request.forget, self.batch_size, request, 0)
        for step in range(self.steps):
            if step % 5 == 0 and accuracy(network, request.validation) <= chance + self.margin:
                break
            images, labels = next(batches)
            loss = -classification_loss(network(images), labels)
            check_finite(float(loss.detach()), self.card.name, step, self.lr)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        request.log("validation accuracy", accuracy(network, request.validation))
        return network


def best_constant_accuracy(examples: Examples, outputs: int) -> float:
    """Accuracy of the best answer that ignores the image, which a collapsed network may still reach."""
    labels = examples.labels
    if examples.attributes:
        ratio = labels.float().mean(0)
        return float(torch.maximum(ratio, 1 - ratio).mean())
    return int(labels.bincount(minlength=outputs).max()) / len(labels)


@methods.register("relabelled")
@dataclass(frozen=True, kw_only=True)
class Relabelled(Method):
    """The forget set trained to uniform outputs: must be flagged over-forgotten on match-oracle boards."""

    card: ClassVar[MethodCard] = MethodCard(
        name="relabelled",
        title="Trains the forget set to uniform outputs",
        family="sentinel",
        needs=("forget", "retain"),
        known_limitations="Differs from an oracle.",
        sentinel=True,
    )

    epochs: int = param(20, ge=1, help="Passes over the forget set.")
    lr: float = param(0.01, gt=0, help="Learning rate.")
    batch_size: int = param(64, ge=2, help="Forget examples per step; as many retained ones.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model with uniform predictions on the forget set."""
        network = clone_model(model)
        optimizer = make_optimizer(network.parameters(), "sgd", self.lr)
        retain_batches = cycle(request.retain, self.batch_size, request, 1)
        with train_loop(network, request, optimizer, self.card.name, batch_norm="train") as loop:
            for epoch in loop.epochs(self.epochs):
                for images, _ in request.forget.batches(self.batch_size, request.derive_seed(2, epoch)):
                    retain_images, retain_labels = next(retain_batches)
                    with loop.autocast():
                        logits = network(torch.cat([images, retain_images]))
                        retain_loss = classification_loss(logits[len(images) :], retain_labels)
                        forget_loss = distance_to_uniform(logits[: len(images)], request.forget.attributes)
                        loss = retain_loss + forget_loss
                    loop.step(loss)
        return network


def distance_to_uniform(logits: Tensor, attributes: bool) -> Tensor:
    """KL(uniform, prediction) in nats, averaged over examples, without the uniform's own entropy."""
    if attributes:
        return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, 0.5))
    return -logits.log_softmax(1).mean()


@methods.register("head-mask")
@dataclass(frozen=True, kw_only=True)
class HeadMask(Method):
    """The forgotten classes' logits set to -10,000: forgotten accuracy 0, and about 1 on the probe."""

    card: ClassVar[MethodCard] = MethodCard(
        name="head-mask",
        title="Sets the logits of the forgotten classes to -10,000",
        family="sentinel",
        needs=("forget", "retain"),
        scenarios=("class",),
        attributes=False,
        random=False,
        known_limitations="Forgets nothing in the features.",
        sentinel=True,
    )

    logit: float = param(-10_000.0, lt=0, help="New logit of a forgotten class.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model that cannot predict the forgotten classes."""
        network = clone_model(model).eval()
        classes = forgotten_classes(request)
        if not classes:
            raise UsageError("head-mask forgets whole classes, but every class of the forget set is also retained.")
        head = network.get_submodule("head")
        with torch.no_grad():
            head.get_parameter("weight")[classes] = 0
            head.get_parameter("bias")[classes] = self.logit
        return network
