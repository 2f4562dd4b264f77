"""Importances and dampening against loops, closed forms and bounds."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from support.closed_form import closed_form_request
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from forgetbench.errors import UsageError
from forgetbench.methods._dampening import in_order
from forgetbench.methods._fisher import _MAX_ELEMENTS, importance_per_batch, importance_per_example, mean_gradient
from forgetbench.methods.assd import ASSD, percentile
from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.lfssd import LFSSD, squared_norms
from forgetbench.methods.ssd import SSD
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe, classification_loss, count_flops


class Linear(nn.Module):
    """logits = W x: the smallest network whose Fisher information has a closed form."""

    def __init__(self, inputs: int = 4, outputs: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, outputs, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


def some(count: int, seed: int = 0, size: int = 2, classes: int = 3, attributes: bool = False) -> Examples:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, classes)) if attributes else rng.integers(0, classes, count)
    return Examples.from_arrays(rng.integers(0, 256, (count, 1, size, size), dtype=np.uint8), labels)


def request(forget: Examples, retain: Examples) -> ForgetRequest:
    recipe = Recipe.model_validate({})
    return ForgetRequest(
        forget=forget, retain=retain, validation=retain, seed=0, recipe=recipe, new_network=nn.Identity
    )


def linear_fisher(weight: np.ndarray, examples: Examples) -> np.ndarray:
    """E[(p - e_y)_k^2 x_j^2], by numpy in float64."""
    x = examples.images.numpy().reshape(len(examples), -1).astype(float) / 255
    residual = softmax(x @ weight.T, axis=1) - np.eye(len(weight))[examples.labels.numpy()]
    return np.einsum("nk,nj->kj", residual**2, x**2) / len(x)


def build(name: str, outputs: int = 3) -> nn.Module:
    options = {"cnn": {"width": 4}, "mlp": {"hidden": [6, 5], "batch_norm": True}, "vit": {"dim": 8, "heads": 2}}
    spec = NetworkSpec(
        name=name,
        channels=1,
        height=8,
        width=8,
        outputs=outputs,
        mean=(0.5,),
        std=(0.3,),
        options=options.get(name, {}),
    )
    network = spec.build(0)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():  # statistics as after training
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network


@pytest.mark.parametrize("attributes", [False, True])
@pytest.mark.parametrize("name", ["mlp", "cnn", "vit", "resnet18"])
def test_importance_equals_batches_of_one(name, attributes):
    network, examples = build(name).double(), some(5, size=8, attributes=attributes)
    expected = {key: torch.zeros_like(value) for key, value in network.named_parameters()}
    for image, label in zip(examples.images, examples.labels, strict=True):
        loss = classification_loss(network(image[None].double() / 255), label[None])
        for key, gradient in zip(expected, torch.autograd.grad(loss, list(network.parameters())), strict=True):
            expected[key] += gradient**2 / len(examples)
    result = importance_per_example(network.float(), examples, batch_size=3)
    assert result.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(result[key].double(), value, rtol=1e-3, atol=1e-4 * float(value.max()) + 1e-12)


def test_absolute_importance_equals_batches_of_one():
    network, examples = build("cnn"), some(5, size=8)
    expected = {key: torch.zeros_like(value) for key, value in network.named_parameters()}
    for image in examples.images:
        loss = network(image[None].float() / 255).square().sum()
        for key, gradient in zip(expected, torch.autograd.grad(loss, list(network.parameters())), strict=True):
            expected[key] += gradient.abs() / len(examples)
    result = importance_per_example(network, examples, example_losses=squared_norms, power="absolute")
    for key, value in expected.items():
        torch.testing.assert_close(result[key], value, rtol=1e-3, atol=1e-4 * float(value.max()))


@pytest.mark.parametrize(
    "name",
    [
        "timm/convnext_atto",  # LayerNorm2d, a scale for each channel
        "timm/mobilenetv3_small_050",  # a batch-norm that holds its activation, grouped convolutions
        pytest.param("timm/tf_mobilenetv3_small_minimal_100", marks=pytest.mark.slow),  # convolutions that pad
        pytest.param("timm/nf_resnet26", marks=pytest.mark.slow),  # standardized weights
    ],
)
def test_importance_of_layer_subclasses_equals_batches_of_one(name):
    spec = NetworkSpec(
        name=name, channels=3, height=32, width=32, outputs=3, mean=(0.5,) * 3, std=(0.3,) * 3, options={}
    )
    network = spec.build(0).eval().double()
    examples = Examples(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 2]))
    expected = {key: torch.zeros_like(value) for key, value in network.named_parameters()}
    for image, label in zip(examples.images, examples.labels, strict=True):
        loss = classification_loss(network(image[None].double() / 255), label[None])
        for key, gradient in zip(expected, torch.autograd.grad(loss, list(network.parameters())), strict=True):
            expected[key] += gradient**2 / 2
    result = importance_per_example(network.float(), examples)
    for key, value in expected.items():
        assert float((result[key].double() - value).norm()) <= 0.02 * float(value.norm()) + 1e-12, key


class Tokens(nn.Module):
    """A linear layer on 5 tokens of 4 numbers each, and the sum of its outputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(4, width)
        self.layer = nn.Linear(width, width)
        self.mean = nn.Buffer(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        tokens = (images - self.mean).flatten(1).view(len(images), 5, 4)  # in the precision of the network
        return self.layer(torch.tanh(self.inputs(tokens))).sum(1)[:, :3]


@pytest.mark.parametrize("width", [6, 800])  # 800 * 800 gradients are more than are held at once
@pytest.mark.parametrize("power", ["square", "absolute"])
def test_importance_of_a_float64_network_is_float64(width, power):
    torch.manual_seed(0)
    network, examples = (
        Tokens(width).double(),
        Examples(torch.randint(0, 256, (3, 1, 4, 5), dtype=torch.uint8), torch.tensor([0, 2, 1])),
    )
    expected = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    for image, label in zip(examples.images, examples.labels, strict=True):
        loss = classification_loss(network(image[None].float() / 255), label[None])
        for name, gradient in zip(expected, torch.autograd.grad(loss, list(network.parameters())), strict=True):
            expected[name] += (gradient**2 if power == "square" else gradient.abs()) / 3
    found = importance_per_example(network, examples, power=power)
    for name, value in expected.items():
        assert found[name].dtype == torch.float64
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14 * float(value.max()))


