"""Contestants whose place is known beforehand (protocol, section 5): they test the metrics, not themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

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


def _card(name: str, title: str, needs: set[str], fails_at: str, **facts: object) -> MethodCard:
    return MethodCard.model_validate(
        {
            "name": name,
            "title": title,
            "authors": "",
            "year": None,
            "venue": "this benchmark",
            "link": "",
            "bibtex": "",
            "family": "sentinel",
            "needs": frozenset(needs),
            "sentinel": True,
            "fails_at": fails_at,
            **facts,
        }
    )


@dataclass(frozen=True, kw_only=True)
class Sham(Method):
    """A random update of a small relative norm: must not be separable from no unlearning."""

    card: ClassVar[MethodCard] = _card("sham", "A random update of 1 % relative norm", set(), "forgetting anything")

    size: float = param(0.01, low=0, help="Norm of the update over the norm of each parameter tensor.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, nudged."""
        edited = editable(model)
        generator = request.generator()
        with torch.no_grad():
            for parameter in edited.parameters():
                nudge = torch.randn(tuple(parameter.shape), generator=generator).to(parameter)
                parameter.add_(nudge * (self.size * parameter.norm() / nudge.norm().clamp_min(1e-12)))
        return edited.eval()


@dataclass(frozen=True, kw_only=True)
class Collapse(Method):
    """Gradient ascent until validation accuracy is at chance: must be gated, and flagged over-forgotten."""

    card: ClassVar[MethodCard] = _card(
        "collapse",
        "Gradient ascent until validation accuracy is at chance",
        {"forget", "validation"},
        "keeping anything",
    )

    lr: float = param(0.05, above=0, help="Length of a step; gradients longer than 1 are cut to 1.")
    steps: int = param(2000, low=1, help="Most steps.")
    batch_size: int = param(64, low=1, help="Forget examples per step.")
    margin: float = param(0.02, low=0, high=1, help="How near to chance is near enough.")

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


@dataclass(frozen=True, kw_only=True)
class Relabelled(Method):
    """The forget set driven to uniform outputs: must be flagged over-forgotten on match-oracle boards."""

    card: ClassVar[MethodCard] = _card(
        "relabelled", "Drives the forget set to uniform outputs", {"forget", "retain"}, "being like an oracle"
    )

    epochs: int = param(20, low=1, help="Passes over the forget set.")
    lr: float = param(0.01, above=0, help="Learning rate.")
    batch_size: int = param(64, low=2, help="Forget examples per step; as many retained ones.")

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


@dataclass(frozen=True, kw_only=True)
class HeadMask(Method):
    """The forgotten classes' logits set to -10,000: forgotten accuracy 0, and about 1 on the probe."""

    card: ClassVar[MethodCard] = _card(
        "head-mask",
        "Sets the logits of the forgotten classes to -10,000",
        {"forget", "retain"},
        "forgetting in the features",
        attributes=False,
        random=False,
        scenarios=("class",),
    )

    logit: float = param(-10_000.0, below=0, help="What a forgotten class's logit becomes.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model that cannot name the forgotten classes."""
        edited = editable(model).eval()
        classes = forgotten_classes(request, self.card.name)
        head = edited.get_submodule("head")
        with torch.no_grad():
            head.get_parameter("weight")[classes] = 0
            head.get_parameter("bias")[classes] = self.logit
        return edited
