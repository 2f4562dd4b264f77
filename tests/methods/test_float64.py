"""Networks in float64: every method trains and returns them in float64, so that released code can be compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from forgetbench.methods import methods
from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.gs_lora_plus_plus import prototype_distance
from forgetbench.methods.seif import class_weights as seif_weights
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe

QUICK = ("gs-lora++", "sebastian", "seif")
"""Methods with tensors of their own in the loss."""


def build(seed: int = 0) -> nn.Module:
    size, options = {"channels": 1, "height": 8, "width": 8, "outputs": 3}, {"dim": 8, "heads": 2}
    return NetworkSpec(name="vit", **size, mean=(0.5,), std=(0.3,), options=options).build(seed).double()


def examples(labels: np.ndarray, seed: int) -> Examples:
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 1, 8, 8), dtype=np.uint8)
    return Examples.from_arrays(images, labels)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in methods.names()]
)
def test_method_keeps_a_float64_network_in_float64(name):
    request = ForgetRequest(
        forget=examples(np.full(6, 2), 1),  # a class, for methods of class forgetting
        retain=examples(np.arange(20) % 2, 2),
        validation=examples(np.arange(9) % 3, 3),
        seed=0,
        recipe=Recipe.model_validate({"epochs": 1}),
        new_network=build,
    )
    edited = methods.get(name)().unlearn(build(), request)
    assert {value.dtype for value in edited.parameters()} == {torch.float64}


def test_seif_weights_have_the_precision_of_the_network():
    weights = seif_weights(examples(np.zeros(4, dtype=int), 0), 3, "published", torch.float64)
    assert weights.tolist() == [1.0, 0.05, 0.05]


def test_prototype_distance_of_float64_features_is_exact():
    generator = torch.Generator().manual_seed(0)
    prototypes, features = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    p, q = (side.softmax(1) for side in (prototypes, features))
    expected = (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(prototype_distance(prototypes, features), expected, rtol=1e-14, atol=0)
