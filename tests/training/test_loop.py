"""Training: equal bits for equal seeds, and schedules, losses and steps against values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import expit, log_softmax
from support.training import make_examples, make_network, make_recipe, same_weights
from torch import nn

from forgetbench.errors import UsageError
from forgetbench.training import (
    DivergedError,
    classification_loss,
    fit,
    make_optimizer,
    predict,
    predict_features,
)
from forgetbench.training.loop import learning_rate


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_fit_equal_seeds_give_equal_bits(optimizer):
    how = make_recipe(optimizer=optimizer, augment=("crop", "flip"), crop_padding=1)
    runs = [fit(make_network(), make_examples(), how, seed) for seed in (1, 1, 2)]
    assert same_weights(runs[0], runs[1])
    assert not same_weights(runs[0], runs[2])


def test_fit_leaves_random_state_of_caller_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = fit(make_network(), make_examples(), make_recipe(), 1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert same_weights(first, fit(make_network(), make_examples(), make_recipe(), 1))


def test_fit_one_step_matches_sgd_by_hand():
    examples, net = make_examples(8), make_network("mlp", hidden=[3])
    start = [p.detach().clone() for p in net.parameters()]
    images, labels = next(iter(examples.batches(8)))
    gradients = torch.autograd.grad(nn.functional.cross_entropy(net(images), labels), list(net.parameters()))
    fit(net, examples, make_recipe(epochs=1, lr=0.1, schedule="constant", weight_decay=0.01), 0)
    for before, gradient, after in zip(start, gradients, net.parameters(), strict=True):
        torch.testing.assert_close(after.detach(), before - 0.1 * (gradient + 0.01 * before))


def test_fit_step_on_attributes_is_that_of_mucac():
    """A step of rate 0.01 on PyTorch's BCEWithLogitsLoss, whose mean is over attributes too."""
    examples, net = make_examples(8, attributes=3), make_network("mlp", outputs=3, hidden=[3])
    start = [p.detach().clone() for p in net.parameters()]
    images, labels = next(iter(examples.batches(8)))
    gradients = torch.autograd.grad(nn.BCEWithLogitsLoss()(net(images), labels.float()), list(net.parameters()))
    fit(net, examples, make_recipe(epochs=1, lr=0.01, schedule="constant", momentum=0.0, weight_decay=0.0), 0)
    for before, gradient, after in zip(start, gradients, net.parameters(), strict=True):
        torch.testing.assert_close(after.detach(), before - 0.01 * gradient)


def test_classification_loss_matches_scipy():
    rng = np.random.default_rng(0)
    logits, classes, bits = rng.normal(size=(5, 3)), rng.integers(0, 3, 5), rng.integers(0, 2, (5, 3))
    ours = classification_loss(torch.tensor(logits), torch.tensor(classes), reduction="none").numpy()
    np.testing.assert_allclose(ours, -log_softmax(logits, axis=1)[np.arange(5), classes])
    p = expit(logits)
    expected = -(bits * np.log(p) + (1 - bits) * np.log(1 - p)).mean(1)
    for reduction, value in (("none", expected), ("mean", expected.mean()), ("sum", expected.sum())):
        got = classification_loss(torch.tensor(logits), torch.tensor(bits), reduction=reduction).numpy()
        np.testing.assert_allclose(got, value)


def test_learning_rate_matches_schedules_by_hand():
    cosine = make_recipe(epochs=4, lr=1.0, warmup_epochs=1, schedule="cosine")
    rates = [learning_rate(cosine, step, 10) for step in range(40)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(rates[10:], [0.5 * (1 + math.cos(math.pi * k / 30)) for k in range(30)])
    steps = make_recipe(epochs=4, lr=1.0, schedule="step", milestones=(1, 3), gamma=0.1)
    np.testing.assert_allclose([learning_rate(steps, s, 2) for s in range(8)], [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    cycle = [learning_rate(make_recipe(epochs=10, lr=2.0, schedule="one-cycle"), s, 10) for s in range(100)]
    assert cycle[0] == pytest.approx(0.08)
    assert max(cycle) == pytest.approx(2.0)
    assert cycle.index(max(cycle)) == 30
    assert cycle[-1] < 0.01
    assert learning_rate(make_recipe(lr=0.3, schedule="constant"), 7, 10) == 0.3


def test_fit_divergence_error_has_epoch_and_rate():
    with pytest.raises(DivergedError, match=r"epoch 1 of 2 at learning rate 1e\+30"):
        fit(make_network("mlp", hidden=[8]), make_examples(), make_recipe(lr=1e30, schedule="constant"), 0)


def test_fit_grad_clip_bounds_the_step():
    net = make_network("mlp", hidden=[8])
    start = torch.cat([p.detach().flatten() for p in net.parameters()])
    fit(net, make_examples(8), make_recipe(epochs=1, lr=1.0, weight_decay=0.0, grad_clip=1e-3, schedule="constant"), 0)
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
def test_recipe_invalid_fields_are_refused(fields):
    with pytest.raises(ValidationError):
        make_recipe(**fields)


def test_predict_keeps_mode_and_order():
    net, examples = make_network(), make_examples()
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


def test_fit_accepts_loss_and_reports_epochs():
    seen = []
    net = make_network("mlp", outputs=3, hidden=[8])
    fit(
        net,
        make_examples(attributes=3),
        make_recipe(epochs=8),
        0,
        on_epoch=lambda epoch, loss: seen.append((epoch, loss)),
    )
    assert [epoch for epoch, _ in seen] == list(range(8))
    assert seen[-1][1] < seen[0][1]

    def small_bias(net: nn.Module, images: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return (net.head.bias**2).sum() + 0 * net(images).sum()

    fit(net, make_examples(), make_recipe(epochs=20, weight_decay=0.0), 0, loss=small_bias)
    assert float(net.head.bias.detach().abs().max()) < 0.01


def test_fit_on_one_example_is_refused():
    with pytest.raises(UsageError, match="two examples"):
        fit(make_network(), make_examples(1), make_recipe(), 0)


def test_make_optimizer_unknown_name_is_refused():
    with pytest.raises(UsageError, match="lion"):
        make_optimizer(make_network().parameters(), "lion", 0.1)
