"""The first steps of each method on a linear softmax model, by numpy: what is minimized, its sign, and at what rate."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from forgetbench.methods._training import random_labels
from forgetbench.methods.amnesiac import Amnesiac
from forgetbench.methods.bad_teacher import BadTeacher
from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.fanchuan import Fanchuan
from forgetbench.methods.jit import JiT
from forgetbench.methods.l1_sparse import L1Sparse
from forgetbench.methods.random_label import RandomLabel
from forgetbench.methods.salun import SalUn
from forgetbench.methods.scrub import Scrub
from forgetbench.methods.sebastian import Sebastian
from forgetbench.methods.seif import Seif
from forgetbench.methods.unsir import UNSIR
from forgetbench.training import Examples, Recipe

Array = NDArray[np.float64]
CLASSES, WHOLE = 3, 100  # a batch that holds any of the sets


class Linear(nn.Module):
    """Four pixels to three logits, with the buffers that networks keep their scale in."""

    mean: Tensor
    std: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 1, 1, 1), 0.4))
        self.register_buffer("std", torch.full((1, 1, 1, 1), 0.25))
        self.head = nn.Linear(4, CLASSES)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(2 * torch.randn(parameter.shape, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


@pytest.fixture
def model() -> Linear:
    return Linear(1)


@pytest.fixture
def forget_request() -> ForgetRequest:
    generator = torch.Generator().manual_seed(2)

    def some(count: int) -> Examples:
        images = torch.randint(0, 256, (count, 1, 2, 2), generator=generator, dtype=torch.uint8)
        return Examples(images, torch.randint(0, CLASSES, (count,), generator=generator))

    return ForgetRequest(
        forget=some(9),
        retain=some(20),
        validation=some(5),
        seed=4,
        recipe=Recipe(),
        new_network=lambda: Linear(99),
    )


def theta(network: nn.Module) -> Array:
    """Weights and, in the last column, biases (outputs, pixels + 1)."""
    return np.hstack([part.detach().double().numpy().reshape(CLASSES, -1) for part in network.parameters()])


def inputs(images: Examples | Tensor) -> Array:
    """Pixels in [0,1] and a one (n, pixels + 1)."""
    pixels = images.images.double() / 255 if isinstance(images, Examples) else images.double()
    return np.pad(pixels.flatten(1).numpy(), ((0, 0), (0, 1)), constant_values=1.0)


def wrong(weights: Array, data: Examples, labels: Tensor | None = None) -> Array:
    """Gradient of the loss of each example by its logits, p - e_y (n, outputs)."""
    targets = np.eye(CLASSES)[(data.labels if labels is None else labels).numpy()]
    return softmax(inputs(data) @ weights.T, axis=1) - targets


def gradient(weights: Array, data: Examples, labels: Tensor | None = None) -> Array:
    """Of the mean loss, by theta."""
    return wrong(weights, data, labels).T @ inputs(data) / len(data)


class Adam:
    """Adam's steps, by its paper."""

    def __init__(self, lr: float) -> None:
        self.lr, self.count = lr, 0
        self.mean = self.square = np.zeros((CLASSES, 5))

    def step(self, weights: Array, now: Array) -> Array:
        self.count += 1
        self.mean, self.square = 0.9 * self.mean + 0.1 * now, 0.999 * self.square + 0.001 * now**2
        mean, square = self.mean / (1 - 0.9**self.count), self.square / (1 - 0.999**self.count)
        return weights - self.lr * mean / (np.sqrt(square) + 1e-8)


