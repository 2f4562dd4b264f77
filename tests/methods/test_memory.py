"""Memory: how many copies of the model each method holds at once, the one given among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from forgetbench.methods import methods
from forgetbench.methods.base import ForgetRequest
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe

COPIES = {
    "none": 2,
    "head-mask": 2,
    "collapse": 2,
    "jit": 3,  # the model given, the copy, a gradient
    "gs-lora": 2.5,
    "gs-lora++": 2.5,
    "no-op": 4,
    "cf-k": 4,  # the model given, the copy, a gradient, a momentum: what any training by SGD needs
    "eu-k": 4,
    "ct": 4,
    "finetune": 4,
    "retrain": 4,
    "relabelled": 4,
    "boundary-expand": 4,
    "boundary-shrink": 4,
    "delete": 4,  # teachers share the tensors of the model given
    "scrub": 4,
    "neggrad-plus": 4,
    "random-label": 4,
    "seif": 4,
    "gradient-ascent": 5,  # and the last state above the floor
    "fanchuan": 5,  # two momenta
    "amnesiac": 5,  # two moments of Adam
    "lotus": 5,
    "unsir": 5,
    "msg": 5,  # two gradients, and the one that autograd hands over
    "kookmin": 5,
    "iau": 5,
    "fisher": 5,
    "sebastian": 5.2,  # all weights in one vector, and its mask
    "ssd": 5.7,  # two importances, and of one layer, here nearly all, its factors and who is selected
    "lfssd": 5.7,
    "l1-sparse": 5.9,
    "salun": 6,  # and which of many equal gradients are in the mask
    "assd": 6.8,  # a percentile of all ratios
    "bad-teacher": 6,  # and a second network
    "influence": 12.6,
    "woodfisher": 12.6,
}
"""Method -> most copies of the model that it may hold, the one given and the one returned among them."""

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [1000, 1000]},
    "vit": {"dim": 128, "depth": 5, "heads": 4},
}
"""Of about a million parameters each."""


class LiveStorages(TorchDispatchMode):
    """Bytes of the tensors that operations have made and that are still held, and the most there ever were."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.peak = least, 0
        self._live: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.hold(tensor)
        self._live = {each: size for each, size in self._live.items() if not each.expired()}
        self.peak = max(self.peak, sum(self._live.values()))
        return made

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor's storage from here on, until nobody holds it; small ones are activations."""
        storage = tensor.untyped_storage()
        if storage.nbytes() >= self.least:
            self._live[StorageWeakRef(storage)] = storage.nbytes()


def peak_in_models(name: str) -> float:
    """Most bytes held at once while a method runs on a network of a million parameters, over the network's bytes."""
    kind = methods.get(name)
    network = {"gs-lora": "vit", "gs-lora++": "vit"}.get(name, "mlp")
    spec = NetworkSpec(
        name=network, channels=1, height=8, width=8, outputs=4, mean=(0.5,), std=(0.3,), options=NETWORKS[network]
    )
    generator = torch.Generator().manual_seed(0)

    def some(count: int, classes: tuple[int, int]) -> Examples:
        images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return Examples(images, torch.randint(*classes, (count,), generator=generator))

    request = ForgetRequest(
        forget=some(1, (3, 4)),
        retain=some(11, (0, 3)),
        validation=some(4, (0, 3)),
        seed=0,
        recipe=Recipe(epochs=2, batch_size=4, lr=0.001),
        new_network=lambda: spec.build(1),
    )
    values: dict[str, object] = {"epochs": 2, "steps": 3, "floor": 1.0, "lr": 1e-5, "batch_size": 4}
    method = kind.from_dict({fact.name: values[fact.name] for fact in kind.parameters() if fact.name in values})
    model = spec.build(0)
    whole = sum(parameter.nbytes for parameter in model.parameters())
    live = LiveStorages(least=whole // 50)
    for parameter in model.parameters():
        live.hold(parameter.detach())
    with live:
        method.unlearn(model, request)
    return live.peak / whole


def test_peak_memory_counts_storages_while_in_use():
    with LiveStorages(least=400) as live:
        live.hold(torch.zeros(100))  # let go of at once
        first = torch.zeros(100)
        second = first + 1
        _ = second.view(10, 10).t()[:50]  # of the same storage
        del first
        third = second * 2
        assert float((third - 2).sum()) == 0  # two of a hundred numbers and what is taken from one of them
    assert live.peak == 3 * 400


@pytest.mark.parametrize("name", methods.names())
def test_method_holds_no_more_copies_than_needed(name):
    assert peak_in_models(name) <= COPIES[name]
