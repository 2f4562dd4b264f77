"""Influence, WoodFisher and Fisher forgetting against matrices formed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from support.closed_form import ClosedFormNet, closed_form_request
from torch import Tensor, nn

from forgetbench.methods._curvature import conjugate_gradients, fisher_product, hessian_product
from forgetbench.methods._fisher import mean_gradient
from forgetbench.methods.base import ForgetRequest, TaskFacts
from forgetbench.methods.fisher import FisherForgetting, missing_classes, true_fisher
from forgetbench.methods.influence import Influence
from forgetbench.methods.woodfisher import WoodFisher, released_recursion
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe


class Linear(nn.Module):
    def __init__(self, inputs: int = 4, outputs: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, outputs, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


def some(count: int, seed: int, classes: int = 3, size: int = 2) -> Examples:
    rng = np.random.default_rng(seed)
    return Examples.from_arrays(
        rng.integers(0, 256, (count, 1, size, size), dtype=np.uint8), rng.integers(0, classes, count)
    )


def request(forget: Examples, retain: Examples, seed: int = 0) -> ForgetRequest:
    recipe = Recipe.model_validate({})
    return ForgetRequest(
        forget=forget, retain=retain, validation=retain, seed=seed, recipe=recipe, new_network=nn.Identity
    )


def pieces(network: Linear, data: Examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, probabilities and per-example gradients (n, 3 * 4) of the linear softmax model."""
    x = data.images.numpy().reshape(len(data), -1).astype(float) / 255
    p = softmax(x @ network.head.weight.detach().double().numpy().T, axis=1)
    residual = p - np.eye(p.shape[1])[data.labels.numpy()]
    return x, p, np.einsum("nk,nj->nkj", residual, x).reshape(len(x), -1)


def hessian(network: Linear, data: Examples) -> np.ndarray:
    """1/n sum (diag(p) - p p') kron x x'."""
    x, p, _ = pieces(network, data)
    blocks = [np.kron(np.diag(q) - np.outer(q, q), np.outer(v, v)) for v, q in zip(x, p, strict=True)]
    return np.mean(blocks, axis=0)


def test_conjugate_gradients_equal_numpy():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(9, 9))
    matrix, target = root @ root.T + np.eye(9), rng.normal(size=9)
    tensor = torch.tensor(matrix)
    solved = conjugate_gradients(lambda v: [tensor @ v[0]], [torch.tensor(target)], iterations=50, tolerance=1e-10)
    np.testing.assert_allclose(solved.vector[0], np.linalg.solve(matrix, target), rtol=1e-6)
    assert solved.iterations <= 12
    assert solved.residual < 1e-9


def test_conjugate_gradients_stop_at_negative_curvature():
    target = torch.tensor([1.0, 2.0])
    solved = conjugate_gradients(lambda v: [-v[0]], [target], iterations=5)
    assert solved.negative_curvature
    assert torch.equal(solved.vector[0], target)
    nothing = conjugate_gradients(lambda v: [v[0]], [torch.zeros(2)], iterations=5)
    assert torch.equal(nothing.vector[0], torch.zeros(2))


def test_hessian_product_equals_closed_form():
    network, data = Linear(), some(20, 0)
    vector = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    result = hessian_product(network, data, damping=0.1, batch_size=7)([vector])[0]
    expected = hessian(network, data) @ vector.double().numpy().ravel() + 0.1 * vector.double().numpy().ravel()
    np.testing.assert_allclose(result.numpy().ravel(), expected, rtol=1e-3, atol=1e-6)


def test_fisher_product_equals_closed_form():
    network, data = Linear(), some(20, 0)
    _, _, gradients = pieces(network, data)
    vector = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    flat = vector.double().numpy().ravel()
    result = fisher_product(network, data, damping=0.1, batch_size=7)([vector])[0]
    expected = gradients.T @ (gradients @ flat) / 20 + 0.1 * flat
    np.testing.assert_allclose(result.numpy().ravel(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["cnn", "vit", "resnet18", "mlp"])
def test_products_are_symmetric_on_every_network(name):
    spec = NetworkSpec(name=name, channels=1, height=8, width=8, outputs=3, mean=(0.5,), std=(0.3,), options={})
    network, data = spec.build(0), some(6, 0, size=8)
    generator = torch.Generator().manual_seed(0)
    first, second = ([torch.randn(tuple(p.shape), generator=generator) for p in network.parameters()] for _ in range(2))
    for kind in (hessian_product, fisher_product):
        product = kind(network, data, damping=0.0)
        one = sum(float((a * b).sum()) for a, b in zip(first, product(second), strict=True))
        two = sum(float((a * b).sum()) for a, b in zip(second, product(first), strict=True))
        assert one == pytest.approx(two, rel=2e-2, abs=1e-3)


def test_influence_on_a_linear_model_is_newtons_step():
    network, forget, retain = Linear(), some(10, 1), some(40, 2)
    _, _, gradients = pieces(network, forget)
    matrix = hessian(network, retain) + 0.05 * np.eye(12)
    step = np.linalg.solve(matrix, gradients.mean(0)) * 2.0 * 10 / 40
    edited = Influence(damping=0.05, strength=2.0, iterations=100, hessian_examples=40).unlearn(
        network, request(forget, retain)
    )
    expected = network.head.weight.detach().double().numpy().ravel() + step
    np.testing.assert_allclose(edited.head.weight.detach().numpy().ravel(), expected, rtol=1e-3, atol=1e-4)


def test_influence_reaches_the_optimum_of_the_retain_set():
    """From the optimum of a strongly convex loss on all data, the step lands near the retained data's optimum."""
    damping, data = 0.3, some(60, 5)
    forget, retain = data.take(range(6)), data.take(range(6, 60))

    def optimum(examples: Examples) -> np.ndarray:
        network = Linear()
        with torch.no_grad():
            network.head.weight.zero_()
        for _ in range(60):  # Newton's method on mean CE + damping/2 |w|^2
            weight = network.head.weight.detach().double().numpy().ravel()
            _, _, gradients = pieces(network, examples)
            matrix = hessian(network, examples) + damping * np.eye(12)
            weight = weight - np.linalg.solve(matrix, gradients.mean(0) + damping * weight)
            with torch.no_grad():
                network.head.weight.copy_(torch.from_numpy(weight.reshape(3, 4)))
        return weight

    network = Linear()
    start, goal = optimum(data), optimum(retain)
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(start.reshape(3, 4)))
    method = Influence(damping=damping, strength=1.0, iterations=100, hessian_examples=60)
    edited = method.unlearn(network, request(forget, retain)).head.weight.detach().double().numpy().ravel()
    direction = goal - start
    assert np.dot(edited - start, direction) / np.linalg.norm(edited - start) / np.linalg.norm(direction) > 0.8