def test_importance_of_a_shared_parameter_adds_uses_first():
    class Tied(Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.other = nn.Linear(4, 4, bias=False)
            self.other.weight = self.head.weight

        def forward(self, images: Tensor) -> Tensor:
            return self.other(self.head(images.flatten(1)))

    network, examples = Tied(), some(6, classes=4)
    expected = torch.zeros(4, 4)
    for image, label in zip(examples.images, examples.labels, strict=True):
        loss = classification_loss(network(image[None].float() / 255), label[None])
        expected += torch.autograd.grad(loss, network.head.weight)[0] ** 2 / 6
    torch.testing.assert_close(importance_per_example(network, examples)["head.weight"], expected)


def test_importance_of_a_shared_layer_adds_uses_first():
    class Twice(Linear):
        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.head(images.flatten(1)))

    network, examples = Twice(4, 4), some(6, classes=4)
    expected = torch.zeros(4, 4)
    for image, label in zip(examples.images, examples.labels, strict=True):
        loss = classification_loss(network(image[None].float() / 255), label[None])
        expected += torch.autograd.grad(loss, network.head.weight)[0] ** 2 / 6
    torch.testing.assert_close(importance_per_example(network, examples)["head.weight"], expected)


class Positions(nn.Module):
    """Parameters of shape (1, ...): one added to each example, one that is a weight in truth, one of no use."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.positions = nn.Parameter(torch.randn(1, 4, 4, generator=generator))
        self.weight = nn.Parameter(torch.randn(1, 3, 16, generator=generator))
        self.idle = nn.Parameter(torch.zeros(1, 2, 2))

    def forward(self, images: Tensor) -> Tensor:
        return ((images[:, 0] + self.positions) ** 2).flatten(1) @ self.weight[0].T + 0 * self.idle.sum()


def test_importance_expands_only_per_example_parameters():
    network, examples = Positions(), some(7, size=4)
    expected = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    for image, label in zip(examples.images, examples.labels, strict=True):
        loss = classification_loss(network(image[None].float() / 255), label[None])
        for name, gradient in zip(expected, torch.autograd.grad(loss, list(network.parameters())), strict=True):
            expected[name] += gradient**2 / 7
    torch.testing.assert_close(importance_per_example(network, examples, batch_size=3), expected)


def test_importance_of_a_linear_model_equals_closed_form():
    network, examples = Linear(), some(50)
    weight = network.head.weight.detach().double().numpy()
    np.testing.assert_allclose(
        importance_per_example(network, examples)["head.weight"], linear_fisher(weight, examples), rtol=1e-4
    )


@given(st.integers(1, 20), st.integers(1, 60), st.integers(0, 100))
@settings(max_examples=25)
def test_importance_ratio_is_bounded_by_data_ratio(forgotten, retained, seed):
    torch.manual_seed(seed)
    network = Linear()
    forget, retain = some(forgotten, seed), some(retained, seed + 1)
    top = importance_per_example(network, forget)["head.weight"]
    bottom = importance_per_example(network, retain.join(forget))["head.weight"]
    assert float((top / bottom).max()) <= (forgotten + retained) / forgotten * (1 + 1e-4)


def test_importance_depends_on_batches_only_per_batch():
    network, examples = Linear(), some(40)
    shuffled = examples.take(torch.randperm(40, generator=torch.Generator().manual_seed(0)))
    by_example = [
        importance_per_example(network, data, batch_size=size)["head.weight"]
        for data in (examples, shuffled)
        for size in (7, 40)
    ]
    for other in by_example[1:]:
        torch.testing.assert_close(by_example[0], other)
    by_batch = [importance_per_batch(network, examples.batches(size))["head.weight"] for size in (1, 8, 40)]
    torch.testing.assert_close(by_batch[0], by_example[0])
    assert float(by_batch[0].sum()) > float(by_batch[1].sum()) > float(by_batch[2].sum())


def test_mean_gradient_in_chunks_equals_the_gradient():
    network, examples = Linear(), some(23)
    loss = classification_loss(network(examples.images.float() / 255), examples.labels)
    expected = torch.autograd.grad(loss, list(network.parameters()))
    torch.testing.assert_close(mean_gradient(network, examples, batch_size=5), list(expected))


def test_importance_counts_the_flops_of_one_backward():
    network, examples = build("cnn"), some(12, size=8)
    with count_flops() as counted:
        importance_per_example(network, examples, batch_size=12)
    with count_flops() as plain:
        classification_loss(network(examples.images.float() / 255), examples.labels).backward()
    assert counted.total == plain.total


@pytest.mark.parametrize(("alpha", "dampening"), [(1.1, 1.0), (1.5, 0.5), (1.2, 3.0)])
def test_ssd_on_a_linear_model_equals_closed_form(alpha, dampening):
    network, forget, retain = Linear(), some(20, 1).relabel(torch.zeros(20, dtype=torch.int64)), some(60, 2)
    weight = network.head.weight.detach().double().numpy()
    top, bottom = linear_fisher(weight, forget), linear_fisher(weight, retain.join(forget))
    expected = np.where(top > alpha * bottom, weight * np.minimum(dampening * bottom / top, 1), weight)
    forget_request = request(forget, retain)
    edited = SSD(alpha=alpha, dampening=dampening).unlearn(network, forget_request)
    np.testing.assert_allclose(edited.head.weight.detach(), expected, rtol=1e-4)
    assert forget_request.notes["ratio of selected weights"] == pytest.approx(np.mean(top > alpha * bottom))
    assert 0 < forget_request.notes["ratio of selected weights"] < 1


def test_ssd_per_batch_squares_means_of_sorted_batches():
    network, forget, retain = Linear(), some(8, 1), some(32, 2)
    order = np.argsort(retain.labels.numpy(), kind="stable")
    data = [(retain, order[start : start + 8]) for start in range(0, 32, 8)] + [(forget, np.arange(8))]
    weight = network.head.weight.detach().double().numpy()

    def squared_mean(examples: Examples, rows: np.ndarray) -> np.ndarray:
        x = examples.images.numpy().reshape(len(examples), -1)[rows] / 255
        residual = softmax(x @ weight.T, axis=1) - np.eye(3)[examples.labels.numpy()[rows]]
        return (residual.T @ x / len(rows)) ** 2

    top = squared_mean(forget, np.arange(8))
    bottom = np.mean([squared_mean(*part) for part in data], axis=0)
    expected = np.where(top > 2 * bottom, weight * np.minimum(bottom / top, 1), weight)
    edited = SSD(alpha=2.0, importance="batch", batch_size=8).unlearn(network, request(forget, retain))
    np.testing.assert_allclose(edited.head.weight.detach(), expected, rtol=1e-3)


@pytest.mark.parametrize(("scenario", "expected"), [("class", "class"), ("subclass", "fine"), ("random", "shuffled")])
def test_order_auto_follows_what_is_forgotten(scenario, expected):
    forget_request = closed_form_request(scenario)
    (forget, retain), stored = in_order(forget_request, "auto"), in_order(forget_request, "stored")
    assert in_order(forget_request, "auto")[1].labels.tolist() == retain.labels.tolist()
    assert sorted(retain.labels.tolist()) == sorted(stored[1].labels.tolist())
    assert (forget.images.tolist() == stored[0].images.tolist()) == (expected != "shuffled")
    in_order(forget_request, "auto")
    assert forget_request.notes["order of the data"] == expected
    if expected == "class":
        assert retain.labels.tolist() == sorted(retain.labels.tolist())
    if expected == "fine":
        fine = [int(label) for label in forget_request.retain_fine_labels]
        rows = sorted(range(len(fine)), key=fine.__getitem__)
        assert retain.images.tolist() == stored[1].images[rows].tolist()


def test_order_fine_without_fine_classes_is_refused():
    with pytest.raises(UsageError, match=r"fine classes. Use order=class"):
        in_order(closed_form_request("class"), "fine")


def test_ssd_with_alpha_beyond_the_bound_warns(caplog):
    network, forget_request = Linear(), request(some(10), some(30, 1))
    with caplog.at_level(logging.WARNING):
        edited = SSD(alpha=4.0).unlearn(network, forget_request)
    assert torch.equal(edited.head.weight, network.head.weight)
    assert forget_request.notes["ratio of selected weights"] == 0
    assert "|D|/|D_f| = 4" in str(forget_request.notes["bound"])
    assert "selects nothing" in caplog.text


def test_ssd_selecting_more_than_half_warns():
    forget_request = request(some(10), some(30, 1))
    SSD(alpha=1e-6).unlearn(Linear(), forget_request)
    assert forget_request.notes["ratio of selected weights"] == 1
    assert "100%" in str(forget_request.notes["warning"])


def test_lfssd_on_a_linear_model_equals_closed_form():
    # d ||Wx||^2 / dW_kj = 2 (Wx)_k x_j
    network, forget, retain = Linear(), some(20, 1), some(60, 2)
    weight = network.head.weight.detach().double().numpy()

    def omega(examples: Examples) -> np.ndarray:
        x = examples.images.numpy().reshape(len(examples), -1).astype(float) / 255
        return np.abs(2 * np.einsum("nk,nj->nkj", x @ weight.T, x)).mean(0)

    top, bottom = omega(forget), omega(retain.join(forget))
    expected = np.where(top > 1.05 * bottom, weight * bottom / top, weight)
    edited = LFSSD(alpha=1.05).unlearn(network, request(forget, retain))
    np.testing.assert_allclose(edited.head.weight.detach(), expected, rtol=1e-4)
    relabelled = request(forget.relabel((forget.labels + 1) % 3), retain)
    assert torch.equal(edited.head.weight, LFSSD(alpha=1.05).unlearn(network, relabelled).head.weight)


def test_assd_without_finite_ratios_changes_nothing(caplog):
    weight = np.eye(3, 4) * 1e4  # sure of everything: no loss, no gradient, and no ratio is defined
    forget, retain = (
        Examples(torch.eye(4, dtype=torch.uint8)[labels].mul(255).view(-1, 1, 2, 2), torch.tensor(labels))
        for labels in ([0, 0], [1, 2, 1])
    )
    network = Linear(4, 3)
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(weight))
    forget_request = request(forget, retain)
    edited = ASSD().unlearn(network, forget_request)
    assert torch.equal(edited.head.weight, network.head.weight)
    assert "nothing changed" in forget_request.notes["warning"]


def test_lfssd_per_batch_takes_absolute_means():
    network, forget, retain = Linear(), some(8, 1), some(32, 2)
    order = np.argsort(retain.labels.numpy(), kind="stable")
    data = [(retain, order[start : start + 8]) for start in range(0, 32, 8)] + [(forget, np.arange(8))]
    weight = network.head.weight.detach().double().numpy()

    def absolute_mean(examples: Examples, rows: np.ndarray) -> np.ndarray:
        x = examples.images.numpy().reshape(len(examples), -1)[rows] / 255
        return np.abs(2 * (x @ weight.T).T @ x / len(rows))

    top = absolute_mean(forget, np.arange(8))
    bottom = np.mean([absolute_mean(*part) for part in data], axis=0)
    expected = np.where(top > 1.05 * bottom, weight * np.minimum(0.9 * bottom / top, 1), weight)
    method = LFSSD(alpha=1.05, dampening=0.9, importance="batch", batch_size=8)
    edited = method.unlearn(network, request(forget, retain))
    assert 0 < np.mean(top > 1.05 * bottom) < 1
    np.testing.assert_allclose(edited.head.weight.detach(), expected, rtol=1e-4)


def test_assd_alpha_is_the_percentile_of_the_ratios():
    network, forget, retain = Linear(30 * 30, 10), some(20, 1, 30, 10), some(60, 2, 30, 10)
    weight = network.head.weight.detach().double().numpy()
    top, bottom = linear_fisher(weight, forget), linear_fisher(weight, retain.join(forget))
    forget_request = request(forget, retain)
    assert percentile(forget_request) == pytest.approx(100 - math.log(1 + 25))
    edited = ASSD().unlearn(network, forget_request)
    assert forget_request.notes["alpha"] == pytest.approx(
        np.percentile(top / bottom, percentile(forget_request)), rel=1e-3
    )
    changed = (edited.head.weight != network.head.weight).float().mean()
    assert float(changed) == pytest.approx(math.log(26) / 100, abs=2e-3)
    retained = ASSD(reference="retain").unlearn(network, request(forget, retain))
    assert torch.equal(retained.head.weight != network.head.weight, edited.head.weight != network.head.weight)
    assert float(retained.head.weight.detach().norm()) < float(edited.head.weight.detach().norm())


class Launches(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_importance_with_a_gpus_chunks_has_fewer_launches(monkeypatch):
    spec = NetworkSpec(
        name="cnn", channels=1, height=8, width=8, outputs=3, mean=(0.4,), std=(0.2,), options={"width": 64}
    )
    network, examples = spec.build(0), some(24, size=8)
    results, launches = [], []
    for elements in (_MAX_ELEMENTS["cpu"] // 10, _MAX_ELEMENTS["cuda"]):
        monkeypatch.setitem(_MAX_ELEMENTS, "cpu", elements)
        with Launches() as counted:
            results.append(importance_per_example(network, examples, batch_size=24))
        launches.append(counted.count)
    assert launches[1] < launches[0] / 2
    for name, value in results[0].items():
        assert float((results[1][name] - value).norm()) < 1e-6 * float(value.norm())