def same(edited: nn.Module, expected: Array) -> None:
    np.testing.assert_allclose(theta(edited), expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("max_epochs", [0, 1, 2])
def test_scrub_equals_numpy(model, forget_request, max_epochs):
    """The divergence has no gradient where student and teacher are one; from the second step on it has."""
    values = {"alpha": 0.7, "gamma": 0.3, "temperature": 2.0, "decay": 0.5, "lr": 0.4, "clip": 1e9}
    batches = {"batch_size": WHOLE, "forget_batch_size": WHOLE, "momentum": 0.0, "weight_decay": 0.0}
    student = Scrub(epochs=3, max_epochs=max_epochs, **values, **batches).unlearn(model, forget_request)
    teacher = expected = theta(model)
    lr = 0.4

    def kl_gradient(weights: Array, data: Examples) -> Array:
        """Gradient of T^2 KL(teacher || student), T = 2: d KL / d logits = (p_student - p_teacher) / T."""
        predicted, target = (softmax(inputs(data) @ each.T / 2, axis=1) for each in (weights, teacher))
        return 4 * ((predicted - target) / 2).T @ inputs(data) / len(data)

    for epoch in range(3):
        if epoch < max_epochs:
            expected = expected + lr * kl_gradient(expected, forget_request.forget)
        expected = expected - lr * (
            0.7 * kl_gradient(expected, forget_request.retain) + 0.3 * gradient(expected, forget_request.retain)
        )
        lr *= 0.5 if epoch + 1 == max_epochs else 1
    same(student, expected)


def test_bad_teacher_equals_numpy(model, forget_request):
    method = BadTeacher(epochs=4, lr=0.1, retain_ratio=1.0, temperature=1.5, batch_size=WHOLE)
    good, bad, expected = theta(model), theta(forget_request.new_network()), theta(model)
    optimizer, count = Adam(0.1), len(forget_request.forget) + len(forget_request.retain)
    for _ in range(4):
        sums = np.zeros_like(good)
        for teacher, data in ((bad, forget_request.forget), (good, forget_request.retain)):
            predicted, target = (softmax(inputs(data) @ each.T / 1.5, axis=1) for each in (expected, teacher))
            sums += (predicted - target).T @ inputs(data) / 1.5
        expected = optimizer.step(expected, sums / count)
    same(method.unlearn(model, forget_request), expected)


def test_amnesiac_equals_numpy(model, forget_request):
    labels = random_labels(forget_request.forget.labels, CLASSES, forget_request.generator(0))
    everything = forget_request.forget.relabel(labels).join(forget_request.retain)
    optimizer, expected = Adam(0.1), theta(model)
    for _ in range(4):
        expected = optimizer.step(expected, gradient(expected, everything))
    same(Amnesiac(epochs=4, lr=0.1, batch_size=WHOLE).unlearn(model, forget_request), expected)


@pytest.mark.parametrize("resample", [False, True])
def test_random_label_equals_numpy(model, forget_request, resample):
    """The retain set left aside; the labels are by default never the true ones."""
    method = RandomLabel(
        epochs=3, lr=0.4, retain=0, resample=resample, batch_size=WHOLE, momentum=0.0, weight_decay=0.0
    )
    expected = theta(model)
    for epoch in range(3):
        labels = random_labels(forget_request.forget.labels, CLASSES, forget_request.generator(0, epoch * resample))
        expected = expected - 0.4 * gradient(expected, forget_request.forget, labels)
    same(method.unlearn(model, forget_request), expected)


@pytest.mark.parametrize("resample", [False, True])
def test_salun_equals_numpy(model, forget_request, resample):
    method = SalUn(
        epochs=3, lr=0.4, mask_ratio=0.4, resample=resample, batch_size=WHOLE, momentum=0.0, weight_decay=0.0
    )
    expected = theta(model)
    sizes = np.abs(gradient(expected, forget_request.forget))
    mask = sizes >= np.sort(sizes.ravel())[-6]  # 0.4 of 15 weights
    for epoch in range(3):
        labels = random_labels(forget_request.forget.labels, CLASSES, forget_request.generator(0, epoch * resample))
        everything = forget_request.forget.relabel(labels).join(forget_request.retain)
        expected = expected - 0.4 * mask * gradient(expected, everything)
    same(method.unlearn(model, forget_request), expected)


def test_l1_sparse_equals_numpy(model, forget_request):
    """The penalty fades: whole in the first of four epochs, a quarter in the last."""
    method = L1Sparse(epochs=4, lr=0.4, alpha=0.1, batch_size=WHOLE, momentum=0.0, weight_decay=0.0)
    expected = theta(model)
    for strength in (0.1, 0.075, 0.05, 0.025):
        expected = expected - 0.4 * (gradient(expected, forget_request.retain) + strength * np.sign(expected))
    same(method.unlearn(model, forget_request), expected)


@pytest.mark.parametrize("weights", ["balanced", "published", "none"])
def test_seif_equals_numpy(model, forget_request, weights):
    """A network without kernels gets no noise; at the middle of its only step the rate is at half its height."""
    counts = np.bincount(forget_request.retain.labels, minlength=CLASSES)
    weight_of = {"balanced": 20 / (CLASSES * counts), "published": np.array([1, 0.05, 0.05]), "none": np.ones(3)}
    row_weights = weight_of[weights][forget_request.retain.labels.numpy(), None]
    method = Seif(epochs=1, lr=0.8, weights=weights, batch_size=WHOLE, momentum=0.0, weight_decay=0.0)
    start = theta(model)
    step = (row_weights * wrong(start, forget_request.retain)).T @ inputs(forget_request.retain) / 20
    same(method.unlearn(model, forget_request), start - 0.4 * step)


def test_sebastian_equals_numpy(model, forget_request):
    """Nothing drawn anew: weighted classes, and from the second step on entropies that are held to the original's."""
    method = Sebastian(
        epochs=3,
        lr=0.4,
        mask_ratio=0.0,
        class_weight_power=-1.0,
        entropy_weight=2.0,
        batch_size=WHOLE,
        momentum=0.0,
        weight_decay=0.0,
    )
    data, start = forget_request.retain, theta(model)
    row_weights = 1 / np.bincount(data.labels, minlength=CLASSES)[data.labels.numpy(), None]

    def logarithms(weights: Array) -> tuple[Array, Array]:
        logarithm = log_softmax(inputs(data) @ weights.T, axis=1)
        return logarithm, -(np.exp(logarithm) * logarithm).sum(1, keepdims=True)

    expected = start
    for _ in range(3):
        logarithm, entropy = logarithms(expected)
        # d H / d logits = -p (log p + H), the square's derivative is twice the difference
        held = 2 * (entropy - logarithms(start)[1]) * -np.exp(logarithm) * (logarithm + entropy) / len(data)
        errors = row_weights * wrong(expected, data) / row_weights.sum() + 2.0 * held
        expected = expected - 0.4 * errors.T @ inputs(data)
    same(method.unlearn(model, forget_request), expected)


def test_fanchuan_equals_numpy(model, forget_request):
    """One pass to uniform answers, then two turns of the contrast and of the retain set."""
    method = Fanchuan(
        epochs=2,
        uniform_lr=0.3,
        forget_lr=0.2,
        lr=0.4,
        temperature=1.5,
        batch_size=WHOLE,
        forget_batch_size=WHOLE,
        momentum=0.0,
        weight_decay=0.0,
    )
    forgotten, retained, expected = inputs(forget_request.forget), inputs(forget_request.retain), theta(model)
    expected = expected - 0.3 * (softmax(forgotten @ expected.T, axis=1) - 1 / CLASSES).T @ forgotten / len(forgotten)
    for lr in (0.2, 0.1):  # half a cosine
        others = retained @ expected.T
        # d / d scores of the mean of -log softmax(scores) over pairs
        scores = (softmax(forgotten @ expected.T @ others.T / 1.5, axis=1) - 1 / len(retained)) / len(forgotten)
        expected = expected - lr * (scores @ others / 1.5).T @ forgotten
        expected = expected - 0.4 * gradient(expected, forget_request.retain)
    same(method.unlearn(model, forget_request), expected)


def impaired(weights: Array, noise: Array, of_noise: list[int], images: Array, labels: Tensor) -> Array:
    """Gradient of the mean loss of noise (n, pixels) and images with their labels."""
    batch = np.vstack([np.pad(noise, ((0, 0), (0, 1)), constant_values=1.0), images])
    targets = np.eye(CLASSES)[of_noise + labels.tolist()]
    return (softmax(batch @ weights.T, axis=1) - targets).T @ batch / len(batch)


STEPS_OF_UNSIR = {"lr": 0.1, "epochs": 3, "repair_lr": 0.05, "repair_epochs": 3, "noise_lr": 0.3}


def test_unsir_on_retained_classes_equals_numpy(model, forget_request):
    """The noise leaves the answers of the forget set; the model is impaired with it and then repaired."""
    impair, repair, expected = Adam(0.1), Adam(0.05), theta(model)
    for epoch in range(3):
        (forgotten, _) = next(forget_request.forget.batches(WHOLE, forget_request.derive_seed(1, epoch)))
        (images, labels) = next(forget_request.retain.batches(WHOLE, forget_request.derive_seed(2, epoch)))
        noise = torch.randn(forgotten.shape, generator=forget_request.generator(3, epoch))
        change = (inputs(noise) - inputs(forgotten)) @ expected.T  # d MSE / d noise points along change W
        moved = noise.double().flatten(1).numpy() + 0.3 * np.sign(change @ expected[:, :4])  # one step of Adam
        now = impaired(expected, moved.clip(0, 1), labels[:9].tolist(), inputs(images), labels)
        expected = impair.step(expected, now)
    for _ in range(3):
        expected = repair.step(expected, gradient(expected, forget_request.retain))
    same(UNSIR(noise_steps=8, batch_size=WHOLE, **STEPS_OF_UNSIR).unlearn(model, forget_request), expected)


def test_unsir_on_a_whole_class_equals_numpy(model, forget_request):
    """The noise of a class leaves that class; the model is impaired with it under that label and then repaired."""
    forget = forget_request.forget.relabel(torch.full((9,), 2))
    retain = forget_request.retain.relabel(forget_request.retain.labels % 2)
    forget_request = dataclasses.replace(forget_request, forget=forget, retain=retain)
    noise = torch.randn(20, 1, 2, 2, generator=forget_request.generator(0, 2)).double()
    impair, repair, expected, pixels = Adam(0.1), Adam(0.05), theta(model), noise.flatten(1).numpy()
    errors = softmax(inputs(0.4 + 0.25 * noise) @ expected.T, axis=1) - np.eye(CLASSES)[2]
    slope = 2 * 0.2 * pixels - 0.25 * errors @ expected[:, :4]
    moved = 0.4 + 0.25 * (pixels - 0.3 * np.sign(slope))  # one step of Adam
    for epoch in range(3):
        rows = torch.randint(20, (10,), generator=forget_request.generator(1, epoch)).numpy()  # half as many as images
        now = impaired(expected, moved[rows], [2] * 10, inputs(retain), retain.labels)
        expected = impair.step(expected, now)
    for _ in range(3):
        expected = repair.step(expected, gradient(expected, retain))
    same(UNSIR(noise_steps=1, penalty=0.2, batch_size=20, **STEPS_OF_UNSIR).unlearn(model, forget_request), expected)


def test_jit_equals_numpy(model, forget_request):
    """The losses of a batch are summed; neighbors are constants, and noise is clamped before it is measured."""
    method = JiT(epochs=1, lr=0.05, sigma=0.5, samples=3, batch_size=WHOLE)
    (images, _) = next(forget_request.forget.batches(WHOLE, forget_request.derive_seed(0, 0)))
    noises = 0.5 * 0.25 * torch.randn(3, *images.shape, generator=forget_request.generator(1, 0, 0))
    start, here, step = theta(model), inputs(images), np.zeros((CLASSES, 5))
    for noise in noises:
        there = inputs((images + noise).clamp(images.min(), images.max()))
        change, length = (here - there) @ start.T, np.linalg.norm((here - there) / 0.25, axis=1)
        step += (change / np.linalg.norm(change, axis=1, keepdims=True) / length[:, None]).T @ here / 3
    same(method.unlearn(model, forget_request), start - 0.05 * step)