def test_woodfisher_equals_the_inverse_matrix():
    network, forget, retain = Linear(), some(10, 1), some(30, 2)
    mean_f, mean_r = (pieces(network, data)[2].mean(0) for data in (forget, retain))
    gradients = pieces(network, retain)[2]
    matrix = 0.1 * np.eye(12) + gradients.T @ gradients / 30
    expected = 0.5 * np.linalg.solve(matrix, 10 / 40 * (mean_f - mean_r))
    method = WoodFisher(alpha=0.5, damping=0.1, fisher_examples=30, iterations=100)
    edited = method.unlearn(network, request(forget, retain))
    step = (edited.head.weight - network.head.weight).detach().numpy().ravel()
    np.testing.assert_allclose(step, expected, rtol=1e-2, atol=1e-6)


def test_released_recursion_stays_at_the_first_gradient():
    network, forget, retain = Linear(), some(10, 1), some(30, 2)
    _, _, gradients = pieces(network, retain)
    vector = pieces(network, forget)[2].mean(0) - gradients.mean(0)
    k, o, count = vector.copy(), gradients[0].copy(), 1000.0
    for g in gradients[1:]:
        overlap, along = o @ g, k @ g
        k, o = k - along / (count + overlap) * o, o - overlap / (count + overlap) * o
    target = [torch.from_numpy(vector.reshape(3, 4)).float()]
    result = released_recursion(network, retain, target)[0].numpy().ravel()
    np.testing.assert_allclose(result, k, rtol=1e-4, atol=1e-7)
    moved = result - vector
    cosine = moved @ gradients[0] / np.linalg.norm(moved) / np.linalg.norm(gradients[0])
    assert abs(cosine) == pytest.approx(1, abs=1e-3)
    edited = WoodFisher(alpha=2.0, as_published=True).unlearn(network, request(forget, retain))
    step = (edited.head.weight - network.head.weight).detach().numpy().ravel()
    scaled = [0.25 * part for part in target]
    np.testing.assert_allclose(step, 2 * released_recursion(network, retain, scaled)[0].numpy().ravel(), atol=1e-5)


def test_true_fisher_is_the_expectation_over_predictions():
    network, data = Linear(), some(40, 0)
    x, p, _ = pieces(network, data)
    expected = np.einsum("nk,nj->kj", p * (1 - p), x**2) / 40  # Var of the one-hot label, times x^2
    draws = [true_fisher(network, data, torch.Generator().manual_seed(seed))["head.weight"] for seed in range(60)]
    np.testing.assert_allclose(torch.stack(draws).mean(0), expected, rtol=0.15)


def test_exact_fisher_needs_one_class_per_image():
    facts = TaskFacts(network="cnn", scenario="class", attributes=True, outputs=3)
    assert FisherForgetting().applies_to(facts) is None
    assert "Use information=drawn" in str(FisherForgetting(information="exact").applies_to(facts))


def test_fisher_erases_classes_without_retained_images():
    start, forget_request = ClosedFormNet(), closed_form_request("class")
    noise = {"alpha": 1e-30, "information": "exact"}
    erased = FisherForgetting(variances="golatkar", **noise).unlearn(start, forget_request).head
    assert float(erased.weight[3].detach().norm()) < 0.2 < float(start.head.weight[3].detach().norm())
    torch.testing.assert_close(erased.weight[:3], start.head.weight[:3])
    assert missing_classes(forget_request.retain, 4) == [3]


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_fisher_noise_has_variance_inverse_to_information(power):
    network, retain = Linear(30 * 30, 10), some(40, 2, classes=10, size=30)
    forget_request = request(some(5, 1, classes=10, size=30), retain)
    edited = FisherForgetting(alpha=1e-4, power=power, ceiling=50.0).unlearn(network, forget_request)
    information = true_fisher(network, retain, forget_request.generator(0))["head.weight"]
    variance = 1e-4 * np.minimum(np.power(information.numpy() + 1e-8, -power), 50.0)
    noise = (edited.head.weight - network.head.weight).detach().numpy() / np.sqrt(variance)
    assert noise.std() == pytest.approx(1, abs=0.03)
    assert noise.mean() == pytest.approx(0, abs=0.03)


def test_gradients_at_an_optimum_are_opposite():
    network, forget, retain = Linear(), some(5, 1), some(15, 2)
    whole = mean_gradient(network, forget.join(retain))[0]
    parts = 0.25 * mean_gradient(network, forget)[0] + 0.75 * mean_gradient(network, retain)[0]
    torch.testing.assert_close(whole, parts)
