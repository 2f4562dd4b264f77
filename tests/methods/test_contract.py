"""The battery over every registered method; an id names method, network and check."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from forgetbench.methods import _training as loops
from forgetbench.methods import methods
from forgetbench.methods.base import Method
from forgetbench.methods.contract import Battery, check_method
from forgetbench.training import DivergedError
from forgetbench.training import loop as training

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


DEVICES = ["cpu", *(["cuda", "cuda in bfloat16"] if torch.cuda.is_available() else [])]


def small(kind: type[Method]) -> dict[str, float]:
    return {fact.name: SMALL[fact.name] for fact in kind.parameters() if fact.name in SMALL}


def network_of(kind: type[Method], *choice: str) -> str:
    """The first of these networks that a method applies to."""
    reasons = {name: Battery(kind, name, NETWORKS[name], small(kind), "cpu").inapplicable() for name in choice}
    return next(name for name, reason in reasons.items() if reason is None)


def failures(name: str, network: str, device: str) -> list[str]:
    results = check_method(
        methods.get(name),
        network=network,
        options=NETWORKS[network],
        values=small(methods.get(name)),
        device=device.split(" ", maxsplit=1)[0],
        mixed_precision="bfloat16" in device,
    )
    return [f"{result.name}: {result.message}" for result in results if not result.ok]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("name", methods.names())
def test_method_passes_the_contract(name, network, device):
    assert failures(name, network, device) == []


@pytest.mark.parametrize("name", methods.names())
def test_method_in_bfloat16_returns_finite_float32(monkeypatch, name):
    """What a GPU does with a recipe of mixed precision, on a CPU."""
    seen: list[bool] = []

    def on_the_cpu(_: torch.device, *, enabled: bool) -> torch.autocast:
        seen.append(enabled)
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)

    for module in (loops, training):
        monkeypatch.setattr(module, "autocast", on_the_cpu)
    kind = methods.get(name)
    network = network_of(kind, "mlp", "vit", "cnn")
    for wanted in (False, True):
        seen.clear()
        bench = Battery(kind, network, NETWORKS[network], small(kind), "cpu", mixed_precision=wanted)
        bench.recipe = bench.recipe.model_copy(update={"epochs": 2})
        assert bench.contract() == ""
        assert set(seen) == {wanted}  # of the original's training at least


NOTHING_TO_DIVERGE = {"none", "retrain", "eu-k", "no-op", "collapse", "head-mask"}
"""Methods that minimize nothing from the model that they are given, and the sentinel whose aim is collapse."""


@pytest.mark.parametrize("name", sorted(set(methods.names()) - NOTHING_TO_DIVERGE))
def test_method_with_nan_loss_raises_diverged_error(name):
    kind = methods.get(name)
    network = network_of(kind, "cnn", "vit")
    bench = Battery(kind, network, NETWORKS[network], small(kind), "cpu")
    request = bench.request()
    original = bench.original(request)
    with torch.no_grad():
        original.head.bias.fill_(float("nan"))
    with pytest.raises(DivergedError) as caught:
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
def test_method_passes_the_contract_on_timm_networks(name, network, device):
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
def test_method_runs_on_timm_networks(name, network):
    kind = methods.get(name)
    bench = Battery(kind, network, NETWORKS[network], small(kind), "cpu")
    bench.recipe = bench.recipe.model_copy(update={"epochs": 1})
    answer = bench.contract()
    assert "timm/" not in network or answer == ""  # what is built like a network of ours is not passed over
