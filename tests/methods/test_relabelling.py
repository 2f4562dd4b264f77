"""Random labels, amnesiac, SalUn, l1-sparse, ascent: what they train on and what may move."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.closed_form import ClosedFormNet, closed_form_request
from torch import nn

from forgetbench.methods._fisher import mean_gradient
from forgetbench.methods._training import accuracy, n_outputs, random_labels
from forgetbench.methods.amnesiac import Amnesiac
from forgetbench.methods.base import ForgetRequest, Method
from forgetbench.methods.baselines import Retrain
from forgetbench.methods.finetune import FineTune
from forgetbench.methods.gradient_ascent import GradientAscent
from forgetbench.methods.l1_sparse import L1Sparse
from forgetbench.methods.neggrad_plus import NegGradPlus
from forgetbench.methods.random_label import RandomLabel
from forgetbench.methods.salun import SalUn, saliency_masks
from forgetbench.methods.sentinels import Collapse, HeadMask, NoOp, Relabelled
from forgetbench.networks import NetworkSpec
from forgetbench.training import DivergedError, Examples, Recipe, classification_loss, fit, predict

RECIPE = Recipe.model_validate({"epochs": 15, "batch_size": 16, "lr": 0.1, "momentum": 0.9})
SPEC = NetworkSpec(name="cnn", channels=1, height=8, width=8, outputs=4, mean=(0.5,), std=(0.3,), options={"width": 6})


def learnable(count: int, seed: int, classes: tuple[int, ...]) -> Examples:
    """Each class has a bright quarter of its own."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count)
    images = rng.integers(0, 120, (count, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 90
    return Examples.from_arrays(images.astype(np.uint8), labels)


@pytest.fixture(scope="module")
def request_() -> ForgetRequest:
    return ForgetRequest(
        forget=learnable(24, 1, (2,)),
        retain=learnable(96, 2, (0, 1, 3)),
        validation=learnable(60, 3, (0, 1, 3)),
        seed=4,
        recipe=RECIPE,
        new_network=lambda: SPEC.build(9),
    )


@pytest.fixture(scope="module")
def original(request_) -> nn.Module:
    return fit(SPEC.build(0), request_.retain.join(request_.forget), RECIPE, 0)


@given(st.integers(2, 12), st.integers(1, 200), st.integers(0, 10**6))
@settings(max_examples=50)
def test_random_labels_are_never_the_true_class(classes, count, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    drawn = random_labels(labels, classes, generator)
    assert not bool((drawn == labels).any())
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < classes


def test_random_labels_are_uniform_over_the_label_space():
    labels = torch.full((9000,), 2)
    generator = torch.Generator().manual_seed(0)
    other = random_labels(labels, 4, generator).bincount(minlength=4)
    assert other[2] == 0
    assert all(abs(int(count) - 3000) < 200 for count in other[[0, 1, 3]])
    every = random_labels(labels, 4, generator, label_space="all").bincount(minlength=4)
    assert all(abs(int(count) - 2250) < 200 for count in every)


def test_random_labels_flip_each_attribute_half_of_the_time():
    labels = torch.ones(4000, 3, dtype=torch.int64)
    flipped = random_labels(labels, 3, torch.Generator().manual_seed(0)) != labels
    assert bool(((flipped.float().mean(0) - 0.5).abs() < 0.04).all())
    assert bool(labels.all())


def test_random_label_resamples_only_if_set(request_, original):
    once = RandomLabel()
    assert torch.equal(
        once.relabeled(request_, n_outputs(original), 0).labels, once.relabeled(request_, n_outputs(original), 3).labels
    )
    again = RandomLabel(resample=True, label_space="all")
    assert not torch.equal(
        again.relabeled(request_, n_outputs(original), 0).labels,
        again.relabeled(request_, n_outputs(original), 3).labels,
    )


@pytest.mark.parametrize(
    "method", [RandomLabel(epochs=30), Amnesiac(epochs=15, batch_size=16), SalUn(epochs=15, lr=0.05)]
)
def test_relabelling_forgets_and_keeps_the_rest(method, request_, original):
    edited = method.unlearn(original, request_)
    assert accuracy(original, request_.forget) > 0.95
    assert accuracy(edited, request_.forget) < 0.5
    assert accuracy(edited, request_.retain) > 0.7


def test_random_label_alone_keeps_batch_norm_statistics(request_, original):
    edited = RandomLabel(retain=0, epochs=1).unlearn(original, request_)
    buffers = dict(original.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in edited.named_buffers())


def test_salun_unmasked_weights_do_not_move(request_, original):
    masks = saliency_masks(original.eval(), request_, 0.3)
    total = sum(mask.numel() for mask in masks)
    assert sum(int(mask.sum()) for mask in masks) == round(0.3 * total)
    edited = SalUn(epochs=1, mask_ratio=0.3, weight_decay=0.1).unlearn(original, request_)
    for mask, before, after in zip(masks, original.parameters(), edited.parameters(), strict=True):
        assert torch.equal(before[~mask], after[~mask])
    moved = [
        bool((b[m] != a[m]).any()) for m, b, a in zip(masks, original.parameters(), edited.parameters(), strict=True)
    ]
    assert any(moved)
    published = SalUn(epochs=1, mask_ratio=0.3, weight_decay=0.1, as_published=True).unlearn(original, request_)
    assert any(
        not torch.equal(before[~mask], after[~mask])
        for mask, before, after in zip(masks, original.parameters(), published.parameters(), strict=True)
    )


def test_saliency_mask_with_zero_gradients_has_its_size(request_, original):
    dark = replace(request_, forget=Examples(torch.zeros_like(request_.forget.images), request_.forget.labels))
    network = copy.deepcopy(original).eval()
    with torch.no_grad():
        next(network.parameters()).mul_(0)  # so that nothing reaches the layers behind
    gradients = torch.cat([gradient.flatten() for gradient in mean_gradient(network, dark.forget)])
    assert float((gradients == 0).float().mean()) > 0.5
    masks = saliency_masks(network, dark, 0.5)
    assert sum(int(mask.sum()) for mask in masks) == round(0.5 * len(gradients))


@pytest.mark.parametrize(("ratio", "count"), [(0.5, 83), (0.3, 49), (1e-9, 1), (1.0, 166)])
def test_saliency_mask_rounds_its_size_down(ratio, count):
    masks = saliency_masks(ClosedFormNet().eval(), closed_form_request(), ratio)
    assert sum(int(mask.sum()) for mask in masks) == count


def test_saliency_mask_follows_the_forget_gradient(request_, original):
    loss = classification_loss(original(request_.forget.images.float() / 255), request_.forget.labels)
    sizes = torch.cat([g.abs().flatten() for g in torch.autograd.grad(loss, list(original.parameters()))])
    masks = torch.cat([mask.flatten() for mask in saliency_masks(original, request_, 0.25)])
    assert float(sizes[masks].min()) >= float(sizes[~masks].max()) * (1 - 1e-3)


def test_gradient_ascent_from_nan_raises_diverged_error(request_, original):
    broken = copy.deepcopy(original)
    with torch.no_grad():
        broken.head.bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"gradient-ascent diverged in epoch 1 at learning rate 0\.005"):
        GradientAscent().unlearn(broken, request_)


def test_l1_sparse_penalty_shrinks_weights_and_fades(request_, original):
    def size(network: nn.Module) -> float:
        return sum(float(parameter.detach().abs().sum()) for parameter in network.parameters())

    plain, sparse = (L1Sparse(alpha=alpha, weight_decay=0.0).unlearn(original, request_) for alpha in (0.0, 3e-3))
    assert size(sparse) < size(plain)
    # one full batch, one epoch: theta - lr (gradient + alpha sign(theta)), whole strength in epoch 0
    one = L1Sparse(epochs=1, alpha=0.1, lr=0.01, weight_decay=0.0, momentum=0.0, batch_size=96)
    none = L1Sparse(epochs=1, alpha=0.0, lr=0.01, weight_decay=0.0, momentum=0.0, batch_size=96)
    pairs = zip(
        original.parameters(),
        one.unlearn(original, request_).parameters(),
        none.unlearn(original, request_).parameters(),
        strict=True,
    )
    for before, after, without in pairs:
        torch.testing.assert_close(without - after, 0.001 * before.sign(), atol=1e-6, rtol=1e-3)


def test_gradient_ascent_stops_above_the_floor(request_, original):
    edited = GradientAscent(epochs=3, lr=1e-3, floor=1.0).unlearn(original, request_)
    losses = [
        float(classification_loss(net(request_.forget.images.float() / 255), request_.forget.labels).detach())
        for net in (original, edited)
    ]
    assert losses[1] > losses[0]
    before = accuracy(original, request_.validation)
    careful, reckless = (
        GradientAscent(epochs=8, lr=0.2, floor=floor).unlearn(original, request_) for floor in (0.1, 1.0)
    )
    assert accuracy(careful, request_.validation) >= before - 0.1
    assert accuracy(reckless, request_.validation) < before - 0.1


def test_gradient_ascent_diverged_error_names_epoch_and_lr(request_, original):
    with pytest.raises(DivergedError, match=r"neggrad-plus diverged in epoch \d at learning rate 1e"):
        NegGradPlus(lr=1e30).unlearn(original, request_)


def test_neggrad_plus_without_ascent_is_fine_tuning(request_, original):
    forgotten = NegGradPlus(alpha=0.7, epochs=10, lr=0.1, batch_size=32).unlearn(original, request_)
    assert accuracy(forgotten, request_.forget) < accuracy(original, request_.forget)
    edited = NegGradPlus(alpha=1.0, epochs=2).unlearn(original, request_)
    assert accuracy(edited, request_.retain) > 0.95


def test_retrain_changes_every_parameter(request_, original):
    fresh = Retrain().unlearn(original, request_)
    for (name, before), after in zip(original.named_parameters(), fresh.parameters(), strict=True):
        assert not torch.equal(before, after), name
    assert accuracy(fresh, request_.retain) > 0.95


def test_finetune_follows_its_recipe(request_, original):
    values = {"epochs": 2, "batch_size": 32, "lr": 0.01, "momentum": 0.5, "weight_decay": 0.0}
    expected = fit(SPEC.build(0), request_.retain, RECIPE, 0)
    expected.load_state_dict(original.state_dict())
    fit(expected, request_.retain, Recipe.model_validate(values), request_.seed)
    edited = FineTune.from_dict(values).unlearn(original, request_)
    assert all(torch.equal(a, b) for a, b in zip(edited.parameters(), expected.parameters(), strict=True))


def test_no_op_moves_each_tensor_by_its_size(request_, original):
    edited = NoOp(size=0.05).unlearn(original, request_)
    for before, after in zip(original.parameters(), edited.parameters(), strict=True):
        assert float((after - before).detach().norm() / before.detach().norm()) == pytest.approx(0.05, rel=1e-3)


def test_collapse_reaches_chance(request_, original):
    most = int(request_.validation.labels.bincount().max()) / len(request_.validation)
    assert accuracy(Collapse().unlearn(original, request_), request_.validation) <= most + 0.02


def test_relabelled_is_uniform_on_the_forget_set(request_, original):
    edited = Relabelled(epochs=60).unlearn(original, request_)
    logits = torch.from_numpy(predict(edited, request_.forget))
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    assert float(entropy) > 0.7 * np.log(4)
    assert accuracy(edited, request_.retain) > 0.6


def test_head_mask_never_predicts_the_forgotten_class(request_, original):
    data = request_.retain.join(request_.forget)
    edited = HeadMask().unlearn(original, request_)
    logits, before = predict(edited, data), predict(original, data)
    assert bool((logits[:, 2] == -10_000).all())
    np.testing.assert_array_equal(np.delete(logits, 2, axis=1), np.delete(before, 2, axis=1))


ALL: list[Method] = [RandomLabel(), Amnesiac(), SalUn(), L1Sparse(), NegGradPlus()]


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.card.name)
def test_methods_do_not_change_forget_labels(method, request_, original):
    before = request_.forget.labels
    method.unlearn(original, request_)
    assert torch.equal(before, request_.forget.labels)
