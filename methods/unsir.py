"""UNSIR: damage the model with noise that it gets as wrong as can be, and repair it on the retain set.

EntryDetail classes (Tarun et al. 2023; the forget set itself is not read but for its labels):

    noise     max CE(f(N_c), c) - lambda mean sum N_c^2   by Adam, for each forgotten class c, N_c ~ N(0, 1) at first
    impair    min CE(f(N_c), c) + CE(D_r')                one pass, D_r' some images of each retained class
    repair    min CE(D_r')                                one pass

Images of classes that stay (Choi and Na 2023, the "UNSIR" of MUFAC): in each step a new noise is driven away from the
model's answers on a forget batch, by max MSE(f(N), f(x_f)) in a few steps (theirs are 5 at rate 0.01), is clamped to
[0, 1], and gets the labels of a retain batch.

The noise of classes is in units of the channels' standard deviation, as the authors' inputs are. Deviations: noise is
optimized in eval mode, where the batch-norm statistics cannot drift; impair and repair are in train mode as released;
forgotten classes keep their own labels, where the released notebook labels all noise as class 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.methods import methods
from forgetbench.methods._training import descend, editable, endless
from forgetbench.methods.base import Examples, ForgetRequest, Method, MethodCard, param
from forgetbench.training import classification_loss, make_optimizer

Batch = tuple[Tensor, Tensor]
Batches = Callable[[int], Iterator[Batch]]


@methods.register("unsir")
@dataclass(frozen=True, kw_only=True)
class UNSIR(Method):
    """Impair with error-maximizing noise, then repair on the retain set."""

    card: ClassVar[MethodCard] = MethodCard(
        name="unsir",
        title="Impairs the model with noise that it gets wrong, and repairs it on retained images",
        papers=("tarun2023fast",),
        family="noise",
        needs=("forget", "retain"),
        scenarios=("class", "identity"),
        known_limitations="Identities in tasks with other labels: the noise holds no information on a person.",
    )

    lr: float = param(
        0.01, gt=0, paper_default=0.02, search=(1e-3, 5e-2), help="Learning rate of Adam in the impair step."
    )
    repair_lr: float = param(
        0.005, gt=0, paper_default=0.01, search=(5e-4, 2e-2), help="Learning rate of Adam in the repair step."
    )
    epochs: int = param(1, ge=1, help="Passes of the impair step.")
    repair_epochs: int = param(2, ge=0, paper_default=1, search=(1, 4), help="Passes of the repair step.")
    noise_lr: float = param(0.1, gt=0, help="Learning rate of Adam on the noise.")
    noise_steps: int = param(40, ge=1, help="Steps on the noise of a class; in a batch's own noise an eighth of it.")
    penalty: float = param(0.1, ge=0, help="Weight of the square of the noise.")
    noise_ratio: float = param(0.5, gt=0, search=(0.1, 1.0), help="Noises in an impair step, for one retained image.")
    per_class: int = param(1000, ge=1, help="Most retained images of a class that are used.")
    batch_size: int = param(64, ge=2, paper_default=256, help="Retained images per step; noises of a class.")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, impaired and repaired."""
        edited = editable(model)
        gone = [] if request.forget.attributes else _gone(request)
        if gone:
            kept = _some_of_each(request, self.per_class)
            noises = [(self.noise_of_class(model, label, request), label) for label in gone]
            self._train(edited, request, self.lr, self.epochs, lambda epoch: self._mixed(noises, kept, request, epoch))
        else:
            kept = request.retain
            self._train(edited, request, self.lr, self.epochs, lambda epoch: self._opposed(edited, request, epoch))
        return self._train(
            edited,
            request,
            self.repair_lr,
            self.repair_epochs,
            lambda epoch: kept.batches(self.batch_size, request.seed_of(4, epoch)),
        )

    def noise_of_class(self, model: nn.Module, label: int, request: ForgetRequest) -> Tensor:
        """Images (batch_size, C, H, W) that the model does not take for the class."""
        network = editable(model).eval().requires_grad_(requires_grad=False)
        shape = (self.batch_size, *request.retain.images.shape[1:])
        noise = torch.randn(shape, generator=request.generator(0, label)).to(request.device).requires_grad_()
        labels = torch.full((self.batch_size,), label, device=request.device)
        mean, deviation = cast("Tensor", network.mean), cast("Tensor", network.std)
        optimizer = make_optimizer([cast("nn.Parameter", noise)], "adam", self.noise_lr)
        for _ in range(self.noise_steps):
            wrong = functional.cross_entropy(network(mean + deviation * noise), labels)
            optimizer.zero_grad()
            (self.penalty * noise.square().flatten(1).sum(1).mean() - wrong).backward()
            optimizer.step()
        return (mean + deviation * noise).detach()

    def _mixed(
        self, noises: list[tuple[Tensor, int]], kept: Examples, request: ForgetRequest, epoch: int
    ) -> Iterator[Batch]:
        generator = request.generator(1, epoch)
        for images, labels in kept.batches(self.batch_size, request.seed_of(2, epoch)):
            count = max(1, round(self.noise_ratio * len(images) / len(noises)))
            for noise, label in noises:
                rows = torch.randint(len(noise), (count,), generator=generator).to(noise.device)
                images = torch.cat([images, noise[rows]])  # noqa: PLW2901 - a batch that grows
                labels = torch.cat([labels, labels.new_full((count,), label)])  # noqa: PLW2901
            yield images, labels

    def _opposed(self, edited: nn.Module, request: ForgetRequest, epoch: int) -> Iterator[Batch]:
        kept = endless(request.retain, self.batch_size, request, 2)
        generator = request.generator(3, epoch)
        for forgotten, _ in request.forget.batches(self.batch_size, request.seed_of(1, epoch)):
            images, labels = next(kept)
            edited.eval()
            with torch.no_grad():
                answers = edited(forgotten)
            noise = torch.randn(forgotten.shape, generator=generator).to(forgotten).requires_grad_()
            optimizer = make_optimizer([cast("nn.Parameter", noise)], "adam", self.noise_lr)
            for _ in range(max(1, self.noise_steps // 8)):
                (gradient,) = torch.autograd.grad(-functional.mse_loss(edited(noise), answers), noise)
                noise.grad = gradient
                optimizer.step()
            edited.train()
            count = min(len(noise), len(images))
            yield torch.cat([noise.detach()[:count].clamp(0, 1), images]), torch.cat([labels[:count], labels])

    def _train(self, edited: nn.Module, request: ForgetRequest, lr: float, epochs: int, batches: Batches) -> nn.Module:
        return descend(
            edited,
            request,
            epochs=epochs,
            batches=batches,
            loss=lambda batch: classification_loss(edited(batch[0]), batch[1]),
            optimizer=make_optimizer(edited.parameters(), "adam", lr),
            method=self.card.name,
            batch_norm="train",
        )


def _gone(request: ForgetRequest) -> list[int]:
    """The classes of the forget set that no retained example has."""
    return sorted(set(request.forget.labels.tolist()) - set(request.retain.labels.tolist()))


def _some_of_each(request: ForgetRequest, most: int) -> Examples:
    """At most so many retained examples of each class, drawn at random."""
    labels = request.retain.labels.cpu()
    order = torch.randperm(len(labels), generator=request.generator(5))
    rows = [order[labels[order] == label][:most] for label in labels.unique()]
    return request.retain.take(torch.cat(rows))
