"""What each attack computes, by an independent route."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from support.training import make_examples, make_network, make_recipe, same_weights
from torch.nn import functional

from forgetbench.attacks import parse_attack
from forgetbench.attacks.base import Attack, Knowledge
from forgetbench.metrics.probes import Rows, linear_probe
from forgetbench.networks import Network
from forgetbench.training import Examples, recalibrate_batch_norm
from forgetbench.training.compute import derive_generator


def attacked(attack: Attack, network: Network) -> Network:
    examples = make_examples(24)
    held = {"retain": examples, "forget": examples.take([0, 1]), "validation": examples, "original": network}
    held = {name: part for name, part in held.items() if name in attack.card.holds}
    knowledge = Knowledge(card=attack.card, recipe=make_recipe(), queries={"forget": examples}, held=held)
    result = attack.attack(network, knowledge, 1)
    assert isinstance(result, Network)
    return result


@pytest.mark.parametrize("bits", [8, 4])
def test_quantize_rounds_to_integer_levels_per_channel(bits: int) -> None:
    network = make_network("cnn")
    result = attacked(parse_attack(f"quantize:bits={bits}"), network)
    levels = 2 ** (bits - 1) - 1
    for name, before in network.named_parameters():
        after = dict(result.named_parameters())[name].detach().numpy()
        if before.ndim < 2:
            np.testing.assert_array_equal(after, before.detach().numpy())
            continue
        for channel, original in zip(after, before.detach().numpy(), strict=True):
            step = np.abs(original).max() / levels
            np.testing.assert_allclose(channel / step, np.round(channel / step), atol=1e-3)
            assert np.abs(channel - original).max() <= step / 2 + 1e-6
            assert np.abs(np.round(channel / step)).max() == levels  # the largest weight stays
    assert not same_weights(network, result)


def test_quantize_leaves_a_channel_of_zeros() -> None:
    network = make_network("cnn")
    with torch.no_grad():
        network.head.weight[1] = 0
    assert (attacked(parse_attack("quantize:bits=4"), network).head.weight[1] == 0).all()


@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_prune_removes_the_smallest_share_of_all_weights(ratio: float) -> None:
    network = make_network("cnn")
    result = attacked(parse_attack(f"prune:ratio={ratio}"), network)
    pairs = [
        (before.detach().numpy(), after.detach().numpy())
        for before, after in zip(network.parameters(), result.parameters(), strict=True)
        if before.ndim >= 2
    ]
    before, after = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    cut = np.sort(np.abs(before))[round(ratio * before.size) - 1]
    np.testing.assert_array_equal(after, np.where(np.abs(before) <= cut, 0, before))


def test_recalibrate_is_the_check_of_boards_on_few_batches() -> None:
    network = make_network("cnn")
    result = attacked(parse_attack("recalibrate:batches=2"), network)
    expected = recalibrate_batch_norm(make_network("cnn"), make_examples(24), make_recipe(), batches=2)
    assert same_weights(result, expected)
    assert not same_weights(result, network)


def knowledge_of(attack: Attack, network: Network, classes: int = 4, count: int = 40) -> Knowledge:
    """Retained examples of all classes but the last, a few of the last, and all of them as queries."""
    examples = make_examples(count)
    last = examples.labels == classes - 1
    retain, forget = examples.take((~last).nonzero()[:, 0]), examples.take(last.nonzero()[:, 0])
    held = {"retain": retain, "forget": forget.take([0, 1]), "validation": retain, "original": network}
    held = {name: part for name, part in held.items() if name in attack.card.holds}
    return Knowledge(card=attack.card, recipe=make_recipe(), queries={"forget": forget, "test": retain}, held=held)


def features(network: Network, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return network.features(images.float() / 255).numpy()


def test_prototype_mixes_the_mean_feature_into_the_head() -> None:
    network, attack = make_network("mlp", hidden=[8]), parse_attack("prototype:alpha=0.25")
    knowledge = knowledge_of(attack, network)
    result = attack.attack(network, knowledge, 1)
    mean = features(network, knowledge.forget.images).mean(0)
    before, after = (one.head.weight.detach().numpy() for one in (network, result))
    np.testing.assert_allclose(after[3], 0.25 * mean / np.linalg.norm(mean) + 0.75 * before[3], rtol=1e-5)
    np.testing.assert_array_equal(after[:3], before[:3])
    assert result.head.bias[3].item() == pytest.approx(0.75 * network.head.bias[3].item())


def test_nearest_mean_answers_with_squared_distances() -> None:
    network, attack = make_network("mlp", hidden=[8]), parse_attack("nearest-mean")
    knowledge = knowledge_of(attack, network)
    answers = attack.attack(network, knowledge, 1)
    means = [
        features(network, knowledge.retain.images[knowledge.retain.labels == label]).mean(0) for label in range(3)
    ] + [features(network, knowledge.forget.images).mean(0)]
    rows = features(network, knowledge.queries["test"].images)
    expected = np.array([[-((row - mean) ** 2).sum() for mean in means] for row in rows])
    np.testing.assert_allclose(answers["test"].numpy(), expected, rtol=1e-3, atol=1e-4)


def test_relearning_reads_what_it_holds_and_learns_it() -> None:
    network = make_network("mlp", hidden=[8])

    def loss(model: torch.nn.Module, examples: Examples) -> float:
        with torch.no_grad():
            return float(functional.cross_entropy(model(examples.images.float() / 255), examples.labels))

    for name, learned in {"relearn-retain:steps=30": "retain", "relearn-few-shot:steps=30,lr=0.01": "forget"}.items():
        attack = parse_attack(name)
        knowledge = knowledge_of(attack, network)
        result = attack.attack(network, knowledge, 1)
        examples = getattr(knowledge, learned)
        assert loss(result, examples) < 0.95 * loss(network, examples)


def test_visual_prompt_changes_the_border_only() -> None:
    network, attack = make_network("mlp", hidden=[8]), parse_attack("visual-prompt:steps=20,lr=0.1")
    knowledge = knowledge_of(attack, network)
    with torch.no_grad():  # a network that sees the border only through its first weights
        inner = torch.zeros(8, 8)
        inner[1:-1, 1:-1] = 1
        first = next(module for module in network.modules() if isinstance(module, torch.nn.Linear))
        blind = copy.deepcopy(network)
        next(module for module in blind.modules() if isinstance(module, torch.nn.Linear)).weight.mul_(inner.flatten())
    assert first.weight.shape[1] == 64
    for model, changed in ((network, True), (blind, False)):
        answers = attack.attack(model, knowledge, 1)["test"]
        with torch.no_grad():
            plain = model(knowledge.queries["test"].images.float() / 255)
        assert (not torch.allclose(answers, plain, atol=1e-4)) is changed


def test_label_only_is_the_share_of_copies_that_keep_the_label() -> None:
    attack = parse_attack("label-only:copies=4,noise=0.3")
    examples = make_examples(10)
    knowledge = Knowledge(card=attack.card, recipe=make_recipe(), queries={"forget": examples}, held={})

    class Even(torch.nn.Module):
        """Labels an image 1 if its first pixel is bright."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (images[:, 0, 0, 0] > 0.5).long()

    found = attack.attack(Even(), knowledge, 7)["forget"][:, 0].numpy()
    generator, hits = derive_generator(7), np.zeros(10)
    pixels, labels = examples.images.numpy()[:, 0, 0, 0] / 255, examples.labels.numpy()
    for _ in range(4):
        noise = torch.randn(examples.images.shape, generator=generator).numpy()[:, 0, 0, 0]
        hits += (pixels + 0.3 * noise > 0.5) == labels
    np.testing.assert_allclose(found, hits / 4)


def test_tri_class_finds_examples_whose_answers_changed() -> None:
    attack, network = parse_attack("tri-class"), make_network("mlp", hidden=[8])
    original = copy.deepcopy(network)
    with torch.no_grad():
        original.head.bias[3] += 5  # the original knows the last class, the unlearned model does not
    answers = attack.attack(network, knowledge_of(attack, original), 1)
    forgotten, others = (answers[name].argmax(1) == 0 for name in ("forget", "test"))
    assert forgotten.float().mean() > 0.9
    assert others.float().mean() < 0.1


def test_linear_probe_is_that_of_the_metric() -> None:
    attack, network = parse_attack("linear-probe"), make_network("mlp", hidden=[8])
    knowledge = knowledge_of(attack, network)
    answers = attack.attack(network, knowledge, 0)
    rows = [
        Rows(features(network, part.images).astype(np.float64), part.labels.numpy())
        for part in (knowledge.retain.join(knowledge.forget), knowledge.validation, knowledge.queries["forget"])
    ]
    hits = float((answers["forget"].argmax(1) == 3).float().mean())
    assert hits == pytest.approx(linear_probe(*rows).accuracy)  # fewer rows than the limit: all seeds fit the same
