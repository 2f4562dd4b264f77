"""The battery over every registered method; an id names method, network and check."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from forgetbench.methods import methods
from forgetbench.methods.checks import check_method

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [16, 8], "batch_norm": True},
    "cnn": {"width": 4},
    "resnet18": {},
    "vit": {"dim": 16, "depth": 2, "heads": 2},
}
SMALL: dict[str, float] = {"epochs": 2, "steps": 4, "floor": 1.0}
"""Values for parameters of these names, so that a battery takes a second."""


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def failures(name: str, network: str) -> list[str]:
    kind = methods.get(name)
    values = {fact.name: SMALL[fact.name] for fact in kind.parameters() if fact.name in SMALL}
    results = check_method(kind, network=network, options=NETWORKS[network], values=values)
    return [f"{result.name}: {result.message}" for result in results if not result.ok]


@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("name", methods.names())
def test_battery(name, network):
    assert failures(name, network) == []


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet18", "vit"])
@pytest.mark.parametrize("name", methods.names())
def test_battery_on_timm_networks(name, network):
    assert failures(name, network) == []
