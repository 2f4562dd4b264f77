"""The contract of every registered method; a test's id names method, network and device."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from forgetbench.methods import _training as loops
from forgetbench.methods import methods
from forgetbench.methods.base import Method
from forgetbench.methods.contract import ContractChecks, check_method
from forgetbench.training import DivergedError, Recipe
from forgetbench.training import loop as training
from forgetbench.training.compute import autocast

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [16, 8], "batch_norm": True},
    "cnn": {"width": 4},
    "resnet18": {},
    "vit": {"dim": 16, "depth": 2, "heads": 2},
    "timm/vit_tiny_patch16_224": {"arguments": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}},
    "timm/resnet10t": {},
}
SMALL: dict[str, float] = {"epochs": 2, "steps": 4, "floor": 1.0}
"""Values for parameters of these names, so that the checks take a second."""


DEVICES = ["cpu", *(["cuda", "cuda in bfloat16"] if torch.cuda.is_available() else [])]


def small(kind: type[Method]) -> dict[str, float]:
    return {fact.name: SMALL[fact.name] for fact in kind.parameters() if fact.name in SMALL}


def network_of(kind: type[Method], *choice: str) -> str:
    """The first of the given networks that a method applies to."""
    reasons = {name: ContractChecks(kind, name, NETWORKS[name], small(kind), "cpu").inapplicable() for name in choice}
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
    """The precision of a recipe is that of the original's training and of every training loop of a method."""
    seen: list[bool] = []

    def recorded(device: torch.device, recipe: Recipe) -> AbstractContextManager[object]:
        block = autocast(device, recipe)
        seen.append(isinstance(block, torch.autocast) and block.fast_dtype == torch.bfloat16)
        return block

    for module in (loops, training):
        monkeypatch.setattr(module, "autocast", recorded)
    kind = methods.get(name)
    network = network_of(kind, "mlp", "vit", "cnn")
    for precision in ("by-device", "bfloat16"):
        seen.clear()
        suite = ContractChecks(kind, network, NETWORKS[network], small(kind), "cpu")
        suite.recipe = suite.recipe.model_copy(update={"epochs": 2, "precision": precision})
        assert suite.contract() == ""
        assert set(seen) == {precision == "bfloat16"}  # at least while the original is trained


CANNOT_DIVERGE = {"none", "retrain", "eu-k", "no-op", "collapse", "head-mask"}
"""Methods that minimize no loss of the given model, and the sentinel that is meant to collapse."""


@pytest.mark.parametrize("name", sorted(set(methods.names()) - CANNOT_DIVERGE))
def test_method_with_nan_loss_raises_diverged_error(name):
    kind = methods.get(name)
    network = network_of(kind, "cnn", "vit")
    suite = ContractChecks(kind, network, NETWORKS[network], small(kind), "cpu")
    request = suite.request()
    original = suite.original(request)
    with torch.no_grad():
        original.head.bias.fill_(float("nan"))
    with pytest.raises(DivergedError) as caught:
        suite.method().unlearn(original, request)
    message = str(caught.value)
    assert "diverged" in message
    if "given model" not in message:
        assert "epoch" in message
        assert "learning rate" in message
        assert name in message or name == "finetune"  # the reason of the row starts with the method's name


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
    suite = ContractChecks(kind, network, NETWORKS[network], small(kind), "cpu")
    suite.recipe = suite.recipe.model_copy(update={"epochs": 1})
    remark = suite.contract()
    assert "timm/" not in network or remark == ""  # a network that is built like a known one is not skipped
