"""Contestants whose place is known beforehand (protocol, section 5): they test the metrics, not themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgetbench.methods import methods
from forgetbench.methods._training import (
    accuracy,
    check_finite,
    descend,
    editable,
    endless,
    forgotten_classes,
    outputs_of,
)
from forgetbench.methods.base import Examples, ForgetRequest, Method, MethodCard, param
from forgetbench.training import classification_loss, make_optimizer


@methods.register("sham")
@dataclass(frozen=True, kw_only=True)
class Sham(Method):
    """A random update of a small relative norm: must not be separable from no unlearning."""

    card: ClassVar[MethodCard] = MethodCard(
        name="sham",
        title="A random update of 1 % relative norm",
        family="sentinel",
        known_limitations="Forgets nothing.",
        sentinel=True,
    )

    size: float = param(0.01, ge=0, help="Norm of the update over the norm of each parameter tensor.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, nudged."""
        edited = editable(model)
        generator = request.generator()
        with torch.no_grad():
            for parameter in edited.parameters():
                nudge = torch.randn(tuple(parameter.shape), generator=generator).to(parameter)
                parameter.add_(nudge * (self.size * parameter.norm() / nudge.norm().clamp_min(1e-12)))
        return edited.eval()


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

    lr: float = param(0.05, gt=0, help="Length of a step; gradients longer than 1 are cut to 1.")
    steps: int = param(2000, ge=1, help="Most steps.")
    batch_size: int = param(64, ge=1, help="Forget examples per step.")
    margin: float = param(0.02, ge=0, le=1, help="How near to chance is near enough.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A broken copy of the model."""
        edited = editable(model).eval()
        chance = _best_constant(request.validation, outputs_of(model))
        optimizer = make_optimizer(edited.parameters(), "sgd", self.lr, momentum=0.0)
        batches = endless(request.forget, self.batch_size, request, 0)
        for step in range(self.steps):
            if step % 5 == 0 and accuracy(edited, request.validation) <= chance + self.margin:
                break
            images, labels = next(batches)
            loss = -classification_loss(edited(images), labels)
            check_finite(float(loss.detach()), self.card.name, step, self.lr)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(edited.parameters(), 1.0)
            optimizer.step()
        request.report("validation accuracy", accuracy(edited, request.validation))
        return edited


def _best_constant(examples: Examples, outputs: int) -> float:
    """Accuracy of the best answer that does not look at the image: what a collapsed network may still reach."""
    labels = examples.labels
    if examples.attributes:
        share = labels.float().mean(0)
        return float(torch.maximum(share, 1 - share).mean())
    return int(labels.bincount(minlength=outputs).max()) / len(labels)


@methods.register("relabelled")
@dataclass(frozen=True, kw_only=True)
class Relabelled(Method):
    """The forget set driven to uniform outputs: must be flagged over-forgotten on match-oracle boards."""

    card: ClassVar[MethodCard] = MethodCard(
        name="relabelled",
        title="Drives the forget set to uniform outputs",
        family="sentinel",
        needs=("forget", "retain"),
        known_limitations="Differs from an oracle.",
        sentinel=True,
    )

    epochs: int = param(20, ge=1, help="Passes over the forget set.")
    lr: float = param(0.01, gt=0, help="Learning rate.")
    batch_size: int = param(64, ge=2, help="Forget examples per step; as many retained ones.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model that has no opinion on the forget set."""
        edited = editable(model)
        kept = endless(request.retain, self.batch_size, request, 1)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            for images, _ in request.forget.batches(self.batch_size, request.seed_of(2, epoch)):
                yield images, *next(kept)

        def loss(batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            images, kept_images, kept_labels = batch
            logits = edited(torch.cat([images, kept_images]))
            kept_loss = classification_loss(logits[len(images) :], kept_labels)
            return kept_loss + _distance_to_uniform(logits[: len(images)], request.forget.attributes)

        return descend(
            edited,
            request,
            epochs=self.epochs,
            batches=batches,
            loss=loss,
            optimizer=make_optimizer(edited.parameters(), "sgd", self.lr),
            method=self.card.name,
            batch_norm="train",
        )


def _distance_to_uniform(logits: Tensor, attributes: bool) -> Tensor:
    """KL(uniform, answer) in nats, averaged over examples, without the uniform's own entropy."""
    if attributes:
        return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, 0.5)) * logits.shape[1]
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

    logit: float = param(-10_000.0, lt=0, help="What a forgotten class's logit becomes.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model that cannot name the forgotten classes."""
        edited = editable(model).eval()
        classes = forgotten_classes(request, self.card.name)
        head = edited.get_submodule("head")
        with torch.no_grad():
            head.get_parameter("weight")[classes] = 0
            head.get_parameter("bias")[classes] = self.logit
        return edited
