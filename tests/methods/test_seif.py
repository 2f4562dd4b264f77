"""Seif: where noise goes, and what classes weigh."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.seif import Seif, add_noise, class_weights
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe

SPEC = NetworkSpec(name="cnn", channels=1, height=8, width=8, outputs=3, mean=(0.5,), std=(0.3,), options={"width": 2})


def examples(labels: list[int]) -> Examples:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (len(labels), 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Examples(images, torch.tensor(labels))


def moved(**values: object) -> dict[str, float]:
    retain = examples([0, 1, 2] * 5)
    request = ForgetRequest(
        forget=retain.take([0]),
        retain=retain,
        validation=retain,
        seed=3,
        recipe=Recipe(),
        new_network=lambda: SPEC.build(9),
    )
    network = SPEC.build(0)
    edited = Seif(lr=1e-12, momentum=0.0, weight_decay=0.0, **values).unlearn(network, request)
    return {
        name: float((after - before).detach().norm())
        for (name, before), after in zip(network.named_parameters(), edited.parameters(), strict=True)
    }


def test_add_noise_has_the_given_deviation():
    layer = nn.Conv2d(50, 40, 3)
    before = layer.weight.detach().clone()
    add_noise([layer.weight], 0.6, torch.Generator().manual_seed(0))
    assert float((layer.weight - before).detach().std()) == pytest.approx(0.6, rel=0.03)


def test_seif_adds_noise_to_kernels_only():
    kernels = {name for name, distance in moved(epochs=1).items() if distance > 1e-3}
    assert kernels == {f"body.stages.{place}.0.weight" for place in range(3)}
    assert {name for name, distance in moved(epochs=1, layers="first").items() if distance > 1e-3} == {
        "body.stages.0.0.weight"
    }


def test_seif_adds_a_second_noise_before_the_last_epoch():
    none = {"noise": 0.0, "last_noise": 0.1}
    assert max(moved(epochs=1, **none).values()) < 1e-6
    assert max(moved(epochs=2, **none).values()) > 1e-2


def test_class_weights_equal_hand_computed_ones():
    unequal = examples([0, 0, 0, 1])
    balanced = class_weights(unequal, 3, "balanced")
    assert balanced is not None
    assert balanced[:2].tolist() == pytest.approx([4 / (2 * 3), 4 / (2 * 1)])
    assert float(balanced[unequal.labels].mean()) == pytest.approx(1.0)
    published = class_weights(unequal, 3, "published")
    assert published is not None
    assert published.tolist() == pytest.approx([1.0, 0.05, 0.05])
    assert class_weights(unequal, 3, "none") is None
