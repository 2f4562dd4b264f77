"""Masked small gradients: which weights are drawn anew, and how fast the others move."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from forgetbench.methods.base import ForgetRequest, TaskFacts
from forgetbench.methods.kookmin import Kookmin
from forgetbench.methods.msg import MaskedSmallGradients, redraw_weights, treated_layers
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe

SPEC = NetworkSpec(name="cnn", channels=1, height=8, width=8, outputs=3, mean=(0.5,), std=(0.3,), options={"width": 2})


def request() -> ForgetRequest:
    generator = torch.Generator().manual_seed(1)
    everything = Examples(
        torch.randint(0, 256, (24, 1, 8, 8), generator=generator, dtype=torch.uint8), torch.arange(24) % 3
    )
    return ForgetRequest(
        forget=everything.take(range(6)),
        retain=everything.take(range(6, 24)),
        validation=everything,
        seed=4,
        recipe=Recipe(),
        new_network=lambda: SPEC.build(9),
    )


def test_redraw_weights_has_the_spread_of_he():
    layer = nn.Conv2d(50, 20, 3)
    before = layer.weight.detach().clone()
    mask = torch.zeros_like(before, dtype=torch.bool)
    mask[:10] = True
    redraw_weights(layer, mask, torch.Generator().manual_seed(0))
    assert torch.equal(layer.weight[10:], before[10:])
    assert float(layer.weight[:10].detach().std()) == pytest.approx((2 / (20 * 9)) ** 0.5, rel=0.05)


def test_msg_redraws_weights_with_smallest_gradients():
    network, forget_request = SPEC.build(0), request()
    method = MaskedSmallGradients(epochs=1, lr=1e-12, mask_ratio=0.25, weight_decay=0.0, momentum=0.0)
    after = method.unlearn(network, forget_request)
    order = torch.randperm(18, generator=forget_request.generator(0))[:6]
    retained = forget_request.retain.take(order)

    def loss(examples: Examples) -> torch.Tensor:
        return nn.functional.cross_entropy(network(examples.images.float() / 255), examples.labels)

    weights = [layer.weight for layer in treated_layers(network, "convolutions")]
    gradients = torch.autograd.grad(loss(retained) - loss(forget_request.forget), weights)
    for layer, weight, gradient in zip(treated_layers(after, "convolutions"), weights, gradients, strict=True):
        changed = (layer.weight - weight).abs() > 1e-6
        assert int(changed.sum()) == round(0.25 * weight.numel())
        assert float(gradient[changed].abs().max()) <= float(gradient[~changed].abs().min()) + 1e-7


def test_msg_on_mlp_names_the_option_to_set():
    facts = TaskFacts(network="mlp", scenario="random", attributes=False, outputs=3)
    assert "layers=all" in str(MaskedSmallGradients().applies_to(facts))
    assert MaskedSmallGradients(layers="all").applies_to(facts) is None
    mlp = NetworkSpec(
        name="mlp", channels=1, height=4, width=4, outputs=3, mean=(0.5,), std=(0.3,), options={"hidden": [6, 5]}
    ).build(0)
    assert [layer.weight.shape for layer in treated_layers(mlp, "all")] == [(6, 16), (5, 6)]  # the head is left out


@pytest.mark.parametrize("kind", [MaskedSmallGradients, Kookmin])
def test_msg_scales_the_gradients_of_the_other_weights(kind):
    network, forget_request = SPEC.build(0), request()

    def weights(**values: float) -> list[torch.Tensor]:
        one_step = {"epochs": 1, "mask_ratio": 0.25, "batch_size": 100, "momentum": 0.0, "weight_decay": 0.0}
        edited = kind(**one_step, **values).unlearn(network, forget_request)
        return [layer.weight.detach() for layer in treated_layers(edited, "convolutions")]

    ends = {
        name: weights(lr=lr, gradient_scale=scale)
        for name, lr, scale in (("at", 1e-12, 1.0), ("a", 0.1, 1.0), ("b", 0.1, 0.1))
    }
    for before, start, whole, slower in zip(treated_layers(network, "convolutions"), *ends.values(), strict=True):
        is_new = (start - before.weight.detach()).abs() > 1e-6
        assert float((whole - start).abs().max()) > 1e-4
        torch.testing.assert_close(slower[is_new], whole[is_new])
        torch.testing.assert_close((slower - start)[~is_new], 0.1 * (whole - start)[~is_new], rtol=1e-3, atol=1e-6)
