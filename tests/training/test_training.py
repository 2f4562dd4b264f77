"""Training: the same bits for the same seed, and every schedule, loss and augmentation against values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import expit, log_softmax
from torch import nn

from forgetbench.errors import UsageError
from forgetbench.networks import NetworkSpec
from forgetbench.training import (
    DivergedError,
    Recipe,
    classification_loss,
    fit,
    learning_rate,
    make_optimizer,
    predict,
    predict_features,
)
from forgetbench.training.compute import channels_last, count_flops, derived_seed, seeded
from forgetbench.training.data import Examples, augmented, batch_sizes


def some_examples(count: int = 21, size: int = 8, seed: int = 0, attributes: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, attributes)) if attributes else rng.integers(0, 4, count)
    return Examples.from_arrays(rng.integers(0, 256, (count, 1, size, size), dtype=np.uint8), labels)


def network(name: str = "cnn", outputs: int = 4, seed: int = 0, **options: object) -> nn.Module:
    options = options or ({"width": 4} if name == "cnn" else {})
    return NetworkSpec(
        name=name, channels=1, height=8, width=8, outputs=outputs, mean=(0.5,), std=(0.3,), options=options
    ).build(seed)


def recipe(**fields: object) -> Recipe:
    return Recipe.model_validate({"epochs": 2, "batch_size": 8, "lr": 0.05} | fields)


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_same_seed_same_bits(optimizer):
    how = recipe(optimizer=optimizer, augment=("crop", "flip"), crop_padding=1)
    runs = [fit(network(), some_examples(), how, seed) for seed in (1, 1, 2)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_training_neither_reads_nor_changes_the_callers_random_state():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = fit(network(), some_examples(), recipe(), 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert same(first, fit(network(), some_examples(), recipe(), 1))


def test_seeds_that_differ_in_high_bits_alone_differ():
    assert derived_seed(1) % 2**32 != derived_seed(1 + 2**32) % 2**32
    assert derived_seed(1, 2) != derived_seed(2, 1)


def test_dropout_draws_from_the_seed():
    with seeded(3):
        first = torch.rand(4)
    with seeded(3):
        assert torch.equal(first, torch.rand(4))


def test_one_step_of_sgd_by_hand():
    examples, net = some_examples(8), network("mlp", hidden=[3])
    start = [p.detach().clone() for p in net.parameters()]
    images, labels = next(iter(examples.batches(8)))
    gradients = torch.autograd.grad(nn.functional.cross_entropy(net(images), labels), list(net.parameters()))
    fit(net, examples, recipe(epochs=1, lr=0.1, schedule="constant", weight_decay=0.01), 0)
    for before, gradient, after in zip(start, gradients, net.parameters(), strict=True):
        torch.testing.assert_close(after.detach(), before - 0.1 * (gradient + 0.01 * before))


@pytest.mark.parametrize("kind", ["crop", "crop-reflect"])
def test_a_crop_is_a_window_of_the_padded_image(kind):
    images = torch.randint(0, 256, (40, 2, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cropped = augmented(images, (kind,), 2, torch.Generator().manual_seed(1))
    mode = {"crop": "constant", "crop-reflect": "reflect"}[kind]
    shifts = set()
    for image, result in zip(images.numpy(), cropped.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode=mode)
        found = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[:, y : y + 5, x : x + 6], result)]
        assert found
        shifts.update(found)
    assert len(shifts) > 10


def test_flips_mirror_half_of_the_images():
    images = torch.randint(0, 256, (400, 1, 3, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flipped = augmented(images, ("flip",), 4, torch.Generator().manual_seed(1))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert bool((mirrored | (flipped == images).flatten(1).all(1)).all())
    assert 150 < int(mirrored.sum()) < 250


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(UsageError, match="rotate"):
        next(iter(some_examples().batches(4, 0, ("rotate",))))


@given(count=st.integers(1, 200), size=st.integers(1, 64))
def test_batches_cover_all_and_none_is_single(count, size):
    sizes = batch_sizes(count, size)
    assert sum(sizes) == count
    assert sizes[-1] > 1 or size == 1 or count == 1
    assert max(sizes) <= size + 1


@given(count=st.integers(1, 30), size=st.integers(1, 9), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=30, deadline=None)
def test_an_epoch_is_a_permutation(count, size, seed):
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 2, 2)
    examples = Examples(images, torch.arange(count))
    seen = torch.cat([labels for _, labels in examples.batches(size, seed)])
    assert sorted(seen.tolist()) == list(range(count))
    pixels = torch.cat([batch[:, 0, 0, 0] for batch, _ in examples.batches(size, seed)])
    assert torch.allclose(pixels * 255, seen.float())


def test_views_share_images_and_labels_are_copies():
    examples = some_examples()
    view = examples.take([3, 1]).take(torch.tensor([1]))
    assert view.labels.tolist() == [examples.labels.tolist()[1]]
    assert torch.equal(view.images, examples.images[1:2])
    assert view._images.data_ptr() == examples._images.data_ptr()
    view.labels.fill_(9)
    assert 9 not in view.labels.tolist()
    joined = view.join(examples.relabel(torch.zeros(21, dtype=torch.int64)))
    assert len(joined) == 22
    assert joined._images.data_ptr() == examples._images.data_ptr()
    apart = view.join(some_examples(2, seed=1))
    assert torch.equal(apart.images[1:], some_examples(2, seed=1).images)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2)),
    ],
)
def test_examples_of_the_wrong_kind_are_refused(images, labels):
    with pytest.raises(UsageError):
        Examples(images, labels)


def test_losses_against_scipy():
    rng = np.random.default_rng(0)
    logits, classes, bits = rng.normal(size=(5, 3)), rng.integers(0, 3, 5), rng.integers(0, 2, (5, 3))
    ours = classification_loss(torch.tensor(logits), torch.tensor(classes), reduction="none").numpy()
    np.testing.assert_allclose(ours, -log_softmax(logits, axis=1)[np.arange(5), classes])
    p = expit(logits)
    expected = -(bits * np.log(p) + (1 - bits) * np.log(1 - p)).sum(1)
    for reduction, value in (("none", expected), ("mean", expected.mean()), ("sum", expected.sum())):
        got = classification_loss(torch.tensor(logits), torch.tensor(bits), reduction=reduction).numpy()
        np.testing.assert_allclose(got, value)


def test_schedules_by_hand():
    cosine = recipe(epochs=4, lr=1.0, warmup_epochs=1, schedule="cosine")
    rates = [learning_rate(cosine, step, 10) for step in range(40)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(rates[10:], [0.5 * (1 + math.cos(math.pi * k / 30)) for k in range(30)])
    steps = recipe(epochs=4, lr=1.0, schedule="step", milestones=(1, 3), gamma=0.1)
    np.testing.assert_allclose([learning_rate(steps, s, 2) for s in range(8)], [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    cycle = [learning_rate(recipe(epochs=10, lr=2.0, schedule="one-cycle"), s, 10) for s in range(100)]
    assert cycle[0] == pytest.approx(0.08)
    assert max(cycle) == pytest.approx(2.0)
    assert cycle.index(max(cycle)) == 30
    assert cycle[-1] < 0.01
    assert learning_rate(recipe(lr=0.3, schedule="constant"), 7, 10) == 0.3


def test_a_loss_that_blows_up_names_epoch_and_rate():
    with pytest.raises(DivergedError, match=r"epoch 1 of 2 at learning rate 1e\+30"):
        fit(network("mlp", hidden=[8]), some_examples(), recipe(lr=1e30, schedule="constant"), 0)


def test_clipping_bounds_the_step():
    net = network("mlp", hidden=[8])
    start = torch.cat([p.detach().flatten() for p in net.parameters()])
    fit(net, some_examples(8), recipe(epochs=1, lr=1.0, weight_decay=0.0, grad_clip=1e-3, schedule="constant"), 0)
    moved = torch.cat([p.detach().flatten() for p in net.parameters()]) - start
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    "fields",
    [
        {"epoch": 3},
        {"epochs": 0},
        {"optimizer": "lion"},
        {"warmup_epochs": 2},
        {"nesterov": True, "momentum": 0.0},
        {"augment": ("crop", "crop-reflect")},
        {"batch_size": 1},
    ],
)
def test_bad_recipes_are_refused(fields):
    with pytest.raises(ValidationError):
        recipe(**fields)


def test_predictions_keep_mode_and_order():
    net, examples = network(), some_examples()
    net.train()
    logits = predict(net, examples, batch_size=5)
    assert net.training
    assert logits.dtype == np.float32
    net.eval()
    with torch.no_grad():
        expected = net(examples.images.float() / 255)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    features = predict_features(net, examples, batch_size=5)
    weight, bias = net.head.weight.detach().numpy(), net.head.bias.detach().numpy()
    np.testing.assert_allclose(features @ weight.T + bias, logits, atol=1e-5)
    assert predict(net, examples.take([])).shape == (0, 4)


def test_a_training_loss_of_ones_own_and_a_report_by_epoch():
    seen = []
    net = network("mlp", outputs=3, hidden=[8])
    fit(net, some_examples(attributes=3), recipe(epochs=8), 0, on_epoch=lambda epoch, loss: seen.append((epoch, loss)))
    assert [epoch for epoch, _ in seen] == list(range(8))
    assert seen[-1][1] < seen[0][1]

    def small_bias(net: nn.Module, images: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return (net.head.bias**2).sum() + 0 * net(images).sum()

    fit(net, some_examples(), recipe(epochs=20, weight_decay=0.0), 0, loss=small_bias)
    assert float(net.head.bias.detach().abs().max()) < 0.01


def test_training_on_one_example_is_refused():
    with pytest.raises(UsageError, match="two examples"):
        fit(network(), some_examples(1), recipe(), 0)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(UsageError, match="lion"):
        make_optimizer(network().parameters(), "lion", 0.1)


def test_layout_is_undone():
    net = network()
    with channels_last(net):
        assert not all(p.is_contiguous() for p in net.parameters())
    assert all(p.is_contiguous() for p in net.parameters())


def test_flops_of_a_linear_layer_by_hand():
    layer, x = nn.Linear(6, 5, bias=False), torch.rand(7, 6)
    with count_flops() as count:
        layer(x)
        forward = count.total
        with count.ignored():
            layer(x)
        layer(x).sum().backward()
    assert forward == 2 * 7 * 6 * 5
    assert count.total == 3 * forward  # the images need no gradient: forward, forward, weight gradient


def test_gradients_of_images_are_counted_too():
    net, images = network(), torch.rand(2, 1, 8, 8, requires_grad=True)
    with count_flops() as count:
        torch.autograd.grad(net(images).sum(), images)
    with torch.inference_mode(), count_flops() as asked:
        net(images)
    assert count.total > asked.total > 0
