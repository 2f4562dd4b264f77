"""CF-k: exactly the last k blocks and what follows them are trained."""

from __future__ import annotations

import pytest
import torch

from forgetbench.errors import UsageError
from forgetbench.methods.base import ForgetRequest
from forgetbench.methods.cf_k import CFK, last_block_names
from forgetbench.networks import NetworkSpec
from forgetbench.training import Examples, Recipe


def spec(name: str, options: dict) -> NetworkSpec:
    return NetworkSpec(name=name, channels=1, height=8, width=8, outputs=3, mean=(0.5,), std=(0.3,), options=options)


def request(fresh) -> ForgetRequest:
    generator = torch.Generator().manual_seed(1)
    everything = Examples(
        torch.randint(0, 256, (20, 1, 8, 8), generator=generator, dtype=torch.uint8),
        torch.randint(0, 3, (20,), generator=generator),
    )
    return ForgetRequest(
        forget=everything.take(range(4)),
        retain=everything.take(range(4, 20)),
        validation=everything,
        seed=4,
        recipe=Recipe(),
        new_network=fresh,
    )


def test_last_block_names_of_a_cnn():
    network = spec("cnn", {"width": 2}).build(0)
    assert last_block_names(network, 0, "x") == ["head.weight", "head.bias"]
    third = [f"body.stages.2.{name}" for name in network.blocks[2].state_dict()]
    assert last_block_names(network, 1, "x") == [*third, "head.weight", "head.bias"]
    everything = set(network.state_dict()) - {"mean", "std"}
    assert set(last_block_names(network, 3, "x")) == everything


@pytest.mark.slow
def test_last_block_names_of_a_vit_skip_the_embedding():
    network = spec("vit", {"dim": 8, "depth": 2, "heads": 2}).build(0)
    parts = last_block_names(network, 2, "x")
    assert all(
        part.startswith(("body.model.blocks.", "body.model.fc_norm", "body.model.norm", "head")) for part in parts
    )
    assert not any("embed" in part for part in parts)
    first = last_block_names(network, 1, "x")
    assert not any(part.startswith("body.model.blocks.0") for part in first)
    assert any("norm" in part and "blocks" not in part for part in first)


def test_last_block_names_beyond_the_network_raise():
    with pytest.raises(UsageError, match="k must be at most 3"):
        last_block_names(spec("cnn", {"width": 2}).build(0), 4, "cf-k")


@pytest.mark.parametrize("k", [0, 1, 2])
def test_cf_k_changes_only_the_last_blocks(k):
    network = spec("cnn", {"width": 2}).build(0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    after = CFK(k=k, epochs=1, batch_size=8).unlearn(network, request(lambda: network)).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(last_block_names(network, k, "x"))
