"""IAU's one step, and GS-LoRA's adapters, groups and prototypes, against values by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from torch import nn

from forgetbench.errors import UsageError
from forgetbench.methods._lora import add_lora, group_norms, merge_lora, relative_updates
from forgetbench.methods._training import accuracy, clone_model
from forgetbench.methods.base import ForgetRequest, TaskFacts
from forgetbench.methods.gs_lora import GSLoRA
from forgetbench.methods.gs_lora_plus_plus import GSLoRAPlusPlus, class_prototypes, prototype_distance
from forgetbench.methods.iau import IAU
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe, classification_loss, fit, predict_features

RECIPE = Recipe.model_validate({"epochs": 40, "batch_size": 16, "optimizer": "adamw", "lr": 0.005})


def spec(name: str, **options: object) -> NetworkSpec:
    return NetworkSpec(name=name, channels=1, height=8, width=8, outputs=3, mean=(0.5,), std=(0.3,), options=options)


VIT = spec("vit", dim=16, depth=3, heads=2)


def striped(count: int, classes: list[int], seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count)
    images = rng.integers(0, 100, (count, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[0, :, label * 3 : label * 3 + 2] += 120
    return Examples.from_arrays(images.astype(np.uint8), labels)


def request(network: NetworkSpec = VIT) -> ForgetRequest:
    return ForgetRequest(
        forget=striped(20, [2], 1),
        retain=striped(60, [0, 1], 2),
        validation=striped(20, [0, 1], 3),
        seed=4,
        recipe=RECIPE,
        new_network=lambda: network.build(9),
    )


@pytest.fixture(scope="module")
def original() -> nn.Module:
    forget_request = request()
    return fit(VIT.build(0), forget_request.retain.join(forget_request.forget), RECIPE, 0)


@pytest.mark.parametrize("chunk", [7, 1000])
def test_iau_equals_the_first_step_of_adam(chunk):
    forget_request, network = request(), spec("cnn", width=4).build(0)
    grads = [
        torch.autograd.grad(
            classification_loss(network(data.images.float() / 255), data.labels), list(network.parameters())
        )
        for data in (forget_request.retain, forget_request.forget)
    ]
    edited = IAU(lr=0.01, batch_size=chunk).unlearn(network, forget_request)
    for before, after, retained, forgotten in zip(network.parameters(), edited.parameters(), *grads, strict=True):
        gradient = retained - forgotten
        expected = before - 0.01 * gradient / (gradient.abs() + 1e-8)
        sure = gradient.abs() > 1e-5  # below, rounding decides the sign
        torch.testing.assert_close(after[sure], expected[sure], atol=1e-5, rtol=1e-3)


def test_restricted_loss_adds_gradient_norms_per_tensor():
    forget_request, network = request(), spec("mlp", hidden=[5]).build(0)
    method = IAU(gradient_restriction=True, restriction=0.3)
    images, labels = forget_request.retain.images.float() / 255, forget_request.retain.labels
    plain = classification_loss(network(images), labels)
    gradients = torch.autograd.grad(plain, list(network.parameters()))
    expected = float(plain.detach()) + 0.3 * sum(float(gradient.norm()) for gradient in gradients)
    assert method.training_loss is not None
    assert float(method.training_loss(network, images, labels).detach()) == pytest.approx(expected, rel=1e-5)
    assert IAU().training_loss is None
    assert method.training_parameters() == {"restriction": 0.3}


@pytest.mark.parametrize("name", ["cnn", "vit", "mlp", "resnet18"])
def test_iau_original_is_trained_with_the_restricted_loss(name):
    forget_request, network = request(), spec(name, **({"width": 4} if name == "cnn" else {}))
    data, recipe = forget_request.retain.take(range(8)), RECIPE.model_copy(update={"lr": 0.002, "epochs": 1})
    method = IAU(gradient_restriction=True, restriction=1.0)
    restricted, plain = (fit(network.build(0), data, recipe, 0, loss=loss) for loss in (method.training_loss, None))
    assert all(bool(torch.isfinite(value).all()) for value in restricted.state_dict().values())
    assert not torch.equal(restricted.head.weight, plain.head.weight)


def test_restricted_loss_with_unused_parameter_is_finite():
    network = spec("mlp", hidden=[5]).build(0)
    with torch.no_grad():
        network.blocks[0][1].weight.zero_()
        network.blocks[0][1].bias.fill_(-1)  # the whole layer is dead, its gradient exactly zero
    forget_request = request()
    loss = IAU(gradient_restriction=True).training_loss(
        network, forget_request.retain.images.float() / 255, forget_request.retain.labels
    )
    assert all(bool(torch.isfinite(g).all()) for g in torch.autograd.grad(loss, list(network.parameters())))


def adapted() -> tuple[nn.Module, list]:
    network = clone_model(VIT.build(1))
    groups = add_lora(network, 4, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for group in groups:
            for adapter in group:
                adapter.up.normal_(generator=generator)
    return network, groups


def test_new_adapter_does_not_change_the_output():
    images = torch.rand(3, 1, 8, 8)
    network = clone_model(VIT.build(1))
    before = network(images)
    add_lora(network, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images), before)


def test_merge_lora_keeps_the_output():
    network, groups = adapted()
    images = torch.rand(3, 1, 8, 8)
    applied = network(images)
    first = groups[0][0]
    expected = first.linear.weight + first.up @ first.down / 4
    merge_lora(network)
    torch.testing.assert_close(network(images), applied, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.blocks[0].mlp.fc1.weight, expected)
    assert network.state_dict().keys() == VIT.build(0).state_dict().keys()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_add_lora_trains_only_feed_forward_adapters():
    network, groups = adapted()
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert len(trained) == 3 * 4
    assert all(".mlp.fc" in name for name in trained)
    assert len(groups) == 3
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert count == 3 * 2 * 4 * (16 + 32)


def test_group_norms_equal_hand_computed_ones():
    _, groups = adapted()
    for norm, update, group in zip(group_norms(groups), relative_updates(groups), groups, strict=True):
        parts = [part.detach().numpy() for adapter in group for part in (adapter.down, adapter.up)]
        assert float(norm.detach()) == pytest.approx(np.sqrt(sum((part**2).sum() for part in parts)), rel=1e-5)
        changed = np.sqrt(_square_sum(parts))
        weights = np.sqrt(sum(float(adapter.linear.weight.detach().square().sum()) for adapter in group))
        assert float(update) == pytest.approx(changed / weights, rel=1e-4)


def _square_sum(parts: list[np.ndarray]) -> float:
    return sum(((parts[k + 1] @ parts[k] / 4) ** 2).sum() for k in (0, 2))


def test_add_lora_on_a_cnn_raises(original):
    network = spec("cnn").build(0)
    with pytest.raises(UsageError, match="vit"):
        GSLoRA().unlearn(network, request(spec("cnn")))
    facts = TaskFacts(network="cnn", scenario="class", attributes=False, outputs=3)
    assert "vit" in str(GSLoRA().applies_to(facts))


@pytest.mark.parametrize("kind", [GSLoRA, GSLoRAPlusPlus])
def test_gs_lora_forgets_a_class_in_feed_forward_weights(kind, original):
    forget_request = request()
    edited = kind(epochs=12, alpha_epoch=8, beta=0.5, batch_size=8, lr=0.02).unlearn(original, forget_request)
    assert accuracy(original, forget_request.forget) > 0.9
    assert accuracy(edited, forget_request.forget) < 0.1
    assert accuracy(edited, forget_request.retain) > 0.9
    for name, before in original.state_dict().items():
        same = torch.equal(before, edited.state_dict()[name])
        assert same != (".mlp.fc" in name and name.endswith("weight")), name


def test_gs_lora_sparsity_shrinks_the_groups(original):
    forget_request = [request(), request()]
    GSLoRA(alpha=0.0).unlearn(original, forget_request[0])
    GSLoRA(alpha=0.5, alpha_epoch=0).unlearn(original, forget_request[1])
    assert float(forget_request[1].notes["largest group update"]) < float(
        forget_request[0].notes["largest group update"]
    )


def test_gs_lora_bound_limits_the_ascent(original):
    forget_request = request()
    edited = GSLoRA(epochs=12, alpha=0.0, bound=2.0, beta=1.0, batch_size=8, lr=0.02).unlearn(original, forget_request)
    loss = classification_loss(edited(forget_request.forget.images.float() / 255), forget_request.forget.labels)
    assert 1.0 < float(loss.detach()) < 6.0


def test_gs_lora_second_request_starts_from_new_adapters(original):
    first = GSLoRA(epochs=2).unlearn(original, request())
    second = GSLoRA(epochs=2).unlearn(first, request())
    assert second.state_dict().keys() == original.state_dict().keys()


@pytest.mark.parametrize("text", ["0.2;0.3", "0.2/-1", "nan", "a"])
def test_weights_of_requests_that_are_no_numbers_are_refused(text):
    with pytest.raises(UsageError, match=r"betas=.* must be numbers of at least 0"):
        GSLoRA(betas=text)


def test_a_request_without_a_weight_of_its_own_is_refused(original):
    method = GSLoRA(betas="0.2/0.3")
    assert [method.weight_of_request(0.5, method.betas, step) for step in (0, 1)] == [0.2, 0.3]
    assert method.weight_of_request(0.5, "", 7) == 0.5
    with pytest.raises(UsageError, match=r"weights for 2 requests .* but this is request 3"):
        method.unlearn(original, dataclasses.replace(request(), step=2))


def test_replay_and_shots_are_drawn():
    examples = request().retain
    generators = (torch.Generator().manual_seed(seed) for seed in (1, 1, 2))
    first, same, other = (GSLoRA(shots=3).replayed(examples, generator) for generator in generators)
    assert first.labels.bincount().tolist() == [3] * len(first.labels.unique())
    assert first.images.tolist() == same.images.tolist() != other.images.tolist()
    assert len(GSLoRA(replay=0.25).replayed(examples, torch.Generator())) == int(0.25 * len(examples))
    assert GSLoRA().replayed(examples, torch.Generator()) is examples


def test_prototypes_and_distances_equal_scipy(original):
    forget_request = request()
    data = forget_request.retain.join(forget_request.forget)
    features, labels = predict_features(original, data).astype(float), data.labels.numpy()
    expected = np.stack([features[labels == k].mean(0) for k in range(3)])
    centers = class_prototypes(original, data, 3)
    np.testing.assert_allclose(centers, expected, rtol=1e-4, atol=1e-5)
    p, q = softmax(expected[labels], axis=1), log_softmax(features, axis=1)
    kl = (p * (np.log(p) - q)).sum(1).mean()
    assert float(prototype_distance(centers[data.labels], torch.from_numpy(features).float())) == pytest.approx(
        kl, rel=1e-3
    )


@pytest.mark.parametrize("bound", [0.01, 18.0])
def test_prototypes_of_the_given_model_repel_forgotten_features(original, bound):
    """w_f ReLU(BND_p - KL) on what is forgotten, below its bound and beyond it, and w_r KL on what is retained."""
    forget_request, generator = request(), torch.Generator().manual_seed(6)
    method = GSLoRAPlusPlus(forget_pull=0.3, retain_pull=0.7, prototype_bound=bound)
    data = forget_request.retain.join(forget_request.forget)
    prototypes = class_prototypes(original, data, 3)
    features, labels = predict_features(original, data).astype(float), data.labels.numpy()
    centers = np.stack([features[labels == k].mean(0) for k in range(3)])
    retained, forgotten = (torch.randn(count, features.shape[1], generator=generator) for count in (7, 5))
    retained_labels, forgotten_labels = torch.tensor([0, 1, 1, 0, 0, 1, 1]), torch.full((5,), 2)

    def kl(labels: torch.Tensor, given: torch.Tensor) -> float:
        return rel_entr(softmax(centers[labels], axis=1), softmax(given.double().numpy(), axis=1)).sum(1).mean()

    away, near = kl(forgotten_labels, forgotten), kl(retained_labels, retained)
    by_hand = 0.3 * max(0.0, bound - away) + 0.7 * near
    assert (away > bound) == (bound < 1)
    distances = [
        prototype_distance(prototypes[each], given)
        for each, given in ((forgotten_labels, forgotten), (retained_labels, retained))
    ]
    assert float(method.prototype_loss(*distances, method.forget_pull)) == pytest.approx(by_hand, rel=1e-4)
    fresh = predict_features(forget_request.new_network(), data)
    assert not np.allclose(fresh[labels == 2].mean(0), centers[2], atol=0.1)
