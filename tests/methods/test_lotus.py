"""LoTUS: its targets, and the bound at which it stops."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from forgetbench.methods import _training, lotus
from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.lotus import LoTUS, soft_targets
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
        new_network=lambda: SPEC.build(9),
    )


def test_soft_targets_are_soft_only_on_the_forget_set():
    logits = torch.tensor([[[2.0, 0.0, -2.0]], [[2.0, 0.0, -2.0]]])
    got = soft_targets(logits, torch.zeros_like(logits), torch.tensor([True, False]), temperature=4.0)
    soft = np.exp([0.5, 0.0, -0.5]) / np.exp([0.5, 0.0, -0.5]).sum()
    np.testing.assert_allclose(got[0, 0].numpy(), soft, rtol=1e-6)
    assert got[1, 0].tolist() == [1.0, 0.0, 0.0]


def test_lotus_below_the_bound_stops_at_once():
    network = SPEC.build(0)
    request = requested([0, 1, 0, 1, 2], [0, 1])
    answers = network(request.forget.images.float() / 255).argmax(1)
    # a forget set that the teacher has all wrong, and a validation set that it has all right
    wrong = request.forget.relabel((answers + 1) % 3)
    right = request.validation.relabel(network(request.validation.images.float() / 255).argmax(1))
    retain = request.retain.relabel(torch.arange(12) % 3)
    forget_request = ForgetRequest(
        forget=wrong, retain=retain, validation=right, seed=0, recipe=Recipe(), new_network=lambda: network
    )
    edited = LoTUS().unlearn(network, forget_request)
    assert forget_request.notes["bound"] == 1.0
    for name, value in edited.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


def test_lotus_bound_of_a_whole_class_is_zero():
    network, request = SPEC.build(0), requested([2, 2, 2], [0, 1, 0])
    before = copy.deepcopy(network.state_dict())
    edited = LoTUS(epochs=2, lr=0.01).unlearn(network, request)
    assert request.notes["bound"] == 0.0
    assert not torch.equal(edited.head.weight, network.head.weight)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_lotus_temperature_follows_the_gap_until_the_bound(monkeypatch):
    network, request = SPEC.build(0), requested([0, 1, 0], [0, 1])
    on_forget = iter([0.9, 0.7, 0.495, 0.48, 0.3])  # before the first epoch, and after each
    temperatures = []

    def kept_in_mind(*args, temperature):
        temperatures.append(temperature)
        return soft_targets(*args, temperature)

    monkeypatch.setattr(
        lotus, "accuracy", lambda _, examples: 0.5 if examples is request.validation else next(on_forget)
    )
    monkeypatch.setattr(lotus, "soft_targets", lambda *args: kept_in_mind(*args[:3], temperature=args[3]))
    LoTUS(epochs=10, lr=1e-3, alpha=3.0, tolerance=0.01).unlearn(network, request)
    assert temperatures == pytest.approx(np.exp([3 * 0.4, 3 * 0.2, 3 * -0.005]))
    assert request.notes == {"bound": 0.5, "epochs": 3}


@pytest.mark.parametrize("gumbel", [False, True])
def test_lotus_minimizes_cross_entropy_to_the_targets(monkeypatch, gumbel):
    network, request = SPEC.build(0), requested([0, 1, 0], [0, 1])
    calls, losses = [], []

    def record(logits, noise, is_forget, temperature):
        calls.append((logits, soft_targets(logits, noise, is_forget, temperature), is_forget))
        return calls[-1][1]

    monkeypatch.setattr(lotus, "soft_targets", record)
    monkeypatch.setattr(_training, "set_mode", lambda *_, **__: None)  # so that teacher and student answer alike
    monkeypatch.setattr(_training.TrainLoop, "step", lambda _, loss: losses.append(float(loss.detach())))
    LoTUS(epochs=1, alpha=0.0, retain_ratio=1.0, gumbel=gumbel, tolerance=2.0).unlearn(network, request)
    logits, targets, is_forget = (value[:, 0].double().numpy() for value in (*calls[0][:2], calls[0][2][:, None]))
    is_forget = is_forget.astype(bool)
    by_hand = -(targets * log_softmax(logits, axis=1)).sum(1).mean()
    assert losses[0] == pytest.approx(by_hand, rel=1e-5)
    assert is_forget.sum() == 3
    assert set(targets[~is_forget].ravel().tolist()) == {0.0, 1.0}
    assert np.allclose(targets[is_forget], softmax(logits[is_forget], axis=1), atol=1e-5) != gumbel
