"""UNSIR: damage the model with noise that it classifies as wrongly as possible, and repair it on the retain set.

Whole classes (Tarun et al. 2023; of the forget set only the labels are read):

    noise     max CE(f(N_c), c) - lambda mean sum N_c^2   by Adam, for each forgotten class c, starting from N(0, 1)
    impair    min CE(f(N_c), c) + CE(D_r')                one pass, D_r' some images of each retained class
    repair    min CE(D_r')                                one pass

Images of retained classes (Choi and Na 2023, the "UNSIR" of MUFAC): in each step a new noise is moved away from the
model's predictions on a forget batch, by max MSE(f(N), f(x_f)) in a few steps (theirs are 5 at rate 0.01), clamped to
[0, 1], and labeled like a retain batch.

The noise of classes is in units of the channels' standard deviation, as the authors' inputs are. It is optimized in
eval mode, in which batch-norm statistics cannot drift; in the released notebook they do (`noise_mode="train"`); impair
and repair are in train mode as released, and statistics are estimated again at the end (`batch_norm=train`). The
notebook's impair step joins some noises with all retained images in one shuffled set (`mixture="joined"`): its loop
runs over the channels of a noise instead of the noises, so that they are 20 copies of the first 3 (`distinct=3,
copies=20`). MUFAC's code has SGD without momentum (`optimizer="sgd"`), and adds the mean losses of noise and images,
whose rate is half of the rate here. On a network of 166 weights, runs with these values equal the two codes to
rounding. Relative to the move, noise of eval mode differs by 0.35, all noises by 0.19, and noise in each step by 0.69.
Deviations: forgotten classes keep their own labels, where the notebook labels all noise as class 0 (0.44, unless it is
class 0 that is forgotten); images of a class are drawn, not the first ones; MUFAC's code leaves out incomplete batches;
in the code of Foster et al. 2024 the first step of Adam also has all gradients that the noise left (1.3).

Learning rates are numbers, not multiples of the recipe's: on development draws the same ones were best on digits, whose
recipe has 0.1, and on photographs, whose recipe has 0.05. Distances with 0.03 and 0.015 are 10 and 13, with a third of
both 35 and 40, after statistics were estimated again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from forgetbench.methods import methods
from forgetbench.methods._training import (
    augment_option,
    augmentation,
    batch_norm_option,
    clone_model,
    cycle,
    forgotten_classes,
    set_mode,
    train_loop,
)
from forgetbench.methods.base import Examples, ForgetRequest, Method, MethodCard, Rate, param
from forgetbench.training import classification_loss, make_optimizer
from forgetbench.training.data import augment_batch, batch_sizes

Batch = tuple[Tensor, Tensor]


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
        scenarios=("class", "identity", "published"),
        known_limitations="Identities in tasks with other labels: the noise holds no information on a person.",
    )

    lr: Rate = param(
        0.03, gt=0, paper_default=0.02, search=(0.001, 0.1), help="Learning rate of Adam in the impair step."
    )
    repair_lr: Rate = param(
        0.015, gt=0, paper_default=0.01, search=(0.0005, 0.05), help="Learning rate of Adam in the repair step."
    )
    epochs: int = param(1, ge=1, help="Passes of the impair step.")
    repair_epochs: int = param(3, ge=0, paper_default=1, search=(1, 4), help="Passes of the repair step.")
    noise_lr: float = param(0.1, gt=0, help="Learning rate of Adam on the noise.")
    noise_steps: int = param(40, ge=1, help="Steps on the noise of a class; in a batch's own noise an eighth of it.")
    penalty: float = param(0.1, ge=0, help="Weight of the square of the noise.")
    noise_mode: str = param(
        "eval", choices=("eval", "train"), paper_default="train", help="Mode of the network for the noise of a class."
    )
    optimizer: str = param("adam", choices=("adam", "sgd"), help="Optimizer of both steps; SGD is without momentum.")
    mixture: str = param(
        "step",
        choices=("step", "joined"),
        paper_default="joined",
        help="Noise of classes: in each step by `noise_ratio`, or `copies` of it and the images as one set.",
    )
    distinct: int | None = param(None, ge=1, paper_default=3, help="Noises of a class in a joined set; None = all.")
    copies: int = param(20, ge=1, help="Copies of each noise in a joined set.")
    noise_ratio: float = param(0.5, gt=0, search=(0.1, 1.0), help="Noises in an impair step, for one retained image.")
    per_class: int = param(1000, ge=1, help="Most retained images of a class that are used.")
    batch_size: int = param(64, ge=2, paper_default=256, help="Retained images per step; noises of a class.")
    augment: bool = augment_option(False)
    batch_norm: str = batch_norm_option("recalibrate", paper_default="train")

    def unlearn(self, model: nn.Module, request: ForgetRequest) -> nn.Module:
        """A copy of the model, impaired and repaired."""
        network = clone_model(model)
        classes = [] if request.forget.attributes else forgotten_classes(request)
        if classes:
            retain = sample_per_class(request, self.per_class)
            noises = [(self.class_noise(network, label, request), label) for label in classes]
            noisy = self.class_noise_batches if self.mixture == "step" else self.joined_batches
            self.impair(network, request, lambda epoch: noisy(noises, retain, request, epoch))
        else:
            retain = request.retain
            batches = cycle(retain, self.batch_size, request, 2, augment=self.augment)
            self.impair(network, request, lambda epoch: self.image_noise_batches(network, batches, request, epoch))
        repair_lr = request.resolve_lr(self.repair_lr, self.optimizer, "repair_lr")
        optimizer = make_optimizer(network.parameters(), self.optimizer, repair_lr, momentum=0.0)
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm) as loop:
            for epoch in loop.epochs(self.repair_epochs):
                augment = augmentation(request, augment=self.augment)
                for images, labels in retain.batches(self.batch_size, request.derive_seed(4, epoch), *augment):
                    with loop.autocast():
                        loss = classification_loss(network(images), labels)
                    loop.step(loss)
        return network

    def impair(
        self, network: nn.Module, request: ForgetRequest, noisy_batches: Callable[[int], Iterator[Batch]]
    ) -> None:
        """Train in place on noise mixed with retained images."""
        lr = request.resolve_lr(self.lr, self.optimizer)
        optimizer = make_optimizer(network.parameters(), self.optimizer, lr, momentum=0.0)
        with train_loop(network, request, optimizer, self.card.name, batch_norm=self.batch_norm, last=False) as loop:
            for epoch in loop.epochs(self.epochs):
                for images, labels in noisy_batches(epoch):
                    with loop.autocast():
                        loss = classification_loss(network(images), labels)
                    loop.step(loss)

    def class_noise(self, network: nn.Module, label: int, request: ForgetRequest) -> Tensor:
        """Images (batch_size, C, H, W) that the network does not assign to the class.

        In train mode its batch-norm statistics change.
        """
        network.train(self.noise_mode == "train")
        mean, deviation = cast("Tensor", network.mean), cast("Tensor", network.std)
        shape = (self.batch_size, *request.retain.images.shape[1:])
        noise = torch.randn(shape, generator=request.generator(0, label)).to(mean).requires_grad_()
        labels = torch.full((self.batch_size,), label, device=request.device)
        optimizer = make_optimizer([cast("nn.Parameter", noise)], "adam", self.noise_lr)
        for _ in range(self.noise_steps):
            class_loss = functional.cross_entropy(network(mean + deviation * noise), labels)
            loss = self.penalty * noise.square().flatten(1).sum(1).mean() - class_loss
            (noise.grad,) = torch.autograd.grad(loss, noise)
            optimizer.step()
        return (mean + deviation * noise).detach()

    def class_noise_batches(
        self, noises: list[tuple[Tensor, int]], retain: Examples, request: ForgetRequest, epoch: int
    ) -> Iterator[Batch]:
        """Batches of retained images with noise of each forgotten class."""
        generator = request.generator(1, epoch)
        augment = augmentation(request, augment=self.augment)
        for images, labels in retain.batches(self.batch_size, request.derive_seed(2, epoch), *augment):
            count = max(1, round(self.noise_ratio * len(images) / len(noises)))
            for noise, label in noises:
                rows = torch.randint(len(noise), (count,), generator=generator).to(noise.device)
                images = torch.cat([images, noise[rows]])  # noqa: PLW2901 - the batch grows
                labels = torch.cat([labels, labels.new_full((count,), label)])  # noqa: PLW2901
            yield images, labels

    def joined_batches(
        self, noises: list[tuple[Tensor, int]], retain: Examples, request: ForgetRequest, epoch: int
    ) -> Iterator[Batch]:
        """Batches of one shuffled set of retained images and copies of the noise of each forgotten class."""
        copies = [(noise[: self.distinct].repeat(self.copies, 1, 1, 1), label) for noise, label in noises]
        noise = torch.cat([images for images, _ in copies])
        noise_labels = torch.cat([retain.labels.new_full((len(images),), label) for images, label in copies])
        generator, (names, padding) = request.generator(1, epoch), augmentation(request, augment=self.augment)
        order = torch.randperm(len(noise) + len(retain), generator=generator).to(noise.device)
        for rows in order.split(batch_sizes(len(order), self.batch_size)):
            noise_rows, part = rows[rows < len(noise)], retain.take(rows[rows >= len(noise)] - len(noise))
            pixels = augment_batch(part.images, names, padding, generator) if names else part.images
            images = torch.cat([pixels.float().div_(255).to(noise), noise[noise_rows]])
            yield images, torch.cat([part.labels, noise_labels[noise_rows]])

    def image_noise_batches(
        self, network: nn.Module, retain_batches: Iterator[Batch], request: ForgetRequest, epoch: int
    ) -> Iterator[Batch]:
        """Batches of noise, moved away from the predictions on a forget batch, with retained images."""
        generator = request.generator(3, epoch)
        augment = augmentation(request, augment=self.augment)
        for forget_images, _ in request.forget.batches(self.batch_size, request.derive_seed(1, epoch), *augment):
            images, labels = next(retain_batches)
            network.eval()
            with torch.no_grad():
                forget_logits = network(forget_images)
            noise = torch.randn(forget_images.shape, generator=generator).to(forget_images).requires_grad_()
            optimizer = make_optimizer([cast("nn.Parameter", noise)], "adam", self.noise_lr)
            for _ in range(max(1, self.noise_steps // 8)):
                (gradient,) = torch.autograd.grad(-functional.mse_loss(network(noise), forget_logits), noise)
                noise.grad = gradient.contiguous()  # it is channels-last; a fused step needs the layout of the noise
                optimizer.step()
            set_mode(network, batch_norm=self.batch_norm)
            count = min(len(noise), len(images))
            yield torch.cat([noise.detach()[:count].clamp(0, 1), images]), torch.cat([labels[:count], labels])


def sample_per_class(request: ForgetRequest, max_count: int) -> Examples:
    """At most `max_count` retained examples of each class, drawn at random."""
    labels = request.retain.labels.cpu()
    order = torch.randperm(len(labels), generator=request.generator(5))
    rows = [order[labels[order] == label][:max_count] for label in labels.unique()]
    return request.retain.take(torch.cat(rows))
