"""The battery over every registered method; an id names method, network and check."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from forgetbench.methods import methods
from forgetbench.methods.checks import Battery, check_method
from forgetbench.training import Diverged

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [16, 8], "batch_norm": True},
    "cnn": {"width": 4},
    "resnet18": {},
    "vit": {"dim": 16, "depth": 2, "heads": 2},
    "timm/vit_tiny_patch16_224": {"arguments": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}},
    "timm/resnet10t": {},
}
SMALL: dict[str, float] = {"epochs": 2, "steps": 4, "floor": 1.0}
"""Values for parameters of these names, so that a battery takes a second."""


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def failures(name: str, network: str, device: str) -> list[str]:
    kind = methods.get(name)
    values = {fact.name: SMALL[fact.name] for fact in kind.parameters() if fact.name in SMALL}
    results = check_method(kind, network=network, options=NETWORKS[network], values=values, device=device)
    return [f"{result.name}: {result.message}" for result in results if not result.ok]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("name", methods.names())
def test_battery(name, network, device):
    assert failures(name, network, device) == []


NOTHING_TO_DIVERGE = {"none", "retrain", "eu-k", "sham", "collapse", "head-mask"}
"""Methods that minimise nothing from the model that they are given, and the sentinel whose aim is collapse."""


@pytest.mark.parametrize("name", sorted(set(methods.names()) - NOTHING_TO_DIVERGE))
def test_a_loss_that_is_no_number_is_said(name):
    kind = methods.get(name)
    values = {fact.name: SMALL[fact.name] for fact in kind.parameters() if fact.name in SMALL}
    network = "cnn" if not Battery(kind, "cnn", NETWORKS["cnn"], values, "cpu").inapplicable() else "vit"
    bench = Battery(kind, network, NETWORKS[network], values, "cpu")
    request = bench.request()
    original = bench.original(request)
    with torch.no_grad():
        original.head.bias.fill_(float("nan"))
    with pytest.raises(Diverged) as caught:
        bench.method().unlearn(original, request)
    message = str(caught.value)
    assert "diverged" in message
    if "model given" not in message:
        assert "epoch" in message
        assert "learning rate" in message
        assert name in message or name == "finetune"  # the row's reason begins with the method's name


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("network", ["resnet18", "vit"])
@pytest.mark.parametrize("name", methods.names())
def test_battery_on_timm_networks(name, network, device):
    assert failures(name, network, device) == []


@pytest.mark.parametrize(
    ("name", "network"),
    [
        *((name, network) for network in ("resnet18", "vit") for name in methods.names()),
        ("gs-lora", "timm/vit_tiny_patch16_224"),
        ("gs-lora++", "timm/vit_tiny_patch16_224"),
        ("ct", "timm/resnet10t"),
    ],
)
def test_smoke_on_timm_networks(name, network):
    kind = methods.get(name)
    values = {fact.name: SMALL[fact.name] for fact in kind.parameters() if fact.name in SMALL}
    bench = Battery(kind, network, NETWORKS[network], values, "cpu")
    bench.recipe = bench.recipe.model_copy(update={"epochs": 1})
    answer = bench.contract()
    assert "timm/" not in network or answer == ""  # what is built like a network of ours is not passed over
