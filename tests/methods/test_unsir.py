"""UNSIR: the noise is what the model gets wrong, and each of the two ways is taken where it belongs."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from forgetbench.methods.base import ForgetRequest, TaskFacts
from forgetbench.methods.unsir import UNSIR, sample_per_class
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe, fit
from forgetbench.training.compute import channels_last

SPEC = NetworkSpec(
    name="mlp", channels=1, height=4, width=4, outputs=3, mean=(0.5,), std=(0.3,), options={"hidden": [12]}
)
RECIPE = Recipe(epochs=15, batch_size=8, lr=0.05)


@pytest.fixture(scope="module")
def everything() -> Examples:
    """Each class lights its own rows of the image."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(30) % 3
    images = torch.randint(0, 60, (30, 1, 4, 4), generator=generator, dtype=torch.uint8)
    for row, label in enumerate(labels.tolist()):
        images[row, 0, label] += 180
    return Examples(images, labels)


@pytest.fixture(scope="module")
def original(everything):
    return fit(SPEC.build(0), everything, RECIPE, 0)


def requested(everything: Examples, forget: torch.Tensor, seed: int = 1) -> ForgetRequest:
    rows = torch.arange(len(everything))
    return ForgetRequest(
        forget=everything.take(rows[forget]),
        retain=everything.take(rows[~forget]),
        validation=everything,
        seed=seed,
        recipe=RECIPE,
        new_network=lambda: SPEC.build(9),
    )


def test_class_noise_is_not_classified_as_the_class(everything, original):
    request = requested(everything, everything.labels == 2)
    label = torch.full((16,), 2)

    def loss(**values: float) -> float:
        noise = UNSIR(batch_size=16, **values).class_noise(original, 2, request)
        with torch.no_grad():
            return float(functional.cross_entropy(original(noise), label))

    start = 0.5 + 0.3 * torch.randn(16, 1, 4, 4, generator=request.generator(0, 2))
    with torch.no_grad():
        before = float(functional.cross_entropy(original(start), label))
    assert loss(penalty=0.0) > before + 1
    heavy = UNSIR(batch_size=16, penalty=1000.0, noise_steps=400).class_noise(original, 2, request)
    torch.testing.assert_close(heavy, torch.full_like(heavy, 0.5), atol=0.03, rtol=0.0)


def test_class_noise_batches_have_the_forgotten_labels(everything):
    request = requested(everything, everything.labels > 0)
    noises = [(torch.full((3, 1, 4, 4), 7.0), 1), (torch.full((3, 1, 4, 4), 9.0), 2)]
    batches = list(UNSIR(batch_size=8, noise_ratio=0.5).class_noise_batches(noises, request.retain, request, 0))
    images, labels = batches[0]
    # 8 retained images, and half as many noises, shared among two classes
    assert labels.bincount().tolist() == [8, 2, 2]
    assert images[:, 0, 0, 0][labels == 1].tolist() == [7.0, 7.0]
    assert images[:, 0, 0, 0][labels == 2].tolist() == [9.0, 9.0]
    assert sum(int((labels == 0).sum()) for _, labels in batches) == len(request.retain)


def test_joined_batches_hold_all_images_and_copies(everything):
    request = requested(everything, everything.labels == 2)
    noise = torch.rand(8, 1, 4, 4) + 2
    method = UNSIR(batch_size=8, mixture="joined", distinct=3, copies=5)
    batches = list(method.joined_batches([(noise, 2)], request.retain, request, 0))
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert labels.bincount().tolist() == [10, 10, 15]
    assert all(int((images == each).flatten(1).all(1).sum()) == 5 for each in noise[:3])
    assert [len(part) for _, part in batches] == [8, 8, 8, 8, 3]


def test_unsir_on_whole_classes_reads_no_forget_images(everything, original):
    request = requested(everything, everything.labels == 2)
    black = Examples(torch.zeros_like(request.forget.images), request.forget.labels)
    other = requested(everything, everything.labels == 2)
    object.__setattr__(other, "forget", black)
    first, second = (UNSIR(batch_size=8).unlearn(original, each).state_dict() for each in (request, other))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_unsir_on_retained_classes_opposes_predictions(everything, original):
    request = requested(everything, torch.arange(30) < 4)
    black = Examples(torch.zeros_like(request.forget.images), request.forget.labels)
    other = requested(everything, torch.arange(30) < 4)
    object.__setattr__(other, "forget", black)
    first, second = (UNSIR(batch_size=8).unlearn(original, each).state_dict() for each in (request, other))
    assert not torch.equal(first["head.weight"], second["head.weight"])


def test_sample_per_class_respects_the_maximum(everything):
    request = requested(everything, everything.labels == 2)
    assert sample_per_class(request, 4).labels.bincount().tolist() == [4, 4]
    assert len(sample_per_class(request, 100)) == len(request.retain)


def test_unsir_does_not_apply_to_random_rows():
    facts = TaskFacts(network="cnn", scenario="random", attributes=False, outputs=3)
    assert "class, identity" in str(UNSIR().applies_to(facts))


def test_image_noise_of_color_images_ascends_as_unfused_adam():
    """A channels-last gradient in a fused step on noise of another layout moved the wrong pixels."""
    network = make_network_for_color()
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (12, 3, 8, 8), generator=generator, dtype=torch.uint8)
    examples = Examples(images, torch.arange(12) % 4)
    request = ForgetRequest(
        forget=examples.take(range(4)),
        retain=examples.take(range(4, 12)),
        validation=examples,
        seed=1,
        recipe=RECIPE,
        new_network=lambda: network,
    )
    unsir = UNSIR(batch_size=4, noise_steps=40)
    with channels_last(network):
        retain_batches = request.retain.batches(4, request.derive_seed(2, 0))
        noisy, _ = next(unsir.image_noise_batches(network, retain_batches, request, 0))
    [(forget_images, _)] = request.forget.batches(4, request.derive_seed(1, 0))
    noise = torch.randn(forget_images.shape, generator=request.generator(3, 0)).requires_grad_()
    optimizer = torch.optim.Adam([noise], lr=unsir.noise_lr, foreach=False, fused=False)
    network.eval()
    for _ in range(5):
        optimizer.zero_grad()
        (-functional.mse_loss(network(noise), network(forget_images).detach())).backward()
        optimizer.step()
    torch.testing.assert_close(noisy[:4], noise.detach().clamp(0, 1), atol=1e-3, rtol=0.0)


def make_network_for_color() -> torch.nn.Module:
    return NetworkSpec(
        name="cnn", channels=3, height=8, width=8, outputs=4, mean=(0.5,) * 3, std=(0.3,) * 3, options={"width": 4}
    ).build(5)
