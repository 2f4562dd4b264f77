"""LoTUS: its targets, and the bound at which it stops."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from forgetbench.methods import lotus
from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.lotus import LoTUS, tempered
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe

SPEC = NetworkSpec(
    name="mlp", channels=1, height=4, width=4, outputs=3, mean=(0.5,), std=(0.3,), options={"hidden": [6]}
)


def requested(forget_labels: list[int], validation_labels: list[int]) -> ForgetRequest:
    generator = torch.Generator().manual_seed(1)

    def examples(labels: list[int]) -> Examples:
        images = torch.randint(0, 256, (len(labels), 1, 4, 4), generator=generator, dtype=torch.uint8)
        return Examples(images, torch.tensor(labels))

    return ForgetRequest(
        forget=examples(forget_labels),
        retain=examples([0, 1] * 6),
        validation=examples(validation_labels),
        seed=3,
        recipe=Recipe(),
        fresh_network=lambda: SPEC.build(9),
    )


def test_targets():
    logits = torch.tensor([[[2.0, 0.0, -2.0]], [[2.0, 0.0, -2.0]]])
    got = tempered(logits, torch.zeros_like(logits), torch.tensor([True, False]), temperature=4.0)
    soft = np.exp([0.5, 0.0, -0.5]) / np.exp([0.5, 0.0, -0.5]).sum()
    np.testing.assert_allclose(got[0, 0].numpy(), soft, rtol=1e-6)
    assert got[1, 0].tolist() == [1.0, 0.0, 0.0]


def test_it_stops_at_once_below_the_bound():
    network = SPEC.build(0)
    request = requested([0, 1, 0, 1, 2], [0, 1])
    answers = network(request.forget.images.float() / 255).argmax(1)
    # a forget set that the teacher has all wrong, and a validation set that it has all right
    wrong = request.forget.relabel((answers + 1) % 3)
    right = request.validation.relabel(network(request.validation.images.float() / 255).argmax(1))
    retain = request.retain.relabel(torch.arange(12) % 3)
    asked = ForgetRequest(
        forget=wrong, retain=retain, validation=right, seed=0, recipe=Recipe(), fresh_network=lambda: network
    )
    edited = LoTUS().unlearn(network, asked)
    assert asked.notes["bound"] == 1.0
    for name, value in edited.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


def test_the_bound_of_a_whole_class_is_zero_and_the_teacher_stays():
    network, request = SPEC.build(0), requested([2, 2, 2], [0, 1, 0])
    before = copy.deepcopy(network.state_dict())
    edited = LoTUS(epochs=2, lr=0.01).unlearn(network, request)
    assert request.notes["bound"] == 0.0
    assert not torch.equal(edited.head.weight, network.head.weight)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_temperature_follows_the_gap_and_the_loop_stops_below_the_bound(monkeypatch):
    network, request = SPEC.build(0), requested([0, 1, 0], [0, 1])
    on_forget = iter([0.9, 0.7, 0.495, 0.48, 0.3])  # before the first epoch, and after each
    temperatures = []

    def kept_in_mind(*args, temperature):
        temperatures.append(temperature)
        return tempered(*args, temperature)

    monkeypatch.setattr(
        lotus, "accuracy", lambda _, examples: 0.5 if examples is request.validation else next(on_forget)
    )
    monkeypatch.setattr(lotus, "tempered", lambda *args: kept_in_mind(*args[:3], temperature=args[3]))
    LoTUS(epochs=10, alpha=3.0, tolerance=0.01).unlearn(network, request)
    assert temperatures == pytest.approx(np.exp([3 * 0.4, 3 * 0.2, 3 * -0.005]))
    assert request.notes == {"bound": 0.5, "epochs": 3}


@pytest.mark.parametrize("gumbel", [False, True])
def test_what_is_minimized_is_the_cross_entropy_to_the_targets(monkeypatch, gumbel):
    network, request, seen = SPEC.build(0), requested([0, 1, 0], [0, 1]), []
    monkeypatch.setattr(lotus, "descend", lambda edited, _, **given: seen.append(given) or edited)
    LoTUS(alpha=0.0, retain_share=1.0, gumbel=gumbel, tolerance=2.0).unlearn(network, request)
    batch = next(seen[0]["batches"](0))
    logits = network(batch[0]).detach().double().numpy()
    targets, forgotten = batch[1][:, 0].double().numpy(), batch[2].bool().numpy()
    by_hand = -(targets * log_softmax(logits, axis=1)).sum(1).mean()
    assert float(seen[0]["loss"](batch).detach()) == pytest.approx(by_hand, rel=1e-5)
    assert forgotten.sum() == 3
    assert set(targets[~forgotten].ravel().tolist()) == {0.0, 1.0}
    assert np.allclose(targets[forgotten], softmax(logits[forgotten], axis=1), atol=1e-5) != gumbel
